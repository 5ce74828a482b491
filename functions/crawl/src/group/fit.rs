//! Whether files fit together in one table, and what they are together.

use std::collections::BTreeSet;

use format::csv::fits;
use format::merge::{merge_by_name, merge_by_position, merge_by_source};
use format::{
    Compression, CsvColumns, CsvFormat, Encoding, FileFormat, FirstRow, JsonFormat, Sample, SampledColumn, Shape,
};
use shared::Result;
use shared::catalog::TableInput;
use shared::model::Column;

use super::is_positional;

/// Parameter that lists the columns in which no value was seen yet.
pub(crate) const UNTYPED: &str = "tarn.untyped";

/// That parameter, if there are such columns.
pub(crate) fn untyped(group: &Group) -> Option<(String, String)> {
    let names: Vec<_> =
        group.columns.iter().filter(|c| c.shape == Shape::Unknown).map(|column| column.name.as_str()).collect();
    (!names.is_empty()).then(|| (UNTYPED.to_owned(), names.join(",")))
}

/// Format and columns of one or more files.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub format: FileFormat,
    pub columns: Vec<SampledColumn>,
    /// Whether every file's name says how it is compressed.
    names_tell: bool,
}

/// The names in the header of CSV files; `None` inside: they have none.
pub(super) type HeaderNames = Option<Vec<String>>;

impl Group {
    /// One file alone.
    pub fn of_sample(path: &str, sample: Sample) -> Self {
        let names_tell = Compression::of_name(path).is_some() || sample.format.encoding == Encoding::Parquet;
        Self { format: sample.format, columns: sample.columns, names_tell }
    }

    /// What a table's definition says.
    ///
    /// # Errors
    /// `Invalid` for a format that is not read.
    pub fn of_table(input: &TableInput) -> Result<Self> {
        let untyped: Vec<&str> =
            input.parameters.get(UNTYPED).map(|names| names.split(',').collect()).unwrap_or_default();
        let column = |column: &Column| {
            let source = input.storage.serde_parameters.get(&format!("mapping.{}", column.name));
            let shape = if untyped.contains(&column.name.as_str()) { Shape::Unknown } else { Shape::from(&column.ty) };
            SampledColumn { name: column.name.clone(), source: source.unwrap_or(&column.name).clone(), shape }
        };
        let columns = input.storage.columns.iter().map(column).collect();
        Ok(Self { format: FileFormat::from_table(input)?, columns, names_tell: true })
    }

    /// Both together.
    ///
    /// # Errors
    /// Why they can't be one table, in words.
    pub fn join(self, other: Self) -> std::result::Result<Self, String> {
        let compression = match (self.format.compression, other.format.compression) {
            (a, b) if a == b => a,
            (a, _) if other.names_tell => a,
            (_, b) if self.names_tell => b,
            (a, b) => return Err(format!("expected compression {a}, found {b}, and no name tells them apart")),
        };
        let mut encoding = match (self.format.encoding, other.format.encoding) {
            (Encoding::Csv(a), Encoding::Csv(b)) => Encoding::Csv(join_csv(a, b)?),
            (Encoding::Json(a), Encoding::Json(b)) => Encoding::Json(join_json(a, b)?),
            (Encoding::Parquet, Encoding::Parquet) => Encoding::Parquet,
            (a, b) => return Err(format!("expected {}, found {}", word(&a), word(&b))),
        };
        let columns = join_columns(&mut encoding, self.columns, other.columns)?;
        let format = FileFormat { encoding, compression };
        Ok(Self { format, columns, names_tell: self.names_tell && other.names_tell })
    }

    /// Without columns that have a partition key's name, which no table may have twice: found by name they are left out, found by
    /// position they get another name.
    #[must_use]
    pub fn without_keys(mut self, keys: &[Column]) -> Self {
        let is_key = |name: &str| keys.iter().any(|key| key.name == name);
        if is_positional(&self.format.encoding) {
            for column in self.columns.iter_mut().filter(|column| is_key(&column.name)) {
                column.name = format!("{}_in_file", column.name);
            }
        } else {
            self.columns.retain(|column| !is_key(&column.name));
        }
        self
    }

    /// The same files under other columns and another format.
    #[must_use]
    pub fn with(self, columns: Vec<SampledColumn>, format: FileFormat) -> Self {
        Self { columns, format, ..self }
    }

    pub(super) fn header_names(&self) -> Option<HeaderNames> {
        match &self.format.encoding {
            Encoding::Csv(format) => {
                Some(format.header.then(|| self.columns.iter().map(|column| column.name.clone()).collect()))
            }
            _ => None,
        }
    }
}

fn word(encoding: &Encoding) -> &'static str {
    match encoding {
        Encoding::Csv(_) => "CSV",
        Encoding::Json(_) => "JSON",
        Encoding::Parquet => "Parquet",
    }
}

/// The quote of a table `a` that takes a file `b`. Without one, quotes are characters as others are: so they are in a table that was
/// declared so, which takes files without quoted fields, and in a file with a field that begins with a quote which never closes.
fn join_quotes(a: &CsvFormat, b: &CsvFormat) -> std::result::Result<Option<u8>, String> {
    match (a.quote, b.quote) {
        (Some(_), None) => Err("expected every quoted field to be closed, found one that isn't".into()),
        (None, Some(_)) if b.quoted => Err("expected no quoted fields, found some".into()),
        (None, _) => Ok(None),
        (_, other) if b.quoted && !a.quoted => Ok(other),
        (own, _) => Ok(own),
    }
}

