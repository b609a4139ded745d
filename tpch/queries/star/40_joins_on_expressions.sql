-- Star 40: joins by a cast of a timestamp, by the case of strings, and by arithmetic
select c.season, vo.kind, count(*) as tickets, sum(t.price) as revenue
from ticket t
join calendar c on cast(t.sold_at as date) = c.day
join voucher vo on lower(t.voucher_code) = lower(vo.voucher_code)
join price_band b on floor(b.low / 100) = c.quarter - 1
where c.year >= 2023
group by c.season, vo.kind
order by season, kind
