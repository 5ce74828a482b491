//! What a catalog entry says about the files of a table: their format and how to read it, as Glue, Athena and the crawler write it.

use std::collections::BTreeMap;

use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;

use crate::catalog::{StorageDescriptor, TableInput};
use crate::{Error, Result};

/// How the files of a table are written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FileKind {
    Csv(Box<CsvOptions>),
    /// One object a line.
    JsonLines,
    /// One array of objects a file.
    JsonArray,
    Parquet,
}

impl FileKind {
    /// # Errors
    /// `Invalid` for a format that is not read, naming what the catalog says.
    pub(super) fn of(table: &TableInput) -> Result<Self> {
        let told = said(table);
        match told.as_str() {
            "csv" => Ok(Self::Csv(Box::new(csv_options(table)?))),
            "json" => match table.parameters.get("tarn.json").map(String::as_str) {
                Some("array") => Ok(Self::JsonArray),
                _ => Ok(Self::JsonLines),
            },
            "parquet" => Ok(Self::Parquet),
            other => Err(Error::invalid(format!(
                "table `{}`: expected files in CSV, JSON or Parquet, found `{other}`",
                table.name
            ))),
        }
    }
}

/// `csv`, `json`, `parquet`, or what else the classification, the serde or the input format says.
fn said(table: &TableInput) -> String {
    if let Some(classification) = table.parameters.get("classification") {
        return classification.to_ascii_lowercase();
    }
    let storage = &table.storage;
    let classes = [storage.serde_library.as_deref(), storage.input_format.as_deref()];
    for class in classes.into_iter().flatten().map(str::to_ascii_lowercase) {
        if class.contains("parquet") {
            return "parquet".into();
        }
        if class.contains("json") {
            return "json".into();
        }
        if class.contains("csv") || class.contains("lazysimple") {
            return "csv".into();
        }
    }
    storage.serde_library.clone().or_else(|| storage.input_format.clone()).unwrap_or_else(|| "nothing".into())
}

/// Delimiter, quote, escape and header from the serde (LazySimpleSerDe's or OpenCSVSerde's names) and the table's parameters.
fn csv_options(table: &TableInput) -> Result<CsvOptions> {
    let serde = &table.storage.serde_parameters;
    let header = parameter(table, "skip.header.line.count").map_or(Ok(0), |text| {
        text.parse::<u32>().map_err(|_| {
            Error::invalid(format!(
                "table `{}`: expected a number in `skip.header.line.count`, found `{text}`",
                table.name
            ))
        })
    })?;
    if header > 1 {
        return Err(Error::invalid(format!(
            "table `{}`: expected at most one header line, found `skip.header.line.count` {header}",
            table.name
        )));
    }
    let delimiter = one_byte(serde, &["separatorChar", "field.delim", "serialization.format"]).unwrap_or(b',');
    Ok(CsvOptions {
        has_header: Some(header == 1),
        delimiter,
        quote: one_byte(serde, &["quoteChar", "quote.delim"]).unwrap_or(b'"'),
        escape: one_byte(serde, &["escapeChar", "escape.delim"]).filter(|e| *e != b'"'),
        newlines_in_values: Some(parameter(table, "tarn.newlines") == Some("true")),
        truncated_rows: Some(parameter(table, "tarn.ragged") == Some("null")),
        ..CsvOptions::default()
    })
}

/// A parameter of the table or of its storage.
fn parameter<'a>(table: &'a TableInput, name: &str) -> Option<&'a str> {
    let places = [&table.parameters, &table.storage.parameters, &table.storage.serde_parameters];
    places.into_iter().find_map(|p| p.get(name)).map(String::as_str)
}

/// The first of `names` that is there and is one byte; a decimal number is a character's code, as Hive writes it.
fn one_byte(parameters: &BTreeMap<String, String>, names: &[&str]) -> Option<u8> {
    names.iter().filter_map(|name| parameters.get(*name)).find_map(|text| match text.as_bytes() {
        [byte] if !byte.is_ascii_digit() => Some(*byte),
        [b'\\', b't'] => Some(b'\t'),
        _ => text.parse::<u8>().ok(),
    })
}

