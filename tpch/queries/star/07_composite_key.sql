-- Star 07: a key of an integer and a string, one part of which may be NULL
select sb.tier, v.kind, count(*) as tickets, sum(t.price) as paid, sum(sb.base_price) as listed
from ticket t
join seat_block sb on t.venue_id = sb.venue_id and t.block = sb.block
join venue v on sb.venue_id = v.venue_id
where sb.seats between 50 and 350
  and t.channel <> 'partner'
group by sb.tier, v.kind
order by tier, kind
