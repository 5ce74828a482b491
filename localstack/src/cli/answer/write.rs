//! Rows in the format that was asked for, batch by batch.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use query::encode::json_rows;
use query::encoder::Encoder;
use serde_json::Value;
use shared::Result;

use super::table::{Column, Table, expanded, shown};
use crate::cli::arguments::Format;

/// Rows of a table that are laid out together, and bytes of their texts at most.
const LOT_ROWS: usize = 1000;
const LOT_BYTES: usize = 4 << 20;

/// Whether each column of a row has a line of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli) enum Expanded {
    #[default]
    Off,
    On,
    /// Where the columns are wider than the terminal.
    Auto,
}

/// How rows are written.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Style {
    pub(in crate::cli) format: Format,
    pub(in crate::cli) expanded: Expanded,
    /// What tables show in place of null.
    pub(in crate::cli) null: String,
    /// Columns of the terminal that tables are for.
    pub(in crate::cli) width: Option<usize>,
}

/// Writes one answer.
pub(in crate::cli) struct Writer {
    style: Style,
    columns: Vec<Column>,
    form: Form,
    /// Whether the last row set was too wide for its terminal.
    pub(in crate::cli) is_too_wide: bool,
}

enum Form {
    Encoded(Box<Encoder>),
    Table {
        table: Table,
        lot: Vec<Vec<String>>,
        bytes: usize,
        is_begun: bool,
    },
    Expanded {
        rows: u64,
    },
    Markdown,
    /// Of an EXPLAIN: a table would be as wide as the plan's longest line.
    Plan,
}

