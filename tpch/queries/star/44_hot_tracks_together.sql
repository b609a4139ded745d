-- Star 44: the most played tracks joined back to the fact, and their sessions with it once more
with hot as (
  select track_code, count(*) as plays
  from play
  group by track_code
  order by plays desc, track_code
  limit 2
)
select o.track_code, count(*) as together, count(distinct o.session_no) as sessions
from hot h
join play p on p.track_code = h.track_code
join play o on o.session_no = p.session_no and o.track_code <> p.track_code
group by o.track_code
order by together desc, track_code
limit 20
