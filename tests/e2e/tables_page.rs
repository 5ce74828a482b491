//! Pages that show each statement with its answer: their statements are run here, page by page over a new lakehouse, and the answers
//! compared.
//!
//! Run with `UPDATE_GOLDEN=1` to write the answers into the pages. What is new each time stands there as `…`: ids of snapshots,
//! times of today, names and sizes of files.

use std::path::Path;

use arrow::util::pretty::pretty_format_batches;

use crate::slt::Lake;

/// The pages, in `docs/`.
pub(crate) const PAGES: [&str; 2] = ["tables.md", "json.md"];

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_what_each_statement_answers() {
    for name in PAGES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let page = std::fs::read_to_string(&path).unwrap();
        let made = with_answers(&page).await;
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        assert!(page == made, "expected docs/{name} to show these answers (UPDATE_GOLDEN=1 writes them):\n{made}");
    }
}

/// The page, with the answer of each `sql` block below it.
async fn with_answers(page: &str) -> String {
    let lake = Lake::new().await;
    let mut made = String::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        made += &format!("{line}\n");
        if line != "```sql" {
            continue;
        }
        let statements: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let statements = statements.join("\n");
        made += &format!("{statements}\n```\n```text\n{}\n```\n", answered(&lake, &statements).await);
        if lines.next_if_eq(&"```text").is_some() {
            // The answer that the page had.
            lines.by_ref().find(|line| *line == "```");
        }
    }
    made
}

/// The answer of the last of these statements, or the error of the first that fails.
async fn answered(lake: &Lake, statements: &str) -> String {
    let mut answer = String::new();
    for statement in statements.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        let sql = statement.trim().trim_end_matches(';');
        answer = match lake.execute(sql).await {
            Ok((batches, _)) => alike(&pretty_format_batches(&batches).unwrap().to_string()),
            Err(error) => return format!("{}: {}", error.kind(), alike(&error.to_string())),
        };
    }
    answer
}

/// The table with `…` for what is new each time, each column as wide as its widest value.
fn alike(table: &str) -> String {
    let new = regex::Regex::new(r"\b\d{15,}\b|\b20[2-9]\d-\d\d-\d\dT[0-9:.]+Z?|file:///[^ |`']*").unwrap();
    let large = |cell: &str| cell.len() > 3 && cell.bytes().all(|byte| byte.is_ascii_digit());
    let rows: Vec<Vec<String>> = table
        .lines()
        .filter(|line| !line.starts_with('+'))
        .map(|line| match line.strip_prefix('|') {
            Some(cells) => {
                let cells = cells.trim_end_matches('|').split('|');
                let known =
                    |cell: &str| if large(cell) { "…".into() } else { new.replace_all(cell, "…").into_owned() };
                cells.map(|cell| known(cell.trim())).collect()
            }
            None => vec![new.replace_all(line, "…").into_owned()],
        })
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let padded = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join(" | ").trim_end().to_owned()
    };
    let mut lines: Vec<String> = rows.iter().map(padded).collect();
    if columns > 1 && !lines.is_empty() {
        lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("-+-"));
    }
    lines.join("\n")
}
