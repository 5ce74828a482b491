//! Formats in the words of the Glue Data Catalog, and back.
//!
//! What Athena and Glue's own crawlers write, and beside it these table parameters, which other engines pass over:
//!
//! | parameter | value | meaning |
//! |---|---|---|
//! | `tarn.json` | `array`, `stream` | a file is one array of objects; objects span lines (absent: an object a line) |
//! | `tarn.columns` | `header`, `mixed`, `position` | a crawl's CSV: columns are found by the names in the header, whose order is the same in all files or not; by position. Absent: the definition is not a crawl's, and columns are found by position |
//! | `tarn.null` | `NA` or `NA,NULL` | texts of a CSV that stand for no value: of a crawl in columns that are no text, where the usual ones mean it too; otherwise in every column |
//! | `tarn.ragged` | `error`, `cut` | a CSV row with more or fewer fields than the table is an error; what it has beyond is passed over (absent: filled up with nulls; passed over where the definition is not a crawl's) |
//! | `tarn.newlines` | `true` | a quoted CSV field may hold line breaks |
//! | `tarn.quote` | `none` | no character of the CSV encloses fields |
//! | `tarn.athena` | `unreadable: …` | why Athena can't read these files; the table then names no serde, so that Athena refuses it |
//!
//! [`super::listing`] has those that say which files are the table's.

use std::collections::BTreeMap;

use super::{Compression, CsvColumns, CsvFormat, Encoding, FileFormat, JsonFormat};
use shared::catalog::hive::{
    HIVE_JSON, LAZY_SIMPLE, OPEN_CSV, OPENX_JSON, PARQUET_INPUT, PARQUET_OUTPUT, PARQUET_SERDE, TEXT_INPUT, TEXT_OUTPUT,
};
use shared::catalog::{StorageDescriptor, TableInput};
use shared::{Error, Result};

/// The `escapeChar` by which Hive's `OpenCSVSerde` knows that there is none; any other must differ from quote and separator.
const NO_ESCAPE: u8 = b'"';

/// How a format is declared: the parts of a [`TableInput`] that depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// For the table and, as Glue's crawlers do, for its storage descriptor.
    pub parameters: BTreeMap<String, String>,
    /// The three classes are `None` where Athena has none that reads such files rightly.
    pub input_format: Option<&'static str>,
    pub output_format: Option<&'static str>,
    pub serde_library: Option<&'static str>,
    pub serde_parameters: BTreeMap<String, String>,
    pub compressed: bool,
}

impl Declaration {
    /// The storage of files of this format in `location`; columns are the caller's to add.
    pub fn storage(&self, location: &str) -> StorageDescriptor {
        StorageDescriptor {
            columns: Vec::new(),
            location: location.to_owned(),
            input_format: self.input_format.map(str::to_owned),
            output_format: self.output_format.map(str::to_owned),
            serde_library: self.serde_library.map(str::to_owned),
            serde_parameters: self.serde_parameters.clone(),
            compressed: self.compressed,
            parameters: self.parameters.clone(),
        }
    }
}

impl FileFormat {
    /// How Glue declares this format. `column_names` are those of the table, which the JSON serde lists.
    pub fn declaration(&self, column_names: &[&str]) -> Declaration {
        let mut parameters = map(&[
            ("classification", self.classification()),
            ("compressionType", &self.compression.to_string()),
            ("typeOfData", "file"),
        ]);
        let (input_format, output_format, serde_library, serde_parameters) = match &self.encoding {
            Encoding::Csv(csv) => {
                parameters.extend(csv_parameters(csv));
                (TEXT_INPUT, TEXT_OUTPUT, csv_serde(csv), csv_serde_parameters(csv))
            }
            Encoding::Json(json) => {
                match json {
                    JsonFormat::Lines => {}
                    JsonFormat::Stream => drop(parameters.insert("tarn.json".into(), "stream".into())),
                    JsonFormat::Array => drop(parameters.insert("tarn.json".into(), "array".into())),
                }
                (TEXT_INPUT, TEXT_OUTPUT, OPENX_JSON, map(&[("paths", &column_names.join(","))]))
            }
            Encoding::Parquet => (PARQUET_INPUT, PARQUET_OUTPUT, PARQUET_SERDE, map(&[("serialization.format", "1")])),
        };
        let beyond = self.beyond_athena();
        parameters.extend(beyond.map(|why| ("tarn.athena".to_owned(), format!("unreadable: {why}"))));
        let known = |class| beyond.is_none().then_some(class);
        Declaration {
            parameters,
            input_format: known(input_format),
            output_format: known(output_format),
            serde_library: known(serde_library),
            serde_parameters,
            compressed: self.compression != Compression::None,
        }
    }

