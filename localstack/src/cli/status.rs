//! `tarn status`: what is wrong, first line first, then the figures behind it.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use shared::api::status::{PARTS, PartStatus, Problem, joined, lasting};
use shared::clock::{Clock, SystemClock};
use shared::{Error, Result};

use super::arguments::{Format, Status};
use super::caller::{Caller, Lakehouse, json_body, request};
use super::output::{Out, Rows, printable};
use super::work::crawl_rows;
use crate::runtime::Takeover;

/// How often the status is asked for while it is watched.
const LOOK: Duration = Duration::from_secs(2);
/// What a terminal clears its page at.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// Runs that are shown.
const RUNS: usize = 10;

/// The exit code is 1 when something is wrong.
pub(super) async fn run(lakehouse: &Lakehouse, status: &Status, out: &Out) -> Result<ExitCode> {
    loop {
        // Anew for each look: nobody is kept from the directory meanwhile, and a runtime that starts anew is found again.
        let caller = Caller::connect_with(lakehouse, Takeover::Never).await?;
        let found = asked(lakehouse, &caller).await?;
        if status.watch && std::io::stdout().is_terminal() {
            out.text(CLEAR)?;
        }
        show(&found, &caller, lakehouse, out)?;
        if !status.watch {
            return Ok(if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        drop(caller);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map(|()| ExitCode::SUCCESS).map_err(Error::from);
            }
        }
    }
}

/// The runtime answers for all functions; those of a deployed lakehouse are asked one by one.
async fn asked(lakehouse: &Lakehouse, caller: &Caller) -> Result<PartStatus> {
    if lakehouse.api.is_none() {
        return part(&caller.json("GET", "/status", None).await?);
    }
    let mut parts = Vec::new();
    for function in PARTS {
        let answer = caller.ask(request("GET", &format!("/status/{function}"), None)).await;
        parts.push(match answer.and_then(|answer| part(&json_body(&answer)?)) {
            Ok(part) => part,
            Err(error) => PartStatus {
                problems: vec![Problem::error("function", function, format!("does not tell how it is: {error}"))],
                ..PartStatus::default()
            },
        });
    }
    Ok(joined(parts))
}

fn part(status: &Value) -> Result<PartStatus> {
    serde_json::from_value(status.clone())
        .map_err(|e| Error::bug(format!("expected a status, found `{status}`")).with_source(e))
}

fn show(status: &PartStatus, caller: &Caller, lakehouse: &Lakehouse, out: &Out) -> Result<()> {
    if out.format() != Format::Table {
        let document =
            serde_json::to_value(status).map_err(|e| Error::bug("a status has no JSON form").with_source(e))?;
        return out.document(&document, problems);
    }
    let now_ms = SystemClock.now_ms();
    out.text(&printable(&headline(&status.problems, now_ms)))?;
    let figure = |name: &str| status.figures.get(name).cloned().unwrap_or_default();
    let place = match &lakehouse.api {
        Some(api) => format!("lakehouse at {}", api.url),
        None if caller.is_local() => format!("data in {} (nothing runs)", text(&figure("data"))),
        None => format!("data in {} (`tarn up` runs as pid {})", text(&figure("data")), figure("pid")),
    };
    out.text(&format!("\n{place}\n"))?;
    section(*out, "Streams", &streams(&figure("streams")))?;
    section(*out, "Crawled", &crawl_rows(&json!({"crawls": figure("crawls")})))?;
    section(*out, "Runs", &runs(&figure("runs")))?;
    section(*out, "Due", &due(&figure("schedules"), now_ms))?;
    section(
        *out,
        "Tables",
        &Rows::of_objects(&figure("tables"), &["name", "snapshots", "files", "bytes", "deleteFiles"]),
    )
}

/// One line that says how many problems there are, and what each is.
fn headline(problems: &[Problem], now_ms: i64) -> String {
    let mut text = match problems.len() {
        0 => "nothing is wrong\n".to_owned(),
        1 => "1 thing is wrong\n".to_owned(),
        count => format!("{count} things are wrong\n"),
    };
    for problem in problems {
        let since =
            problem.since_ms.map_or_else(String::new, |ms| format!(" (since {})", lasting((now_ms - ms).max(0))));
        let severity = problem.severity.as_str();
        text.push_str(&format!("{severity:<8} {} {}: {}{since}\n", problem.subject, problem.name, problem.message));
        if let Some(advice) = &problem.advice {
            text.push_str(&format!("         → {advice}\n"));
        }
    }
    text
}

fn problems(status: &Value) -> Rows {
    Rows::of_objects(&status["problems"], &["severity", "subject", "name", "message", "sinceMs", "advice"])
}

fn section(out: Out, title: &str, rows: &Rows) -> Result<()> {
    if rows.rows.is_empty() {
        return Ok(());
    }
    out.text(&format!("\n{title}\n"))?;
    out.rows(rows)
}

fn streams(streams: &Value) -> Rows {
    let mut rows = Rows::new(&["stream", "table", "pending", "bytes", "lag", "not stored"]);
    for stream in streams.as_array().into_iter().flatten() {
        let lag = stream["lagMs"].as_i64().filter(|ms| *ms > 0).map(lasting);
        rows.rows.push(vec![
            stream["name"].clone(),
            stream["table"].clone(),
            stream["pendingRecords"].clone(),
            stream["pendingBytes"].clone(),
            json!(lag),
            stream["errors"]["records"].clone(),
        ]);
    }
    rows
}

fn runs(runs: &Value) -> Rows {
    let mut newest: Vec<&Value> = runs.as_array().into_iter().flatten().collect();
    newest.sort_by_key(|run| std::cmp::Reverse(text(&run["started"]).to_owned()));
    newest.truncate(RUNS);
    Rows::of_objects(&json!(newest), &["run", "workflow", "status", "started", "ended"])
}

fn due(schedules: &Value, now_ms: i64) -> Rows {
    let mut rows = Rows::new(&["function", "name", "due in"]);
    for entry in schedules.as_array().into_iter().flatten() {
        let left = entry["nextMs"].as_i64().map(|next_ms| match next_ms - now_ms {
            left_ms if left_ms > 0 => lasting(left_ms),
            _ => "now".to_owned(),
        });
        rows.rows.push(vec![entry["function"].clone(), entry["name"].clone(), json!(left)]);
    }
    rows
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_first_with_its_cause_since_when_and_what_to_do() {
        let problems = [
            Problem::error("stream", "orders", "writing it failed 3 times: no space").since(0).advise("make room"),
            Problem::warning("location", "w", "2 files without a table"),
        ];
        assert_eq!(
            headline(&problems, 600_000),
            "2 things are wrong\n\
             error    stream orders: writing it failed 3 times: no space (since 10m)\n         → make room\n\
             warning  location w: 2 files without a table\n"
        );
        assert_eq!(headline(&[], 0), "nothing is wrong\n");
    }
}
