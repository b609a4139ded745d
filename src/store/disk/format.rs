//! The format of a file: what it answers, the rows as an Arrow IPC stream, and checksums of both.
//!
//! ```text
//!   magic · length of the header · header · XXH64 of all that    what is asked, of which versions, when, for how long
//!   Arrow IPC stream, each buffer compressed by LZ4              schema, dictionaries, batches
//!   XXH64 of everything before · magic
//! ```
//!
//! The header can be checked without the rows, so that a list of a directory reads a few kilobytes of each file. Rows are read
//! only after the checksum of the whole file was found right: the decoder never sees a byte that nobody wrote.

use std::hash::Hasher;
use std::io::{self, Read, Seek, SeekFrom, Write};

use twox_hash::XxHash64;

use crate::fingerprint::Words;

/// What a file begins with. The last byte is the version of the format.
const MAGIC: [u8; 8] = *b"SLIPANS\x01";

/// What a file ends with: one that was cut off does not.
const END: [u8; 8] = *b"\x01SNAPILS";

/// The largest header: a query of more files than fit into one is not kept.
const MAX_HEADER: u64 = 16 << 20;

/// Which program writes and reads these files. Another one may plan, round or encode in another way.
pub(super) fn build() -> String {
    let (datafusion, arrow) = (datafusion::DATAFUSION_VERSION, datafusion::arrow::ARROW_VERSION);
    format!("slipstream {} datafusion {datafusion} arrow {arrow}", env!("CARGO_PKG_VERSION"))
}

/// What stands before the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Who wrote it.
    pub(super) build: String,
    /// What is asked, in full.
    pub(super) key: Vec<u8>,
    /// Which files were read, in which versions.
    pub(super) versions: Vec<u8>,
    /// The tables, by name.
    pub(crate) tables: Vec<String>,
    /// `slipstream.cache.tag`
    pub(crate) tag: String,
    /// When it was computed, in nanoseconds since 1970.
    pub(super) created: u64,
    /// For how many nanoseconds it may be given; `u64::MAX` for no end.
    pub(super) ttl: u64,
    /// How many nanoseconds it took.
    pub(super) cost: u64,
    /// Rows.
    pub(crate) rows: u64,
    /// What the rows take in memory.
    pub(crate) bytes: u64,
    /// What the largest batch takes in memory.
    pub(crate) largest: u64,
}

impl Header {
    fn encoded(&self) -> Vec<u8> {
        let mut words = Words::default();
        words.text(&self.build);
        words.bytes(&self.key);
        words.bytes(&self.versions);
        words.count(self.tables.len());
        self.tables.iter().for_each(|table| words.text(table));
        words.text(&self.tag);
        for number in [self.created, self.ttl, self.cost, self.rows, self.bytes, self.largest] {
            words.number(number);
        }
        words.into_bytes()
    }

    fn decoded(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let header = Self {
            build: rest.text()?,
            key: rest.bytes()?.to_vec(),
            versions: rest.bytes()?.to_vec(),
            tables: {
                let tables = rest.number()?;
                (0..tables).map(|_| rest.text()).collect::<Option<_>>()?
            },
            tag: rest.text()?,
            created: rest.number()?,
            ttl: rest.number()?,
            cost: rest.number()?,
            rows: rest.number()?,
            bytes: rest.number()?,
            largest: rest.number()?,
        };
        rest.0.is_empty().then_some(header)
    }

    /// Writes what stands before the rows.
    ///
    /// # Errors
    /// It is larger than one may be, or the writer's.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let encoded = self.encoded();
        let length = encoded.len() as u64;
        if length > MAX_HEADER {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too many files were read for it"));
        }
        out.write_all(&MAGIC)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&encoded)?;
        out.write_all(&checksum(length, &encoded).to_le_bytes())
    }

    /// Reads what stands before the rows; `None` where it is not what somebody wrote.
    ///
    /// # Errors
    /// The reader's.
    pub(super) fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut start = [0; 16];
        if !filled(input, &mut start)? || start[..8] != MAGIC {
            return Ok(None);
        }
        let length = number(&start[8..]);
        if length > MAX_HEADER {
            return Ok(None);
        }
        // Grows with what is there, whatever the length says.
        let mut encoded = Vec::new();
        input.take(length).read_to_end(&mut encoded)?;
        let mut sum = [0; 8];
        if !filled(input, &mut sum)?
            || encoded.len() as u64 != length
            || number(&sum) != checksum(length, &encoded)
        {
            return Ok(None);
        }
        Ok(Self::decoded(&encoded))
    }

    /// Where the rows begin.
    pub(super) fn rows_at(&self) -> u64 {
        self.encoded().len() as u64 + 24
    }
}

