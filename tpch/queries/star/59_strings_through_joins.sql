-- Star 59: strings of small dimensions, read early and carried through a dozen joins in a bad order
select
  cn_a.name as artist_continent,
  cn_l.name as listener_continent,
  count(*) as plays,
  sum(p.royalty) as royalty
from play p
join track t on p.track_code = t.track_code
join album al on t.album_id = al.album_id
join artist ar on al.artist_id = ar.artist_id
join country co_a on ar.country_code = co_a.country_code
join continent cn_a on co_a.continent_id = cn_a.continent_id
join listener li on p.listener_id = li.listener_id
join city ci_l on li.city_id = ci_l.city_id
join country co_l on ci_l.country_code = co_l.country_code
join continent cn_l on co_l.continent_id = cn_l.continent_id
join plan pl on li.plan_id = pl.plan_id
join genre g on t.genre_id = g.genre_id
join device d on p.device_id = d.device_id
join calendar c on p.play_day = c.day
where p.play_day between date '2024-04-01' and date '2024-04-14'
  and not c.is_holiday
  and g.family <> 'folk'
  and d.family <> 'car'
group by cn_a.name, cn_l.name
order by artist_continent, listener_continent
