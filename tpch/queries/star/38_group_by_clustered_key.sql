-- Star 38: groups that lie together in the files: sessions, then their sizes
select s.plays, count(*) as sessions, sum(s.played_ms) as played_ms, sum(s.skips) as skips
from (
  select session_no, count(*) as plays, sum(played_ms) as played_ms, sum(case when was_skipped then 1 else 0 end) as skips
  from play
  group by session_no
) s
where s.played_ms > 200000
group by s.plays
order by plays
