//! `tarn sql`: one statement, a script from standard input, or a shell.

use std::io::{IsTerminal, Read};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};
use shared::{Error, Result};

use super::arguments::{Format, Sql};
use super::caller::{Caller, Lakehouse, json_body, request};
use super::output::{Out, Rows};

const HELP: &str = "\
Statements end with `;` and may run over several lines.
  \\d           tables          \\d TABLE   columns of a table
  \\l           databases       \\timing    times on or off
  \\q           leave           \\?         this help";

/// What the shell keeps between statements.
struct Shell<'a> {
    lakehouse: &'a Lakehouse,
    database: Option<&'a str>,
    key: Option<&'a str>,
    out: Out,
    timing: bool,
}

pub(super) async fn run(lakehouse: &Lakehouse, sql: &Sql, out: &Out) -> Result<()> {
    let (database, key) = (sql.database.as_deref(), sql.key.as_deref());
    let mut shell = Shell { lakehouse, database, key, out: *out, timing: false };
    match &sql.query {
        Some(query) => shell.ask(&Caller::connect(lakehouse).await?, query).await,
        None if std::io::stdin().is_terminal() => {
            shell.timing = true;
            shell.interact().await
        }
        None => shell.script(&Caller::connect(lakehouse).await?).await,
    }
}

impl Shell<'_> {
    /// Runs the statements of standard input, up to the first that fails.
    async fn script(&self, caller: &Caller) -> Result<()> {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|e| Error::from(e).context("reading standard input"))?;
        let (statements, rest) = split(&text);
        for statement in statements.into_iter().chain(Some(rest)).filter(|s| !s.trim().is_empty()) {
            self.ask(caller, &statement).await?;
        }
        Ok(())
    }

    /// Reads statements from the terminal until the end of input; errors are shown and the shell goes on.
    async fn interact(&mut self) -> Result<()> {
        let failed = |e: ReadlineError| Error::retry("the terminal can't be read").with_source(e);
        let mut editor = DefaultEditor::new().map_err(failed)?;
        let history = self.lakehouse.settings.data.join("sql_history");
        if let Err(error) = editor.load_history(&history) {
            tracing::debug!(%error, "no history of earlier sessions");
        }
        self.out.note("Statements end with `;`, \\? helps, \\q leaves.");
        let mut buffer = String::new();
        loop {
            let prompt = if buffer.is_empty() { "tarn> " } else { "  ... " };
            match tokio::task::block_in_place(|| editor.readline(prompt)) {
                Ok(line) if buffer.is_empty() && line.trim_start().starts_with('\\') => {
                    remember(&mut editor, &line);
                    if !self.shortcut(line.trim()).await {
                        break;
                    }
                }
                Ok(line) => {
                    buffer.push_str(&line);
                    buffer.push('\n');
                    let (statements, rest) = split(&buffer);
                    if !statements.is_empty() {
                        remember(&mut editor, buffer.trim());
                        buffer = if rest.trim().is_empty() { String::new() } else { rest };
                    }
                    for statement in statements.iter().filter(|s| !s.trim().is_empty()) {
                        self.show(statement).await;
                    }
                }
                Err(ReadlineError::Interrupted) => buffer.clear(),
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(failed(error)),
            }
        }
        editor.save_history(&history).map_err(failed)
    }

    /// Does what a line with a backslash says; whether to go on.
    async fn shortcut(&mut self, line: &str) -> bool {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("\\q"), _) => return false,
            (Some("\\?"), _) => self.out.note(HELP),
            (Some("\\timing"), _) => {
                self.timing = !self.timing;
                self.out.note(if self.timing { "times are shown" } else { "times are hidden" });
            }
            (Some("\\d"), Some(table)) => self.show(&format!("DESCRIBE {}", table.trim_end_matches(';'))).await,
            (Some("\\d"), None) => self.show(TABLES).await,
            (Some("\\l"), _) => self.show(DATABASES).await,
            _ => self.out.note(&format!("expected a shortcut such as `\\d`, found `{line}`\n{HELP}")),
        }
        true
    }

    /// Runs a statement; an error is shown. The data directory is others' again while the next one is typed.
    async fn show(&self, sql: &str) {
        let asked = async { self.ask(&Caller::connect(self.lakehouse).await?, sql).await };
        if let Err(error) = asked.await {
            self.out.error(&error);
        }
    }

    /// Runs one statement and writes its rows.
    async fn ask(&self, caller: &Caller, sql: &str) -> Result<()> {
        let csv = self.out.format() == Format::Csv;
        let mut body = json!({"sql": sql.trim().trim_end_matches(';'), "format": if csv { "csv" } else { "json" }});
        if let Some(database) = self.database {
            body["database"] = json!(database);
        }
        let spinner = self.out.spinner("");
        let mut request = request("POST", "/query", Some(&body));
        request.headers.extend(self.key.map(|key| ("idempotency-key".to_owned(), key.to_owned())));
        let response = caller.ask(request).await;
        spinner.finish_and_clear();
        let response = response?;
        if csv && response.headers.get("content-type").is_some_and(|t| t.starts_with("text/csv")) {
            return self.out.bytes(&response.body);
        }
        let mut answer = json_body(&response)?;
        if let Some(url) = answer.pointer("/result/url").and_then(Value::as_str) {
            let whole = stored(url)?;
            if csv {
                return self.out.bytes(&whole);
            }
            answer = serde_json::from_slice(&whole)
                .map_err(|e| Error::bug(format!("expected a stored answer in JSON at `{url}`")).with_source(e))?;
        }
        self.write(&answer)
    }

    fn write(&self, answer: &Value) -> Result<()> {
        let rows = rows_of(answer);
        if self.out.format() == Format::Table && rows.columns == ["plan_type", "plan"] {
            return self.out.text(&plan(&rows));
        }
        self.out.rows(&rows)?;
        if self.out.format() == Format::Table {
            let stats = &answer["stats"];
            let n = rows.rows.len();
            let mut line = format!("{n} row{}", if n == 1 { "" } else { "s" });
            if self.timing {
                line += &format!(", {} bytes scanned, {} ms", stats["bytes_scanned"], stats["elapsed_ms"]);
            }
            self.out.note(&line);
        }
        Ok(())
    }
}

