-- Star 34: several count(distinct) of integers and strings beside plain aggregates
select
  g.family,
  count(distinct p.listener_id) as listeners,
  count(distinct p.session_no) as sessions,
  count(distinct p.track_code) as tracks,
  count(*) as plays
from play p
join track t on p.track_code = t.track_code
join genre g on t.genre_id = g.genre_id
where p.play_day between date '2023-01-01' and date '2023-06-30'
group by g.family
order by family
