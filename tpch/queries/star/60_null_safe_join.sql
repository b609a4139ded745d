-- Star 60: a join that holds NULLs equal, beside an equality that does not
select s.block, count(*) as venues, sum(s.tickets) as tickets, sum(r.refunds) as refunds, sum(r.repaid) as repaid
from (
  select venue_id, block, count(*) as tickets
  from ticket
  group by venue_id, block
) s
join (
  select t.venue_id, t.block, count(*) as refunds, sum(r.amount) as repaid
  from refund r
  join ticket t on r.order_no = t.order_no and r.line_no = t.line_no
  group by t.venue_id, t.block
) r on s.venue_id = r.venue_id and s.block is not distinct from r.block
group by s.block
order by block
