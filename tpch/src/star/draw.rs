//! Random values as pure functions of table, column and row.
//!
//! There is no state that passes from one row to the next: rows can be drawn in any order and twice, so that a fact
//! knows what its dimension row says without looking it up. All arithmetic is on integers (and floats are quotients
//! of integers), since the logarithms and powers of two machines need not agree in their last bit.

use std::ops::RangeInclusive;

/// A stream of random values that belongs to one column, or to a property that several columns share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u64);

/// The offset basis and the prime of the hash FNV-1a with 64 bits.
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0000_0100_0000_01b3);

/// A prime that divides no number of rows in use; multiplying by it shuffles ranks.
const SHUFFLE: u128 = 2_654_435_761;

impl Seed {
    /// The seed of a name such as `play.session`.
    pub(super) const fn new(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash = FNV.0;
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(FNV.1);
            at += 1;
        }
        Self(hash)
    }

    /// The values of one row.
    pub(super) fn at(self, row: u64) -> Draw {
        Draw { row, state: mix(self.0 ^ mix(row)) }
    }
}

/// The values of one row of a [`Seed`], one after the other.
#[derive(Debug, Clone)]
pub(super) struct Draw {
    row: u64,
    state: u64,
}

impl Draw {
    /// The row, from 0.
    pub(super) fn row(&self) -> u64 {
        self.row
    }

    /// The next 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `n`, each as likely as any other; 0 when there is none.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(n);
        u64::try_from(wide >> 64).unwrap_or_default()
    }

    /// A number of the range, each as likely as any other.
    pub(super) fn int(&mut self, range: RangeInclusive<i32>) -> i32 {
        range.start() + key32(self.below(u64::from(range.end().abs_diff(*range.start())) + 1))
    }

    /// True in so many of a hundred rows.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `from`.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        entry(from, self.below(from.len() as u64))
    }

    /// A number below `n` by Zipf's law in steps: each octave of ranks is drawn as often as the next one, which has
    /// twice as many ranks. The first `head` ranks count as one octave: the more there are, the less is the skew.
    ///
    /// Which number has which rank is shuffled, always in the same way for an `n`.
    pub(super) fn skewed(&mut self, n: u64, head: u64) -> u64 {
        let octaves = u64::from((n.div_ceil(head)).next_power_of_two().trailing_zeros()) + 1;
        let octave = self.below(octaves);
        let (from, to) = if octave == 0 { (0, head) } else { (head << (octave - 1), head << octave) };
        let rank = from + self.below(to.min(n) - from);
        shuffle(rank, n)
    }
}

/// Entry `n` of a list that begins again after its last one.
pub(super) fn entry<T: Copy>(list: &[T], n: u64) -> T {
    list[usize::try_from(n % list.len() as u64).unwrap_or_default()]
}

/// Gives each of `n` ranks a number of its own below `n`.
pub(super) fn shuffle(rank: u64, n: u64) -> u64 {
    let shuffled = (u128::from(rank) * SHUFFLE + SHUFFLE / 2) % u128::from(n.max(1));
    u64::try_from(shuffled).unwrap_or_default()
}

/// A key as its column has it.
pub(super) fn key32(n: u64) -> i32 {
    // The largest table with such keys has 13 million rows at the largest scale factor.
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A key as its column has it.
pub(super) fn key64(n: u64) -> i64 {
    // There are no 2^63 rows.
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The finalizer of SplitMix64: any change of one bit changes half of the others.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SEED: Seed = Seed::new("test");

    /// The generator SplitMix64 has published first values for seed 0.
    #[test]
    fn bits_are_those_of_splitmix64() {
        let mut draw = Draw { row: 0, state: 0 };
        assert_eq!([draw.bits(), draw.bits()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn values_are_in_their_range_and_reach_its_ends() {
        let drawn: HashSet<i32> = (0..1000).map(|row| SEED.at(row).int(-3..=4)).collect();
        assert_eq!(drawn, (-3..=4).collect());
        let hits = (0..10_000).filter(|row| SEED.at(*row).percent(20)).count();
        assert!((1_900..2_100).contains(&hits), "{hits}");
        assert_eq!((SEED.at(1).below(0), SEED.at(1).below(1)), (0, 0));
    }

    #[test]
    fn shuffling_loses_nothing() {
        for n in [1, 2, 40, 1_000, 1_024, 99_999] {
            assert_eq!((0..n).map(|rank| shuffle(rank, n)).collect::<HashSet<_>>(), (0..n).collect());
        }
    }

    /// The first rank is drawn once in an octave's times, and no number is beyond the table.
    #[test]
    fn skew_is_that_of_zipf() {
        for (n, head, octaves) in [(1_000, 1, 11), (1_000, 50, 6), (5, 1, 4), (1, 1, 1), (40, 64, 1)] {
            let mut counts = vec![0_u32; usize::try_from(n).unwrap()];
            for row in 0..60_000 {
                counts[usize::try_from(SEED.at(row).skewed(n, head)).unwrap()] += 1;
            }
            let expected = 60_000 / octaves / u32::try_from(head.min(n)).unwrap();
            let most = *counts.iter().max().unwrap();
            assert!(most.abs_diff(expected) <= expected / 5 + 10, "{n} {head}: {most}, not {expected}");
            assert!(counts.iter().all(|count| *count > 0), "{n} {head}");
        }
    }
}
