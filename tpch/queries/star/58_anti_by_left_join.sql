-- Star 58: a left join of which only the rows without a partner are wanted
select ar.kind, count(*) as concerts, min(c.held_on) as first_day
from concert c
join artist ar on c.artist_id = ar.artist_id
left join (
  select t.concert_id, t.order_no from ticket t where t.channel = 'box office' and t.sold_on >= date '2024-06-01'
) t on c.concert_id = t.concert_id
where t.order_no is null
  and c.held_on >= date '2023-01-01'
group by ar.kind
order by kind
