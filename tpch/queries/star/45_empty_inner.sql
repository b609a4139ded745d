-- Star 45: inner joins with the table without rows, written last: no rows
select td.reason, count(*) as plays
from play p
join track t on p.track_code = t.track_code
join album al on t.album_id = al.album_id
join takedown td on td.track_code = t.track_code
group by td.reason
order by reason
