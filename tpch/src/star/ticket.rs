//! The fact `ticket`, which is in the order of its orders but not of time, and `refund`, which refers to it.

use super::calendar::{DAY, SECOND, midnight};
use super::columns::{Columns, Date, Decimal, Timestamp};
use super::draw::{Draw, Seed, key32, key64};
use super::people::listener_id;
use super::places::{base_price, block_name};
use super::sizes::{BLOCKS, Sizes, TICKETS_PER_REFUND};
use super::trade::{PRESALE_DAYS, any_voucher, concert_venue, held_on};
use super::words;

/// Tickets of ten orders which follow each other; it repeats itself.
const ORDERS: [u64; 10] = [1, 2, 4, 1, 3, 2, 1, 6, 2, 2];

/// Their sum.
const TICKETS: u64 = 24;

/// What a seat without a block costs, in cents.
const STANDING_PRICE: i64 = 2_500;

const CONCERT: Seed = Seed::new("order.concert");
const LISTENER: Seed = Seed::new("order.listener");
const VOUCHER: Seed = Seed::new("order.voucher");
const CHANNEL: Seed = Seed::new("order.channel");
const SOLD_AT: Seed = Seed::new("order.sold_at");
const BLOCK: Seed = Seed::new("order.block");
const OTHER_BLOCK: Seed = Seed::new("ticket.other_block");
const FACTOR: Seed = Seed::new("ticket.factor");
const REFUNDED: Seed = Seed::new("refund.ticket");

/// A ticket's place: its order and its line in it, both from 0.
fn place(row: u64) -> (u64, u64) {
    let (mut order, mut line) = (row / TICKETS * ORDERS.len() as u64, row % TICKETS);
    for tickets in ORDERS {
        if line < tickets {
            break;
        }
        (order, line) = (order + 1, line - tickets);
    }
    (order, line)
}

/// What the columns of a ticket have in common.
struct Ticket {
    row: u64,
    order: u64,
    concert: u64,
}

impl Ticket {
    fn at(row: u64, sizes: &Sizes) -> Self {
        let order = place(row).0;
        Self { row, order, concert: CONCERT.at(order).skewed(sizes.concerts, 8) }
    }

    /// The block of its seat: that of its order, unless there were not enough seats; none when one stands.
    fn block(&self) -> Option<u64> {
        let mut other = OTHER_BLOCK.at(self.row);
        let mut draw = if other.percent(20) { other } else { BLOCK.at(self.order) };
        (!draw.percent(3)).then(|| draw.below(BLOCKS))
    }

    /// Its price in cents.
    fn price(&self) -> i64 {
        let base = self.block().map_or(STANDING_PRICE, |b| base_price(concert_venue(self.concert), b));
        base * i64::from(FACTOR.at(self.row).int(90..=130)) / 100
    }

    /// When its order was paid: between noon of the first day of presale and noon of the concert's.
    fn sold_at(&self) -> Timestamp {
        let mut draw = SOLD_AT.at(self.order);
        let day = Date(held_on(self.concert).0 - draw.int(1..=PRESALE_DAYS));
        Timestamp(midnight(day).0 + i64::from(draw.int(0..=86_399)) * SECOND)
    }
}

/// The table `ticket`.
pub(super) fn ticket(columns: &mut Columns, sizes: &Sizes) {
    let of = |d: &Draw| Ticket::at(d.row(), sizes);
    let order = |seed: Seed, d: &Draw| seed.at(place(d.row()).0);
    columns.add("order_no", |d| key64(place(d.row()).0) + 1);
    columns.add("line_no", |d| key32(place(d.row()).1) + 1);
    columns.add("concert_id", |d| key32(of(d).concert) + 1);
    columns.add("venue_id", |d| key32(concert_venue(of(d).concert)) + 1);
    columns.nullable("block", |d| of(d).block().map(block_name));
    columns.nullable("listener_id", |d| {
        let mut d = order(LISTENER, d);
        (!d.percent(12)).then(|| listener_id(&mut d, sizes))
    });
    columns.nullable("voucher_code", |d| {
        let mut d = order(VOUCHER, d);
        d.percent(20).then(|| any_voucher(&mut d))
    });
    columns.add("sold_at", |d| of(d).sold_at());
    columns.add("sold_on", |d| super::calendar::day_of(of(d).sold_at()));
    columns.add("price", |d| Decimal::<8, 2>(of(d).price()));
    columns.add("fee", |d| Decimal::<6, 2>(of(d).price() / 10 + 150));
    columns.add("channel", |d| {
        order(CHANNEL, d).pick(&["app", "app", "app", "web", "web", "box office", "partner"])
    });
    columns.nullable("scanned_at", |d| {
        let doors = midnight(held_on(of(d).concert)).0 + DAY * 3 / 4;
        (!d.percent(9)).then(|| Timestamp(doors + i64::from(d.int(0..=10_800)) * SECOND))
    });
    columns.add("is_guest", |d| d.percent(2));
    columns.nullable("buyer_note", |d| {
        let words = d.int(8..=25);
        d.percent(12).then(|| words::text(d, words))
    });
}

/// The ticket that a refund is for, by the refund's row: one of each run of tickets.
fn refunded(row: u64, sizes: &Sizes) -> Ticket {
    Ticket::at(row * TICKETS_PER_REFUND + REFUNDED.at(row).below(TICKETS_PER_REFUND), sizes)
}

/// The table `refund`, which refers to a ticket by two columns.
pub(super) fn refund(columns: &mut Columns, sizes: &Sizes) {
    let of = |d: &Draw| refunded(d.row(), sizes);
    let partial = |d: &Draw| Seed::new("refund.partial").at(d.row()).percent(30);
    columns.add("order_no", |d| key64(of(d).order) + 1);
    columns.add("line_no", |d| key32(place(of(d).row).1) + 1);
    columns.add("refunded_on", |d| Date(super::calendar::day_of(of(d).sold_at()).0 + d.int(1..=60)));
    columns.add("amount", |d| Decimal::<8, 2>(of(d).price() / if partial(d) { 2 } else { 1 }));
    columns.add("is_partial", |d| partial(d));
    columns.nullable("reason", |d| {
        (!d.percent(10)).then(|| d.pick(&["illness", "moved", "no reason", "wrong date", "wrong seat"]))
    });
    columns.add("letter", |d| {
        let words = d.int(20..=60);
        words::text(d, words)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn orders_are_runs_of_numbered_lines() {
        assert_eq!(ORDERS.iter().sum::<u64>(), TICKETS);
        let places: Vec<_> = (0..2 * TICKETS).map(place).collect();
        assert_eq!(places[..8], [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0)]);
        assert_eq!(places[47], (19, 1));
        assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len(), "a key twice");
    }

    /// Refunds are for different tickets that exist, and repay no more than was paid.
    #[test]
    fn refunds_are_for_tickets() {
        let sizes = Sizes::at(0.01);
        let rows: HashSet<u64> = (0..sizes.refunds()).map(|row| refunded(row, &sizes).row).collect();
        assert_eq!(rows.len() as u64, sizes.refunds());
        assert!(rows.iter().all(|row| *row < sizes.tickets));
        assert!(rows.iter().all(|row| Ticket::at(*row, &sizes).price() > 1_000));
    }
}
