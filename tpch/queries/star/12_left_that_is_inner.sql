-- Star 12: left joins that filters on the nullable side turn into inner ones
select vo.kind, ps.plan, count(*) as tickets, min(t.price) as cheapest, max(t.price) as dearest
from ticket t
left join voucher vo on t.voucher_code = vo.voucher_code
left join (
  select li.listener_id, pl.name as plan, pl.monthly_fee
  from listener li
  left join plan pl on li.plan_id = pl.plan_id
) ps on t.listener_id = ps.listener_id
where vo.percent_off >= 20
  and ps.monthly_fee > 0
  and t.price >= vo.min_price
group by vo.kind, ps.plan
order by kind, plan
