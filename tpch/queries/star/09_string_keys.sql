-- Star 09: every join is by strings, some of them NULL
select ca.medium, co.name as country, count(*) as plays, sum(p.royalty) as royalty
from play p
join campaign ca on p.campaign_code = ca.campaign_code
join track t on p.track_code = t.track_code
join country co on substr(t.track_code, 1, 2) = co.country_code
where ca.budget > 1000.00
group by ca.medium, co.name
order by plays desc, medium, country
limit 30
