-- Star 48: the CSV table and the table in memory joined to the same fact
select pl.name as plan, vo.kind, count(*) as tickets, sum(t.price * (100 - vo.percent_off) / 100) as revenue
from voucher vo
join ticket t on t.voucher_code = vo.voucher_code
join listener li on t.listener_id = li.listener_id
join plan pl on li.plan_id = pl.plan_id
where t.sold_on >= vo.valid_from
  and (vo.valid_to is null or t.sold_on <= vo.valid_to)
  and vo.terms like '%the%'
group by pl.name, vo.kind
order by plan, kind