/// The checksum of a header.
fn checksum(length: u64, encoded: &[u8]) -> u64 {
    XxHash64::oneshot(length, encoded)
}

/// The first eight bytes as a number; 0 where there are fewer.
fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// Fills `buffer`; whether there was enough.
fn filled(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is left to decode. Nothing of it is believed: each piece is there, or decoding ends.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn number(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

/// Writes on, and keeps a checksum and a count of what went through.
pub(super) struct Summed<W> {
    out: W,
    sum: XxHash64,
    written: u64,
}

impl<W: Write> Summed<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, sum: XxHash64::with_seed(0), written: 0 }
    }

    /// Writes the end; how many bytes there are in all.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        let sum = self.sum.finish();
        self.out.write_all(&sum.to_le_bytes())?;
        self.out.write_all(&END)?;
        self.out.flush()?;
        Ok((self.out, self.written + 16))
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buffer)?;
        self.sum.write(&buffer[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Where the rows end, where every byte of the file is the one that was written; `None` where one is not.
///
/// # Errors
/// The file's.
pub(super) fn verified(file: &mut (impl Read + Seek)) -> io::Result<Option<u64>> {
    let length = file.seek(SeekFrom::End(0))?;
    let Some(end) = length.checked_sub(16) else { return Ok(None) };
    file.seek(SeekFrom::Start(0))?;
    let mut sum = XxHash64::with_seed(0);
    let (mut buffer, mut left) = (vec![0; 64 << 10], end);
    while left > 0 {
        let size = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if !filled(file, &mut buffer[..size])? {
            return Ok(None);
        }
        sum.write(&buffer[..size]);
        left -= size as u64;
    }
    let mut footer = [0; 16];
    let whole = filled(file, &mut footer)? && footer[8..] == END && number(&footer) == sum.finish();
    Ok(whole.then_some(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn header() -> Header {
        Header {
            build: build(),
            key: vec![1, 2, 3],
            versions: vec![4; 100],
            tables: vec!["a".into(), "s.b".into()],
            tag: "tag".into(),
            created: 1,
            ttl: u64::MAX,
            cost: 3,
            rows: 4,
            bytes: 5,
            largest: 6,
        }
    }

    fn file(rows: &[u8]) -> Vec<u8> {
        let mut out = Summed::new(Vec::new());
        header().write(&mut out).unwrap();
        out.write_all(rows).unwrap();
        let (bytes, length) = out.finish().unwrap();
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        for rows in [&b""[..], &[7; 200_000]] {
            let bytes = file(rows);
            assert_eq!(Header::read(&mut bytes.as_slice()).unwrap(), Some(header()));
            let end = verified(&mut Cursor::new(&bytes)).unwrap().unwrap();
            let from = usize::try_from(header().rows_at()).unwrap();
            assert_eq!(&bytes[from..usize::try_from(end).unwrap()], rows);
        }
    }

    /// Every byte, whatever it belongs to, and every length.
    #[test]
    fn a_byte_that_is_another_is_found_wherever_it_is() {
        let bytes = file(b"some rows");
        let from = usize::try_from(header().rows_at()).unwrap();
        for place in 0..bytes.len() {
            for change in [1, 0x80, 0xff] {
                let mut other = bytes.clone();
                other[place] ^= change;
                assert_eq!(verified(&mut Cursor::new(&other)).unwrap(), None, "{place}");
                let read = Header::read(&mut other.as_slice()).unwrap();
                assert_eq!(read.is_some(), place >= from, "{place}");
            }
            assert_eq!(verified(&mut Cursor::new(&bytes[..place])).unwrap(), None, "cut off at {place}");
            assert_eq!(Header::read(&mut &bytes[..place]).unwrap().is_some(), place >= from, "{place}");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert_eq!(verified(&mut Cursor::new(&longer)).unwrap(), None);
    }

    #[test]
    fn a_header_that_says_to_be_huge_is_not_believed() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Header::read(&mut bytes.as_slice()).unwrap(), None);
        let mut large = header();
        large.versions = vec![0; 17 << 20];
        assert!(large.write(&mut io::sink()).is_err());
        // Right by its checksum, and nonsense: lengths that lead beyond the end.
        for nonsense in [vec![0xff; 64], vec![], vec![0; 7]] {
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&(nonsense.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&nonsense);
            bytes.extend_from_slice(&checksum(nonsense.len() as u64, &nonsense).to_le_bytes());
            assert_eq!(Header::read(&mut bytes.as_slice()).unwrap(), None);
        }
    }
}
