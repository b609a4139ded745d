-- Star 31: an aggregate by a string key below joins and another one above
select g.family, count(*) as tracks, sum(x.plays) as plays, max(x.plays) as most, min(x.first_play) as first_play
from (
  select track_code, count(*) as plays, min(started_at) as first_play
  from play
  group by track_code
) x
join track t on x.track_code = t.track_code
join genre g on t.genre_id = g.genre_id
where x.plays > 3
group by g.family
order by family
