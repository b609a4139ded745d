-- Star 55: INTERSECT and EXCEPT of listeners, counted by the home of those that are left
select co.name as country, count(*) as listeners
from (
  select listener_id from play where play_day >= date '2024-06-01' and listener_id is not null
  intersect
  select listener_id from ticket where sold_on >= date '2024-01-01'
  except
  select owner_id from playlist where not is_public
) x
join listener li on x.listener_id = li.listener_id
join city ci on li.city_id = ci.city_id
join country co on ci.country_code = co.country_code
group by co.name
order by listeners desc, country
limit 20
