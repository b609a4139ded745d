-- Star 49: OR of ANDs across three tables, with LIKE
select g.family, count(*) as plays, sum(p.royalty) as royalty
from play p
join track t on p.track_code = t.track_code
join genre g on t.genre_id = g.genre_id
join artist ar on ar.name like 'The %'
join album al on al.album_id = t.album_id and al.artist_id = ar.artist_id
where p.play_day >= date '2024-05-01'
  and (
    (g.family = 'rock' and ar.kind = 'band' and p.played_ms > 200000)
    or (g.family = 'jazz' and ar.kind in ('solo', 'duo') and t.title like '%Night%')
    or (g.family = 'electronic' and ar.biography like '%love%city%' and p.volume < 0.5)
  )
group by g.family
order by family
