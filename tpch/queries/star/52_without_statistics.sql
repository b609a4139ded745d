-- Star 52: the table without statistics last, its filter the only one that matters
select li.plan_id, v.kind, count(*) as refunds, sum(r.amount) as repaid
from ticket t
join listener li on t.listener_id = li.listener_id
join concert c on t.concert_id = c.concert_id
join venue v on c.venue_id = v.venue_id
join refund r on r.order_no = t.order_no and r.line_no = t.line_no
where r.refunded_on between date '2023-09-01' and date '2023-12-31'
  and r.letter like '%heart%'
group by li.plan_id, v.kind
order by plan_id, kind