impl Writer {
    /// Begins an answer with these columns in `out`.
    ///
    /// # Errors
    /// `Invalid` for a type that the format does not have.
    pub(in crate::cli) fn begin(style: Style, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<Self> {
        let column = |field: &arrow::datatypes::FieldRef| Column {
            name: field.name().clone(),
            is_right: field.data_type().is_numeric(),
        };
        let columns: Vec<Column> = schema.fields().iter().map(column).collect();
        let encoder = |format, out: &mut Vec<u8>| Encoder::begin(format, "", schema, out).map(Box::new);
        let form = match style.format {
            Format::Json | Format::Ndjson => Form::Encoded(encoder(query::event::Format::Ndjson, out)?),
            Format::Csv => Form::Encoded(Box::new(Encoder::csv("\n", schema, out))),
            Format::Parquet => Form::Encoded(encoder(query::event::Format::Parquet, out)?),
            Format::Arrow => Form::Encoded(encoder(query::event::Format::Arrow, out)?),
            Format::Markdown => {
                out.extend(markdown_row(columns.iter().map(|column| column.name.as_str())).into_bytes());
                out.extend(markdown_rule(&columns).into_bytes());
                Form::Markdown
            }
            Format::Table if is_plan(schema) => Form::Plan,
            Format::Table if style.expanded == Expanded::On => Form::Expanded { rows: 0 },
            Format::Table => {
                let table = Table::new(columns.clone(), style.width);
                Form::Table { table, lot: Vec::new(), bytes: 0, is_begun: false }
            }
        };
        Ok(Self { style, columns, form, is_too_wide: false })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// `Invalid` for a value that has no text.
    pub(in crate::cli) fn rows(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        if let Form::Encoded(encoder) = &mut self.form {
            return encoder.rows(batch, out);
        }
        for row in json_rows(batch)? {
            self.row(row.as_array().map(Vec::as_slice).unwrap_or_default(), out);
        }
        Ok(())
    }

    fn row(&mut self, row: &[Value], out: &mut Vec<u8>) {
        let texts = row.iter().map(|value| text_of(value, &self.style.null));
        match &mut self.form {
            Form::Encoded(_) => {}
            Form::Markdown => {
                let texts: Vec<String> = texts.collect();
                out.extend(markdown_row(texts.iter().map(String::as_str)).into_bytes());
            }
            Form::Plan => {
                let parts: Vec<String> = texts.map(|text| text.trim_end().to_owned()).collect();
                out.extend(format!("{}\n", shown(&parts.join("\n"))).into_bytes());
            }
            Form::Expanded { rows } => {
                *rows += 1;
                let texts: Vec<String> = texts.map(|text| shown(&text)).collect();
                expand(*rows, &self.columns, &texts, self.style.width, out);
            }
            Form::Table { lot, bytes, .. } => {
                let texts: Vec<String> = texts.map(|text| shown(&text)).collect();
                *bytes += texts.iter().map(String::len).sum::<usize>();
                lot.push(texts);
                if lot.len() == LOT_ROWS || *bytes > LOT_BYTES {
                    self.lay_out(out);
                }
            }
        }
    }

    /// Writes what was gathered: it is known then whether the rows are too wide.
    pub(in crate::cli) fn settle(&mut self, out: &mut Vec<u8>) {
        if matches!(&self.form, Form::Table { lot, is_begun, .. } if !lot.is_empty() || !is_begun) {
            self.lay_out(out);
        }
    }

    /// Writes the rows of a table that have been gathered; the first tell whether it is one.
    fn lay_out(&mut self, out: &mut Vec<u8>) {
        let Form::Table { table, lot, bytes, is_begun } = &mut self.form else { return };
        *bytes = 0;
        let lot = std::mem::take(lot);
        let is_first = !std::mem::replace(is_begun, true);
        if is_first && table.is_too_wide(&lot) {
            self.is_too_wide = true;
            if self.style.expanded == Expanded::Auto {
                for (number, texts) in (1..).zip(&lot) {
                    expand(number, &self.columns, texts, self.style.width, out);
                }
                self.form = Form::Expanded { rows: lot.len() as u64 };
                return;
            }
        }
        let mut text = String::new();
        table.rows(&lot, &mut text);
        out.append(&mut text.into_bytes());
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// `Bug` when the format's end can't be written.
    pub(in crate::cli) fn end(mut self, out: &mut Vec<u8>) -> Result<()> {
        self.settle(out);
        match self.form {
            Form::Encoded(encoder) => encoder.end(&Value::Null, out),
            Form::Table { table, .. } => {
                let mut text = String::new();
                table.end(&mut text);
                out.append(&mut text.into_bytes());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Leaves an answer that is not whole: rows that were gathered are written, nothing says that it ends here, and who reads Arrow
    /// finds that something is missing.
    pub(in crate::cli) fn break_off(mut self, out: &mut Vec<u8>) {
        self.settle(out);
        if self.style.format == Format::Arrow {
            out.extend(CUT_OFF);
        }
    }
}

/// The head of a message of Arrow IPC that does not follow: many readers take an end without a mark for a good one.
const CUT_OFF: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0x40, 0, 0, 0];

fn is_plan(schema: &SchemaRef) -> bool {
    let is_text = |field: &arrow::datatypes::FieldRef| {
        matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    };
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names == ["plan_type", "plan"] && schema.fields().iter().all(is_text)
}

fn expand(number: u64, columns: &[Column], texts: &[String], width: Option<usize>, out: &mut Vec<u8>) {
    let mut text = String::new();
    expanded(number, columns, texts, width, &mut text);
    out.append(&mut text.into_bytes());
}

/// A value as tables show it: text without quotes, anything nested as JSON.
pub(in crate::cli) fn text_of(value: &Value, null: &str) -> String {
    match value {
        Value::Null => null.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A row of a Markdown table.
pub(in crate::cli) fn markdown_row<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let cell = |text: &str| shown(text).replace('\\', "\\\\").replace('|', "\\|").replace('\n', "<br>");
    format!("| {} |\n", texts.map(cell).collect::<Vec<_>>().join(" | "))
}

/// What stands between the header of a Markdown table and its rows.
pub(in crate::cli) fn markdown_rule(columns: &[Column]) -> String {
    let rules: Vec<&str> = columns.iter().map(|column| if column.is_right { "---:" } else { "---" }).collect();
    format!("| {} |\n", rules.join(" | "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn batch() -> RecordBatch {
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let t: ArrayRef = Arc::new(StringArray::from(vec![Some("a|b\nc"), Some("")]));
        RecordBatch::try_from_iter([("n", n), ("t", t)]).unwrap()
    }

    fn style(format: Format) -> Style {
        Style { format, expanded: Expanded::Off, null: "NULL".into(), width: None }
    }

    fn written(style: Style) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::begin(style, &batch().schema(), &mut out).unwrap();
        writer.rows(&batch(), &mut out).unwrap();
        writer.end(&mut out).unwrap();
        out
    }

    fn text(style: Style) -> String {
        String::from_utf8(written(style)).unwrap()
    }

    #[test]
    fn null_differs_from_an_empty_text_in_every_format() {
        assert_eq!(text(style(Format::Csv)), "n,t\n1,\"a|b\nc\"\n,\"\"\n");
        let json = "{\"n\":1,\"t\":\"a|b\\nc\"}\n{\"n\":null,\"t\":\"\"}\n";
        assert_eq!((text(style(Format::Json)).as_str(), text(style(Format::Ndjson)).as_str()), (json, json));
        let markdown = "| n | t |\n| ---: | --- |\n| 1 | a\\|b<br>c |\n| NULL |  |\n";
        assert_eq!(text(style(Format::Markdown)), markdown);
        let table = text(style(Format::Table));
        assert!(table.contains("│    1 ┆ a|b │\n│      ┆ c   │\n│ NULL ┆     │"), "{table}");
    }

    #[test]
    fn arrow_and_parquet_read_back() {
        let arrow = written(style(Format::Arrow));
        let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
        assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), [batch()]);
        let parquet = bytes::Bytes::from(written(style(Format::Parquet)));
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(parquet, 10).unwrap();
        assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), [batch()]);
    }

    #[test]
    fn arrow_that_was_broken_off_is_not_read_as_a_whole_answer() {
        let mut out = Vec::new();
        let mut writer = Writer::begin(style(Format::Arrow), &batch().schema(), &mut out).unwrap();
        writer.rows(&batch(), &mut out).unwrap();
        writer.break_off(&mut out);
        let reader = arrow::ipc::reader::StreamReader::try_new(out.as_slice(), None).unwrap();
        assert!(reader.last().unwrap().is_err());
    }

    #[test]
    fn rows_are_expanded_where_they_are_asked_to_be_or_are_too_wide() {
        let on = text(Style { expanded: Expanded::On, ..style(Format::Table) });
        assert!(on.starts_with("─[ RECORD 1 ]") && on.contains("\nn │ NULL\n"), "{on}");
        let auto = |width| Style { expanded: Expanded::Auto, width: Some(width), ..style(Format::Table) };
        assert_eq!(text(auto(80)), text(style(Format::Table)));
        assert!(text(auto(8)).starts_with("─[ RECORD 1 ]"));
    }
}