    /// What Athena's serdes can't read in such files, after the pages "JSON SerDe libraries", "Open CSV SerDe for processing CSV"
    /// and "Use compression in Athena" of its user guide. They would give wrong rows or nulls without an error.
    fn beyond_athena(&self) -> Option<&'static str> {
        match &self.encoding {
            Encoding::Parquet => None,
            _ if self.compression == Compression::Xz => Some("the files are compressed with xz"),
            Encoding::Json(JsonFormat::Array) => Some("a file is one JSON array, not an object a line"),
            Encoding::Json(JsonFormat::Stream) => Some("a JSON object takes more than a line"),
            Encoding::Csv(csv) if csv.multiline => Some("a CSV field holds line breaks"),
            Encoding::Csv(csv) if csv.columns == CsvColumns::Mixed => {
                Some("the CSV files have their columns in different orders")
            }
            Encoding::Json(JsonFormat::Lines) | Encoding::Csv(_) => None,
        }
    }

    /// How the files of a table are read, by its serde library, otherwise by its `classification`.
    ///
    /// # Errors
    /// `Invalid` when the format is none that Tarn reads, or a parameter has a value that means nothing.
    pub fn from_table(input: &TableInput) -> Result<Self> {
        Self::from_storage(&input.storage, &input.parameters)
            .map_err(|error| error.context(format!("reading the format of table `{}`", input.name)))
    }

    /// As [`FileFormat::from_table`]; `parameters` are the table's (or partition's) own and come before the storage's.
    ///
    /// # Errors
    /// As [`FileFormat::from_table`].
    pub fn from_storage(storage: &StorageDescriptor, parameters: &BTreeMap<String, String>) -> Result<Self> {
        let declared = Declared { serde: &storage.serde_parameters, table: parameters, storage: &storage.parameters };
        check_plain_files(storage, &declared)?;
        let encoding = match storage.serde_library.as_deref() {
            Some(LAZY_SIMPLE) => Encoding::Csv(lazy_simple(&declared)?),
            Some(OPEN_CSV) => Encoding::Csv(open_csv(&declared)?),
            Some(PARQUET_SERDE) => Encoding::Parquet,
            Some(library) if library == OPENX_JSON || HIVE_JSON.contains(&library) => {
                Encoding::Json(json_format(&declared)?)
            }
            Some(other) => {
                return Err(Error::invalid(format!(
                    "expected the serde library of CSV (`{LAZY_SIMPLE}`, `{OPEN_CSV}`), JSON (`{OPENX_JSON}`) or Parquet \
                     (`{PARQUET_SERDE}`), found `{other}`"
                )));
            }
            None => by_classification(&declared)?,
        };
        let compression = match encoding {
            Encoding::Parquet => Compression::None,
            _ => declared.get("compressionType").unwrap_or("none").parse()?,
        };
        Ok(Self { encoding, compression })
    }
}

/// # Errors
/// `Invalid` for a table whose files a log lists, so that reading all that lie there would show rows that were removed.
fn check_plain_files(storage: &StorageDescriptor, declared: &Declared<'_>) -> Result<()> {
    let format = storage.input_format.as_deref().unwrap_or_default();
    let said = ["table_type", "spark.sql.sources.provider"].map(|name| declared.get(name).unwrap_or_default());
    let is = |name: &str| said.iter().any(|said| said.eq_ignore_ascii_case(name));
    let found = match () {
        () if is("delta") => "a Delta Lake table",
        () if is("hudi") || format.starts_with("org.apache.hudi") => "an Apache Hudi table",
        () if format.ends_with("SymlinkTextInputFormat") => "a table of symlinks",
        () => return Ok(()),
    };
    Err(Error::invalid(format!(
        "expected a table that is all files in its folder, found {found}, whose log lists the files that count"
    )))
}

