-- Star 03: a comma join that is a cross product until its last table, the fact
select c.month, pl.name as plan, count(*) as plays, avg(p.volume) as volume
from calendar c, device d, plan pl, genre g, listener li, track t, play p
where c.year = 2023
  and c.is_holiday
  and d.family in ('speaker', 'car', 'phone')
  and pl.is_paid
  and g.family in ('jazz', 'rock')
  and p.play_day = c.day
  and p.device_id = d.device_id
  and p.listener_id = li.listener_id
  and li.plan_id = pl.plan_id
  and p.track_code = t.track_code
  and t.genre_id = g.genre_id
group by c.month, pl.name
order by month, plan
