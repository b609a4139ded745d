-- Star 28: the first rows by a skewed order of a wide fact, all of its columns
select *
from play
where not was_skipped
  and referrer is not null
order by played_ms desc, play_id
limit 20
