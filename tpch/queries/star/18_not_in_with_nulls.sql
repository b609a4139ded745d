-- Star 18: NOT IN over a column with NULLs: never true, so no rows
select ci.city_id, ci.name
from city ci
where ci.city_id not in (select li.city_id from listener li)
order by city_id
