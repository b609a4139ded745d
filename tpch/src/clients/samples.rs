//! Latencies of an engine: every one is kept, so that percentiles are exact, up to a bound.

/// Most latencies kept, 40 MB; queries beyond are counted but not in the percentiles.
pub(super) const MAX_SAMPLES: usize = 10_000_000;

/// Latencies in microseconds, in no particular order.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<u32>);

impl Samples {
    /// Adds what a client measured, as far as there is room.
    pub(super) fn extend(&mut self, micros: &[u32]) {
        let room = MAX_SAMPLES.saturating_sub(self.0.len());
        self.0.extend(micros.iter().take(room));
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The latencies in ms that `percents` of all do not exceed (nearest rank); `None` when there are none.
    pub(super) fn percentiles_ms<const N: usize>(&mut self, percents: [usize; N]) -> [Option<f64>; N] {
        self.0.sort_unstable();
        percents.map(|percent| {
            let rank = (self.0.len() * percent).div_ceil(100).max(1);
            self.0.get(rank - 1).map(|micros| f64::from(*micros) / 1e3)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percentiles(micros: &[u32]) -> [Option<f64>; 4] {
        let mut samples = Samples::default();
        samples.extend(micros);
        samples.percentiles_ms([50, 95, 99, 100])
    }

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        assert_eq!(percentiles(&[]), [None; 4]);
        assert_eq!(percentiles(&[7000]), [Some(7.0); 4]);
        assert_eq!(percentiles(&[2000, 1000]), [Some(1.0), Some(2.0), Some(2.0), Some(2.0)]);
        let thousand: Vec<u32> = (1..=1000).rev().map(|i| i * 1000).collect();
        assert_eq!(percentiles(&thousand), [Some(500.0), Some(950.0), Some(990.0), Some(1000.0)]);
        let odd: Vec<u32> = (1..=101).map(|i| i * 1000).collect();
        assert_eq!(percentiles(&odd), [Some(51.0), Some(96.0), Some(100.0), Some(101.0)]);
    }

    #[test]
    fn samples_are_bounded() {
        let mut samples = Samples(vec![1; MAX_SAMPLES - 1]);
        samples.extend(&[5, 6]);
        assert_eq!(samples.len(), MAX_SAMPLES);
        assert_eq!(samples.percentiles_ms([100]), [Some(0.005)]);
    }
}
