//! Objects of JSON files into columns: one a line, one after the other, or the elements of arrays; a table's files may mix them.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;

use super::super::records::{FileDecoder, Source};
use super::super::rows::{BATCH_BYTES, BYTE_ORDER_MARK, MAX_ROW_BYTES, RowDecoder, Span, count_lines};
use super::split::{Next, Splitter};
use shared::{Error, Result};

/// Decodes one file, or the objects on the lines that begin in a part of it.
#[derive(Debug)]
pub struct JsonDecoder {
    decoder: FileDecoder,
    schema: SchemaRef,
    batch_rows: usize,
    span: Span,
    splitter: Splitter,
    buffer: Vec<u8>,
    /// Bytes and lines before the buffer.
    gone: u64,
    lines: u64,
    /// Whether a byte order mark was looked for.
    begun: bool,
    batch_bytes: usize,
    ended: bool,
    done: bool,
    /// Whether a line has begun that is another part's.
    behind: bool,
}

impl JsonDecoder {
    /// `asked`: places in `columns`, whose fields are `schema`.
    pub fn new(columns: Vec<Source>, asked: Vec<usize>, schema: SchemaRef, batch_rows: usize, span: Span) -> Self {
        Self {
            decoder: FileDecoder::new(columns, asked),
            schema,
            batch_rows,
            span,
            splitter: Splitter::new(),
            buffer: Vec::new(),
            gone: 0,
            lines: 0,
            begun: false,
            batch_bytes: 0,
            ended: false,
            done: false,
            behind: false,
        }
    }

    /// The place of a byte of the buffer in words.
    fn place(&self, at: usize) -> String {
        self.span.place(self.lines + count_lines(&self.buffer[..at]), self.gone + at as u64)
    }

    fn forget(&mut self) {
        let done = self.splitter.done();
        self.behind |= self.is_behind(done);
        self.lines += count_lines(&self.buffer[..done]);
        self.gone += done as u64;
        self.buffer.drain(..done);
        self.splitter.forget(done);
    }

    /// Whether what is at `start` is on a line that begins behind the part. A line belongs to the part in which it begins.
    fn is_behind(&self, start: usize) -> bool {
        if self.span.end == u64::MAX || self.behind {
            return self.behind;
        }
        let last = self.span.end.saturating_sub(self.span.start + self.gone).saturating_sub(1);
        match usize::try_from(last) {
            Ok(last) if last < start => self.buffer[last..start].contains(&b'\n'),
            _ => false,
        }
    }

    /// Passes over a byte order mark. `false` while it can't be told whether there is one.
    fn begin(&mut self) -> bool {
        if self.begun || self.span.start > 0 {
            return true;
        }
        if !self.ended && self.buffer.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&self.buffer) {
            return false;
        }
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            // The mark is white space to nobody but here.
            self.buffer[..BYTE_ORDER_MARK.len()].fill(b' ');
        }
        self.begun = true;
        true
    }

    /// Adds rows until there are enough or bytes are wanted.
    fn read(&mut self) -> Result<()> {
        if !self.begin() {
            return Ok(());
        }
        while self.decoder.rows() < self.batch_rows && self.batch_bytes < BATCH_BYTES {
            let next = self.splitter.next(&self.buffer).map_err(|stray| {
                Error::invalid(format!(
                    "expected {} of the JSON at {}, found `{}`",
                    stray.expected,
                    self.place(stray.at),
                    stray.found
                ))
            })?;
            let range = match next {
                Next::Object(range) => range,
                Next::Ended => return self.check_end(),
            };
            if self.is_behind(range.start) {
                self.done = true;
                return Ok(());
            }
            self.batch_bytes += range.len();
            let start = range.start;
            if let Err(found) = self.decoder.push(&self.buffer[range]) {
                return Err(Error::invalid(format!("{found} in the JSON object at {}", self.place(start))));
            }
        }
        Ok(())
    }

    /// The buffer holds no whole object more.
    fn check_end(&mut self) -> Result<()> {
        let rest = self.buffer.len() - self.splitter.done();
        if rest > MAX_ROW_BYTES {
            let place = self.place(self.splitter.done());
            return Err(Error::limit(format!(
                "expected JSON objects of at most {MAX_ROW_BYTES} bytes, found a longer one at {place}"
            )));
        }
        if self.ended && !self.splitter.may_end() {
            let what = if self.splitter.is_inside_object() { "the object" } else { "the array" };
            let place = self.place(self.splitter.done());
            return Err(Error::invalid(format!("the file is cut short: {what} at {place} does not end")));
        }
        self.done = self.ended;
        Ok(())
    }

    fn take(&mut self) -> Result<Option<RecordBatch>> {
        self.batch_bytes = 0;
        let rows = self.decoder.rows();
        if rows == 0 {
            return Ok(None);
        }
        let types: Vec<&DataType> = self.schema.fields().iter().map(|field| field.data_type()).collect();
        let arrays = self.decoder.take(&types)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options);
        batch.map(Some).map_err(|e| Error::bug("decoded objects make no batch").with_source(e))
    }
}

