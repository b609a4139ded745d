-- Star 17: EXISTS on one fact and NOT EXISTS on the other
select pl.name as plan, count(*) as listeners
from listener li
join plan pl on li.plan_id = pl.plan_id
where exists (
    select 1 from play p where p.listener_id = li.listener_id and p.play_day >= date '2024-07-01'
  )
  and not exists (
    select 1 from ticket t where t.listener_id = li.listener_id and t.channel = 'app'
  )
group by pl.name
order by plan
