-- Star 04: twenty tables, inner and left joins mixed, the same dimensions up to three times
select
  co_a.continent_id as artist_continent,
  co_l.continent_id as listener_continent,
  count(*) as plays,
  sum(p.royalty) as royalty,
  count(ca.budget) as by_campaign,
  count(lb.label_id) as with_label,
  count(ow.listener_id) as of_playlist_owner
from play p
left join campaign ca on p.campaign_code = ca.campaign_code
join track t on p.track_code = t.track_code
join album al on t.album_id = al.album_id
join artist ar on al.artist_id = ar.artist_id
left join label lb on ar.label_id = lb.label_id
join country co_a on ar.country_code = co_a.country_code
join continent cn_a on co_a.continent_id = cn_a.continent_id
join genre g on t.genre_id = g.genre_id
join listener li on p.listener_id = li.listener_id
join plan pl on li.plan_id = pl.plan_id
join city ci_l on li.city_id = ci_l.city_id
join country co_l on ci_l.country_code = co_l.country_code
join continent cn_l on co_l.continent_id = cn_l.continent_id
left join playlist ps on p.playlist_id = ps.playlist_id
left join listener ow on ps.owner_id = ow.listener_id
join device d on p.device_id = d.device_id
join calendar c on p.play_day = c.day
join city ci_p on p.city_id = ci_p.city_id
join country co_p on ci_p.country_code = co_p.country_code
where p.play_day between date '2024-04-01' and date '2024-09-30'
  and c.weekday >= 5
  and g.family <> 'pop'
  and pl.is_paid
  and d.os <> 'windows'
  and co_p.currency = 'EUR'
  and cn_a.name <> 'Oceania'
  and cn_l.name <> 'Africa'
group by co_a.continent_id, co_l.continent_id
order by artist_continent, listener_continent
