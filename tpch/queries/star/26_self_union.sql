-- Star 26: the same fact three times with different filters, some rows in more than one branch
select kind, channel, count(*) as tickets, sum(price) as revenue
from (
  select 'early' as kind, channel, price from ticket where extract(hour from sold_at) < 6
  union all
  select 'late' as kind, channel, price from ticket where extract(hour from sold_at) >= 21
  union all
  select 'guest' as kind, channel, price from ticket where is_guest
)
group by kind, channel
order by kind, channel
