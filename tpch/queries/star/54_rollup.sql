-- Star 54: subtotals over two dimensions, and a filter on which they are
select
  co.currency,
  v.kind,
  grouping(co.currency) as all_currencies,
  grouping(v.kind) as all_kinds,
  count(*) as tickets,
  sum(t.price) as revenue
from ticket t
join venue v on t.venue_id = v.venue_id
join city ci on v.city_id = ci.city_id
join country co on ci.country_code = co.country_code
where t.scanned_at is null
group by rollup (co.currency, v.kind)
order by all_currencies, currency, all_kinds, kind
