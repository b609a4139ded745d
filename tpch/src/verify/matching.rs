//! Pairs the rows of an answer with those of a reference where ORDER BY leaves ties in any order.

/// Finds the first row of the reference without a partner among our rows; both are in ORDER BY's order.
///
/// A row may only pair with rows of the group that stands at its place: those which ORDER BY holds equal to ours
/// there (`tied`). The reference may end early, even inside of a group.
pub(super) fn first_unmatched(
    ours: usize,
    reference: usize,
    tied: impl Fn(usize, usize) -> bool,
    same: impl Fn(usize, usize) -> bool,
) -> Option<usize> {
    let mut start = 0;
    while start < reference {
        let end = (start..ours).find(|row| !tied(start, *row)).unwrap_or(ours);
        let mut free: Vec<usize> = (start..end).collect();
        for row in start..reference.min(end.max(start + 1)) {
            // Ties are rare: the partner is nearly always the first.
            match free.iter().position(|our| same(*our, row)) {
                Some(at) => drop(free.remove(at)),
                None => return Some(row),
            }
        }
        start = end.max(start + 1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are `(key, value)`.
    fn check(ours: &[(u8, char)], reference: &[(u8, char)]) -> Option<usize> {
        first_unmatched(
            ours.len(),
            reference.len(),
            |a, b| ours[a].0 == ours[b].0,
            |our, other| ours[our] == reference[other],
        )
    }

    #[test]
    fn ties_match_in_any_order_and_nothing_else_does() {
        let ours = [(3, 'a'), (2, 'b'), (2, 'c'), (1, 'd')];
        assert_eq!(check(&ours, &ours), None);
        assert_eq!(check(&ours, &[(3, 'a'), (2, 'c'), (2, 'b'), (1, 'd')]), None);
        assert_eq!(check(&ours, &[(2, 'b'), (3, 'a'), (2, 'c'), (1, 'd')]), Some(0));
        assert_eq!(check(&ours, &[(3, 'a'), (2, 'b'), (2, 'b'), (1, 'd')]), Some(2));
        assert_eq!(check(&ours, &[(3, 'a'), (2, 'c'), (2, 'b'), (1, 'x')]), Some(3));
    }

    #[test]
    fn reference_may_end_early_but_not_late() {
        let ours = [(3, 'a'), (2, 'b'), (2, 'c')];
        assert_eq!(check(&ours, &[]), None);
        assert_eq!(check(&ours, &[(3, 'a'), (2, 'c')]), None);
        assert_eq!(check(&ours, &[(3, 'a'), (2, 'c'), (2, 'b'), (1, 'd')]), Some(3));
        assert_eq!(check(&[], &[(1, 'a')]), Some(0));
    }
}
