//! Cuts delimited text into rows and fields, as `csv_core` does (which Arrow's reader uses), and counts what does not fit.

/// The characters that make a dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
    pub(super) escape: Option<u8>,
}

/// Rows of fields; blank lines are no rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    text: Vec<u8>,
    /// End of each field in `text`, and whether it was enclosed in quotes.
    fields: Vec<(usize, bool)>,
    /// Number of fields up to the end of each row.
    rows: Vec<usize>,
    /// Quotes that closed a field too early, as in `"a"b`.
    pub(super) stray_quotes: usize,
    /// Whether a quoted field holds a line break.
    pub(super) breaks_in_quotes: bool,
    /// Whether the text ends inside a quoted field.
    pub(super) open_quote: bool,
    /// Bytes of the text up to the end of the last row.
    pub(super) taken: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    RowStart,
    FieldStart,
    Plain,
    Quoted,
    Escaped,
    /// Behind a quote inside a quoted field.
    Closing,
}

impl Rows {
    /// Cuts `text`, at most into `limit` rows. The last row counts only if it ends with a line break or `complete` says that the
    /// text ends there.
    pub(super) fn cut(text: &[u8], marks: Marks, complete: bool, limit: usize) -> Self {
        let mut rows = Self::default();
        let mut at = At::RowStart;
        for (index, &byte) in text.iter().enumerate() {
            let before = rows.rows.len();
            at = rows.step(at, byte, marks);
            if rows.rows.len() > before {
                rows.taken = index + 1;
                if rows.rows.len() == limit {
                    return rows;
                }
            }
        }
        rows.open_quote = matches!(at, At::Quoted | At::Escaped);
        if complete && at != At::RowStart {
            rows.end_field(matches!(at, At::Quoted | At::Closing | At::Escaped));
            rows.rows.push(rows.fields.len());
            rows.taken = text.len();
        } else {
            rows.fields.truncate(rows.rows.last().copied().unwrap_or(0));
        }
        rows
    }

    fn step(&mut self, at: At, byte: u8, marks: Marks) -> At {
        let line_break = matches!(byte, b'\n' | b'\r');
        match at {
            At::RowStart if line_break => At::RowStart,
            At::RowStart | At::FieldStart if Some(byte) == marks.quote => At::Quoted,
            At::RowStart | At::FieldStart | At::Plain | At::Closing if byte == marks.delimiter => {
                self.end_field(at == At::Closing);
                At::FieldStart
            }
            At::FieldStart | At::Plain | At::Closing if line_break => {
                self.end_field(at == At::Closing);
                self.rows.push(self.fields.len());
                At::RowStart
            }
            At::Closing if Some(byte) == marks.quote => self.keep(byte, At::Quoted),
            At::Closing => {
                self.stray_quotes += 1;
                self.keep(byte, At::Plain)
            }
            At::Quoted if Some(byte) == marks.quote => At::Closing,
            At::Quoted if Some(byte) == marks.escape => At::Escaped,
            At::Quoted | At::Escaped => {
                self.breaks_in_quotes |= line_break;
                self.keep(byte, At::Quoted)
            }
            At::RowStart | At::FieldStart | At::Plain => self.keep(byte, At::Plain),
        }
    }

    fn keep(&mut self, byte: u8, next: At) -> At {
        self.text.push(byte);
        next
    }

    fn end_field(&mut self, quoted: bool) {
        self.fields.push((self.text.len(), quoted));
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Number of fields of row `row`.
    pub(super) fn width(&self, row: usize) -> usize {
        self.rows[row] - self.first_field(row)
    }

    /// The fields of row `row` and whether each was enclosed in quotes. Text that is no UTF-8 shows as empty.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = (&str, bool)> {
        (self.first_field(row)..self.rows[row]).map(|field| {
            let start = if field == 0 { 0 } else { self.fields[field - 1].0 };
            let (end, quoted) = self.fields[field];
            (std::str::from_utf8(&self.text[start..end]).unwrap_or_default(), quoted)
        })
    }

    /// Number of fields that were enclosed in quotes.
    pub(super) fn quoted_fields(&self) -> usize {
        self.fields.iter().filter(|(_, quoted)| *quoted).count()
    }

    fn first_field(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.rows[row - 1] }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Schema};
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str, delimiter: u8) -> Vec<Vec<String>> {
        let marks = Marks { delimiter, quote: Some(b'"'), escape: None };
        let rows = Rows::cut(text.as_bytes(), marks, true, usize::MAX);
        (0..rows.len()).map(|row| rows.row(row).map(|(text, _)| text.to_owned()).collect()).collect()
    }

    /// The examples of the csv-spectrum collection.
    #[test]
    fn the_csv_spectrum_is_cut_as_it_should_be() {
        assert_eq!(cut("a,b\n1,\"ha \"\"ha\"\" ha\"\n", b',')[1], ["1", "ha \"ha\" ha"]);
        assert_eq!(cut("a,b,c\n1,\"\",\"\"\n2,3,4\n", b',')[1], ["1", "", ""]);
        assert_eq!(cut("a,b\r\n1,\"x\r\ny\"\r\n", b',')[1], ["1", "x\r\ny"]);
        assert_eq!(cut("first,address\nJohn,\"120 any st., Anytown\"\n", b',')[1], ["John", "120 any st., Anytown"]);
        assert_eq!(cut("k,v\n1,\"{\"\"type\"\": \"\"Point\"\"}\"", b',')[1], ["1", "{\"type\": \"Point\"}"]);
        assert_eq!(cut("a,b\n1,ʤ\n", b',')[1], ["1", "ʤ"]);
        assert_eq!(cut("a,b,c\n1,,\n\n,2,3", b','), [["a", "b", "c"], ["1", "", ""], ["", "2", "3"]]);
    }

    #[test]
    fn a_row_that_may_go_on_is_left_out() {
        let marks = Marks { delimiter: b',', quote: Some(b'"'), escape: Some(b'\\') };
        assert_eq!(Rows::cut(b"a,b\n1,2", marks, false, 9).len(), 1);
        assert!(Rows::cut(b"a,\"b\n1,2", marks, false, 9).open_quote);
        let escaped = Rows::cut(b"a,\"b\\\"c\"\n", marks, true, 9);
        assert_eq!(escaped.row(0).map(|(text, _)| text).collect::<Vec<_>>(), ["a", "b\"c"]);
    }

    proptest! {
        /// What is sniffed here is read by Arrow later: both must see the same fields.
        #[test]
        fn fields_are_those_that_arrows_reader_sees(text in "[ab,\"\n\r]{0,40}") {
            let rows = cut(&text, b',');
            let width = rows.iter().map(Vec::len).max().unwrap_or(1);
            let fields: Vec<_> = (0..width).map(|i| Field::new(format!("c{i}"), DataType::Utf8, true)).collect();
            let reader = arrow::csv::ReaderBuilder::new(Arc::new(Schema::new(fields)))
                .with_truncated_rows(true)
                .build(text.as_bytes())
                .unwrap();
            let mut found = Vec::new();
            for batch in reader {
                let batch = batch.unwrap();
                for row in 0..batch.num_rows() {
                    let value = |i: usize| {
                        let column = batch.column(i).as_string::<i32>();
                        if column.is_valid(row) { column.value(row).to_owned() } else { String::new() }
                    };
                    found.push((0..width).map(value).collect::<Vec<_>>());
                }
            }
            let padded: Vec<_> = rows
                .into_iter()
                .map(|mut row| { row.resize(width, String::new()); row })
                .collect();
            prop_assert_eq!(found, padded);
        }
    }

    use arrow::array::Array;
}