fn by_classification(declared: &Declared<'_>) -> Result<Encoding> {
    match declared.get("classification") {
        Some("csv") if declared.serde.contains_key("separatorChar") => Ok(Encoding::Csv(open_csv(declared)?)),
        Some("csv") => Ok(Encoding::Csv(lazy_simple(declared)?)),
        Some("json") => Ok(Encoding::Json(json_format(declared)?)),
        Some("parquet") => Ok(Encoding::Parquet),
        Some(other) => {
            Err(Error::invalid(format!("expected the classification csv, json or parquet, found `{other}`")))
        }
        None => Err(Error::invalid("expected a serde library or the parameter `classification`, found neither")),
    }
}

/// The three places in which a table's definition says something.
struct Declared<'a> {
    serde: &'a BTreeMap<String, String>,
    table: &'a BTreeMap<String, String>,
    storage: &'a BTreeMap<String, String>,
}

impl Declared<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.table.get(name).or_else(|| self.storage.get(name)).map(String::as_str)
    }

    fn byte(&self, name: &str) -> Result<Option<u8>> {
        let Some(text) = self.serde.get(name) else { return Ok(None) };
        one_byte(text).map(Some).ok_or_else(|| {
            Error::invalid(format!("expected the serde parameter `{name}` to be one ASCII character, found `{text}`"))
        })
    }

    /// The dialect as far as it does not depend on the serde library.
    fn csv(&self) -> Result<CsvFormat> {
        let header = match self.get("skip.header.line.count") {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                return Err(Error::invalid(format!("expected `skip.header.line.count` to be 0 or 1, found `{other}`")));
            }
        };
        let nulls = match self.get("tarn.null") {
            Some(texts) => texts.split(',').map(str::to_owned).collect(),
            None => Vec::new(),
        };
        let columns = match self.get("tarn.columns") {
            None => CsvColumns::Declared,
            // What a crawl did not see is passed over where a definition says so.
            Some(_) if self.get("tarn.ragged") == Some("cut") => CsvColumns::Declared,
            Some("header") => CsvColumns::Header,
            Some("mixed") => CsvColumns::Mixed,
            Some("position") => CsvColumns::Position,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "expected `tarn.columns` to be header, mixed or position, found `{other}`"
                )));
            }
        };
        Ok(CsvFormat {
            header,
            columns,
            nulls,
            ragged: self.get("tarn.ragged") != Some("error"),
            multiline: self.get("tarn.newlines") == Some("true"),
            ..CsvFormat::default()
        })
    }
}

/// Hive's own serde knows no quotes, but Glue's crawlers declare quoted files with it too, so a quote is expected unless a
/// parameter says that there is none.
fn lazy_simple(declared: &Declared<'_>) -> Result<CsvFormat> {
    let mut csv = declared.csv()?;
    csv.delimiter = match declared.byte("field.delim")? {
        Some(delimiter) => delimiter,
        None => declared.byte("serialization.format")?.filter(|byte| *byte != b'1').unwrap_or(1),
    };
    csv.escape = declared.byte("escape.delim")?;
    if declared.get("tarn.quote") == Some("none") {
        csv.quote = None;
    }
    // Crawls once wrote the one text that they had found here too.
    let null = declared.serde.get("serialization.null.format").filter(|text| !text.is_empty());
    csv.null_text = null.filter(|null| !csv.nulls.contains(null)).cloned();
    Ok(csv)
}

fn open_csv(declared: &Declared<'_>) -> Result<CsvFormat> {
    let mut csv = declared.csv()?;
    csv.delimiter = declared.byte("separatorChar")?.unwrap_or(b',');
    csv.quote = Some(declared.byte("quoteChar")?.unwrap_or(b'"'));
    csv.quoted = true;
    csv.escape = declared.byte("escapeChar")?.filter(|escape| Some(*escape) != csv.quote && *escape != NO_ESCAPE);
    Ok(csv)
}

fn json_format(declared: &Declared<'_>) -> Result<JsonFormat> {
    match declared.get("tarn.json") {
        None | Some("lines") => Ok(JsonFormat::Lines),
        Some("stream") => Ok(JsonFormat::Stream),
        Some("array") => Ok(JsonFormat::Array),
        Some(other) => {
            Err(Error::invalid(format!("expected `tarn.json` to be lines, stream or array, found `{other}`")))
        }
    }
}

