//! `tarn sql` at a terminal, as a person types, and in pipes.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::flow::{SHOP, orders};
use crate::lake::Lake;

const ARROW_UP: &str = "\u{1b}[A";
const CTRL_C: &str = "\u{3}";

/// A statement that does not end while a test waits.
const ENDLESS: &str =
    "SELECT count(*) FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b;\n";
/// What shows that a statement runs.
const RUNS: &str = "scanned";

/// Python, with what the tests need.
fn python(arguments: &[&str]) -> Command {
    let mut python = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python"));
    python.args(arguments);
    python
}

/// Types each line once what is before it has shown up, none ends the program; what the terminal showed, and the exit code.
fn typed_by(lake: &Lake, lines: &[(&str, Option<&str>)]) -> (String, i64) {
    let mut terminal = python(&[concat!(env!("CARGO_MANIFEST_DIR"), "/clients/shell.py")]);
    let tarn = lake.tarn("sql");
    terminal.arg(tarn.get_program()).args(tarn.get_args()).env_remove("PAGER").env("PAGER", "cat");
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    terminal.stdin.take().unwrap().write_all(json!(lines).to_string().as_bytes()).unwrap();
    let ended = terminal.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    (told["shown"].as_str().unwrap().to_owned(), told["exit"].as_i64().unwrap())
}

fn typed(lake: &Lake, lines: &[(&str, &str)]) -> (String, i64) {
    let lines: Vec<_> = lines.iter().map(|(awaited, typed)| (*awaited, Some(*typed))).collect();
    typed_by(lake, &lines)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
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
            ("in_all", "FROM orders;\n"),
            ("bytes scanned", "SELECT nothing FROM orders;\n"),
            ("`quantity`", "\\d\n"),
            ("BASE TABLE", "\\dt shop.or*\n"),
            ("BASE TABLE", "\\dt no*\n"),
            ("0 rows", "\\d orders\n"),
            ("decimal(10,2)", "SEL\tquantit\tFROM ord\tLIM\t1;\n"),
            ("1 row,", "\\q\n"),
        ],
    );
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains("orders_in_all") && shown.contains('7'), "{shown}");
    assert!(shown.contains("SELECT quantity FROM orders LIMIT 1;"), "what Tab made of it: {shown}");

    let back = ARROW_UP.repeat(8) + "\n";
    let (shown, exit) = typed(&lake, &[("tarn> ", &back), ("bytes scanned", "\\q\n")]);
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains("orders_in_all"), "a statement of the session before, by the arrow keys: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_the_statement_and_keeps_the_shell() {
    for is_up in [false, true] {
        let mut lake = Lake::new(SHOP);
        if is_up {
            lake.start();
        }
        let (shown, exit) = typed(
            &lake,
            &[
                ("tarn> ", "SELECT 1 +"),
                ("1 +", CTRL_C),
                ("tarn> ", ENDLESS),
                (RUNS, CTRL_C),
                ("stopped", "SELECT 41 + 1 AS answer;\n"),
                ("42", "SELECT now() \\watch 0.2\n"),
                ("every 0.2 s", ""),
                ("every 0.2 s", CTRL_C),
                ("stopped", "\\q\n"),
            ],
        );
        assert_eq!(exit, 0, "{shown}");
        if is_up {
            let began = Instant::now();
            while lake.log().matches("\"query ended\"").count() + lake.log().matches("query ended").count() < 2 {
                assert!(began.elapsed() < Duration::from_secs(10), "{}", lake.log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(lake.log().contains("broken off"), "the query itself has stopped: {}", lake.log());
        }
    }
}

#[test]
fn lines_that_come_at_once_are_all_run() {
    let lake = Lake::new(SHOP);
    let pasted = "SELECT 'one' AS first;\nSELECT 'two'\n AS second;\n\\timing off\nSELECT 'three' AS third;\n\\q\n";
    let (shown, exit) = typed(&lake, &[("tarn> ", pasted)]);
    assert_eq!(exit, 0, "{shown}");
    for cell in ["│ one ", "│ two ", "times are hidden", "│ three "] {
        assert!(shown.contains(cell), "{cell}: {shown}");
    }
}

#[test]
fn the_history_survives_a_kill_and_another_shell() {
    let lake = Lake::new(SHOP);
    typed(&lake, &[("tarn> ", "CREATE TABLE t AS SELECT 1 AS x;\n"), ("1 row", "\\q\n")]);
    std::thread::scope(|scope| {
        for name in ["one", "other"] {
            let lake = &lake;
            scope.spawn(move || {
                let first = format!("SELECT '{name}',\n 1;\n");
                let last = format!(
                    "SELECT '{name}', count(*) FROM generate_series(1, 10000000) a, generate_series(1, 9999999) b;\n"
                );
                let (_, exit) =
                    typed_by(lake, &[("tarn> ", Some(&first)), ("bytes scanned", Some(&last)), (RUNS, None)]);
                assert_eq!(exit, -9);
            });
        }
    });
    let history = std::fs::read_to_string(lake.data().join("sql_history")).unwrap();
    for name in ["one", "other"] {
        let entries = history.lines().filter(|line| line.contains(&format!("'{name}'"))).count();
        assert_eq!(entries, 2, "{history}");
        assert!(history.contains(&format!("SELECT '{name}',\\n 1;")), "{history}");
    }
    // Whichever shell was last, its last line has no other behind it.
    let (shown, _) = typed(&lake, &[("tarn> ", &format!("{ARROW_UP}\u{15}\\q\n"))]);
    assert!(shown.contains("9999999"), "{shown}");
}

#[test]
fn answers_are_expanded_sent_to_files_and_cut_as_the_person_says() {
    let lake = Lake::new(SHOP);
    let file = |name: &str| lake.data().with_file_name(name);
    std::fs::write(file("script.sql"), "SELECT 'from the file' AS s;\nSELECT nothing;\nSELECT 'never';\n").unwrap();
    let output = format!("\\o '{}'\n", file("answer.csv").display());
    let parquet = format!("SELECT 7 AS n, NULL AS nothing \\g {}\n", file("answer.parquet").display());
    let include = format!("\\i {}\n", file("script.sql").display());
    let (shown, exit) = typed(
        &lake,
        &[
            ("tarn> ", "SELECT 1 AS a, NULL AS b, '' AS c \\gx\n"),
            ("RECORD 1", "\\x\n"),
            ("expanded", "SELECT 2 AS d;\n"),
            ("RECORD 1", "\\x off\n"),
            ("in tables", "SELECT NULL AS b, '' AS c;\n"),
            ("NULL", "\\null ~\n"),
            ("`~`", &output),
            ("as csv", "SELECT 3 AS e, NULL AS f, '' AS g;\n"),
            ("1 row,", "\\o\n"),
            ("shown here", &parquet),
            ("1 row,", &include),
            ("script.sql`, line 2", "SELECT value FROM generate_series(1, 2000);\n"),
            ("1000 rows shown, there are more", "\\limit 0\n"),
            ("all rows", "SELECT value FROM generate_series(1, 2000);\n"),
            ("2000 rows,", "\\timing off\n"),
            ("hidden", "SELECT 5;\n"),
            ("1 row\n", "\\nonsense\n"),
            ("`\\nonsense`", "\\q\n"),
        ],
    );
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains("from the file") && !shown.contains("│ never"), "{shown}");
    assert_eq!(std::fs::read_to_string(file("answer.csv")).unwrap(), "e,f,g\n3,,\"\"\n");
    assert_eq!(&std::fs::read(file("answer.parquet")).unwrap()[..4], b"PAR1");
}

