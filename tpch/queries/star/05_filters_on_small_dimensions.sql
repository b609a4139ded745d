-- Star 05: explicit joins in a bad order: unfiltered large dimensions first, those that filter most last
select ci.name as city, sum(p.played_ms) as played_ms, count(*) as plays
from play p
join listener li on p.listener_id = li.listener_id
join track t on p.track_code = t.track_code
join playlist ps on p.playlist_id = ps.playlist_id
join city ci on p.city_id = ci.city_id
join calendar c on p.play_day = c.day
join genre g on t.genre_id = g.genre_id
join device d on p.device_id = d.device_id
where c.weekday_name in ('Saturday', 'Sunday')
  and g.name in ('techno', 'house', 'punk', 'swing', 'trap', 'fusion')
  and d.family = 'phone'
  and ps.mood in ('party', 'workout')
group by ci.name
order by played_ms desc, city
limit 25