/// Quoted files need the serde that knows quotes; the plain one reads dates and times better.
fn csv_serde(csv: &CsvFormat) -> &'static str {
    if csv.quoted { OPEN_CSV } else { LAZY_SIMPLE }
}

fn csv_serde_parameters(csv: &CsvFormat) -> BTreeMap<String, String> {
    let delimiter = char::from(csv.delimiter).to_string();
    let quote = csv.quote.unwrap_or(b'"');
    if !csv.quoted {
        let mut parameters = map(&[("field.delim", &delimiter), ("serialization.format", &delimiter)]);
        if let Some(null) = &csv.null_text {
            parameters.insert("serialization.null.format".into(), null.clone());
        }
        if let Some(escape) = csv.escape {
            parameters.insert("escape.delim".into(), char::from(escape).to_string());
        }
        return parameters;
    }
    let escape = char::from(csv.escape.unwrap_or(NO_ESCAPE)).to_string();
    map(&[("separatorChar", &delimiter), ("quoteChar", &char::from(quote).to_string()), ("escapeChar", &escape)])
}

fn csv_parameters(csv: &CsvFormat) -> BTreeMap<String, String> {
    let mut parameters = map(&[
        ("areColumnsQuoted", if csv.quoted { "true" } else { "false" }),
        ("columnsOrdered", "true"),
        ("delimiter", &char::from(csv.delimiter).to_string()),
    ]);
    let columns = match csv.columns {
        CsvColumns::Declared => None,
        CsvColumns::Position => Some("position"),
        CsvColumns::Header => Some("header"),
        CsvColumns::Mixed => Some("mixed"),
    };
    let optional = [
        ("tarn.columns", columns.map(str::to_owned)),
        ("skip.header.line.count", csv.header.then(|| "1".to_owned())),
        ("tarn.null", (!csv.nulls.is_empty()).then(|| csv.nulls.join(","))),
        ("tarn.ragged", (!csv.ragged).then(|| "error".to_owned())),
        ("tarn.newlines", csv.multiline.then(|| "true".to_owned())),
        ("tarn.quote", csv.quote.is_none().then(|| "none".to_owned())),
    ];
    parameters.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    parameters
}

