//! Equality of string views with literals, on the views themselves.

use datafusion::arrow::array::{Array, StringViewArray};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer};

/// The longest string that is in its view, behind four bytes of length.
const INLINE: usize = 12;

/// Literals that a string is compared with.
///
/// A view of 16 bytes holds the length and the first four bytes of its string, and all of it up to 12 bytes; bytes
/// behind a short string are zero (Arrow columnar format, "variable-size binary view layout"; the idea is Umbra's, Neumann
/// and Freitag, CIDR 2020). So a short literal is compared as one number, a long one by half a view first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Literals {
    short: Vec<u128>,
    long: Vec<(u64, Vec<u8>)>,
}

impl Literals {
    /// The views of `literals`.
    pub(super) fn new<'a>(literals: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for literal in literals {
            let bytes = literal.as_bytes();
            let mut view = [0_u8; 16];
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
            let start = bytes.iter().take(if bytes.len() <= INLINE { INLINE } else { 4 });
            view.iter_mut().zip(length.iter().chain(start)).for_each(|(to, from)| *to = *from);
            let view = u128::from_le_bytes(view);
            if bytes.len() <= INLINE {
                short.push(view);
            } else {
                long.push((low(view), bytes.to_vec()));
            }
        }
        Self { short, long }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    /// Takes in the literals of `other`.
    pub(super) fn extend(&mut self, other: Self) {
        self.short.extend(other.short);
        self.long.extend(other.long);
    }

    /// Which strings equal one of the literals, or with `negated` none; NULL is neither.
    pub(super) fn test(&self, strings: &StringViewArray, negated: bool) -> BooleanBuffer {
        let views = strings.views();
        let found = match (self.short.as_slice(), self.long.as_slice()) {
            ([one], []) => bits(views, |view| *view == *one),
            ([one, two], []) => bits(views, |view| (*view == *one) | (*view == *two)),
            (short, []) => bits(views, |view| short.iter().fold(false, |found, one| found | (*view == *one))),
            (short, long) => bits(views, |view| {
                short.contains(view) || long.iter().any(|one| is_long(strings, *view, one))
            }),
        };
        let found = if negated { !&found } else { found };
        match strings.nulls() {
            Some(nulls) => &found & nulls.inner(),
            None => found,
        }
    }
}

/// The length and the first four bytes.
fn low(view: u128) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = view.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Whether the string of `view` is a literal that does not fit into a view.
fn is_long(strings: &StringViewArray, view: u128, (key, bytes): &(u64, Vec<u8>)) -> bool {
    if low(view) != *key {
        return false;
    }
    let [.., a, b, c, d, e, f, g, h] = view.to_le_bytes();
    let (buffer, offset) =
        (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize);
    let data = strings.data_buffers().get(buffer).map(Buffer::as_slice);
    data.and_then(|data| data.get(offset..offset + bytes.len())) == Some(bytes.as_slice())
}

/// One bit for each value, 64 at a time.
fn bits<T>(values: &[T], test: impl Fn(&T) -> bool) -> BooleanBuffer {
    let words = values.chunks(64).map(|chunk| {
        chunk.iter().enumerate().fold(0_u64, |word, (index, value)| word | (u64::from(test(value)) << index))
    });
    BooleanBuffer::new(words.collect::<Vec<u64>>().into(), 0, values.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::BooleanArray;

    /// The answer of comparing string by string.
    fn expected(strings: &StringViewArray, literals: &[&str], negated: bool) -> BooleanArray {
        strings
            .iter()
            .map(|string| Some(string.is_some_and(|it| literals.contains(&it) != negated)))
            .collect()
    }

    #[test]
    fn views_compare_like_strings() {
        let values = [
            Some(""),
            None,
            Some("a"),
            Some("a\0"),
            Some("twelve bytes"),
            Some("thirteen byte"),
            Some("thirteen bytf"),
            Some("thirty-one bytes in this string"),
            Some("thirteen byte and then some"),
            Some("é"),
        ];
        let strings: StringViewArray = (0..200).map(|index| values[index * 7 % values.len()]).collect();
        let sliced = strings.slice(3, 150);
        for strings in [&strings, &sliced, &strings.slice(0, 0)] {
            for literals in [
                &[][..],
                &[""],
                &["a"],
                &["a", "é"],
                &["a\0", "twelve bytes", ""],
                &["thirteen byte"],
                &["thirteen byte", "a", "absent"],
                &["thirteen bytf", "thirty-one bytes in this string"],
            ] {
                for negated in [false, true] {
                    let found = Literals::new(literals.iter().copied()).test(strings, negated);
                    let found = BooleanArray::from(found);
                    assert_eq!(found, expected(strings, literals, negated), "{literals:?} {negated}");
                }
            }
        }
    }
}
