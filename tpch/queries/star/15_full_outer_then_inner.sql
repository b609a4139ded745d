-- Star 15: a full outer join below an inner one and a CASE over what is missing
select
  case
    when a.plays is null then 'only on stage'
    when b.concerts is null then 'only played'
    else 'both'
  end as presence,
  count(*) as artists,
  sum(a.plays) as plays,
  sum(b.concerts) as concerts
from (
  select al.artist_id, count(*) as plays
  from play p
  join track t on p.track_code = t.track_code
  join album al on t.album_id = al.album_id
  where p.play_day >= date '2024-12-01'
  group by al.artist_id
) a
full outer join (
  select artist_id, count(*) as concerts
  from concert
  where held_on >= date '2024-10-01'
  group by artist_id
) b on a.artist_id = b.artist_id
join artist ar on ar.artist_id = coalesce(a.artist_id, b.artist_id)
where ar.debut < date '2020-01-01'
group by 1
order by presence
