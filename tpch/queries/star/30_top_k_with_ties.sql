-- Star 30: many ties in the first key, an offset, and wide columns beside
select joined_on, listener_id, email, about
from listener
where is_verified
order by joined_on desc, listener_id
limit 20 offset 15
