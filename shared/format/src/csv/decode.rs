//! Rows of CSV files into columns, cut by `csv_core`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::{Buf, Bytes};
use csv_core::ReadRecordResult;

use super::super::infer::NULL_TEXTS;
use super::super::merge::positional_name;
use super::super::records::{Buffer, check_cell_type};
use super::super::rows::{BATCH_BYTES, BYTE_ORDER_MARK, MAX_ROW_BYTES, RowDecoder, Span, count_lines, excerpt};
use super::super::{CsvColumns, CsvFormat};
use super::names;
use shared::model::Column;
use shared::{Error, Result};

/// What the files of a table are read with.
#[derive(Debug, Clone)]
pub struct CsvTable {
    pub format: CsvFormat,
    /// The table's columns, without those of its partitions.
    pub columns: Vec<Column>,
    /// The names of the partitions' columns.
    pub keys: Vec<String>,
}

impl CsvTable {
    /// The name of a table's column for what a file's header calls `name`: a partition's column is the folder's, not the file's.
    pub fn column_name(keys: &[String], name: &str) -> String {
        if keys.iter().any(|key| key == name) { format!("{name}_in_file") } else { name.to_owned() }
    }

    /// For each column of the table its place in a file with such a header.
    ///
    /// # Errors
    /// In words, what was expected and found, when the file can't be this table's.
    fn places(&self, header: &[&str]) -> Result<Vec<Option<usize>>, String> {
        let by_position = || (0..self.columns.len()).map(Some).collect();
        let found: Vec<String> =
            names(header.iter().copied()).iter().map(|n| Self::column_name(&self.keys, n)).collect();
        let by_name: HashMap<&str, usize> = found.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let own: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let known = own.iter().filter(|name| by_name.contains_key(*name)).count();
        let in_place = own.iter().zip(&found).all(|(own, found)| own == found);
        if in_place {
            return Ok(by_position());
        }
        let is_crawled = self.format.columns != CsvColumns::Declared;
        if is_crawled && !fits(known, found.len(), own.len()) {
            let list = |names: &[&str]| names.iter().take(12).copied().collect::<Vec<_>>().join(", ");
            let expected = list(&own);
            return Err(format!(
                "expected a header with the columns `{expected}`, found {}",
                excerpt(header.join(", ").as_bytes())
            ));
        }
        if !is_crawled && known < own.len() {
            return Ok(by_position());
        }
        let place = |name: &&str| {
            // Rows may be longer than the header: what it does not name is found by position.
            let beyond = (found.len()..self.columns.len().max(found.len()) + self.columns.len())
                .find(|position| positional_name(*position) == **name);
            by_name.get(*name).copied().or(beyond)
        };
        Ok(own.iter().map(place).collect())
    }
}

/// Whether files of `a` and `b` columns of which `common` have the same name are one table's: one has all columns of the other, or
/// most are the same.
pub fn fits(common: usize, a: usize, b: usize) -> bool {
    common > 0 && (common == a.min(b) || common * 4 >= a.max(b) * 3)
}

/// The cells of the first row of a text, if it ends there.
pub fn header_cells(format: &CsvFormat, text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut builder = csv_core::ReaderBuilder::new();
    let mut core = builder.delimiter(format.delimiter).quote(format.quote_byte()).escape(format.escape).build();
    let (mut cells, mut ends) = (vec![0; text.len()], vec![0; text.len() + 1]);
    let (result, _, _, fields) = core.read_record(text, &mut cells, &mut ends);
    let start = |at: usize| if at == 0 { 0 } else { ends[at - 1] };
    matches!(result, ReadRecordResult::Record)
        .then(|| (0..fields).map(|at| cells[start(at)..ends[at]].to_vec()).collect())
}

/// Decodes one file, or the rows that begin in a part of it.
pub struct CsvDecoder {
    table: Arc<CsvTable>,
    /// The columns that are asked for, and their fields.
    asked: Vec<usize>,
    schema: SchemaRef,
    batch_rows: usize,
    span: Span,
    core: csv_core::Reader,
    input: Bytes,
    ended: bool,
    done: bool,
    /// Whether the next row is the header.
    header: bool,
    /// For each column asked for its place in the file, and the number of fields of the header.
    places: Vec<Option<usize>>,
    width: usize,
    row: Row,
    buffers: Vec<Buffer>,
    rows: usize,
    /// Bytes taken since `span.start`, and since the last batch.
    taken: u64,
    batch_bytes: usize,
    lines: u64,
    after_cr: bool,
}

/// The row at hand.
#[derive(Debug, Default)]
struct Row {
    text: Vec<u8>,
    ends: Vec<usize>,
    bytes: usize,
    fields: usize,
    begun: bool,
    line: u64,
    offset: u64,
}

impl Row {
    fn field(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start..self.ends[at]]
    }
}

