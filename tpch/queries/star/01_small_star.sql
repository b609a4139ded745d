-- Star 01: a small star, string key to the larger dimension, grouped by attributes of two
select g.family as genre, d.family as device, count(*) as plays, sum(p.played_ms) as played_ms
from play p
join track t on p.track_code = t.track_code
join genre g on t.genre_id = g.genre_id
join device d on p.device_id = d.device_id
where not p.was_skipped and d.os <> 'embedded'
group by g.family, d.family
order by genre, device
