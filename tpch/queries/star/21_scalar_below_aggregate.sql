-- Star 21: a correlated scalar subquery over a skewed fact, below an aggregate and joins
select v.kind, count(*) as tickets, sum(t.price) as revenue
from ticket t
join concert c on t.concert_id = c.concert_id
join venue v on c.venue_id = v.venue_id
where t.price > (select 1.2 * avg(o.price) from ticket o where o.concert_id = t.concert_id)
  and v.capacity > 2000
group by v.kind
order by kind
