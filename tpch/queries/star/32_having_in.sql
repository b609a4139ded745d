-- Star 32: HAVING with an IN subquery that has an aggregate of its own
select c.artist_id, sum(t.price) as revenue, count(*) as tickets
from ticket t
join concert c on t.concert_id = c.concert_id
group by c.artist_id
having sum(t.price) > 5000
  and c.artist_id in (
    select al.artist_id from album al where al.format = 'EP' group by al.artist_id having count(*) >= 2
  )
order by revenue desc, artist_id
limit 30
