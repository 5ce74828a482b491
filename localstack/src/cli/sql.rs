//! `tarn sql`: statements on the command line, a script from standard input, or a shell.

use std::io::IsTerminal;

use serde_json::Value;
use shared::Result;

use super::arguments::Sql;
use super::caller::Lakehouse;
use super::output::{Out, Rows};
use super::shell::Shell;

pub(super) async fn run(lakehouse: &Lakehouse, sql: &Sql, out: &Out) -> Result<()> {
    let mut shell = Shell::new(lakehouse, sql, *out);
    match &sql.query {
        Some(query) => shell.once(query).await,
        None if std::io::stdin().is_terminal() => shell.interact().await,
        None => shell.script().await,
    }
}

/// The rows of a JSON answer of the query function.
pub(crate) fn rows_of(answer: &Value) -> Rows {
    let columns = answer["columns"].as_array().into_iter().flatten();
    let rows = answer["rows"].as_array().into_iter().flatten();
    Rows {
        columns: columns.map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect(),
        rows: rows.map(|row| row.as_array().cloned().unwrap_or_default()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_read_from_an_answer() {
        let answer = json!({"columns": [{"name": "n", "type": "bigint"}], "rows": [[1], [null]]});
        assert_eq!(rows_of(&answer), Rows { columns: vec!["n".into()], rows: vec![vec![json!(1)], vec![Value::Null]] });
    }
}
