-- Star 51: filters on functions of the clustered and of the other date
select date_part('month', p.play_day) as month, count(*) as plays, sum(p.played_ms) as played_ms
from play p
where extract(year from p.play_day) = 2023
  and date_trunc('quarter', p.started_at) in (timestamp '2023-04-01 00:00:00', timestamp '2023-10-01 00:00:00')
  and p.listener_id in (
    select t.listener_id
    from ticket t
    where extract(year from t.sold_on) = 2023 and extract(month from t.sold_on) <= 6
  )
group by 1
order by month
