-- Star 57: left joins whose keys are mostly NULL, and groups that are NULL
select ca.medium, ps.mood, count(*) as plays, count(p.playlist_id) as from_playlist, sum(p.royalty) as royalty
from play p
left join campaign ca on p.campaign_code = ca.campaign_code
left join playlist ps on p.playlist_id = ps.playlist_id and ps.is_public
where p.device_id <= 20
group by ca.medium, ps.mood
order by medium, mood
