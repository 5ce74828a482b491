//! Samples of delimited text: dialect, header, column types.
//!
//! Every candidate dialect cuts the text; the one whose rows look most like a table wins. The measure is that of van den Burg,
//! Nazábal and Sutton, "Wrangling messy CSV files by detecting row and type patterns" (2019): rows of few different widths, with
//! cells that look like values.

pub mod cursor;
pub mod decode;
mod header;
mod rows;

use std::collections::{BTreeMap, HashSet};

pub use decode::fits;
use rows::{Marks, Rows};

use super::infer::{NULL_TEXTS, text_shape};
use super::merge::{SampledColumn, Shape, positional_name};
use super::{Compression, CsvFormat, Encoding, FileFault, FileFormat, FirstRow, Sample, unique_name};
use shared::model::name::to_column_name;

/// Delimiters that are tried, likeliest first.
const DELIMITERS: [u8; 5] = [b',', b';', b'\t', b'|', 1];
/// Bytes and rows that each candidate dialect is tried on.
const SNIFF_BYTES: usize = 64 << 10;
const SNIFF_ROWS: usize = 500;
/// Rows that are cut at once.
const ROWS: usize = 20_000;

/// The dialect, header and columns of `text`, UTF-8 without a byte order mark. `name` decides only where the content leaves doubt.
///
/// # Errors
/// `Unrecognized` when no dialect makes a table of the text; `Truncated` when a quote is never closed; `TooLarge` when not even one
/// row ends in the text.
pub fn sample(text: &[u8], complete: bool, name: &str) -> Result<Sample, FileFault> {
    let marks = sniff(text, complete, name)?;
    let first = Rows::cut(text, marks, complete, ROWS);
    if first.len() == 0 && !complete {
        return Err(FileFault::TooLarge {
            found: format!("a row that does not end within the first {} bytes", text.len()),
        });
    }
    let mut seen = Seen::of(&first);
    let mut at = first.taken;
    while at < text.len() {
        let more = Rows::cut(&text[at..], marks, complete, ROWS);
        seen.add(&more, 0);
        if more.taken == 0 {
            break;
        }
        at += more.taken;
    }
    if complete && seen.open_quote {
        return Err(FileFault::Truncated { found: "a quoted field is not closed before the end of the file".into() });
    }
    if seen.rows == 0 {
        return Err(FileFault::Unrecognized { found: "no complete row in the beginning of the file".into() });
    }
    let nulls = null_texts(&seen.tallies);
    let mut notes = seen.notes();
    let rest: Vec<Shape> = seen.tallies.into_iter().map(|tally| tally.shape).collect();
    let header = header::is_header(&first, &rest);
    let format = CsvFormat {
        delimiter: marks.delimiter,
        quote: marks.quote,
        quoted: seen.quoted,
        escape: marks.escape,
        nulls,
        ragged: true,
        // What was not read may hold line breaks too, once fields are quoted.
        multiline: seen.breaks_in_quotes || (seen.quoted && !complete),
        ..CsvFormat::default()
    };
    let format = format.with_header(header);
    let width = rest.len();
    let first_row = first_row(&first, &format, rest, width);
    if header {
        notes.extend(rename_notes(&first_row));
    }
    let format = FileFormat { encoding: Encoding::Csv(format), compression: Compression::None };
    let sample = Sample { format, columns: Vec::new(), first_row: Some(first_row), notes };
    Ok(sample.with_header(header))
}

/// What the rows of a text show together.
#[derive(Debug, Default)]
struct Seen {
    rows: usize,
    /// For each width of rows how many have it, and the first of them (counted from 1).
    widths: BTreeMap<usize, (usize, usize)>,
    /// Of all rows but the first.
    tallies: Vec<Tally>,
    quoted: bool,
    breaks_in_quotes: bool,
    open_quote: bool,
}

impl Seen {
    /// The beginning of a text, whose first row may hold names.
    fn of(first: &Rows) -> Self {
        let mut seen = Self::default();
        seen.add(first, 1);
        seen
    }

    /// Adds rows, of which the values of the first `skip` don't count.
    fn add(&mut self, rows: &Rows, skip: usize) {
        for row in 0..rows.len() {
            let width = rows.width(row);
            self.widths.entry(width).or_insert((0, self.rows + row + 1)).0 += 1;
            if self.tallies.len() < width {
                self.tallies.resize(width, Tally { shape: Shape::Unknown, nulls: Vec::new() });
            }
            if row >= skip {
                rows.row(row).zip(&mut self.tallies).for_each(|((text, _), tally)| tally.add(text));
            }
        }
        self.rows += rows.len();
        self.quoted |= rows.quoted_fields() > 0;
        self.breaks_in_quotes |= rows.breaks_in_quotes;
        self.open_quote = rows.open_quote;
    }

