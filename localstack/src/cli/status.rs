//! `tarn status`.

use serde_json::Value;
use shared::{Error, Result};

use super::arguments::Format;
use super::caller::{Caller, Lakehouse};
use super::output::{Out, Rows};
use super::work::crawl_rows;

pub(super) async fn run(lakehouse: &Lakehouse, out: &Out) -> Result<()> {
    if let Some(api) = &lakehouse.api {
        return Err(Error::invalid(format!(
            "expected a data directory, whose runtime knows all that goes on, found the deployed lakehouse `{}`: ask it `GET /streams`, `GET /crawls` and `GET /workflows/<name>/runs`",
            api.url
        )));
    }
    let caller = Caller::connect(lakehouse).await?;
    let status = caller.json("GET", "/status", None).await?;
    if out.format() != Format::Table {
        return out.document(&status, streams);
    }
    let by = if caller.is_local() { "nothing runs".into() } else { format!("`tarn up` runs as pid {}", status["pid"]) };
    out.text(&format!("data in {} ({by})\n", status["data"].as_str().unwrap_or_default()))?;
    section(*out, "Streams", &streams(&status))?;
    section(*out, "Crawled", &crawl_rows(&status["crawls"]))?;
    section(*out, "Runs", &runs(&status))?;
    section(*out, "Schedules", &Rows::of_objects(&status["schedules"], &["function", "name", "nextMs"]))
}

fn section(out: Out, title: &str, rows: &Rows) -> Result<()> {
    if rows.rows.is_empty() {
        return Ok(());
    }
    out.text(&format!("\n{title}\n"))?;
    out.rows(rows)
}

fn streams(status: &Value) -> Rows {
    Rows::of_objects(&status["streams"], &["name", "table", "pendingRecords", "pendingBytes", "lagMs"])
}

fn runs(status: &Value) -> Rows {
    let mut rows = Rows::new(&["run", "workflow", "status", "started", "ended"]);
    for (_, listed) in status["runs"].as_object().into_iter().flatten() {
        rows.rows.extend(Rows::of_objects(&listed["runs"], &["run", "workflow", "status", "started", "ended"]).rows);
    }
    rows
}
