//! `tarn erase`: everything that is kept of somebody is removed for good.

use std::process::ExitCode;

use serde_json::{Value, json};
use shared::api::status::counted;
use shared::{Error, Result};

use super::arguments::{Erase, Format};
use super::caller::{Caller, Lakehouse};
use super::confirm::confirm;
use super::output::{Out, Rows};

/// Passes of one command: each finds what the one before left or what came meanwhile.
const PASSES: usize = 6;

/// The exit code is 1 while something is left.
pub(super) async fn run(lakehouse: &Lakehouse, erase: &Erase, out: &Out) -> Result<ExitCode> {
    let caller = Caller::connect(lakehouse).await?;
    if erase.dry_run || !erase.yes {
        let found = pass(&caller, erase, true, out).await?;
        if erase.dry_run || out.format() == Format::Table {
            out.document(&found, |found| found_rows(std::slice::from_ref(found)))?;
        }
        if erase.dry_run {
            tell(out, &found);
            return Ok(ExitCode::SUCCESS);
        }
        ask(&found)?;
    }
    let mut passes = Vec::new();
    while passes.len() < PASSES {
        flush(&caller).await?;
        let done = pass(&caller, erase, false, out).await?;
        let is_last = done["complete"] == true || is_stuck(&done);
        passes.push(done);
        if is_last {
            break;
        }
    }
    let Some(last) = passes.last() else { return Err(Error::bug("expected a pass, found none")) };
    let complete = last["complete"] == true;
    out.document(&json!({"complete": complete, "passes": passes}), |_| found_rows(&passes))?;
    tell(out, last);
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a pass found nothing to do and still is not the last: something else has to happen first.
fn is_stuck(done: &Value) -> bool {
    let acted =
        |table: &Value| ["rowsDeleted", "filesRewritten", "snapshotsExpired"].iter().any(|what| table[what] != 0);
    let tables = done["tables"].as_array().into_iter().flatten().any(acted);
    let beside = ["files", "objects"].iter().any(|what| done[what].as_array().is_some_and(|all| !all.is_empty()));
    let remains = done["remaining"].as_array().is_some_and(|all| !all.is_empty());
    remains && !tables && !beside
}

async fn pass(caller: &Caller, erase: &Erase, dry_run: bool, out: &Out) -> Result<Value> {
    let body = json!({"where": erase.condition, "tables": erase.table, "dryRun": dry_run, "broken": erase.broken});
    let spinner = out.spinner(if dry_run { "looking" } else { "erasing" });
    let answer = caller.json("POST", "/erasures", Some(&body)).await;
    spinner.finish_and_clear();
    answer
}

/// Writes what is buffered: what lies in a stream can't be looked through.
async fn flush(caller: &Caller) -> Result<()> {
    let streams = caller.json("GET", "/streams", None).await?;
    for name in streams["streams"].as_array().into_iter().flatten().filter_map(|stream| stream["name"].as_str()) {
        caller.json("POST", &format!("/streams/{name}/flush"), None).await?;
    }
    Ok(())
}

/// Says how much it is, and asks.
fn ask(found: &Value) -> Result<()> {
    let sum = |what: &str, of: &str| {
        found[what].as_array().into_iter().flatten().filter_map(|entry| entry[of].as_u64()).sum::<u64>()
    };
    let rows = sum("tables", "keptRows").max(sum("tables", "rows")) + sum("files", "rows") + sum("objects", "records");
    confirm(&format!("Remove {} in all versions, tables and files, for good?", counted(rows, "row")))
}

/// One row a table, file and folder.
fn found_rows(passes: &[Value]) -> Rows {
    let mut rows = Rows::new(&["pass", "place", "rows", "in_all_versions", "done"]);
    for (number, pass) in (1..).zip(passes) {
        let dry_run = pass["dryRun"] == true;
        let each = |what: &str| pass[what].as_array().cloned().unwrap_or_default();
        let removed = if dry_run { "" } else { "removed" };
        let mut add = |place: &Value, rows_now: &Value, in_all: &Value, done: &str| {
            rows.rows.push(vec![json!(number), place.clone(), rows_now.clone(), in_all.clone(), json!(done)]);
        };
        for table in each("tables") {
            add(&table["table"], &table["rows"], &table["keptRows"], &done_to(&table, dry_run));
        }
        for file in each("files") {
            let done = if dry_run || file["whole"] == true { removed } else { "written anew" };
            add(&file["url"], &file["rows"], &file["rows"], done);
        }
        for folder in each("objects") {
            add(&folder["folder"], &folder["records"], &folder["records"], removed);
        }
        if pass["results"] != 0 {
            add(&json!("results"), &pass["results"], &pass["results"], removed);
        }
    }
    rows
}

/// What was done to a table, or what a dry run found there.
fn done_to(table: &Value, dry_run: bool) -> String {
    match (dry_run, table["left"].as_str()) {
        (true, _) => format!("{} files and {} snapshots have them", table["files"], table["snapshots"]),
        (false, Some(left)) => left.to_owned(),
        (false, None) => format!(
            "{} rows deleted, {} files rewritten, {} snapshots expired",
            table["rowsDeleted"], table["filesRewritten"], table["snapshotsExpired"]
        ),
    }
}

/// What is to happen yet, and what the erasure does not reach.
fn tell(out: &Out, last: &Value) {
    if out.format() != Format::Table {
        return;
    }
    let each = |what: &str| last[what].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    for line in each("notReached") {
        out.note(&format!("not reached: {line}"));
    }
    for line in each("remaining") {
        out.note(&format!("not yet: {line}; then run the same command again"));
    }
    if last["complete"] == true {
        out.note("complete: the last pass found nothing");
    }
    if let Some(url) = last["url"].as_str() {
        out.note(&format!("report: {url}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_waits_for_others_is_the_last_for_now() {
        let nothing = json!({"tables": [{"rowsDeleted": 0, "filesRewritten": 0, "snapshotsExpired": 0}], "files": [], "objects": []});
        let mut waits = nothing.clone();
        waits["remaining"] = json!(["job `x` …"]);
        assert!(is_stuck(&waits));
        assert!(!is_stuck(&nothing));
        waits["tables"][0]["rowsDeleted"] = json!(1);
        assert!(!is_stuck(&waits));
    }
}