impl RowDecoder for JsonDecoder {
    fn feed(&mut self, bytes: Bytes) {
        self.forget();
        self.buffer.extend_from_slice(&bytes);
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.done {
            return Ok(None);
        }
        self.read()?;
        let full = self.decoder.rows() >= self.batch_rows || self.batch_bytes >= BATCH_BYTES;
        if full || self.done { self.take() } else { Ok(None) }
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    fn ids_in(text: &[u8], size: usize, span: Span) -> Result<Vec<i64>> {
        let column = Source { name: "id".into(), key: "id".into(), ty: "bigint".parse().unwrap() };
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        let mut decoder = JsonDecoder::new(vec![column], vec![0], schema, 3, span);
        let mut ids = Vec::new();
        let mut drain = |decoder: &mut JsonDecoder| -> Result<()> {
            while let Some(batch) = decoder.next()? {
                ids.extend(batch.column(0).as_primitive::<Int64Type>().values());
            }
            Ok(())
        };
        for piece in text.chunks(size) {
            decoder.feed(Bytes::copy_from_slice(piece));
            drain(&mut decoder)?;
        }
        decoder.end();
        drain(&mut decoder)?;
        Ok(ids)
    }

    #[test]
    fn every_object_is_a_row_in_whatever_layout() {
        for text in [
            "{\"id\":1}\n{\"id\":2}\r\n\r\n{\"id\":3}\n{\"id\":4}",
            "\u{feff}{\"id\":1}{\"id\":2} {\"id\":3}\n{\"id\":4}\n",
            "[{\"id\":1},\n{\"id\":2},{\"id\":3},{\"id\":4}]",
            "{\n \"id\": 1\n}\n{\n \"id\": 2\n}\n[{\"id\":3}]{\"id\":4}",
        ] {
            for size in [1, 3, 5, 1000] {
                assert_eq!(ids_in(text.as_bytes(), size, Span::whole()).unwrap(), [1, 2, 3, 4], "{text} in {size}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, place) in [
            ("{\"id\":1}\n{\"id\":5.7}\n", "line 2"),
            ("{\"id\":1}\n{\"id\":2} oops\n", "line 2"),
            ("{\"id\":1}\n\n{\"id\":", "line 3"),
            ("[{\"id\":1}\n", "the array"),
            ("{\"id\":1}\n{\"id\":\"\u{1}\"}\n", "line 2"),
        ] {
            let error = ids_in(text.as_bytes(), 4, Span::whole()).unwrap_err().to_string();
            assert!(error.contains(place), "{error}");
        }
    }

    #[test]
    fn a_line_is_read_in_the_part_in_which_it_begins() {
        let text = b"{\"id\":1}\n{\"id\":2}{\"id\":3}\n{\"id\":4}\n";
        for cut in 1..text.len() {
            let first = ids_in(text, 5, Span { end: cut as u64, ..Span::whole() }).unwrap();
            let at = text[cut - 1..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |line| cut + line);
            let span = Span { start: at as u64, end: u64::MAX, line: None };
            let rest = if at < text.len() { ids_in(&text[at..], 5, span).unwrap() } else { Vec::new() };
            assert_eq!([first, rest].concat(), [1, 2, 3, 4], "cut at {cut}");
        }
    }

    #[test]
    fn an_object_that_never_ends_is_a_limit() {
        let text = [b"{\"id\":\"".to_vec(), vec![b'x'; MAX_ROW_BYTES + 2]].concat();
        assert_eq!(ids_in(&text, 1 << 20, Span::whole()).unwrap_err().kind(), shared::ErrorKind::Limit);
    }
}
