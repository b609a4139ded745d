//! Loops over numbers of 64 and of 128 bits, without checks: who calls them knows that nothing overflows.

/// An operand, as narrow as its values are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lane<'a> {
    /// The same value in each row.
    Constant(i128),
    /// Values of 64 bits.
    Narrow(&'a [i64]),
    /// Values of which the lower 64 bits say all.
    Low(&'a [i128]),
    /// Values that may need more.
    Wide(&'a [i128]),
}

/// What is done to two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// `left + right`
    Add,
    /// `left - right`
    Subtract,
    /// `left * right`
    Multiply,
}

/// A number that is computed with.
pub(super) trait Number: Copy + From<i64> {
    /// The lower bits, as many as there are.
    fn of(value: i128) -> Self;
    /// The sum, of which the caller knows that it fits, as of the others.
    fn add(self, other: Self) -> Self;
    /// The difference.
    fn subtract(self, other: Self) -> Self;
    /// The product.
    fn multiply(self, other: Self) -> Self;
}

impl Number for i64 {
    fn of(value: i128) -> Self {
        low(value)
    }

    fn add(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn subtract(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }

    fn multiply(self, other: Self) -> Self {
        self.wrapping_mul(other)
    }
}

impl Number for i128 {
    fn of(value: i128) -> Self {
        value
    }

    fn add(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn subtract(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }

    fn multiply(self, other: Self) -> Self {
        // Of a product of two numbers that were 64 bits wide the compiler makes one instruction.
        self.wrapping_mul(other)
    }
}

impl Lane<'_> {
    /// Whether all values fit 64 bits.
    pub(super) fn is_narrow(&self) -> bool {
        match self {
            Self::Constant(value) => i64::try_from(*value).is_ok(),
            Self::Narrow(_) | Self::Low(_) => true,
            Self::Wide(_) => false,
        }
    }
}

impl Operator {
    /// The largest magnitude of a result for operands of at most these magnitudes.
    pub(super) fn bound(self, left: u128, right: u128) -> Option<u128> {
        match self {
            Self::Add | Self::Subtract => left.checked_add(right),
            Self::Multiply => left.checked_mul(right),
        }
    }

    /// The result for two constants.
    pub(super) fn checked(self, left: i128, right: i128) -> Option<i128> {
        match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
        }
    }

    /// Appends the result of each row. At least one operand has rows.
    pub(super) fn apply<T: Number>(self, left: Lane<'_>, right: Lane<'_>, out: &mut Vec<T>) {
        match self {
            Self::Add => each(left, right, out, T::add),
            Self::Subtract => each(left, right, out, T::subtract),
            Self::Multiply => each(left, right, out, T::multiply),
        }
    }
}

/// Appends `f` of each row. Which forms the operands have is decided here, so that the loops have no branch.
fn each<T: Number>(left: Lane<'_>, right: Lane<'_>, out: &mut Vec<T>, f: impl Fn(T, T) -> T) {
    match left {
        Lane::Constant(left) => {
            // A constant that is known to be narrow is multiplied as such.
            if let Ok(left) = i64::try_from(left) {
                alone(right, out, |right| f(T::from(left), right));
            } else {
                alone(right, out, |right| f(T::of(left), right));
            }
        }
        Lane::Narrow(left) => pairs(left.iter().map(|value| T::from(*value)), right, out, f),
        Lane::Low(left) => pairs(left.iter().map(|value| T::from(low(*value))), right, out, f),
        Lane::Wide(left) => pairs(left.iter().map(|value| T::of(*value)), right, out, f),
    }
}

/// The same, where the operand on the left has rows.
fn pairs<T: Number>(left: impl Iterator<Item = T>, right: Lane<'_>, out: &mut Vec<T>, f: impl Fn(T, T) -> T) {
    match right {
        Lane::Constant(right) => {
            if let Ok(right) = i64::try_from(right) {
                out.extend(left.map(|left| f(left, T::from(right))));
            } else {
                out.extend(left.map(|left| f(left, T::of(right))));
            }
        }
        Lane::Narrow(right) => {
            out.extend(
                left.zip(right.iter().map(|value| T::from(*value))).map(|(left, right)| f(left, right)),
            );
        }
        Lane::Low(right) => {
            let right = right.iter().map(|value| T::from(low(*value)));
            out.extend(left.zip(right).map(|(left, right)| f(left, right)));
        }
        Lane::Wide(right) => {
            out.extend(left.zip(right.iter().map(|value| T::of(*value))).map(|(left, right)| f(left, right)));
        }
    }
}

/// The same, where one operand is a constant.
fn alone<T: Number>(lane: Lane<'_>, out: &mut Vec<T>, f: impl Fn(T) -> T) {
    match lane {
        Lane::Constant(value) => out.push(f(T::of(value))),
        Lane::Narrow(values) => out.extend(values.iter().map(|value| f(T::from(*value)))),
        Lane::Low(values) => out.extend(values.iter().map(|value| f(T::from(low(*value))))),
        Lane::Wide(values) => out.extend(values.iter().map(|value| f(T::of(*value)))),
    }
}

/// A bound of the magnitudes of `values`, at most twice the largest of them, and whether the lower 64 bits of each say
/// all.
pub(super) fn bound(values: &[i128]) -> (u128, bool) {
    let all = values.iter().fold(0, |all, value| all | value);
    // Where no value is negative, none has a bit that is not among all of them.
    let bits =
        if all >= 0 { all } else { values.iter().fold(0, |bits, value| bits | (value ^ (value >> 127))) };
    // The bits of a negative number are those of its complement, which is one less.
    (bits.unsigned_abs() + 1, bits <= i128::from(i64::MAX))
}

/// The lower half.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
fn low(value: i128) -> i64 {
    value as i64
}
