-- Star 11: filters on the nullable side: in ON they choose partners, in WHERE rows
select t.channel, count(*) as tickets, count(vo.voucher_code) as students, count(r.order_no) as ill
from ticket t
left join voucher vo on t.voucher_code = vo.voucher_code and vo.kind = 'student'
left join refund r on t.order_no = r.order_no and t.line_no = r.line_no and r.reason = 'illness'
where (vo.percent_off is null or vo.percent_off > 10)
  and t.sold_on between date '2023-03-01' and date '2023-08-31'
group by t.channel
order by channel
