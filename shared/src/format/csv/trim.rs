//! Takes off what rows of delimited text have beyond the columns of their table, as Hive's serdes pass over it: Arrow's reader
//! fills up short rows with nulls, but refuses long ones. Cuts fields as `csv_core` does, which Arrow's reader uses.

use std::borrow::Cow;
use std::io::{BufRead, Read, Result};

use crate::format::CsvFormat;

/// Bytes that [`Trimmed`] reads at once.
const BUFFER: usize = 64 << 10;
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// Where in the text the last bytes ended.
#[derive(Debug, Clone)]
pub struct Trim {
    delimiter: u8,
    quote: u8,
    escape: Option<u8>,
    /// Bytes that mean something.
    marks: [bool; 256],
    /// Fields of a row that are kept.
    fields: usize,
    at: At,
    /// Complete fields of the row.
    field: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Behind so many bytes of a byte order mark, which is no part of the first field.
    Mark(usize),
    RowStart,
    FieldStart,
    Field,
    Quoted,
    Escaped,
    /// Behind a quote inside a quoted field.
    Closing,
}

impl Trim {
    /// Keeps the first `fields` fields of each row.
    pub fn new(format: &CsvFormat, fields: usize) -> Self {
        let (delimiter, quote, escape) = (format.delimiter, format.quote_byte(), format.escape);
        let mut marks = [false; 256];
        for byte in [delimiter, quote, escape.unwrap_or(quote), b'\n', b'\r'] {
            marks[usize::from(byte)] = true;
        }
        Self { delimiter, quote, escape, marks, fields, at: At::Mark(0), field: 0 }
    }

    /// What is to be kept of the next bytes of the text.
    pub fn keep<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut kept = Vec::new();
        // The bytes since `from` are to be kept, unless the row is being dropped.
        let mut from = 0;
        let mut dropped = self.drops();
        for (index, &byte) in bytes.iter().enumerate() {
            if let At::Mark(seen) = self.at
                && self.begins(seen, byte)
            {
                continue;
            }
            if !self.marks[usize::from(byte)] {
                self.at = if matches!(self.at, At::Quoted | At::Escaped) { At::Quoted } else { At::Field };
                continue;
            }
            let (dropping, before) = (self.drops(), self.at);
            self.step(byte);
            match (dropping, self.drops()) {
                (false, true) => {
                    dropped = true;
                    kept.extend_from_slice(&bytes[from..index]);
                    if before == At::RowStart {
                        // The row would be blank, which readers pass over.
                        kept.extend([self.quote; 2]);
                    }
                }
                (true, false) => from = index,
                _ => {}
            }
        }
        if !dropped {
            return Cow::Borrowed(bytes);
        }
        if !self.drops() {
            kept.extend_from_slice(&bytes[from..]);
        }
        Cow::Owned(kept)
    }

    /// Whether the byte belongs to a byte order mark at the beginning of the text.
    fn begins(&mut self, seen: usize, byte: u8) -> bool {
        let mark = BYTE_ORDER_MARK.get(seen) == Some(&byte);
        self.at = match (mark, seen) {
            (true, 2) | (false, 0) => At::RowStart,
            (true, _) => At::Mark(seen + 1),
            (false, _) => At::Field,
        };
        mark
    }

    fn drops(&self) -> bool {
        self.field >= self.fields
    }

    /// Goes past a byte that means something.
    fn step(&mut self, byte: u8) {
        self.at = match self.at {
            At::Escaped => At::Quoted,
            At::Quoted if byte == self.quote => At::Closing,
            At::Quoted if Some(byte) == self.escape => At::Escaped,
            At::Quoted => At::Quoted,
            At::RowStart | At::FieldStart | At::Closing if byte == self.quote => At::Quoted,
            _ if matches!(byte, b'\n' | b'\r') => {
                self.field = 0;
                At::RowStart
            }
            _ if byte == self.delimiter => {
                self.field += 1;
                At::FieldStart
            }
            _ => At::Field,
        };
    }
}

/// A reader of the text that is kept.
#[derive(Debug)]
pub struct Trimmed<R> {
    text: R,
    trim: Trim,
    buffer: Vec<u8>,
    kept: Vec<u8>,
    taken: usize,
}

impl<R: Read> Trimmed<R> {
    /// `text` from the beginning of a row.
    pub fn new(text: R, trim: Trim) -> Self {
        Self { text, trim, buffer: vec![0; BUFFER], kept: Vec::new(), taken: 0 }
    }
}

impl<R: Read> BufRead for Trimmed<R> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        while self.taken == self.kept.len() {
            let read = self.text.read(&mut self.buffer)?;
            if read == 0 {
                break;
            }
            (self.kept, self.taken) = (Vec::new(), 0);
            self.kept = self.trim.keep(&self.buffer[..read]).into_owned();
        }
        Ok(&self.kept[self.taken..])
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes;
    }
}

impl<R: Read> Read for Trimmed<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(text: &[u8], format: &CsvFormat) -> Vec<Vec<Vec<u8>>> {
        let mut reader = csv::ReaderBuilder::new();
        reader.has_headers(false).flexible(true).delimiter(format.delimiter).quote(format.quote_byte());
        let rows = reader.escape(format.escape).from_reader(text).into_byte_records();
        rows.map(|row| row.unwrap().iter().map(<[u8]>::to_vec).collect()).collect()
    }

    fn trimmed(text: &str, fields: usize) -> String {
        String::from_utf8(Trim::new(&CsvFormat::default(), fields).keep(text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn only_long_rows_are_cut() {
        assert!(matches!(Trim::new(&CsvFormat::default(), 2).keep(b"a,b\n1\n2,3"), Cow::Borrowed(_)));
        assert_eq!(trimmed("a,b,c\r\n1,\"x,\ny\",3,4\n5\n", 2), "a,b\r\n1,\"x,\ny\"\n5\n");
        assert_eq!(trimmed("\u{feff}\"a,b\",c,d\n", 2), "\u{feff}\"a,b\",c\n");
        assert_eq!(trimmed(",x\ny\n", 1), "\"\"\ny\n", "a row whose only field is empty stays a row");
    }

    proptest! {
        #[test]
        fn each_row_keeps_its_first_fields(
            text in "[a,\"'\\\\\r\n]{0,60}",
            fields in 1..4_usize,
            cut in 0..60_usize,
            quote in prop::sample::select(vec![Some(b'"'), Some(b'\''), None]),
            escape in prop::sample::select(vec![None, Some(b'\\')]),
        ) {
            let format = CsvFormat { quote, escape, ..CsvFormat::default() };
            let text = text.as_bytes();
            let mut trim = Trim::new(&format, fields);
            let (head, tail) = text.split_at(cut.min(text.len()));
            let kept = [trim.keep(head).into_owned(), trim.keep(tail).into_owned()].concat();
            let mut expected = rows(text, &format);
            expected.iter_mut().for_each(|row| row.truncate(fields));
            prop_assert_eq!(rows(&kept, &format), expected);
            let mut read = Vec::new();
            Trimmed::new(text, Trim::new(&format, fields)).read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, kept);
        }
    }
}