    fn notes(&self) -> Vec<String> {
        let Some((usual, (count, _))) = self.widths.iter().max_by_key(|(width, (count, _))| (*count, *width)) else {
            return Vec::new();
        };
        let others = self.widths.iter().filter(|(width, _)| *width != usual);
        let Some(first) = others.map(|(_, (_, first))| *first).min() else { return Vec::new() };
        let narrowest = self.widths.keys().next().unwrap_or(usual);
        let widest = self.widths.keys().next_back().unwrap_or(usual);
        vec![format!(
            "{} of {} rows read have not {usual} fields but {narrowest} to {widest}, the first of them is row {first}",
            self.rows - count,
            self.rows
        )]
    }
}

/// The most frequent width, and how many rows have it.
fn usual_width(widths: &[usize]) -> (usize, usize) {
    let mut counts = BTreeMap::new();
    for width in widths {
        *counts.entry(*width).or_insert(0_usize) += 1;
    }
    counts.into_iter().max_by_key(|(width, count)| (*count, *width)).unwrap_or((0, 0))
}

/// What the values of a column show, those of the first row apart.
#[derive(Debug, Clone)]
struct Tally {
    shape: Shape,
    /// Texts among [`NULL_TEXTS`] that were seen.
    nulls: Vec<&'static str>,
}

impl Tally {
    fn add(&mut self, text: &str) {
        if text.is_empty() || self.shape == Shape::STRING {
            return;
        }
        match null_text(text) {
            Some(null) if !self.nulls.contains(&null) => self.nulls.push(null),
            Some(_) => {}
            None => self.shape = std::mem::replace(&mut self.shape, Shape::Unknown).merge(text_shape(text)),
        }
    }
}

/// The text among [`NULL_TEXTS`] that `text` is.
fn null_text(text: &str) -> Option<&'static str> {
    NULL_TEXTS.iter().find(|null| **null == text).copied()
}

/// The texts that stand for no value in a column whose other values have a type.
fn null_texts(tallies: &[Tally]) -> Vec<String> {
    let decides = |tally: &&Tally| tally.shape.is_typed_scalar();
    let found: Vec<_> = tallies.iter().filter(decides).flat_map(|tally| &tally.nulls).collect();
    NULL_TEXTS.iter().filter(|null| found.contains(null)).map(|null| (*null).to_owned()).collect()
}

fn first_row(rows: &Rows, format: &CsvFormat, rest: Vec<Shape>, width: usize) -> FirstRow {
    let mut cells: Vec<&str> = rows.row(0).map(|(text, _)| text).collect();
    cells.resize(width, "");
    let is_null = |text: &str, rest: &Shape| rest.is_typed_scalar() && format.nulls.iter().any(|null| null == text);
    let shape_of = |(text, rest): (&&str, &Shape)| if is_null(text, rest) { Shape::Unknown } else { text_shape(text) };
    FirstRow {
        names: names(cells.iter().copied()),
        sources: cells.iter().map(|cell| (*cell).to_owned()).collect(),
        shapes: cells.iter().zip(&rest).map(shape_of).collect(),
        rest,
    }
}

/// A note for each cell of the header whose name another column already has.
fn rename_notes(first: &FirstRow) -> impl Iterator<Item = String> {
    let pairs = first.sources.iter().zip(&first.names).filter(|(source, _)| !source.trim().is_empty());
    pairs.filter_map(|(source, name)| {
        let plain = to_column_name(source);
        (plain != *name)
            .then(|| format!("the column `{source}` is called `{name}`: another has the name `{plain}` too"))
    })
}

/// Names for header cells: made up where a cell is empty, numbered where two would be the same.
pub fn names<'a>(cells: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut taken = HashSet::new();
    for (position, cell) in cells.into_iter().enumerate() {
        let name = if cell.trim().is_empty() { positional_name(position) } else { to_column_name(cell) };
        let unique = unique_name(&name, |name| taken.contains(name));
        taken.insert(unique.clone());
        names.push(unique);
    }
    names
}

impl Sample {
    /// The same file, read with or without its first row as names. Other formats than CSV stay as they are.
    #[must_use]
    pub fn with_header(mut self, header: bool) -> Self {
        let (Encoding::Csv(format), Some(first)) = (&mut self.format.encoding, &self.first_row) else { return self };
        *format = std::mem::take(format).with_header(header);
        self.columns = (0..first.names.len())
            .map(|position| {
                let (rest, cell) = (first.rest[position].clone(), first.shapes[position].clone());
                let (name, shape) = if header {
                    (first.names[position].clone(), rest)
                } else {
                    (positional_name(position), rest.merge(cell))
                };
                let source = if header { first.sources[position].clone() } else { name.clone() };
                SampledColumn { name, source, shape }
            })
            .collect();
        self
    }
}

/// How much a dialect makes a table of the text.
struct Candidate {
    marks: Marks,
    score: f64,
    /// Share of rows of the usual width.
    regular: f64,
    width: usize,
    rows: usize,
}

