//! The intervals of a clustered key: one for each row group, none overlapping another.

/// What the row groups of a table hold of one key, by their minima and maxima.
///
/// Two neighbours may share the value between them: the rows of one key may begin in one row group and end in the
/// next. Those values are listed, since their groups are the only ones that no single row group has whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyIntervals {
    lowest: Vec<i64>,
    highest: Vec<i64>,
    shared: Vec<i64>,
}

impl KeyIntervals {
    /// The intervals of `bounds`, each a minimum and a maximum; `None` where two of them overlap.
    pub(crate) fn new(mut bounds: Vec<(i64, i64)>) -> Option<Self> {
        bounds.sort_unstable();
        let mut shared = Vec::new();
        for neighbours in bounds.windows(2) {
            let &[(_, end), (start, _)] = neighbours else { continue };
            if end > start {
                return None;
            }
            if end == start {
                shared.push(end);
            }
        }
        shared.dedup();
        let (lowest, highest) = bounds.into_iter().unzip();
        Some(Self { lowest, highest, shared })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lowest.len()
    }

    /// How many keys two of them share.
    pub(crate) fn shared(&self) -> usize {
        self.shared.len()
    }

    /// How many values an interval spans, in the middle.
    pub(crate) fn median_width(&self) -> u64 {
        let mut widths: Vec<u64> =
            self.lowest.iter().zip(&self.highest).map(|(low, high)| low.abs_diff(*high)).collect();
        widths.sort_unstable();
        widths.get(widths.len() / 2).map_or(0, |width| width.saturating_add(1))
    }

    /// Whether the rows of `key` may be in more than one row group.
    pub(super) fn is_shared(&self, key: i64) -> bool {
        self.shared.binary_search(&key).is_ok()
    }

    /// The interval that holds `key`; the first one where several share it.
    pub(super) fn find(&self, key: i64) -> Option<usize> {
        let index = self.highest.partition_point(|highest| *highest < key);
        self.lowest.get(index).is_some_and(|lowest| *lowest <= key).then_some(index)
    }

    /// The least and the greatest key of interval `index`.
    pub(super) fn bounds(&self, index: usize) -> Option<(i64, i64)> {
        Some((*self.lowest.get(index)?, *self.highest.get(index)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_may_touch_and_not_overlap() {
        let intervals = KeyIntervals::new(vec![(5, 9), (1, 5), (11, 12)]).unwrap();
        assert_eq!((intervals.len(), intervals.shared()), (3, 1));
        assert!(intervals.is_shared(5));
        assert!(!intervals.is_shared(9));
        let found: Vec<_> = [0, 1, 5, 6, 10, 11, 13].map(|key| intervals.find(key)).into();
        assert_eq!(found, [None, Some(0), Some(0), Some(1), None, Some(2), None]);
        assert_eq!(intervals.median_width(), 5);
        assert_eq!(KeyIntervals::new(vec![(1, 5), (4, 9)]), None);
    }

    #[test]
    fn a_row_group_of_one_key_between_others_that_have_it_too() {
        let intervals = KeyIntervals::new(vec![(5, 5), (5, 5), (5, 8), (1, 5)]).unwrap();
        assert_eq!((intervals.len(), intervals.shared()), (4, 1));
        assert_eq!(intervals.find(6), Some(3));
        assert_eq!(KeyIntervals::new(Vec::new()).unwrap().len(), 0);
        let widest = KeyIntervals::new(vec![(i64::MIN, i64::MAX)]).unwrap();
        assert_eq!(widest.median_width(), u64::MAX);
    }
}
