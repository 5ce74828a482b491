//! `tarn crawl` and `tarn run`: work that is asked for and waited for.

use serde_json::{Map, Value, json};
use shared::{Error, Result};

use super::arguments::Run;
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

/// Runs or resumes a workflow; fails when the run did.
pub(super) async fn run(lakehouse: &Lakehouse, run: &Run, out: &Out) -> Result<()> {
    let caller = Caller::connect(lakehouse).await?;
    let (path, body) = match &run.resume {
        Some(id) => (format!("/runs/{id}/resume"), json!({})),
        None => {
            let parameters: Map<String, Value> =
                run.parameters.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            (format!("/workflows/{}/runs", run.workflow), json!({"parameters": parameters}))
        }
    };
    let spinner = out.spinner(&format!("running `{}`", run.workflow));
    let record = caller.json("POST", &path, Some(&body)).await;
    spinner.finish_and_clear();
    let record = record?;
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
