-- Star 25: a CTE used four times: as rows, as groups, and in two scalar subqueries
with revenue as (
  select ar.artist_id, ar.name, ar.country_code, sum(t.price) as revenue, count(*) as tickets
  from ticket t
  join concert c on t.concert_id = c.concert_id
  join artist ar on c.artist_id = ar.artist_id
  group by ar.artist_id, ar.name, ar.country_code
)
select
  r.artist_id,
  r.name,
  r.revenue,
  best.revenue as best_of_country,
  (select sum(revenue) from revenue) as total
from revenue r
join (
  select country_code, max(revenue) as revenue, count(*) as artists
  from revenue
  group by country_code
) best on r.country_code = best.country_code
where r.revenue > (select avg(revenue) from revenue)
  and best.artists > 1
order by revenue desc, artist_id
limit 20
