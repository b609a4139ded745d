-- Star 19: NOT IN without NULLs in the subquery, but in the outer column
select ps.mood, count(*) as playlists, count(ps.owner_id) as owned
from playlist ps
where ps.owner_id not in (
    select t.listener_id from ticket t where t.listener_id is not null and t.sold_on >= date '2023-06-01'
  )
group by ps.mood
order by mood
