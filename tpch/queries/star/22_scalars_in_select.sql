-- Star 22: three correlated scalar subqueries in a select list, aggregated above
select s.country_code, count(*) as artists, sum(s.albums) as albums, max(s.latest) as latest, sum(s.concerts) as concerts
from (
  select
    ar.country_code,
    (select count(*) from album al where al.artist_id = ar.artist_id) as albums,
    (select max(al.released) from album al where al.artist_id = ar.artist_id) as latest,
    (select count(*) from concert c where c.artist_id = ar.artist_id and c.held_on >= date '2024-01-01') as concerts
  from artist ar
  where ar.kind in ('band', 'solo')
) s
group by s.country_code
order by artists desc, country_code
limit 20
