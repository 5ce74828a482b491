//! `tarn insight`: a declared forecast, search for anomalies or narrative.

use serde_json::{Value, json};
use shared::Result;

use super::caller::{Caller, Lakehouse};
use super::output::{Out, Rows};

pub(super) async fn run(lakehouse: &Lakehouse, name: &str, out: &Out) -> Result<()> {
    let caller = Caller::connect(lakehouse).await?;
    let spinner = out.spinner(&format!("asking `{name}`"));
    let answer = caller.json("POST", &format!("/insights/{name}"), Some(&json!({}))).await;
    spinner.finish_and_clear();
    out.document(&answer?, rows)
}

/// The part of an answer that a table shows: the periods of a forecast, the anomalies, or the sentences of a narrative.
fn rows(answer: &Value) -> Rows {
    match answer["kind"].as_str() {
        Some("forecast") => Rows::of_objects(&answer["forecast"]["points"], &["date", "mean", "lower", "upper"]),
        Some("anomalies") => {
            let columns = ["rank", "date", "actual", "expected", "percent", "severity"];
            Rows::of_objects(&answer["anomalies"]["anomalies"], &columns)
        }
        _ => Rows::of_objects(&answer["narrative"]["sentences"], &["about", "text"]),
    }
}
