-- Star 39: HAVING over clustered groups, then their rows and dimensions
select o.order_no, o.tickets, o.total, c.title, v.name as venue, li.nickname
from (
  select order_no, count(*) as tickets, sum(price + fee) as total, max(concert_id) as concert_id, max(listener_id) as listener_id
  from ticket
  group by order_no
  having sum(price + fee) > 300
) o
join concert c on o.concert_id = c.concert_id
join venue v on c.venue_id = v.venue_id
left join listener li on o.listener_id = li.listener_id
order by total desc, order_no
limit 25
