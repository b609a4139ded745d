-- Star 35: a window above joins and an aggregate: the best albums of each label
select label, place, album_id, title, plays
from (
  select
    lb.name as label,
    al.album_id,
    al.title,
    count(*) as plays,
    row_number() over (partition by lb.label_id order by count(*) desc, al.album_id) as place
  from play p
  join track t on p.track_code = t.track_code
  join album al on t.album_id = al.album_id
  join artist ar on al.artist_id = ar.artist_id
  join label lb on ar.label_id = lb.label_id
  where p.play_day >= date '2023-07-01'
  group by lb.label_id, lb.name, al.album_id, al.title
)
where place <= 2
order by label, place, album_id
limit 100
