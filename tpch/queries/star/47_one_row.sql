-- Star 47: the table of one row as the source of limits and rates
select
  c.weekday,
  c.weekday_name,
  count(*) as plays,
  sum(p.royalty) as paid,
  sum(s.royalty_per_play * (1 + s.vat)) as flat
from play p, service s, calendar c
where p.play_day = c.day
  and p.played_ms >= s.min_play_ms
  and p.play_day > s.reporting_day - interval '60 days'
  and p.play_day <= s.reporting_day
group by c.weekday, c.weekday_name
order by weekday
