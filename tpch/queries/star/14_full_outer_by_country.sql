-- Star 14: a full outer join of two aggregates, each of which lacks keys of the other
with played as (
  select ci.country_code, count(*) as plays
  from play p
  join city ci on p.city_id = ci.city_id
  where p.play_day between date '2024-03-01' and date '2024-03-31'
  group by ci.country_code
),
sold as (
  select ci.country_code, sum(t.price) as revenue
  from ticket t
  join venue v on t.venue_id = v.venue_id
  join city ci on v.city_id = ci.city_id
  where t.sold_on between date '2024-03-01' and date '2024-03-31'
  group by ci.country_code
)
select coalesce(played.country_code, sold.country_code) as code, plays, revenue
from played
full outer join sold on played.country_code = sold.country_code
order by code
