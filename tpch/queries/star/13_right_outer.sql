-- Star 13: right joins: labels without artists and countries without labels stay
select co.name as country, count(distinct lb.label_id) as labels, count(ar.artist_id) as artists
from artist ar
right join label lb on ar.label_id = lb.label_id and ar.kind <> 'orchestra'
right join country co on lb.country_code = co.country_code
group by co.name
order by labels desc, artists desc, country