impl CsvDecoder {
    /// `asked`: places in the table's columns, whose fields are `schema`.
    ///
    /// # Errors
    /// `Invalid` when a column that is asked for has a type that CSV can't hold.
    pub fn new(
        table: Arc<CsvTable>,
        asked: Vec<usize>,
        schema: SchemaRef,
        batch_rows: usize,
        span: Span,
    ) -> Result<Self> {
        for column in asked.iter().map(|at| &table.columns[*at]) {
            check_cell_type(&column.name, &column.ty)?;
        }
        let format = &table.format;
        let mut builder = csv_core::ReaderBuilder::new();
        builder.delimiter(format.delimiter).quote(format.quote_byte()).escape(format.escape);
        let core = builder.build();
        let header = format.header && span.start == 0;
        let places = asked.iter().copied().map(Some).collect();
        let width = table.columns.len();
        let mut decoder = Self {
            asked,
            schema,
            batch_rows,
            span,
            core,
            input: Bytes::new(),
            ended: false,
            done: false,
            header,
            places,
            width,
            row: Row { text: vec![0; 4096], ends: vec![0; 64], ..Row::default() },
            buffers: Vec::new(),
            rows: 0,
            taken: 0,
            batch_bytes: 0,
            lines: 0,
            after_cr: false,
            table,
        };
        decoder.buffers = decoder.fresh();
        Ok(decoder)
    }

