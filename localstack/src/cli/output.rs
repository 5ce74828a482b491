//! What the program writes: results to standard output in the chosen format, remarks and errors to standard error. Nothing else
//! in the program writes to either.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use query::encode::{csv_field, csv_row};
use serde_json::{Map, Value};
use shared::{Error, Result};

use super::answer::screen::{terminal_size, to_stdout};
use super::answer::table::{Column, Table, shown};
use super::answer::write::{markdown_row, markdown_rule, text_of};
use super::arguments::Format;

/// Where results go and how.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    format: Format,
}

/// Rows under named columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

impl Rows {
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|c| (*c).to_owned()).collect(), rows: Vec::new() }
    }

    /// One row for each object of `items`, one column for each of `columns`, named by their paths (`a.b` looks into `a`).
    pub fn of_objects(items: &Value, columns: &[&str]) -> Self {
        let mut rows = Self::new(columns);
        for item in items.as_array().into_iter().flatten() {
            let pick = |path: &&str| path.split('.').fold(item, |at, name| &at[name]).clone();
            rows.rows.push(columns.iter().map(pick).collect());
        }
        rows
    }
}

impl Out {
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    pub fn format(self) -> Format {
        self.format
    }

    /// Rows as a table, as JSON objects one a line, or as CSV with a header.
    ///
    /// # Errors
    /// What standard output answers; a reader that has gone away is none. `Invalid` for a format that is no text.
    pub fn rows(self, rows: &Rows) -> Result<()> {
        let text = match self.format {
            Format::Table => table(rows, io::stdout().is_terminal().then(|| terminal_size().0)),
            Format::Json | Format::Ndjson => json_lines(rows),
            Format::Csv => csv(rows),
            Format::Markdown => markdown(rows),
            Format::Parquet | Format::Arrow => {
                let found = self.format.name();
                return Err(Error::invalid(format!(
                    "expected `--output` in text, found `{found}`: `tarn sql` alone writes it"
                )));
            }
        };
        self.text(&text)
    }

    /// A document: as it is in JSON; otherwise `rows` of it.
    ///
    /// # Errors
    /// As [`Out::rows`].
    pub fn document(self, value: &Value, rows: impl FnOnce(&Value) -> Rows) -> Result<()> {
        match self.format {
            Format::Json | Format::Ndjson => self.text(&format!("{value}\n")),
            _ => self.rows(&rows(value)),
        }
    }

    /// Text as it is.
    ///
    /// # Errors
    /// As [`Out::rows`].
    pub fn text(self, text: &str) -> Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// As [`Out::rows`].
    pub fn bytes(self, bytes: &[u8]) -> Result<()> {
        to_stdout(bytes).map(drop)
    }

    /// A remark for a person.
    pub fn note(self, text: &str) {
        // Nobody is left to tell when standard error can't be written.
        let _written = writeln!(io::stderr().lock(), "{text}");
    }

    /// An error, in JSON when results are.
    pub fn error(self, error: &Error) {
        match self.format {
            Format::Json | Format::Ndjson => {
                let body = serde_json::json!({"error": {"kind": error.kind().as_str(), "message": error.to_string()}});
                self.note(&body.to_string());
            }
            _ => self.note(&format!("error: {error}")),
        }
    }

    /// A bar for `total` steps on standard error; hidden when that is no terminal.
    pub fn bar(self, total: u64, what: &str) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg} {bar:32} {human_pos}/{human_len} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(total).with_style(style).with_message(what.to_owned())
    }

    /// A spinner for work of unknown length; hidden when standard error is no terminal.
    pub fn spinner(self, what: &str) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(120));
        spinner
    }
}

/// `width` is that of the terminal.
fn table(rows: &Rows, width: Option<usize>) -> String {
    let texts: Vec<Vec<String>> =
        rows.rows.iter().map(|row| row.iter().map(|value| shown(&text_of(value, ""))).collect()).collect();
    let (mut table, mut text) = (Table::new(columns(rows), width), String::new());
    table.rows(&texts, &mut text);
    table.end(&mut text);
    text
}

/// Columns that hold nothing but numbers stand to the right.
fn columns(rows: &Rows) -> Vec<Column> {
    let column = |(at, name): (usize, &String)| {
        let mut values = rows.rows.iter().filter_map(|row| row.get(at)).filter(|v| !v.is_null()).peekable();
        Column { name: name.clone(), is_right: values.peek().is_some() && values.all(is_numeric) }
    };
    rows.columns.iter().enumerate().map(column).collect()
}

/// A number, or a decimal, whose digits come as text.
fn is_numeric(value: &Value) -> bool {
    value.is_number() || value.as_str().is_some_and(|text| text.parse::<f64>().is_ok())
}

fn json_lines(rows: &Rows) -> String {
    let mut text = String::new();
    for row in &rows.rows {
        let object: Map<String, Value> = rows.columns.iter().cloned().zip(row.iter().cloned()).collect();
        text.push_str(&Value::Object(object).to_string());
        text.push('\n');
    }
    text
}

fn csv(rows: &Rows) -> String {
    let names: Vec<_> = rows.columns.iter().map(|name| csv_field(name)).collect();
    let mut text = names.join(",").into_bytes();
    text.push(b'\n');
    for row in &rows.rows {
        csv_row(row, &mut text);
        text.push(b'\n');
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn markdown(rows: &Rows) -> String {
    let columns = columns(rows);
    let mut text = markdown_row(columns.iter().map(|column| column.name.as_str())) + &markdown_rule(&columns);
    for row in &rows.rows {
        let texts: Vec<String> = row.iter().map(|value| text_of(value, "")).collect();
        text += &markdown_row(texts.iter().map(String::as_str));
    }
    text
}

/// Text for a terminal: control characters other than the end of a line are written out, so that what a record or a file's name
/// holds can't steer it.
pub(super) fn printable(text: &str) -> String {
    let is_harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_harmful) {
        return text.to_owned();
    }
    text.chars().map(|c| if is_harmful(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows() -> Rows {
        Rows {
            columns: vec!["name".into(), "n".into()],
            rows: vec![vec![json!("a \"b\", c"), json!(1)], vec![Value::Null, json!(20)]],
        }
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(csv(&rows()), "name,n\n\"a \"\"b\"\", c\",1\n,20\n");
    }

    #[test]
    fn a_terminal_is_not_steered_by_what_it_is_shown() {
        assert_eq!(printable("a\tb\nü \u{1b}[2J"), "a\tb\nü \\u{1b}[2J");
    }

    #[test]
    fn json_is_an_object_a_line() {
        assert_eq!(json_lines(&rows()), "{\"name\":\"a \\\"b\\\", c\",\"n\":1}\n{\"name\":null,\"n\":20}\n");
    }

    #[test]
    fn a_table_sets_numbers_to_the_right() {
        let text = table(&rows(), None);
        assert!(text.contains("┆  1 │") && text.contains("┆ 20 │"), "{text}");
    }

    #[test]
    fn columns_of_objects_may_lie_deeper() {
        let rows = Rows::of_objects(&json!([{"a": {"b": 1}}, {"c": 2}]), &["a.b"]);
        assert_eq!(rows.rows, [vec![json!(1)], vec![Value::Null]]);
    }
}