/// How a file is compressed: by the end of its name, else as the table says.
///
/// # Errors
/// `Invalid` for a codec that is not read.
pub(super) fn compression(path: &str, table: &TableInput) -> Result<FileCompressionType> {
    let name = path.to_ascii_lowercase();
    let variant = match name.rsplit('.').next().unwrap_or_default() {
        "gz" | "gzip" => CompressionTypeVariant::GZIP,
        "zst" | "zstd" => CompressionTypeVariant::ZSTD,
        "bz2" | "bzip2" => CompressionTypeVariant::BZIP2,
        "xz" => CompressionTypeVariant::XZ,
        "csv" | "tsv" | "txt" | "json" | "ndjson" | "jsonl" | "parquet" => CompressionTypeVariant::UNCOMPRESSED,
        _ => match table.parameters.get("compressionType").map(|c| c.to_ascii_lowercase()).as_deref() {
            None | Some("none" | "") => CompressionTypeVariant::UNCOMPRESSED,
            Some("gzip" | "gz") => CompressionTypeVariant::GZIP,
            Some("zstd") => CompressionTypeVariant::ZSTD,
            Some("bzip2") => CompressionTypeVariant::BZIP2,
            Some("xz") => CompressionTypeVariant::XZ,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "table `{}`: expected files compressed by gzip, zstd, bzip2 or xz, found `{other}`",
                    table.name
                )));
            }
        },
    };
    Ok(variant.into())
}

/// The name under which a column stands in JSON files: the serde's `mapping.{column}`, else the column's own.
pub(super) fn json_name(storage: &StorageDescriptor, column: &str) -> String {
    storage.serde_parameters.get(&format!("mapping.{column}")).cloned().unwrap_or_else(|| column.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;

    fn table(serde: &str, parameters: &[(&str, &str)], serde_parameters: &[(&str, &str)]) -> TableInput {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        TableInput {
            name: TableName::new("db", "t").unwrap(),
            description: None,
            table_type: "EXTERNAL_TABLE".into(),
            parameters: map(parameters),
            storage: StorageDescriptor {
                serde_library: Some(serde.into()),
                serde_parameters: map(serde_parameters),
                ..StorageDescriptor::default()
            },
            partition_keys: Vec::new(),
        }
    }

    #[test]
    fn csv_is_read_as_either_serde_says() {
        let lazy = table(
            "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
            &[("skip.header.line.count", "1")],
            &[("field.delim", ";")],
        );
        let FileKind::Csv(options) = FileKind::of(&lazy).unwrap() else { panic!("not CSV") };
        assert_eq!((options.delimiter, options.has_header), (b';', Some(true)));

        let open = table(
            "org.apache.hadoop.hive.serde2.OpenCSVSerde",
            &[("tarn.ragged", "null")],
            &[("separatorChar", "\t"), ("quoteChar", "'"), ("escapeChar", "\\")],
        );
        let FileKind::Csv(options) = FileKind::of(&open).unwrap() else { panic!("not CSV") };
        assert_eq!((options.delimiter, options.quote, options.escape), (b'\t', b'\'', Some(b'\\')));
        assert_eq!((options.has_header, options.truncated_rows), (Some(false), Some(true)));
    }

    #[test]
    fn a_classification_outweighs_the_serde_and_unread_formats_are_named() {
        let json = table("org.openx.data.jsonserde.JsonSerDe", &[("tarn.json", "array")], &[]);
        assert_eq!(FileKind::of(&json).unwrap(), FileKind::JsonArray);
        let orc = table("org.apache.hadoop.hive.ql.io.orc.OrcSerde", &[("classification", "orc")], &[]);
        assert!(FileKind::of(&orc).unwrap_err().to_string().contains("`orc`"));
    }

    #[test]
    fn the_end_of_the_name_outweighs_the_tables_codec() {
        let gzipped = table("x", &[("compressionType", "gzip")], &[]);
        assert!(!compression("a/b.csv", &gzipped).unwrap().is_compressed());
        assert!(compression("a/part-0000", &gzipped).unwrap().is_compressed());
        assert!(compression("a/b.csv.zst", &gzipped).unwrap().is_compressed());
    }
}
