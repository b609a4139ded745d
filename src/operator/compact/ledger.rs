//! Whether a view array is worth copying: what it holds against what it uses, over the life of one stream.

use std::collections::{HashMap, HashSet};

use datafusion::arrow::buffer::Buffer;

/// An array may hold this many times the bytes that its views point to.
///
/// Above two, since neighbouring batches share pages: 8,192 rows of a page of 20,000 use two fifths of it, and the rest
/// is not wasted but belongs to the next batches.
const MAX_HELD_FOR_USED: usize = 4;

/// Bytes that an array may hold besides, whatever it uses; copying saves nothing then.
const SLACK: usize = 64 * 1024;

/// What a buffer counts for besides its bytes.
///
/// A join concatenates the lists of its build side and clones the whole list for every batch it puts out, so the price of
/// an entry is its clones (about 10 ns each, two times) and its 24 bytes, by the thousands of batches downstream.
const BUFFER_PRICE: usize = 8 * 1024;

/// Views that are looked at to estimate the length of all of them.
const SAMPLES: usize = 64;

/// Buffers that are remembered; beyond, remembering starts anew.
const MAX_REMEMBERED: usize = 65_536;

/// The buffers of one view column that a stream has met.
///
/// A reader's dictionary page, or a small build side, is one buffer that hundreds of batches point into. Copying from it
/// for each batch can take more memory than keeping it, and which is better shows only at the end of the stream. The
/// ledger does what is never much worse than the better one (the ski-rental rule): it copies until the copies from a
/// buffer weigh as much as the buffer, and from then on it hands the buffer itself on, which costs nothing once it is held.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Addresses of buffers that were handed on: the consumer holds them anyway.
    handed_on: HashSet<usize>,
    /// Bytes that were copied out of buffers which were not handed on.
    copied: HashMap<usize, usize>,
}

impl Ledger {
    /// Whether the array of these `views` into these `buffers` should be copied. Takes it that the answer is followed.
    ///
    /// Costs a look at each buffer; at the views only where the buffers hold much, and then at [`SAMPLES`] of them.
    pub(super) fn is_loose(&mut self, views: &[u128], buffers: &[Buffer]) -> bool {
        let prices = buffers.len() * BUFFER_PRICE;
        // Lists that are long for their views are copied without a look at each entry.
        if prices > SLACK {
            let used = used_bytes(views);
            if prices > MAX_HELD_FOR_USED * used + SLACK {
                return true;
            }
        }
        let held: usize = buffers.iter().map(|buffer| self.remaining(buffer)).sum();
        if held + prices <= SLACK {
            return self.hand_on(buffers);
        }
        let used = used_bytes(views);
        if held + prices <= MAX_HELD_FOR_USED * used + SLACK {
            return self.hand_on(buffers);
        }
        self.copy(used, held, buffers);
        true
    }

    /// What handing `buffer` on would cost from now on.
    fn remaining(&self, buffer: &Buffer) -> usize {
        let address = address(buffer);
        if self.handed_on.contains(&address) {
            return 0;
        }
        buffer.capacity().saturating_sub(self.copied.get(&address).copied().unwrap_or_default())
    }

    fn hand_on(&mut self, buffers: &[Buffer]) -> bool {
        if self.handed_on.len() + buffers.len() > MAX_REMEMBERED {
            self.handed_on.clear();
        }
        self.handed_on.extend(buffers.iter().map(address));
        false
    }

    /// Credits `used` copied bytes to the buffers, by what each of them holds.
    fn copy(&mut self, used: usize, held: usize, buffers: &[Buffer]) {
        if self.copied.len() + buffers.len() > MAX_REMEMBERED {
            self.copied.clear();
        }
        for buffer in buffers {
            let part = self.remaining(buffer) as f64 / held.max(1) as f64;
            // A share of a length in memory fits.
            #[expect(clippy::cast_possible_truncation, reason = "at most `used`")]
            let credit = (used as f64 * part) as usize;
            *self.copied.entry(address(buffer)).or_default() += credit;
        }
    }
}

/// Where the buffer's allocation begins; slices of one allocation share it.
fn address(buffer: &Buffer) -> usize {
    buffer.data_ptr().as_ptr().addr()
}

/// About how many bytes `views` point to. Up to twelve bytes stand in the view itself.
fn used_bytes(views: &[u128]) -> usize {
    let step = (views.len() / SAMPLES).max(1);
    let (mut sampled, mut bytes) = (0, 0);
    for view in views.iter().step_by(step) {
        // The lowest four bytes of a view are its length.
        let length = (view & u128::from(u32::MAX)) as usize;
        bytes += if length > 12 { length } else { 0 };
        sampled += 1;
    }
    (bytes * views.len()).checked_div(sampled).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 8_192;

    /// Views of strings of `length` bytes.
    fn views(length: u128) -> Vec<u128> {
        vec![length; ROWS]
    }

    fn buffers(count: usize, bytes: usize) -> Vec<Buffer> {
        (0..count).map(|_| Buffer::from_vec(vec![0_u8; bytes])).collect()
    }

    #[test]
    fn rows_that_use_their_buffers_are_handed_on() {
        let mut ledger = Ledger::default();
        assert!(!ledger.is_loose(&views(20), &buffers(1, 400_000)), "a page of 20,000 rows");
        assert!(!ledger.is_loose(&views(5), &[]), "strings in their views");
        assert!(!ledger.is_loose(&views(5), &buffers(2, 16_000)), "little to save");
    }

    #[test]
    fn few_rows_of_many_pages_are_copied() {
        let mut ledger = Ledger::default();
        assert!(ledger.is_loose(&views(20), &buffers(10, 400_000)), "the bytes");
        assert!(ledger.is_loose(&views(20), &buffers(500, 100)), "the list");
        assert!(ledger.is_loose(&views(5), &buffers(1, 400_000)), "strings in their views need no buffer");
        assert!(ledger.is_loose(&views(20)[..10], &buffers(1, 100_000)), "a few rows of a batch");
    }

    /// A buffer into which all batches point is copied from until the copies weigh as much, and is then kept.
    #[test]
    fn a_shared_buffer_is_kept_in_the_end() {
        let mut ledger = Ledger::default();
        let shared = buffers(1, 4 << 20);
        let batches: Vec<bool> = (0..200).map(|_| ledger.is_loose(&views(20), &shared)).collect();
        let copies = batches.iter().take_while(|loose| **loose).count();
        assert!(batches[copies..].iter().all(|loose| !loose), "{batches:?}");
        let copied = copies * ROWS * 20;
        assert!((2 << 20..=4 << 20).contains(&copied), "{copied} bytes copied");
    }
}