const TABLES: &str = "SELECT table_schema AS database, table_name AS table, table_type AS type \
    FROM information_schema.tables WHERE table_schema <> 'information_schema' ORDER BY 1, 2";
const DATABASES: &str = "SELECT DISTINCT table_schema AS database FROM information_schema.tables \
    WHERE table_schema <> 'information_schema' ORDER BY 1";

/// The rows of a JSON answer of the query function.
pub(crate) fn rows_of(answer: &Value) -> Rows {
    let columns = answer["columns"].as_array().into_iter().flatten();
    let rows = answer["rows"].as_array().into_iter().flatten();
    Rows {
        columns: columns.map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect(),
        rows: rows.map(|row| row.as_array().cloned().unwrap_or_default()).collect(),
    }
}

/// The plans of an EXPLAIN as text: a table would be as wide as their longest line.
fn plan(rows: &Rows) -> String {
    let part = |cell: &Value| cell.as_str().unwrap_or_default().trim_end().to_owned();
    rows.rows.iter().map(|row| format!("{}\n", row.iter().map(part).collect::<Vec<_>>().join("\n"))).collect()
}

/// An answer that was too large for a response and lies in the warehouse.
fn stored(url: &str) -> Result<Vec<u8>> {
    let path = url::Url::parse(url).ok().filter(|u| u.scheme() == "file").and_then(|u| u.to_file_path().ok());
    let path = path.ok_or_else(|| Error::limit(format!("the answer is too large to show: it lies at `{url}`")))?;
    std::fs::read(&path).map_err(|e| Error::from(e).context(format!("reading the answer stored at `{url}`")))
}

fn remember(editor: &mut DefaultEditor, text: &str) {
    if let Err(error) = editor.add_history_entry(text) {
        tracing::debug!(%error, "the line is not in the history");
    }
}

/// The statements that end with `;`, and what is left after the last one. Semicolons in quotes and comments end nothing.
fn split(text: &str) -> (Vec<String>, String) {
    let mut statements = Vec::new();
    let mut current = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, ';') => {
                statements.push(std::mem::take(&mut current));
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (None, '-') if chars.peek() == Some(&'-') => quote = Some('\n'),
            (None, '/') if chars.peek() == Some(&'*') => quote = Some('*'),
            (Some('*'), '/') if current.ends_with('*') => quote = None,
            (Some('*'), _) => {}
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        current.push(c);
    }
    (statements, current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_texts_and_comments_end_nothing() {
        let (statements, rest) = split("SELECT ';' AS \"a;b\"; -- no; not here\nSELECT 2; /* ; */ SELECT 3");
        assert_eq!(statements, ["SELECT ';' AS \"a;b\"", " -- no; not here\nSELECT 2"]);
        assert_eq!(rest, " /* ; */ SELECT 3");
    }

    #[test]
    fn a_quote_within_a_text_is_doubled() {
        assert_eq!(split("SELECT 'it''s;'; x").0, ["SELECT 'it''s;'"]);
    }

    #[test]
    fn rows_are_read_from_an_answer() {
        let answer = json!({"columns": [{"name": "n", "type": "bigint"}], "rows": [[1], [null]]});
        assert_eq!(rows_of(&answer), Rows { columns: vec!["n".into()], rows: vec![vec![json!(1)], vec![Value::Null]] });
    }
}
