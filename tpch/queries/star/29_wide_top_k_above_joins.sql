-- Star 29: top groups whose keys drag wide strings along through joins and the aggregate
select t.track_code, t.title, t.lyrics, ar.name as artist, ar.biography, count(*) as plays
from play p
join track t on p.track_code = t.track_code
join album al on t.album_id = al.album_id
join artist ar on al.artist_id = ar.artist_id
where p.play_day >= date '2024-07-01'
group by t.track_code, t.title, t.lyrics, ar.name, ar.biography
order by plays desc, track_code
limit 25
