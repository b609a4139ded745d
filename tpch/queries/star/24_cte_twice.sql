-- Star 24: a CTE joined with itself: each month against that of the year before
with monthly as (
  select c.year, c.month, sum(t.price + t.fee) as revenue, count(*) as tickets
  from ticket t
  join calendar c on t.sold_on = c.day
  group by c.year, c.month
)
select
  this.month,
  this.revenue as revenue_2024,
  last.revenue as revenue_2023,
  this.tickets - last.tickets as more_tickets
from monthly this
join monthly last on this.month = last.month
where this.year = 2024
  and last.year = 2023
order by month
