-- Star 41: a join by a range alone
select b.band, count(*) as tickets, sum(t.price) as revenue, count(distinct t.venue_id) as venues
from ticket t
join price_band b on t.price >= b.low and t.price < b.high
where t.sold_on >= date '2023-01-01'
group by b.band
order by band
