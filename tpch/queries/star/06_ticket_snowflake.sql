-- Star 06: a snowflake of nine tables below two keys of the fact
select cn.name as continent, lb.name as label, count(*) as tickets, sum(t.price) as revenue
from ticket t
join concert c on t.concert_id = c.concert_id
join artist ar on c.artist_id = ar.artist_id
join label lb on ar.label_id = lb.label_id
join venue v on c.venue_id = v.venue_id
join city ci on v.city_id = ci.city_id
join country co on ci.country_code = co.country_code
join continent cn on co.continent_id = cn.continent_id
join calendar cd on c.held_on = cd.day
where cd.year = 2024
  and v.kind in ('arena', 'open air')
  and lb.parent_label_id is null
group by cn.name, lb.name
having count(*) > 20
order by revenue desc, continent, label
limit 40
