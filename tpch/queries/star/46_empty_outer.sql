-- Star 46: the table without rows in a left join, NOT IN, NOT EXISTS and a union
select x.genre_id, count(*) as tracks, count(x.ordered_on) as taken_down
from (
  select t.genre_id, td.ordered_on
  from track t
  left join takedown td on t.track_code = td.track_code
  where t.track_code not in (select track_code from takedown)
    and not exists (select 1 from takedown o where o.ordered_on > date '2022-01-01' and o.track_code = t.track_code)
  union all
  select t.genre_id, td.ordered_on
  from takedown td
  join track t on t.track_code = td.track_code
) x
group by x.genre_id
order by genre_id