/// A dialect that reads the files of both. Where one has no quoted field, the other's quote and escape hold for both.
fn join_csv(a: CsvFormat, b: CsvFormat) -> std::result::Result<CsvFormat, String> {
    if a.delimiter != b.delimiter {
        let show = |byte: u8| char::from(byte).escape_default().to_string();
        return Err(format!("expected the delimiter `{}`, found `{}`", show(a.delimiter), show(b.delimiter)));
    }
    if a.header != b.header {
        let words = |header: bool| if header { "a line of names" } else { "no line of names" };
        return Err(format!("expected {}, found {}", words(a.header), words(b.header)));
    }
    if a.quoted && b.quoted && a.quote != b.quote {
        return Err("expected the same quote in all files, found two".into());
    }
    let quote = join_quotes(&a, &b)?;
    let quoting = if b.quoted && !a.quoted { &b } else { &a };
    let mut nulls = a.nulls.clone();
    nulls.extend(b.nulls.iter().filter(|null| !a.nulls.contains(null)).cloned());
    nulls.sort();
    Ok(CsvFormat {
        delimiter: a.delimiter,
        quote,
        quoted: a.quoted || b.quoted,
        escape: quoting.escape.or(a.escape).or(b.escape),
        header: a.header,
        nulls,
        ragged: a.ragged || b.ragged,
        multiline: a.multiline || b.multiline,
        columns: match (a.columns, b.columns) {
            (CsvColumns::Mixed, _) | (_, CsvColumns::Mixed) => CsvColumns::Mixed,
            (CsvColumns::Declared, other) | (other, _) => other,
        },
        null_text: a.null_text.or(b.null_text),
    })
}

fn join_json(a: JsonFormat, b: JsonFormat) -> std::result::Result<JsonFormat, String> {
    match (a, b) {
        (a, b) if a == b => Ok(a),
        (JsonFormat::Array, _) => Err("expected a JSON array of objects, found objects".into()),
        (_, JsonFormat::Array) => Err("expected JSON objects, found an array of them".into()),
        _ => Ok(JsonFormat::Stream),
    }
}

fn join_columns(
    encoding: &mut Encoding,
    a: Vec<SampledColumn>,
    b: Vec<SampledColumn>,
) -> std::result::Result<Vec<SampledColumn>, String> {
    let list = |columns: &[SampledColumn]| {
        let names: Vec<_> = columns.iter().take(12).map(|column| column.name.as_str()).collect();
        names.join(", ")
    };
    let names = (list(&a), list(&b));
    let different = || format!("expected the columns `{}`, found `{}`", names.0, names.1);
    match encoding {
        Encoding::Csv(format) => {
            // Without names only the number of columns tells whether files are alike.
            if !format.header && a.len() != b.len() && a.len().min(b.len()) * 2 < a.len().max(b.len()) {
                return Err(different());
            }
            if let Some(merged) = merge_by_position(a.clone(), b.clone()) {
                return Ok(merged);
            }
            let known: BTreeSet<&str> = a.iter().map(|column| column.name.as_str()).collect();
            let common = b.iter().filter(|column| known.contains(column.name.as_str())).count();
            if !format.header || !fits(common, a.len(), b.len()) {
                return Err(different());
            }
            format.columns = CsvColumns::Mixed;
            Ok(merge_by_name(a, b))
        }
        _ => {
            let known: BTreeSet<&str> = a.iter().map(|column| column.name.as_str()).collect();
            let common = b.iter().filter(|column| known.contains(column.name.as_str())).count();
            if common * 2 < a.len().min(b.len()) {
                return Err(different());
            }
            Ok(merge_by_source(a, b))
        }
    }
}

/// The header that CSV files have together: that of the first which surely has one, otherwise of the first that seems to have one.
/// Where all is text a file may seem to have one by chance: when its names recur in no other file's first row, none has.
pub(super) fn header_names<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<HeaderNames> {
    let rows: Vec<(&FirstRow, bool)> = samples
        .filter_map(|sample| match &sample.format.encoding {
            Encoding::Csv(format) => sample.first_row.as_ref().map(|first| (first, format.header)),
            _ => None,
        })
        .collect();
    let headed = || rows.iter().filter(|(_, header)| *header).map(|(first, _)| *first);
    if let Some(first) = headed().find(|first| is_surely_header(first)) {
        return Some(Some(first.names.clone()));
    }
    let first = headed().next()?;
    let sharing = rows.iter().filter(|(other, _)| other.names.iter().any(|name| first.names.contains(name))).count();
    // The first row shares its names with itself.
    let by_chance = rows.len() > 1 && sharing == 1;
    Some(if by_chance { None } else { Some(first.names.clone()) })
}

/// Whether the row stands over values of another type: texts over numbers or dates.
fn is_surely_header(first: &FirstRow) -> bool {
    first.rest.iter().any(Shape::is_typed_scalar)
}

/// The sample read as `expected` says that the others are: with a header when its first row holds their names, without one when they
/// have none.
pub(super) fn with_fitting_header(sample: Sample, expected: Option<&HeaderNames>) -> Sample {
    let (Encoding::Csv(format), Some(first), Some(expected)) = (&sample.format.encoding, &sample.first_row, expected)
    else {
        return sample;
    };
    match expected {
        Some(names) if !format.header && first.names.iter().all(|found| names.contains(found)) => {
            sample.with_header(true)
        }
        None if format.header && !is_surely_header(first) => sample.with_header(false),
        _ => sample,
    }
}
