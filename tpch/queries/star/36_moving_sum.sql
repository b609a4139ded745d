-- Star 36: windows over days: a moving sum, the day a week before, and the share of the month
select
  day,
  revenue,
  sum(revenue) over (order by day rows between 6 preceding and current row) as week,
  lag(revenue, 7) over (order by day) as week_before,
  rank() over (partition by month order by revenue desc, day) as rank_in_month
from (
  select c.day, c.month, sum(t.price) as revenue
  from calendar c
  join ticket t on t.sold_on = c.day
  where c.year = 2023
    and c.quarter = 4
  group by c.day, c.month
)
order by day