/// Bytes that a process has had in memory at most.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kb = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim_end_matches("kB").trim().parse::<u64>();
    Some(kb.unwrap() << 10)
}

#[test]
fn answers_of_any_size_are_written_in_bounded_memory() {
    let lake = Lake::new(SHOP);
    let peak_of = |format: &str, rows: u64| {
        let sql = format!("SELECT value AS n, 'the row ' || value AS text FROM generate_series(1, {rows})");
        let mut tarn = lake.tarn("sql");
        tarn.args(["--output", format, &sql]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut tarn = tarn.spawn().unwrap();
        let mut out = BufReader::new(tarn.stdout.take().unwrap());
        let (mut lines, mut most, mut part) = (0, 0, vec![0; 1 << 20]);
        loop {
            let read = out.read(&mut part).unwrap();
            most = peak(tarn.id()).unwrap_or_default().max(most);
            if read == 0 {
                break;
            }
            lines += part[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        assert!(tarn.wait().unwrap().success());
        if format == "csv" {
            assert_eq!(lines, rows + 1);
        }
        most
    };
    for format in ["csv", "table", "parquet"] {
        let (few, many) = (peak_of(format, 10_000), peak_of(format, 1_000_000));
        assert!(many < few + (96 << 20), "{format}: {few} bytes for few rows, {many} for many");
    }
}

#[test]
fn a_reader_that_has_enough_ends_the_command_well() {
    let lake = Lake::new(SHOP);
    for format in ["csv", "json", "table", "arrow"] {
        let tarn = lake.tarn("sql");
        let mut piped = Command::new("bash");
        piped.args(["-c", "\"$0\" \"$@\" | head -c 20 > /dev/null; exit ${PIPESTATUS[0]}"]).arg(tarn.get_program());
        piped.args(tarn.get_args()).args(["--output", format, "SELECT value FROM generate_series(1, 100000000000)"]);
        let ended = piped.stdin(Stdio::null()).output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{format}: {}", text(&ended));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let mut lake = Lake::up(SHOP);
    let mut tarn = lake.tarn("sql");
    tarn.args(["--output", "csv", "SELECT value FROM generate_series(1, 100000000000)"]).stdin(Stdio::null());
    let mut tarn = tarn.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(tarn.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    lake.kill();
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    let ended = tarn.wait_with_output().unwrap();
    assert!(ended.status.code() == Some(1) && text(&ended).contains("error: "), "{}", text(&ended));

    let fails = "SELECT 10 / (100000 - value) AS n FROM generate_series(1, 200000)";
    for format in ["csv", "json", "table", "markdown", "arrow", "parquet"] {
        let ended = lake.run("sql", &["--output", format, fails]);
        assert!(ended.status.code() == Some(2) && text(&ended).contains("zero"), "{format}: {:?}", ended.status);
        if format == "arrow" || format == "parquet" {
            let path = lake.data().with_file_name("broken");
            std::fs::write(&path, &ended.stdout).unwrap();
            assert!(!read_by_pyarrow(format, &path).status.success(), "{format}");
        }
    }
    let file = lake.data().with_file_name("answer.parquet");
    let mut script =
        lake.tarn("sql").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(script.stdin.take().unwrap(), "\\o {}\n{fails};", file.display()).unwrap();
    let ended = script.wait_with_output().unwrap();
    assert!(ended.status.code() == Some(2) && !file.exists(), "{}", text(&ended));
}

/// Reads a file as an answer; prints its columns, rows and the sum of its first column.
fn read_by_pyarrow(format: &str, path: &Path) -> Output {
    const READ: &str = "
import sys, pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
table = pq.read_table(sys.argv[2]) if sys.argv[1] == 'parquet' else pa.ipc.open_stream(open(sys.argv[2], 'rb')).read_all()
print(*[f'{field.name} {field.type}' for field in table.schema], table.num_rows, pc.sum(table[0]).as_py(), table[1].null_count)
";
    python(&["-c", READ, format]).arg(path).output().unwrap()
}

#[test]
fn other_programs_read_parquet_and_arrow() {
    let lake = Lake::new(SHOP);
    let sql = "SELECT value AS n, CASE WHEN value % 2 = 0 THEN 'even' END AS even, CAST(value AS decimal(20,3)) AS d, \
               CAST('2013-01-01 06:00:00' AS timestamp) AS at FROM generate_series(1, 300000)";
    for format in ["parquet", "arrow"] {
        let written = lake.run("sql", &["--output", format, sql]);
        assert!(written.status.success(), "{}", text(&written));
        let path = lake.data().with_file_name(format!("answer.{format}"));
        std::fs::write(&path, &written.stdout).unwrap();
        let read = read_by_pyarrow(format, &path);
        let expected = "n int64 even string d decimal128(20, 3) at timestamp[us] 300000 45000150000 150000\n";
        assert_eq!(String::from_utf8_lossy(&read.stdout), expected, "{}", text(&read));
        if format == "parquet" {
            let duckdb = "import sys, duckdb; print(duckdb.sql(f\"SELECT count(*), sum(n), count(even) FROM '{sys.argv[1]}'\").fetchone())";
            let read = python(&["-c", duckdb]).arg(&path).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&read.stdout), "(300000, 45000150000, 150000)\n", "{}", text(&read));
        }
    }
}

#[test]
fn the_formats_of_text_are_those_that_were_promised() {
    let lake = Lake::new(SHOP);
    let sql = "SELECT 1 AS n, NULL AS nothing, '' AS empty, 'a|b' AS bar, 1.50 AS d";
    for (format, expected) in [
        ("csv", "n,nothing,empty,bar,d\n1,,\"\",a|b,1.50\n"),
        ("json", "{\"n\":1,\"nothing\":null,\"empty\":\"\",\"bar\":\"a|b\",\"d\":\"1.50\"}\n"),
        ("ndjson", "{\"n\":1,\"nothing\":null,\"empty\":\"\",\"bar\":\"a|b\",\"d\":\"1.50\"}\n"),
        (
            "markdown",
            "| n | nothing | empty | bar | d |\n| ---: | --- | --- | --- | ---: |\n| 1 | NULL |  | a\\|b | 1.50 |\n",
        ),
    ] {
        let written = lake.run("sql", &["--output", format, sql]);
        assert_eq!(String::from_utf8_lossy(&written.stdout), expected, "{}", text(&written));
    }
    let cut = lake.run("sql", &["--output", "csv", "--limit", "2", "SELECT value FROM generate_series(1, 5)"]);
    assert_eq!(String::from_utf8_lossy(&cut.stdout), "value\n1\n2\n");
    assert!(String::from_utf8_lossy(&cut.stderr).contains("there are more"), "{}", text(&cut));
    let other = lake.run("status", &["--output", "parquet"]);
    assert_eq!(other.status.code(), Some(2), "{}", text(&other));
}
