-- Star 37: strings made of wide strings as group keys
select
  split_part(referrer, '/', 3) as host,
  split_part(split_part(referrer, 'utm_source=', 2), '&', 1) as source,
  count(*) as plays,
  count(distinct campaign_code) as campaigns
from play
where referrer is not null
  and started_at >= timestamp '2024-05-01 00:00:00'
group by 1, 2
order by host, source
