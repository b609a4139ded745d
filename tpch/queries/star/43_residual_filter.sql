-- Star 43: an equality with two inequalities beside it, the key skewed on both sides
select al.format, count(*) as pairs, count(distinct c.concert_id) as concerts, sum(t.price) as revenue
from ticket t
join concert c on t.concert_id = c.concert_id
join album al on al.artist_id = c.artist_id and al.released > t.sold_on and al.released <= c.held_on
where t.channel = 'partner'
group by al.format
order by format
