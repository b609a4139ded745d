-- Star 53: tables joined with themselves: three generations of labels, two of listeners
select
  coalesce(grand.name, parent.name, lb.name) as house,
  count(distinct lb.label_id) as labels,
  count(distinct ar.artist_id) as artists,
  (
    select count(*)
    from listener a
    join listener b on a.invited_by = b.listener_id
    join listener c on b.invited_by = c.listener_id
    where a.joined_on > c.joined_on
  ) as chains
from label lb
left join label parent on lb.parent_label_id = parent.label_id
left join label grand on parent.parent_label_id = grand.label_id
left join artist ar on ar.label_id = lb.label_id
group by 1
order by artists desc, house
limit 20
