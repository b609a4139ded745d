-- Star 02: a chain of seven tables as a comma join, the fact first, the filtered tables last
select co.name as country, count(*) as plays, sum(p.royalty) as royalty
from play p, track t, album al, artist ar, label lb, country co, continent cn
where p.track_code = t.track_code
  and t.album_id = al.album_id
  and al.artist_id = ar.artist_id
  and ar.label_id = lb.label_id
  and lb.country_code = co.country_code
  and co.continent_id = cn.continent_id
  and cn.name = 'Europe'
  and lb.founded_year < 1990
  and al.format in ('live', 'EP')
group by co.name
order by country
