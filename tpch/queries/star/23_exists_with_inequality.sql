-- Star 23: correlated EXISTS and NOT EXISTS of the fact itself, with inequalities besides the key
select v.kind, count(*) as tickets, sum(t.price) as revenue
from ticket t
join venue v on t.venue_id = v.venue_id
where exists (
    select 1 from ticket o where o.order_no = t.order_no and o.block <> t.block
  )
  and not exists (
    select 1 from ticket o where o.order_no = t.order_no and o.price > t.price
  )
group by v.kind
order by kind