    /// Takes the header that a part from the middle of a file does not have.
    ///
    /// # Errors
    /// As a file with such a header.
    pub fn with_header(&mut self, header: &[Vec<u8>]) -> Result<()> {
        let cells: Vec<_> = header.iter().map(|cell| String::from_utf8_lossy(cell)).collect();
        self.find_columns(&cells.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    }

    fn fresh(&self) -> Vec<Buffer> {
        self.asked.iter().map(|at| Buffer::of_files(&self.table.columns[*at].ty)).collect()
    }

    fn take_input(&mut self, bytes: usize) {
        self.lines += count_lines(&self.input[..bytes]);
        if let Some(last) = self.input[..bytes].last() {
            self.after_cr = *last == b'\r';
        }
        self.input.advance(bytes);
        self.taken += bytes as u64;
        self.batch_bytes += bytes;
    }

    /// Passes over what stands before a row. Whether one may begin: `false` when bytes are wanted or no more rows are.
    fn begin_row(&mut self) -> bool {
        if self.taken == 0 && self.span.start == 0 {
            if self.input.starts_with(BYTE_ORDER_MARK) {
                self.take_input(BYTE_ORDER_MARK.len());
            } else if !self.ended && BYTE_ORDER_MARK.starts_with(&self.input) {
                return false;
            }
        }
        if self.after_cr && self.input.first() == Some(&b'\n') {
            self.take_input(1);
            self.after_cr = false;
        }
        while let Some(b'\n' | b'\r') = self.input.first() {
            if self.span.start + self.taken >= self.span.end || self.is_full() {
                break;
            }
            let crlf = self.input.starts_with(b"\r\n");
            self.take_input(if crlf { 2 } else { 1 });
            // Of one column a blank line is a row without a value; of several it is none.
            if self.width == 1 && !self.header {
                self.buffers.iter_mut().for_each(Buffer::push_null);
                self.rows += 1;
            }
        }
        if self.span.start + self.taken >= self.span.end {
            self.done = true;
        }
        if self.input.is_empty() {
            self.done |= self.ended;
            return false;
        }
        (self.row.bytes, self.row.fields, self.row.line) = (0, 0, self.lines);
        self.row.offset = self.taken;
        !self.done
    }

    /// Reads on in the row. Whether it has ended.
    fn read_row(&mut self) -> Result<bool> {
        loop {
            // The end of the file ends a row as a line break does, but not in quotes: one that never closes took all into its field.
            let at_end = self.ended && self.input.is_empty() && self.row.begun;
            let row = &mut self.row;
            let input = if at_end { b"\n" } else { self.input.as_ref() };
            let (result, taken, bytes, fields) =
                self.core.read_record(input, &mut row.text[row.bytes..], &mut row.ends[row.fields..]);
            row.bytes += bytes;
            row.fields += fields;
            row.begun = true;
            if !at_end {
                self.take_input(taken);
            }
            match result {
                ReadRecordResult::Record => {
                    self.row.begun = false;
                    return Ok(true);
                }
                ReadRecordResult::End => {
                    (self.row.begun, self.done) = (false, true);
                    return Ok(false);
                }
                ReadRecordResult::InputEmpty if at_end => {
                    return Err(Error::invalid(format!(
                        "expected the quote of a field to close, found the end of the file in the row that begins at {}",
                        self.place()
                    )));
                }
                ReadRecordResult::InputEmpty if self.ended => {}
                ReadRecordResult::InputEmpty => return Ok(false),
                ReadRecordResult::OutputFull if self.row.text.len() >= MAX_ROW_BYTES => {
                    return Err(Error::limit(format!(
                        "expected rows of at most {MAX_ROW_BYTES} bytes, found a longer one at {}",
                        self.place()
                    )));
                }
                ReadRecordResult::OutputFull => self.row.text.resize(self.row.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.row.ends.resize(self.row.ends.len() * 2, 0),
            }
        }
    }

    fn place(&self) -> String {
        self.span.place(self.row.line, self.row.offset)
    }

    fn end_row(&mut self) -> Result<()> {
        if std::mem::take(&mut self.header) {
            let cells: Vec<Vec<u8>> = (0..self.row.fields).map(|at| self.row.field(at).to_vec()).collect();
            return self.with_header(&cells);
        }
        self.check_first_row()?;
        self.check_width()?;
        let (row, table) = (&self.row, &self.table);
        for ((buffer, place), column) in self.buffers.iter_mut().zip(&self.places).zip(&self.asked) {
            let cell = place.filter(|place| *place < row.fields).map(|place| row.field(place)).unwrap_or_default();
            if cell.is_empty() || is_null(&table.format, cell, buffer.is_text()) {
                buffer.push_null();
                continue;
            }
            let inferred = table.format.columns != CsvColumns::Declared;
            if buffer.push_cell(cell, inferred).is_err() {
                let Column { name, ty, .. } = &table.columns[*column];
                let place = self.span.place(row.line, row.offset);
                return Err(Error::invalid(format!(
                    "expected a value of `{ty}` in column `{name}` at {place}, found {}",
                    excerpt(cell)
                )));
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn find_columns(&mut self, header: &[&str]) -> Result<()> {
        if self.table.format.columns == CsvColumns::Position {
            return Ok(());
        }
        let places = self.table.places(header).map_err(Error::invalid)?;
        self.width = header.len();
        self.places = self.asked.iter().map(|at| places[*at]).collect();
        Ok(())
    }

    /// Refuses files without a header that a crawl would not take for the table's: only the number of fields tells them.
    fn check_first_row(&self) -> Result<()> {
        let (found, columns) = (self.row.fields, self.table.columns.len());
        let first = self.row.offset <= BYTE_ORDER_MARK.len() as u64 && self.span.start == 0;
        if !first || self.table.format.columns != CsvColumns::Position || found * 2 >= columns {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "expected rows of {columns} fields, found {found} in the first: {}",
            excerpt(&self.row.text[..self.row.bytes])
        )))
    }

    /// Refuses what a row has beyond the columns, unless the table says that it is passed over.
    fn check_width(&self) -> Result<()> {
        let (found, format) = (self.row.fields, &self.table.format);
        let columns = self.table.columns.len();
        if !format.ragged && found != self.width {
            let (width, place) = (self.width, self.place());
            return Err(Error::invalid(format!("expected {width} fields at {place}, found {found}")));
        }
        let widest = self.width.max(columns);
        if format.columns == CsvColumns::Declared || found <= widest {
            return Ok(());
        }
        match (widest..found).map(|at| self.row.field(at)).find(|cell| !cell.is_empty()) {
            None => Ok(()),
            Some(cell) => Err(Error::invalid(format!(
                "expected at most {widest} fields at {}, as in what the crawl read, found {found} with {} beyond",
                self.place(),
                excerpt(cell)
            ))),
        }
    }

    /// Whether a batch is to be taken. In the middle of a row that is large by itself there is none to take.
    fn is_full(&self) -> bool {
        self.rows >= self.batch_rows || (self.rows > 0 && self.batch_bytes >= BATCH_BYTES)
    }

    fn take(&mut self) -> Result<Option<RecordBatch>> {
        self.batch_bytes = 0;
        if self.rows == 0 {
            return Ok(None);
        }
        let fresh = self.fresh();
        let full = std::mem::replace(&mut self.buffers, fresh);
        let types: Vec<&DataType> = self.schema.fields().iter().map(|field| field.data_type()).collect();
        let arrays = full.into_iter().zip(types).map(|(buffer, to)| buffer.finish(to)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options);
        batch.map(Some).map_err(|e| Error::bug("decoded cells make no batch").with_source(e))
    }
}

/// Whether the cell stands for no value. A crawl's texts mean that in columns where they can't be values; those that somebody
/// declared mean it everywhere.
fn is_null(format: &CsvFormat, cell: &[u8], text: bool) -> bool {
    let is = |null: &str| null.as_bytes() == cell;
    let listed = || format.nulls.iter().any(|null| is(null));
    let found = match format.columns {
        CsvColumns::Declared => listed(),
        _ => !text && (listed() || NULL_TEXTS.iter().any(|null| is(null))),
    };
    found || format.null_text.as_deref().is_some_and(is)
}

impl RowDecoder for CsvDecoder {
    fn feed(&mut self, bytes: Bytes) {
        self.input = if self.input.is_empty() { bytes } else { [self.input.as_ref(), bytes.as_ref()].concat().into() };
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        while !self.done && !self.is_full() {
            // To the reader of fields no bytes would be the end of the file.
            let waits = self.input.is_empty() && !self.ended;
            let may_go_on = if self.row.begun { !waits } else { self.begin_row() };
            if self.is_full() || !may_go_on {
                break;
            }
            if self.read_row()? {
                self.end_row()?;
            } else {
                break;
            }
        }
        if self.is_full() || self.done { self.take() } else { Ok(None) }
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests;
