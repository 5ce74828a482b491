//! File and record formats: find, infer, read, write.
//!
//! A crawl reads the first bytes of a file, tells its format ([`detect`]), infers its schema ([`csv`], [`json`],
//! [`parquet`]), merges it with that of other files ([`merge`]) and declares the result as Glue does ([`glue`]). A query takes
//! the way back: [`FileFormat::from_table`] says how the files of a table are read.

pub mod compression;
pub mod csv;
pub mod detect;
pub mod flaw;
pub mod glue;
pub mod infer;
pub mod json;
pub mod merge;
pub mod parquet;
pub mod records;

pub use compression::Compression;
pub use flaw::Flaw;
pub use glue::FileFilter;
pub use merge::{SampledColumn, Shape};

use crate::model::Column;
use csv::Trim;

/// How the files of a table are written, and so how to read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFormat {
    pub encoding: Encoding,
    /// Of files whose names don't say; a name's `.gz`, `.bz2`, `.zst` or `.xz` comes first ([`FileFormat::compression_of`]).
    /// Parquet compresses inside: always [`Compression::None`] there.
    pub compression: Compression,
}

/// How rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoding {
    /// Delimited text. Columns are found by position, never by name.
    Csv(CsvFormat),
    /// JSON objects. Columns are found by name.
    Json(JsonFormat),
    /// Columns are found by name.
    Parquet,
}

/// A dialect of delimited text. The text is UTF-8; a byte order mark is passed over; lines end with LF, CRLF or CR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvFormat {
    pub delimiter: u8,
    /// What may enclose a field; `None` when the character has no special meaning in these files.
    pub quote: Option<u8>,
    /// Whether enclosed fields were seen: Hive's plain serde can't read them then.
    pub quoted: bool,
    /// What makes a quote inside a field literal; `None`: a quote is doubled.
    pub escape: Option<u8>,
    /// Whether the first line holds names.
    pub header: bool,
    /// Texts that stand for no value, beside the empty one, e.g. `NA`.
    pub nulls: Vec<String>,
    /// Whether a row may be shorter or longer than the columns: what it lacks is null, what it has beyond is passed over.
    /// Otherwise it is an error.
    pub ragged: bool,
    /// Whether a quoted field may hold line breaks, so that a file can't be cut at any line's end.
    pub multiline: bool,
}

impl Default for CsvFormat {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: Some(b'"'),
            quoted: false,
            escape: None,
            header: false,
            nulls: Vec::new(),
            ragged: true,
            multiline: false,
        }
    }
}

impl CsvFormat {
    /// A byte that UTF-8 text never holds: what to tell a reader that insists on a quote when there is none.
    const NO_QUOTE: u8 = 0xFF;

    /// The quote for readers that insist on one.
    pub fn quote_byte(&self) -> u8 {
        self.quote.unwrap_or(Self::NO_QUOTE)
    }

    /// A regular expression that matches exactly the texts that stand for no value, for
    /// [`arrow::csv::ReaderBuilder::with_null_regex`]. `None` when only the empty text does, which readers assume anyway.
    ///
    /// DataFusion's own CSV scan (54.1) passes no null expression to its reader, so a scan has to build the reader itself:
    /// [`CsvFormat::reader`].
    pub fn null_pattern(&self) -> Option<String> {
        if self.nulls.is_empty() {
            return None;
        }
        let texts: Vec<_> = self.nulls.iter().map(|text| regex::escape(text)).collect();
        Some(format!("^(?:{})?$", texts.join("|")))
    }

    /// What takes off the fields beyond the first `fields`, if such rows are no error.
    pub fn trim(&self, fields: usize) -> Option<Trim> {
        self.ragged.then(|| Trim::new(self, fields))
    }

    /// A reader of files of this dialect into `schema`, whose fields are the file's columns by position. Rows with more fields
    /// are an error to it: see [`CsvFormat::trim`].
    ///
    /// # Errors
    /// `Bug` when the null texts make no expression.
    pub fn reader(&self, schema: arrow::datatypes::SchemaRef) -> crate::Result<arrow::csv::ReaderBuilder> {
        let mut builder = arrow::csv::ReaderBuilder::new(schema)
            .with_delimiter(self.delimiter)
            .with_quote(self.quote_byte())
            .with_header(self.header)
            .with_truncated_rows(self.ragged);
        if let Some(escape) = self.escape {
            builder = builder.with_escape(escape);
        }
        if let Some(pattern) = self.null_pattern() {
            let regex = regex::Regex::new(&pattern)
                .map_err(|e| crate::Error::bug(format!("expected an expression, found `{pattern}`")).with_source(e))?;
            builder = builder.with_null_regex(regex);
        }
        Ok(builder)
    }
}

/// How JSON objects follow each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JsonFormat {
    /// One object a line.
    #[default]
    Lines,
    /// Objects one after the other, with line breaks inside them: a file can't be cut at a line's end.
    Stream,
    /// One array of objects a file.
    Array,
}

impl FileFormat {
    /// Parquet files.
    pub fn parquet() -> Self {
        Self { encoding: Encoding::Parquet, compression: Compression::None }
    }

    /// How the file `name` is compressed: as its name says, otherwise as the table says.
    pub fn compression_of(&self, name: &str) -> Compression {
        match self.encoding {
            Encoding::Parquet => Compression::None,
            _ => Compression::of_name(name).unwrap_or(self.compression),
        }
    }

    /// The word for the format in Glue's `classification`.
    pub fn classification(&self) -> &'static str {
        match self.encoding {
            Encoding::Csv(_) => "csv",
            Encoding::Json(_) => "json",
            Encoding::Parquet => "parquet",
        }
    }
}

/// Whether readers of a folder pass over the file or folder `name`, as Hive and Athena do.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('_') || name.starts_with('.')
}

/// What the beginning of a file (or its footer) shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub format: FileFormat,
    pub columns: Vec<SampledColumn>,
    /// Of CSV only: what is needed to change one's mind about the header ([`Sample::with_header`]).
    pub first_row: Option<FirstRow>,
    /// What a reader of the crawl's report should know, e.g. of ragged rows.
    pub notes: Vec<String>,
}

/// The first row of delimited text, as names and as values, and the shapes of the values below it.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstRow {
    pub names: Vec<String>,
    pub sources: Vec<String>,
    pub shapes: Vec<Shape>,
    pub rest: Vec<Shape>,
}

/// The columns of a table with such values.
pub fn declared_columns(columns: &[SampledColumn]) -> Vec<Column> {
    columns.iter().map(|column| Column::new(&column.name, column.shape.column_type())).collect()
}

/// Leaves out columns whose names differ only in what identifiers can't hold, and says so: they could not be told apart.
fn unique_names(columns: Vec<SampledColumn>, notes: &mut Vec<String>) -> Vec<SampledColumn> {
    let mut unique: Vec<SampledColumn> = Vec::with_capacity(columns.len());
    for column in columns {
        match unique.iter().find(|known| known.name == column.name) {
            Some(known) => notes.push(format!(
                "the column `{}` is left out: `{}` has the same name `{}` in the catalog",
                column.source, known.source, known.name
            )),
            None => unique.push(column),
        }
    }
    unique
}
