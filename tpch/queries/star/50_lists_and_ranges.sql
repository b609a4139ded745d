-- Star 50: IN lists of strings and numbers, BETWEEN, and sums by CASE
select
  ps.mood,
  sum(case when p.was_skipped then 1 else 0 end) as skipped,
  sum(case when d.family = 'phone' then p.played_ms else 0 end) as on_phone_ms,
  sum(case when t.bpm between 100 and 140 then 1 when t.bpm is null then 0 else 2 end) as points,
  count(*) as plays
from play p
join playlist ps on p.playlist_id = ps.playlist_id
join device d on p.device_id = d.device_id
join track t on p.track_code = t.track_code
where ps.mood in ('calm', 'focus', 'sleep')
  and t.genre_id in (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23)
  and t.length_ms between 120000 and 300000
  and p.volume between 0.25 and 0.9
group by ps.mood
order by mood
