//! Rows out of text files that come piece by piece.

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use shared::Result;

/// Bytes that one row of a text file may have. Beyond it a value would take the memory of many queries.
pub const MAX_ROW_BYTES: usize = 64 << 20;

/// Bytes of text after which a batch is full, whatever its number of rows.
pub const BATCH_BYTES: usize = 16 << 20;

/// What text in UTF-8 may begin with.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Makes batches of the bytes of one file: `feed` one piece, take batches with `next` until it gives none, and so on; after the last
/// piece say `end`, and take what `next` still gives.
pub trait RowDecoder: Send {
    /// The next bytes of the file, after all batches of those before were taken.
    fn feed(&mut self, bytes: Bytes);

    /// Says that there are no more bytes.
    fn end(&mut self);

    /// A batch, or none until more bytes come.
    ///
    /// # Errors
    /// `Invalid` for a row that is none, with its line, the column and what was expected; `Limit` for one that is too large.
    fn next(&mut self) -> Result<Option<RecordBatch>>;

    /// Whether no more rows are wanted, also if there are more bytes.
    fn is_done(&self) -> bool;
}

/// Where in a file the rows of a decoder begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte that is fed.
    pub start: u64,
    /// Rows that begin here or later are another decoder's.
    pub end: u64,
    /// The line of the first byte, from 1; unknown where the bytes before were not read.
    pub line: Option<u64>,
}

impl Span {
    /// The whole file.
    pub fn whole() -> Self {
        Self { start: 0, end: u64::MAX, line: Some(1) }
    }

    /// The place of a row in words, `lines` after the first byte and `bytes` after it.
    pub fn place(&self, lines: u64, bytes: u64) -> String {
        match self.line {
            Some(first) => format!("line {}", first + lines),
            None => format!("byte {}", self.start + bytes),
        }
    }
}

/// How often `\n` is in `bytes`.
pub fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// A value as messages show it.
pub fn excerpt(text: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}
