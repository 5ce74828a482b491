//! `tarn crawl` and `tarn run`: work that is asked for and waited for.

use chrono::NaiveDate;
use indicatif::HumanBytes;
use serde_json::{Map, Value, json};
use shared::api::status::counted;
use shared::{Error, Result};

use super::arguments::{Format, Run};
use super::caller::{Caller, Lakehouse};
use super::output::{Out, Rows};

/// Crawls one location or all.
pub(super) async fn crawl(lakehouse: &Lakehouse, location: Option<&str>, out: &Out) -> Result<()> {
    let caller = Caller::connect(lakehouse).await?;
    let body = location.map_or_else(|| json!({}), |location| json!({"location": location}));
    let spinner = out.spinner("crawling");
    let report = caller.json("POST", "/crawl", Some(&body)).await;
    spinner.finish_and_clear();
    out.document(&report?, crawl_rows)
}

/// Days of one command at most.
const MOST_DAYS: i64 = 1_000;

/// Runs or resumes a workflow, for each of some days if asked; fails when a run did.
pub(super) async fn run(lakehouse: &Lakehouse, run: &Run, out: &Out) -> Result<()> {
    let days = days(run)?;
    let caller = Caller::connect(lakehouse).await?;
    if let Some(id) = &run.resume {
        return one(&caller, run, &format!("/runs/{id}/resume"), &json!({}), out).await;
    }
    let path = format!("/workflows/{}/runs", run.workflow);
    let mut parameters: Map<String, Value> =
        run.parameters.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let Some(days) = days else {
        return one(&caller, run, &path, &body(run, &parameters), out).await;
    };
    for day in days {
        if out.format() == Format::Table {
            out.note(&format!("{day}:"));
        }
        parameters.insert("run_date".into(), day.to_string().into());
        let done = one(&caller, run, &path, &body(run, &parameters), out).await;
        done.map_err(|error| error.context(format!("run_date {day}; later days were not begun")))?;
    }
    Ok(())
}

/// The days that are asked for.
///
/// # Errors
/// `Invalid` for none, or too many.
fn days(run: &Run) -> Result<Option<impl Iterator<Item = NaiveDate>>> {
    let (Some(from), Some(to)) = (run.from, run.to) else { return Ok(None) };
    let count = (to - from).num_days() + 1;
    if !(1..=MOST_DAYS).contains(&count) {
        return Err(Error::invalid(format!("expected 1 to {MOST_DAYS} days, found {count} from {from} to {to}")));
    }
    if run.parameters.iter().any(|(name, _)| name == "run_date") {
        return Err(Error::invalid("expected `run_date` either as a parameter or by `--from` and `--to`, found both"));
    }
    Ok(Some(from.iter_days().take_while(move |day| *day <= to)))
}

fn body(run: &Run, parameters: &Map<String, Value>) -> Value {
    json!({"parameters": parameters, "jobs": run.job, "dryRun": run.dry_run})
}

async fn one(caller: &Caller, run: &Run, path: &str, body: &Value, out: &Out) -> Result<()> {
    let spinner = out.spinner(&format!("running `{}`", run.workflow));
    let record = caller.json("POST", path, Some(body)).await;
    spinner.finish_and_clear();
    let record = record?;
    if run.dry_run {
        return out.document(&record, preview_rows);
    }
    out.document(&record, run_rows)?;
    match record["status"].as_str() {
        Some("succeeded") => Ok(()),
        status => Err(Error::retry(format!(
            "run `{}` of `{}` ended as `{}`",
            record["run"].as_str().unwrap_or_default(),
            run.workflow,
            status.unwrap_or("unknown")
        ))),
    }
}

/// One row a job: what it would read and write.
fn preview_rows(preview: &Value) -> Rows {
    let mut rows = Rows::new(&["job", "after", "read", "reads", "write", "into", "message"]);
    for (name, job) in preview["jobs"].as_object().into_iter().flatten() {
        let texts = |list: &Value| {
            list.as_array().into_iter().flatten().map(|v| v.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let reads: Vec<String> = job["reads"].as_array().into_iter().flatten().map(source).collect();
        let write = match (&job["maintenance"], job["exists"] == true) {
            (Value::Null, _) if job["write"].is_null() => json!("maintenance"),
            (Value::Null, true) => job["write"].clone(),
            (Value::Null, false) => json!(format!("{} (makes the table)", job["write"].as_str().unwrap_or_default())),
            (_, _) => json!("maintenance"),
        };
        let message = job["error"].as_str().or(job["note"].as_str());
        let message = message
            .map(str::to_owned)
            .or_else(|| (!job["maintenance"].is_null()).then(|| job["maintenance"].to_string()));
        rows.rows.push(vec![
            json!(name),
            json!(texts(&job["after"]).join(", ")),
            job["read"].clone(),
            json!(reads.join("; ")),
            write,
            job["into"].clone(),
            json!(message),
        ]);
    }
    rows
}

/// A table that is read, and how much of it.
fn source(read: &Value) -> String {
    let rows = read["rows"].as_u64().map_or_else(String::new, |rows| format!("{}, ", counted(rows, "row")));
    let what = if read["new"] == true { "new: " } else { "" };
    let (files, bytes) = (read["files"].as_u64().unwrap_or(0), read["bytes"].as_u64().unwrap_or(0));
    format!(
        "{} ({what}{rows}{}, {})",
        read["table"].as_str().unwrap_or_default(),
        counted(files, "file"),
        HumanBytes(bytes)
    )
}

/// One row a job.
pub(crate) fn run_rows(record: &Value) -> Rows {
    let names = ["job", "status", "into", "read", "selected", "written", "replaced", "quarantined", "message"];
    let mut rows = Rows::new(&names);
    for (name, job) in record["jobs"].as_object().into_iter().flatten() {
        let broken = job["quality"].as_array().into_iter().flatten().find_map(|rule| rule["message"].as_str());
        let message = job["error"]["message"].as_str().or(broken).or(job["note"].as_str());
        rows.rows.push(vec![
            json!(name),
            job["status"].clone(),
            job["into"].clone(),
            job["read"].clone(),
            job["rows_selected"].clone(),
            job["rows_written"].clone(),
            job["rows_deleted"].clone(),
            job["rows_quarantined"].clone(),
            json!(message),
        ]);
    }
    rows
}

/// One row a table, one for each file that belongs to none, and one for each note.
pub(super) fn crawl_rows(report: &Value) -> Rows {
    let mut rows = Rows::new(&["location", "table", "change", "format", "files", "partitions added", "remark"]);
    for crawl in report["crawls"].as_array().into_iter().flatten() {
        for table in crawl["tables"].as_array().into_iter().flatten() {
            let details: Vec<_> = table["details"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            rows.rows.push(vec![
                crawl["location"].clone(),
                table["table"].clone(),
                table["change"].clone(),
                table["format"].clone(),
                table["files"].clone(),
                table["partitionsAdded"].clone(),
                json!(details.join("; ")),
            ]);
        }
        for file in crawl["skipped"].as_array().into_iter().flatten() {
            let none = Value::Null;
            let remark = json!(format!("{}: {}", text(&file["file"]), text(&file["message"])));
            let location = crawl["location"].clone();
            rows.rows.push(vec![location, none.clone(), json!("skipped"), none.clone(), json!(1), none, remark]);
        }
        for note in crawl["notes"].as_array().into_iter().flatten() {
            let none = Value::Null;
            let location = crawl["location"].clone();
            rows.rows.push(vec![location, none.clone(), json!("note"), none.clone(), none.clone(), none, note.clone()]);
        }
    }
    rows
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
