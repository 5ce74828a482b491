//! File and record formats: find, infer, read, write.
//!
//! A crawl reads the first bytes of a file, tells its format ([`detect`]), infers its schema ([`csv`], [`json`],
//! [`parquet`]), merges it with that of other files ([`merge`]) and declares the result as Glue does ([`glue`]). A query takes
//! the way back: [`FileFormat::from_table`] says how the files of a table are read. A file
//! that can't be used is a [`FileFault`], a record a [`records::RecordError`]; an error is of the storage, or of a definition.

pub mod compression;
pub mod csv;
pub mod detect;
pub mod fault;
pub mod folders;
pub mod glue;
pub mod infer;
pub mod json;
pub mod listing;
pub mod merge;
pub mod parquet;
pub mod records;
pub mod remove;
pub mod rows;

pub use compression::Compression;
pub use fault::FileFault;
pub use listing::FileFilter;
pub use merge::{SampledColumn, Shape};

use std::collections::HashMap;

use shared::model::Column;

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
    /// Delimited text. Columns are found as [`CsvColumns`] says.
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
    /// How the columns of a table are found in a file.
    pub columns: CsvColumns,
    /// Texts that stand for no value, beside the empty one: of a crawl's definition (and [`infer::NULL_TEXTS`] with them) in columns
    /// that are no text, where they can be no value; of other definitions in every column.
    pub nulls: Vec<String>,
    /// A text that stands for no value in every column, as Hive's serde declares it.
    pub null_text: Option<String>,
    /// Whether a row may be shorter or longer than the columns: what it lacks is null, what it has beyond is passed over.
    /// Otherwise it is an error.
    pub ragged: bool,
    /// Whether a quoted field may hold line breaks.
    pub multiline: bool,
}

/// How the columns of a table are found in CSV files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CsvColumns {
    /// By position, as Hive does; by the names in the header where these are the table's in another order. The definition is not
    /// a crawl's.
    #[default]
    Declared,
    /// By position: the files have no header.
    Position,
    /// By the names in the header, which are in the same order in all files.
    Header,
    /// By the names in the header, whose order differs from file to file.
    Mixed,
}

impl Default for CsvFormat {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: Some(b'"'),
            quoted: false,
            escape: None,
            header: false,
            columns: CsvColumns::Declared,
            nulls: Vec::new(),
            null_text: None,
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

    /// The same dialect with or without a line of names.
    #[must_use]
    pub fn with_header(self, header: bool) -> Self {
        Self { header, columns: if header { CsvColumns::Header } else { CsvColumns::Position }, ..self }
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

/// Numbers columns whose names differ only in what names can't hold, and says so. A column that is called so in the file keeps the
/// plain name.
fn unique_names(mut columns: Vec<SampledColumn>, notes: &mut Vec<String>) -> Vec<SampledColumn> {
    let mut taken: HashMap<String, String> = HashMap::with_capacity(columns.len());
    for column in columns.iter().filter(|column| column.name == column.source) {
        taken.insert(column.name.clone(), column.source.clone());
    }
    for column in columns.iter_mut().filter(|column| column.name != column.source) {
        let name = unique_name(&column.name, |name| taken.contains_key(name));
        if let Some(other) = taken.get(&column.name) {
            notes.push(format!(
                "the column `{}` is called `{name}`: `{other}` has the name `{}` too",
                column.source, column.name
            ));
        }
        column.name.clone_from(&name);
        taken.insert(name, column.source.clone());
    }
    columns
}

/// `name`, or the first of `name_2`, `name_3`, … that is not taken.
pub(crate) fn unique_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut unique = name.to_owned();
    let mut number = 2;
    while taken(&unique) {
        unique = format!("{name}_{number}");
        number += 1;
    }
    unique
}
