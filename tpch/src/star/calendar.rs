//! The days that the workload spans, and the table of them.

use super::columns::{Columns, Date, Timestamp};
use super::draw::{Draw, entry, key32};
use super::sizes::Sizes;

/// 2022-01-01, in days since 1970-01-01.
pub(super) const FIRST_DAY: i32 = 18_993;

/// The days of the years 2022, 2023 and 2024.
pub(super) const DAYS: u64 = 365 + 365 + 366;

/// The last of them.
pub(super) const LAST_DAY: i32 = FIRST_DAY + 1_095;

/// Microseconds of a second.
pub(super) const SECOND: i64 = 1_000_000;

/// Microseconds of a day.
pub(super) const DAY: i64 = 86_400 * SECOND;

/// Days of the months from January, in a year that is not a leap year.
const MONTHS: [i32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// A day as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Civil {
    year: i32,
    month: i32,
    day: i32,
}

/// The civil date of a day of the calendar.
fn civil(row: u64) -> Civil {
    let (mut year, mut month, mut day) = (2022, 1, key32(row));
    for days in MONTHS.iter().cycle() {
        let leap_day = i32::from(month == 2 && year % 4 == 0);
        if day < days + leap_day {
            break;
        }
        day -= days + leap_day;
        (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    }
    Civil { year, month, day: day + 1 }
}

/// 1 is Monday; 2022-01-01 was a Saturday.
fn weekday(draw: &Draw) -> i32 {
    key32((draw.row() + 5) % 7) + 1
}

/// The table `calendar`: every day once, in order.
pub(super) fn calendar(columns: &mut Columns, _: &Sizes) {
    columns.add("day", |d| Date(FIRST_DAY + key32(d.row())));
    columns.add("year", |d| civil(d.row()).year);
    columns.add("quarter", |d| (civil(d.row()).month + 2) / 3);
    columns.add("month", |d| civil(d.row()).month);
    columns.add("day_of_month", |d| civil(d.row()).day);
    columns.add("weekday", |d| weekday(d));
    columns.add("weekday_name", |d| {
        let names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
        entry(&names, d.row() + 5)
    });
    columns.add("season", |d| match civil(d.row()).month {
        12 | 1 | 2 => "winter",
        3..=5 => "spring",
        6..=8 => "summer",
        _ => "autumn",
    });
    columns.add("is_holiday", |d| weekday(d) == 7 || d.percent(3));
}

/// The day of a point in time.
pub(super) fn day_of(time: Timestamp) -> Date {
    Date(i32::try_from(time.0.div_euclid(DAY)).unwrap_or(i32::MAX))
}

/// Midnight at the beginning of a day.
pub(super) fn midnight(day: Date) -> Timestamp {
    Timestamp(i64::from(day.0) * DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let date = |row| {
            let Civil { year, month, day } = civil(row);
            (year, month, day)
        };
        assert_eq!(date(0), (2022, 1, 1));
        assert_eq!(date(31), (2022, 2, 1));
        assert_eq!(date(364), (2022, 12, 31));
        assert_eq!(date(365 * 2 + 31 + 28), (2024, 2, 29));
        assert_eq!(date(DAYS - 1), (2024, 12, 31));
        assert_eq!(day_of(midnight(Date(LAST_DAY))), Date(LAST_DAY));
    }
}
