-- Star 16: IN over a join of four tables below an aggregate of the other fact
select li.plan_id, count(*) as plays, sum(p.played_ms) as played_ms
from play p
join listener li on p.listener_id = li.listener_id
where p.listener_id in (
    select t.listener_id
    from ticket t
    join concert c on t.concert_id = c.concert_id
    join artist ar on c.artist_id = ar.artist_id
    join label lb on ar.label_id = lb.label_id
    where lb.founded_year > 2000
  )
group by li.plan_id
order by plan_id
