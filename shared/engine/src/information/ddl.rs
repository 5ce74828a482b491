//! SHOW CREATE TABLE: the statement that makes the table, as Athena prints it.

use std::borrow::Cow;

use super::types::declared;
use crate::write::athenas_property;
use shared::Result;
use shared::catalog::TableInput;
use shared::model::{Column, PartitionField};
use table::Table;

/// Of an Iceberg table: a statement that Athena and we take. NOT NULL is told though Athena has no word for it.
pub(super) fn iceberg(entry: &TableInput, table: &Table) -> Result<String> {
    let column = |column: &Column| {
        let required = if column.required { " NOT NULL" } else { "" };
        let comment = column.comment.as_deref().map_or_else(String::new, |text| format!(" COMMENT {}", quoted(text)));
        format!("  {} {}{required}{comment}", name(&column.name), declared(&column.ty))
    };
    let columns: Vec<String> = table.columns().iter().map(column).collect();
    let fields: Vec<String> = table.partition_fields()?.iter().map(field).collect();
    let (database, table_name) = (name(entry.name.database.as_str()), name(entry.name.table.as_str()));
    let mut text = format!("CREATE TABLE {database}.{table_name} (\n{})", columns.join(",\n"));
    if let Some(comment) = &entry.description {
        text += &format!("\nCOMMENT {}", quoted(comment));
    }
    if !fields.is_empty() {
        text += &format!("\nPARTITIONED BY ({})", fields.join(", "));
    }
    text += &format!("\nLOCATION {}", quoted(table.metadata().location()));
    text += &format!("\nTBLPROPERTIES (\n{})", iceberg_properties(table).join(",\n"));
    Ok(text)
}

fn iceberg_properties(table: &Table) -> Vec<String> {
    let mut lines = vec!["  'table_type'='iceberg'".to_owned()];
    // What every new table has is not told.
    let version = table.metadata().format_version() as u8;
    if version != 2 {
        lines.push(format!("  'format_version'='{version}'"));
    }
    // What Tarn keeps of the lakehouse file is no property of the table.
    let own = table.properties().into_iter().filter(|(key, _)| !key.starts_with("tarn."));
    let properties = own.map(|(key, value)| {
        let (key, value) = athenas_property(&key, &value);
        format!("  {}={}", quoted(&key), quoted(&value))
    });
    lines.extend(properties);
    lines
}

/// Of a table of files, in Hive's words.
pub(super) fn hive(table: &TableInput) -> String {
    let line = |column: &Column| {
        let comment = column.comment.as_deref().map_or_else(String::new, |text| format!(" COMMENT {}", quoted(text)));
        format!("  `{}` {}{comment}", column.name, declared(&column.ty))
    };
    let lines = |columns: &[Column]| columns.iter().map(line).collect::<Vec<_>>().join(",\n");
    let storage = &table.storage;
    let mut text = format!(
        "CREATE EXTERNAL TABLE `{}`.`{}`(\n{})",
        table.name.database,
        table.name.table,
        lines(&storage.columns)
    );
    if let Some(comment) = &table.description {
        text += &format!("\nCOMMENT {}", quoted(comment));
    }
    if !table.partition_keys.is_empty() {
        text += &format!("\nPARTITIONED BY (\n{})", lines(&table.partition_keys));
    }
    if let Some(serde) = &storage.serde_library {
        text += &format!("\nROW FORMAT SERDE {}", quoted(serde));
        text += &properties("\nWITH SERDEPROPERTIES", storage.serde_parameters.iter());
    }
    if let (Some(input), Some(output)) = (&storage.input_format, &storage.output_format) {
        text += &format!("\nSTORED AS INPUTFORMAT {}\nOUTPUTFORMAT {}", quoted(input), quoted(output));
    }
    text += &format!("\nLOCATION {}", quoted(&storage.location));
    text + &properties("\nTBLPROPERTIES", table.parameters.iter())
}

fn properties<'a>(word: &str, pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let pairs: Vec<String> = pairs.map(|(key, value)| format!("  {}={}", quoted(key), quoted(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{word} (\n{})", pairs.join(",\n")) }
}

/// A partition field whose column may need quotes.
fn field(field: &PartitionField) -> String {
    let path: Vec<Cow<'_, str>> = field.column.split('.').map(name).collect();
    PartitionField { column: path.join("."), transform: field.transform }.to_string()
}

/// Words that Athena's DDL takes for no name without backticks ("Reserved keywords" of its user guide), and those of ours.
const RESERVED: &str = "all alter and array as authorization between bigint binary boolean both by case cashe cast char column comment commit \
    conf constraint create cross cube current current_date current_timestamp cursor database date dayofweek decimal delete describe distinct div \
    double drop else end exchange exists extended external extract false fetch float floor following for foreign from full function grant group \
    grouping having if import in inner insert int integer intersect interval into is join lateral left less like local location macro map more \
    none not null numeric of on only or order out outer over partialscan partition partitioned percent preceding precision preserve primary \
    procedure range reads reduce references regexp revoke right rlike rollback rollup row rows select set smallint start struct table \
    tablesample tblproperties then time timestamp to transform trigger true truncate unbounded union uniquejoin update user using utc_timestamp \
    uuid values varchar views when where window with";

/// A name, in backticks where it could be taken for a word of the language.
fn name(name: &str) -> Cow<'_, str> {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if is_plain && !RESERVED.split_whitespace().any(|word| word == name) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("`{}`", name.replace('`', "``")))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_in_backticks_where_it_is_a_word_of_the_language() {
        for (bare, written) in [
            ("carrier", "carrier"),
            ("date", "`date`"),
            ("a b", "`a b`"),
            ("2fa", "`2fa`"),
            ("_x", "`_x`"),
            ("id", "id"),
        ] {
            assert_eq!(name(bare), written);
        }
        assert_eq!(quoted("it's"), "'it''s'");
    }
}
