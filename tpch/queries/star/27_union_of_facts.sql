-- Star 27: two facts as one below joins with dimensions
select pl.name as plan, e.kind, count(*) as events, count(distinct e.listener_id) as listeners
from (
  select listener_id, play_day as day, 'play' as kind from play
  union all
  select listener_id, sold_on as day, 'ticket' as kind from ticket
) e
join listener li on e.listener_id = li.listener_id
join plan pl on li.plan_id = pl.plan_id
join calendar c on e.day = c.day
where c.year = 2024
  and c.season = 'summer'
  and li.is_verified
group by pl.name, e.kind
order by plan, kind
