-- Star 56: limits that scalar subqueries compute: the last day, the largest budget, an average
select ca.campaign_code, ca.medium, count(*) as plays, avg(p.volume) as volume
from play p
join campaign ca on p.campaign_code = ca.campaign_code
where p.play_day > (select max(play_day) from play) - interval '300 days'
  and ca.budget >= (select max(budget) from campaign) / 4
  and p.played_ms > (select avg(length_ms) from track) / 3
group by ca.campaign_code, ca.medium
order by plays desc, campaign_code
limit 20
