-- Star 20: a correlated scalar subquery over the table itself
select g.name as genre, count(*) as long_tracks, max(t.length_ms) as longest
from track t
join genre g on t.genre_id = g.genre_id
where t.length_ms > (select 1.3 * avg(o.length_ms) from track o where o.album_id = t.album_id)
group by g.name
order by genre
