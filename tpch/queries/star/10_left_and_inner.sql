-- Star 10: left joins between inner ones: refunds and vouchers that most tickets lack
select
  v.kind as venue,
  vo.kind as voucher,
  count(*) as tickets,
  count(r.amount) as refunds,
  sum(coalesce(r.amount, 0)) as repaid,
  sum(t.price - t.price * coalesce(vo.percent_off, 0) / 100) as revenue
from ticket t
left join refund r on t.order_no = r.order_no and t.line_no = r.line_no
join concert c on t.concert_id = c.concert_id
left join voucher vo on t.voucher_code = vo.voucher_code
join venue v on c.venue_id = v.venue_id
where c.held_on >= date '2024-01-01'
group by v.kind, vo.kind
order by venue, voucher