fn sniff(text: &[u8], complete: bool, name: &str) -> Result<Marks, FileFault> {
    let (head, whole) = if text.len() > SNIFF_BYTES { (&text[..SNIFF_BYTES], false) } else { (text, complete) };
    let mut best: Option<Candidate> = None;
    for (quote, escape) in quotings(head) {
        for delimiter in DELIMITERS.into_iter().filter(|delimiter| head.contains(delimiter)) {
            let found = candidate(head, whole, Marks { delimiter, quote, escape });
            let better = |best: &Candidate| found.score > best.score * 1.000_001;
            if found.rows > 0 && best.as_ref().is_none_or(better) {
                best = Some(found);
            }
        }
    }
    let named = is_delimited_name(name);
    let fits = |found: &Candidate| {
        found.width >= 2 && (found.regular >= 0.9 && (found.rows >= 2 || named) || (named && found.regular >= 0.4))
    };
    match best.filter(fits) {
        Some(found) => Ok(found.marks),
        // One column has no delimiter, so only the name can say that it is a table.
        None if named => Ok(Marks { delimiter: b',', quote: Some(b'"'), escape: None }),
        None => Err(FileFault::Unrecognized { found: "text that no delimiter cuts into columns".into() }),
    }
}

/// The ways of quoting that are worth a try: those whose characters stand where a field may begin.
fn quotings(text: &[u8]) -> Vec<(Option<u8>, Option<u8>)> {
    let opens = |quote: u8| {
        text.first() == Some(&quote)
            || text.windows(2).any(|two| two[1] == quote && (two[0] == b'\n' || DELIMITERS.contains(&two[0])))
    };
    let mut quotings = vec![(Some(b'"'), None)];
    if opens(b'"') {
        if text.windows(2).any(|two| two == b"\\\"") {
            quotings.push((Some(b'"'), Some(b'\\')));
        }
        quotings.push((None, None));
    }
    if opens(b'\'') {
        quotings.push((Some(b'\''), None));
    }
    quotings
}

fn candidate(text: &[u8], complete: bool, marks: Marks) -> Candidate {
    let rows = Rows::cut(text, marks, complete, SNIFF_ROWS);
    let widths: Vec<usize> = (0..rows.len()).map(|row| rows.width(row)).collect();
    let (width, usual) = usual_width(&widths);
    let cells: usize = widths.iter().sum();
    let known: f64 = (0..rows.len()).flat_map(|row| rows.row(row)).map(|(text, quoted)| likeness(text, quoted)).sum();
    let types = known / float(cells.max(1));
    // Quotes that close too early are a sign of the wrong quote; one that never closes is too, unless others do.
    let quoting = match (rows.open_quote, rows.stray_quotes) {
        (true, 0) if rows.quoted_fields() > 1 => 0.9,
        (true, _) => 0.1,
        (false, stray) => 1.0 - float(stray.min(cells)) / float(cells.max(1)),
    };
    Candidate {
        marks,
        score: row_score(&widths) * types.max(1e-10) * quoting,
        regular: float(usual) / float(widths.len().max(1)),
        width,
        rows: rows.len(),
    }
}

/// Many rows of few widths score high; rows of one field hardly score.
fn row_score(widths: &[usize]) -> f64 {
    let mut counts = BTreeMap::new();
    for width in widths {
        *counts.entry(*width).or_insert(0_usize) += 1;
    }
    let patterns = float(counts.len().max(1));
    let sum: f64 = counts
        .iter()
        .map(|(width, count)| float(*count) * (float(*width) - 1.0).max(1e-3) / float((*width).max(1)))
        .sum();
    sum / patterns
}

/// How much a cell looks like one value, 0 to 1: one with a delimiter in it that no quote protects should have been cut.
fn likeness(text: &str, quoted: bool) -> f64 {
    let bytes = text.as_bytes();
    if quoted || bytes.is_empty() {
        return 1.0;
    }
    let enclosed = bytes.len() > 1 && matches!(bytes[0], b'"' | b'\'') && bytes.last() == bytes.first();
    let half_open = bytes[0] == b'"' || bytes.last() == Some(&b'"');
    if half_open || enclosed {
        return 0.1;
    }
    let marks = bytes.iter().filter(|byte| DELIMITERS.contains(byte)).count();
    let in_prose = text.matches(", ").count() + text.matches("; ").count();
    match marks - in_prose.min(marks) {
        0 if marks == 0 => 1.0,
        0 => 0.7,
        _ => 0.1,
    }
}

/// Counts here are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn float(count: usize) -> f64 {
    count as f64
}

/// Whether the name, a compression's extension apart, says that the file is delimited text.
fn is_delimited_name(name: &str) -> bool {
    let stem = match Compression::of_name(name) {
        Some(Compression::None) | None => name,
        Some(_) => name.rsplit_once('.').map_or(name, |(stem, _)| stem),
    };
    let extension = stem.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    matches!(extension.as_deref(), Some("csv" | "tsv" | "psv" | "tab" | "dat"))
}

#[cfg(test)]
mod tests;
