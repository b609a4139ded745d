//! A checksum for spill files that does not depend on how their bytes come in pieces.

/// Finds changes by chance and by accident, such as a disk's or another program's; it is no protection against intent.
///
/// Eight bytes cost one multiplication: far less than compressing them.
#[derive(Debug, Clone, Default)]
pub(super) struct Checksum {
    state: u64,
    rest: [u8; 8],
    /// How many bytes of `rest` are filled.
    filled: usize,
}

impl Checksum {
    /// Takes in the next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        if self.filled > 0 {
            let taken = bytes.len().min(8 - self.filled);
            self.rest[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < 8 {
                return;
            }
            self.mix(u64::from_le_bytes(self.rest));
            self.filled = 0;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        self.rest[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    fn mix(&mut self, word: u64) {
        self.state = (self.state.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The checksum of all bytes so far.
    pub(super) fn value(&self) -> u64 {
        let mut last = self.clone();
        last.rest[last.filled..].fill(0);
        last.mix(u64::from_le_bytes(last.rest));
        last.mix(last.filled as u64);
        last.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(bytes: &[u8], size: usize) -> u64 {
        let mut checksum = Checksum::default();
        bytes.chunks(size).for_each(|piece| checksum.update(piece));
        checksum.value()
    }

    #[test]
    fn pieces_do_not_matter_and_each_bit_does() {
        let bytes: Vec<u8> = (0..1000u32).flat_map(|n| n.to_le_bytes()).take(3001).collect();
        let whole = in_pieces(&bytes, bytes.len());
        for size in [1, 3, 7, 8, 9, 128] {
            assert_eq!(in_pieces(&bytes, size), whole, "{size}");
        }
        for place in [0, 1, 1500, 3000] {
            let mut changed = bytes.clone();
            changed[place] ^= 4;
            assert_ne!(in_pieces(&changed, 64), whole, "{place}");
        }
        assert_ne!(in_pieces(&bytes[..3000], 64), whole);
        let mut longer = bytes.clone();
        longer.push(0);
        assert_ne!(in_pieces(&longer, 64), whole);
    }
}
