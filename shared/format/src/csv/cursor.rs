//! Where rows begin in the middle of a file: a line's end inside a quoted field ends no row, so what stands before decides.

use crate::CsvFormat;
use crate::rows::count_lines;

/// A place in CSV text.
#[derive(Debug, Clone)]
pub struct Cursor {
    format: Marks,
    at: At,
    /// Line feeds before it.
    pub lines: u64,
    after_cr: bool,
}

#[derive(Debug, Clone, Copy)]
struct Marks {
    delimiter: u8,
    quote: Option<u8>,
    escape: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    RowStart,
    FieldStart,
    Field,
    Quoted,
    Escaped,
    /// Behind a quote inside a quoted field.
    Closing,
}

impl Cursor {
    /// The beginning of a file, behind its byte order mark.
    pub fn start(format: &CsvFormat) -> Self {
        let format = Marks { delimiter: format.delimiter, quote: format.quote, escape: format.escape };
        Self { format, at: At::RowStart, lines: 0, after_cr: false }
    }

    /// Somewhere in a row, where no quote means anything.
    pub fn inside_plain_row() -> Self {
        let format = Marks { delimiter: b'\n', quote: None, escape: None };
        Self { format, at: At::Field, lines: 0, after_cr: false }
    }

    /// Goes past all of `bytes`.
    pub fn skip(&mut self, bytes: &[u8]) {
        self.lines += count_lines(bytes);
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            // Most bytes mean nothing: those up to the next that may are passed over at once.
            let passed = match (self.at, self.format.quote) {
                (At::Quoted, Some(quote)) => {
                    memchr::memchr2(quote, self.format.escape.unwrap_or(quote), rest).unwrap_or(rest.len())
                }
                (At::Quoted | At::Escaped | At::Closing, _) => 0,
                (_, None) => rest.len(),
                (_, Some(quote)) => memchr::memchr(quote, rest).unwrap_or(rest.len()),
            };
            if passed > 0 {
                self.at = self.behind(rest[passed - 1]);
                self.after_cr = rest[passed - 1] == b'\r' && self.at == At::RowStart;
                rest = &rest[passed..];
                continue;
            }
            self.step(byte);
            rest = behind;
        }
    }

    /// Behind a byte that changes nothing between quoted and not.
    fn behind(&self, byte: u8) -> At {
        match byte {
            _ if self.at == At::Quoted => At::Quoted,
            b'\n' | b'\r' => At::RowStart,
            _ if byte == self.format.delimiter => At::FieldStart,
            _ => At::Field,
        }
    }

    fn step(&mut self, byte: u8) {
        let quote = Some(byte) == self.format.quote;
        self.at = match self.at {
            At::Escaped => At::Quoted,
            At::Quoted if quote => At::Closing,
            At::Quoted if Some(byte) == self.format.escape => At::Escaped,
            At::Quoted => At::Quoted,
            At::RowStart | At::FieldStart | At::Closing if quote => At::Quoted,
            _ => self.behind(byte),
        };
        self.after_cr = byte == b'\r' && self.at == At::RowStart;
    }

    /// The bytes of `bytes` up to the beginning of a row; `None`, with all of them passed, when none begins there.
    pub fn row_start(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.at == At::RowStart && !(self.after_cr && byte == b'\n') {
                return Some(index);
            }
            self.lines += u64::from(byte == b'\n');
            self.step(byte);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Offsets at which rows begin, found from each place of the text.
    fn starts(text: &str, format: &CsvFormat) -> Vec<usize> {
        let mut starts = Vec::new();
        for at in 0..text.len() {
            let mut place = Cursor::start(format);
            place.skip(&text.as_bytes()[..at]);
            starts.extend(place.row_start(&text.as_bytes()[at..]).map(|more| at + more));
        }
        starts.dedup();
        starts
    }

    #[test]
    fn a_row_begins_behind_a_line_s_end_outside_of_quotes_only() {
        let format = CsvFormat::default();
        assert_eq!(starts("a,b\n1,\"x\n\"\"y\n\"\r\n2,5\" pipe\n3", &format), [0, 4, 16, 26]);
        assert_eq!(starts("a\rb\rc", &format), [0, 2, 4]);
        let escaped = CsvFormat { escape: Some(b'\\'), ..CsvFormat::default() };
        assert_eq!(starts("\"a\\\"\n\"\nb", &escaped), [0, 7]);
        let plain = CsvFormat { quote: None, ..CsvFormat::default() };
        assert_eq!(starts("\"a\nb", &plain), [0, 3]);
    }

    proptest! {
        #[test]
        fn passing_over_many_bytes_is_passing_over_each(text in "[a,\"'\\\\\r\n]{0,40}", cut in 0..40_usize) {
            let format = CsvFormat { escape: Some(b'\\'), ..CsvFormat::default() };
            let (mut at_once, mut each) = (Cursor::start(&format), Cursor::start(&format));
            let head = &text.as_bytes()[..cut.min(text.len())];
            at_once.skip(head);
            head.iter().for_each(|byte| each.step(*byte));
            prop_assert_eq!(at_once.at, each.at);
            prop_assert_eq!(at_once.after_cr, each.after_cr);
        }
    }
}
