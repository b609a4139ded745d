-- Star 42: days in ranges of days, the ranges overlapping each other
select ca.medium, count(*) as campaign_days, sum(d.plays) as plays, count(distinct ca.campaign_code) as campaigns
from (
  select play_day, count(*) as plays
  from play
  where campaign_code is null
  group by play_day
) d
join campaign ca on d.play_day between ca.starts_on and ca.ends_on
group by ca.medium
order by medium