/// A character, or its number as Hive writes control characters (`\u0001`, `\001`, `\t`).
fn one_byte(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        b"\\t" => Some(b'\t'),
        [b'\\', rest @ ..] => {
            let digits = std::str::from_utf8(rest).ok()?;
            match digits.strip_prefix('u') {
                Some(hex) => u8::from_str_radix(hex, 16).ok().filter(u8::is_ascii),
                None => u8::from_str_radix(digits, 8).ok().filter(u8::is_ascii),
            }
        }
        _ => None,
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use shared::model::TableName;

    fn table(format: &FileFormat) -> TableInput {
        let declaration = format.declaration(&["a", "b"]);
        TableInput {
            name: TableName::new("nyc", "t").unwrap(),
            description: None,
            table_type: "EXTERNAL_TABLE".into(),
            parameters: declaration.parameters.clone(),
            storage: declaration.storage("memory:///raw/t/"),
            partition_keys: Vec::new(),
        }
    }

    fn any_format() -> impl Strategy<Value = FileFormat> {
        let byte = prop::sample::select(vec![b',', b';', b'|', b'\t', 1]);
        let quote = prop::sample::select(vec![None, Some(b'"'), Some(b'\'')]);
        let nulls = prop::sample::subsequence(vec!["NA".to_owned(), "NULL".to_owned(), "\\N".to_owned()], 0..=3);
        let columns = prop::sample::select(vec![
            CsvColumns::Declared,
            CsvColumns::Position,
            CsvColumns::Header,
            CsvColumns::Mixed,
        ]);
        let csv = (byte, quote, prop::option::of(Just(b'\\')), nulls, any::<[bool; 3]>(), columns).prop_map(
            |(delimiter, quote, escape, nulls, [header, ragged, multiline], columns)| {
                let quoted = quote.is_some_and(|q| q == b'\'' || multiline);
                let null_text = (!quoted && nulls.is_empty()).then(|| "\\N".to_owned());
                Encoding::Csv(CsvFormat {
                    delimiter,
                    quote,
                    quoted,
                    escape,
                    header,
                    columns,
                    nulls,
                    null_text,
                    ragged,
                    multiline,
                })
            },
        );
        let json = prop::sample::select(vec![JsonFormat::Lines, JsonFormat::Stream, JsonFormat::Array]);
        let compression =
            prop::sample::select(vec![Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz]);
        let text = (prop_oneof![csv, json.prop_map(Encoding::Json)], compression)
            .prop_map(|(encoding, compression)| FileFormat { encoding, compression });
        prop_oneof![text, Just(FileFormat::parquet())]
    }

    proptest! {
        #[test]
        fn a_format_survives_its_definition(format in any_format()) {
            prop_assert_eq!(FileFormat::from_table(&table(&format)).unwrap(), format);
        }
    }

    #[test]
    fn files_that_athena_would_misread_are_declared_without_a_serde_and_say_why() {
        let json = |json| FileFormat { encoding: Encoding::Json(json), compression: Compression::None };
        let csv = |csv| FileFormat { encoding: Encoding::Csv(csv), compression: Compression::None };
        let broken = CsvFormat { quoted: true, multiline: true, ..CsvFormat::default() };
        let xz = FileFormat { compression: Compression::Xz, ..json(JsonFormat::Lines) };
        for format in [json(JsonFormat::Array), json(JsonFormat::Stream), csv(broken), xz] {
            let declared = format.declaration(&["a"]);
            assert!(declared.parameters["tarn.athena"].starts_with("unreadable: "), "{declared:?}");
            assert_eq!((declared.serde_library, declared.input_format, declared.output_format), (None, None, None));
            assert_eq!(FileFormat::from_table(&table(&format)).unwrap(), format);
        }
        for format in [json(JsonFormat::Lines), csv(CsvFormat::default()), FileFormat::parquet()] {
            let declared = format.declaration(&["a"]);
            assert!(
                declared.serde_library.is_some() && !declared.parameters.contains_key("tarn.athena"),
                "{declared:?}"
            );
        }
    }

    #[test]
    fn no_two_characters_of_the_csv_serde_are_the_same_but_for_its_word_for_no_escape() {
        let csv = CsvFormat { quote: Some(b'\''), quoted: true, ..CsvFormat::default() };
        let declared = csv_serde_parameters(&csv);
        assert_eq!((declared["quoteChar"].as_str(), declared["escapeChar"].as_str()), ("'", "\""));
    }

    #[test]
    fn a_definition_of_glues_own_crawler_is_read() {
        let mut input = table(&FileFormat::parquet());
        input.storage.serde_library = Some(LAZY_SIMPLE.into());
        input.storage.serde_parameters = map(&[("field.delim", "\\u0001")]);
        input.parameters =
            map(&[("classification", "csv"), ("skip.header.line.count", "1"), ("compressionType", "gzip")]);
        let expected = CsvFormat { delimiter: 1, header: true, ..CsvFormat::default() };
        let found = FileFormat::from_table(&input).unwrap();
        assert_eq!(found, FileFormat { encoding: Encoding::Csv(expected), compression: Compression::Gzip });
    }

    #[test]
    fn a_table_whose_files_a_log_lists_is_refused_by_name() {
        for (name, value, found) in [
            ("table_type", "DELTA", "Delta Lake"),
            ("spark.sql.sources.provider", "delta", "Delta Lake"),
            ("spark.sql.sources.provider", "hudi", "Hudi"),
        ] {
            let mut input = table(&FileFormat::parquet());
            input.parameters.insert(name.into(), value.into());
            let error = FileFormat::from_table(&input).unwrap_err();
            assert!(error.to_string().contains(found), "{error}");
        }
    }

    #[test]
    fn a_serde_that_tarn_does_not_know_is_named() {
        let mut input = table(&FileFormat::parquet());
        input.storage.serde_library = Some("org.apache.hadoop.hive.ql.io.orc.OrcSerde".into());
        let error = FileFormat::from_table(&input).unwrap_err();
        assert!(error.to_string().contains("`nyc.t`") && error.to_string().contains("OrcSerde`"), "{error}");
    }
}
