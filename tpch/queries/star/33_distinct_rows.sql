-- Star 33: DISTINCT above joins with many duplicates
select distinct co.name as country, d.family as device, ca.medium
from play p
join city ci on p.city_id = ci.city_id
join country co on ci.country_code = co.country_code
join device d on p.device_id = d.device_id
join campaign ca on p.campaign_code = ca.campaign_code
where co.currency in ('EUR', 'GBP')
order by country, device, medium
