//! Additions, subtractions and multiplications of unscaled decimals, block by block, as narrow as the values are.

use super::lane::{Lane, Operator, bound};

/// Rows that are computed at once: few enough that what is in between stays in the first-level cache.
const BLOCK: usize = 1024;

/// What an operand of a program holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Leaf<'a> {
    /// The same value in each row.
    Scalar(i128),
    /// A value for each row.
    Values(&'a [i128]),
}

/// One value of a program, made of values in front of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The operand with this number.
    Leaf(usize),
    /// A number that is known beforehand, such as a power of ten that brings scales together.
    Constant(i128),
    /// An operation on the values of two steps.
    Apply(Operator, usize, usize),
}

/// An expression as steps, of which the last one is the result.
#[derive(Debug, Default)]
pub(super) struct Program {
    steps: Vec<Step>,
}

/// The value of a step in one block.
#[derive(Debug, Default)]
struct Register {
    /// The values, where they fit 64 bits.
    narrow: Vec<i64>,
    /// The values, where they may not.
    wide: Vec<i128>,
    /// Which of these it is, or none.
    held: Held,
    /// No value is larger in magnitude.
    bound: u128,
}

/// Where the value of a step is.
#[derive(Debug, Default, Clone, Copy)]
enum Held {
    #[default]
    Narrow,
    Wide,
    Constant(i128),
    /// The values of this leaf, and whether they fit 64 bits.
    Leaf(usize, bool),
}

impl Program {
    /// Appends a step, and tells its number.
    pub(super) fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    /// Whether it multiplies; sums alone are no faster here.
    pub(super) fn multiplies(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Apply(Operator::Multiply, _, _)))
    }

    /// The results of `rows` rows, or nothing where some intermediate value might need more than 128 bits.
    ///
    /// The magnitudes of the operands in a block bound those of all that is made of them. Where 64 bits are enough for
    /// a step, it takes 64; where 128 are, nothing can overflow and nothing is checked.
    pub(super) fn run(&self, leaves: &[Leaf<'_>], rows: usize) -> Option<Vec<i128>> {
        let mut registers: Vec<Register> = self.steps.iter().map(|_| Register::default()).collect();
        let mut out = Vec::with_capacity(rows);
        for begin in (0..rows).step_by(BLOCK) {
            let end = (begin + BLOCK).min(rows);
            let block = leaves.iter().map(|leaf| match leaf {
                Leaf::Scalar(value) => Some(Leaf::Scalar(*value)),
                Leaf::Values(values) => values.get(begin..end).map(Leaf::Values),
            });
            self.run_block(&block.collect::<Option<Vec<_>>>()?, &mut registers, &mut out)?;
            if out.len() != end {
                return None;
            }
        }
        Some(out)
    }

    /// Appends the results of one block to `out`.
    fn run_block(&self, leaves: &[Leaf<'_>], registers: &mut [Register], out: &mut Vec<i128>) -> Option<()> {
        let last = self.steps.len().checked_sub(1)?;
        for (at, step) in self.steps.iter().enumerate() {
            let (done, rest) = registers.split_at_mut(at);
            let register = rest.first_mut()?;
            match *step {
                Step::Leaf(leaf) => register.load(leaf, leaves)?,
                Step::Constant(value) => register.set(value),
                Step::Apply(operator, left, right) => {
                    let (left, right) = (done.get(left)?, done.get(right)?);
                    let out = (at == last).then_some(&mut *out);
                    register.apply(operator, left, right, leaves, out)?;
                }
            }
        }
        Some(())
    }
}

impl Register {
    /// Holds a constant.
    fn set(&mut self, value: i128) {
        self.held = Held::Constant(value);
        self.bound = value.unsigned_abs();
    }

    /// Looks at an operand, and leaves it where it is.
    fn load(&mut self, leaf: usize, leaves: &[Leaf<'_>]) -> Option<()> {
        match leaves.get(leaf)? {
            Leaf::Scalar(value) => self.set(*value),
            Leaf::Values(values) => {
                let (bound, fits) = bound(values);
                self.bound = bound;
                self.held = Held::Leaf(leaf, fits);
            }
        }
        Some(())
    }

    /// Holds the result, or appends it to `out`; nothing where it might need more than 128 bits.
    fn apply(
        &mut self,
        operator: Operator,
        left: &Self,
        right: &Self,
        leaves: &[Leaf<'_>],
        out: Option<&mut Vec<i128>>,
    ) -> Option<()> {
        if let (Held::Constant(left), Held::Constant(right)) = (left.held, right.held) {
            self.set(operator.checked(left, right)?);
            return Some(());
        }
        self.bound = operator.bound(left.bound, right.bound).filter(|bound| *bound <= i128::MAX as u128)?;
        let (left, right) = (left.lane(leaves)?, right.lane(leaves)?);
        if let Some(out) = out {
            operator.apply(left, right, out);
        } else if left.is_narrow() && right.is_narrow() && self.bound <= i64::MAX as u128 {
            self.held = Held::Narrow;
            self.narrow.clear();
            operator.apply(left, right, &mut self.narrow);
        } else {
            self.held = Held::Wide;
            self.wide.clear();
            operator.apply(left, right, &mut self.wide);
        }
        Some(())
    }

    /// The values, for the loops.
    fn lane<'a>(&'a self, leaves: &[Leaf<'a>]) -> Option<Lane<'a>> {
        Some(match self.held {
            Held::Narrow => Lane::Narrow(&self.narrow),
            Held::Wide => Lane::Wide(&self.wide),
            Held::Constant(value) => Lane::Constant(value),
            Held::Leaf(leaf, fits) => match leaves.get(leaf)? {
                Leaf::Scalar(value) => Lane::Constant(*value),
                Leaf::Values(values) if fits => Lane::Low(values),
                Leaf::Values(values) => Lane::Wide(values),
            },
        })
    }
}
