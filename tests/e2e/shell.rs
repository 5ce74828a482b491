//! `tarn sql` at a terminal, as a person types.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::flow::{SHOP, orders};
use crate::lake::Lake;

const ARROW_UP: &str = "\u{1b}[A";

/// Types each line once what is before it has shown up; what the terminal showed, and the exit code.
fn typed(lake: &Lake, lines: &[(&str, &str)]) -> (String, i64) {
    let tests = env!("CARGO_MANIFEST_DIR");
    let mut terminal = Command::new(format!("{tests}/../.venv/bin/python"));
    terminal.arg(format!("{tests}/clients/shell.py"));
    let tarn = lake.tarn("sql");
    terminal.arg(tarn.get_program()).args(tarn.get_args());
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    terminal.stdin.take().unwrap().write_all(json!(lines).to_string().as_bytes()).unwrap();
    let ended = terminal.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    (told["shown"].as_str().unwrap().to_owned(), told["exit"].as_i64().unwrap())
}

#[tokio::test]
async fn a_person_asks_at_the_terminal_looks_around_and_finds_earlier_lines_again() {
    let lake = Lake::up(SHOP);
    let (status, put) = lake.post("/streams/orders/records", "application/x-ndjson", orders(0, 7)).await;
    assert_eq!(status, 200, "{put:#}");
    lake.flush("orders").await;

    let (shown, exit) = typed(
        &lake,
        &[
            ("tarn> ", "SELECT count(*) AS orders_in_all\n"),
            ("... ", "FROM orders;\n"),
            ("bytes scanned", "SELECT nothing FROM orders;\n"),
            ("`quantity`", "\\d\n"),
            ("BASE TABLE", "\\d orders\n"),
            ("decimal(10,2)", "\\q\n"),
        ],
    );
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains("orders_in_all") && shown.contains('7'), "{shown}");

    let back = ARROW_UP.repeat(5) + "\n";
    let (shown, exit) = typed(&lake, &[("tarn> ", &back), ("bytes scanned", "\\q\n")]);
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains("orders_in_all"), "a statement of the session before, by the arrow keys: {shown}");
}
