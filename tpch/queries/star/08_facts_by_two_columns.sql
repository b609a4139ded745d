-- Star 08: two facts joined by the two columns of one's key, then the dimensions
select coalesce(r.reason, '(none)') as why, ar.kind, count(*) as refunds, sum(r.amount) as repaid, sum(t.price) as paid
from ticket t
join refund r on t.order_no = r.order_no and t.line_no = r.line_no
join concert c on t.concert_id = c.concert_id
join artist ar on c.artist_id = ar.artist_id
where not r.is_partial
  and r.refunded_on < c.held_on
group by coalesce(r.reason, '(none)'), ar.kind
order by why, kind
