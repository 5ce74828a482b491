//! The table `tarn.runs`: one row for each job of each attempt of a run, so that runs can be asked about in SQL.
//!
//! The token `runs.{workflow}` names the attempt that was added last; as one run of a workflow goes on at a time, each attempt
//! is added once, however often a crash makes it be tried.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use shared::model::types::arrow_schema;
use shared::model::{Column, ColumnType, TableName};
use shared::{Error, ErrorKind, Result};
use table::{Tables, Token};
use table_datafusion::{Change, ChangeTable};

use crate::record::{JobRecord, Run};

/// Tries against other workflows that add at the same time.
const TRIES: u32 = 5;

/// Adds the jobs of the run's current attempt to the table `name`, unless they are there.
///
/// # Errors
/// What the table answers.
pub async fn add(tables: &Tables, name: &TableName, run: &Run) -> Result<()> {
    let columns = columns();
    let token_value = format!("{}#{}", run.run, run.attempt);
    let key = format!("runs.{}", run.workflow);
    let mut tries = 0;
    loop {
        tries += 1;
        let table = tables.ensure(name, &columns, &[]).await?;
        let expected = table.token(&key);
        if expected.as_ref() == Some(&token_value) {
            return Ok(());
        }
        let batch = rows(run, Arc::new(arrow_schema(&columns)))?;
        let schema = batch.schema();
        let stream = RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)]));
        let token = Token { key: key.clone(), expected, value: token_value.clone() };
        match table.commit(Change::Append, Box::pin(stream), Some(token)).await {
            Ok(_) => return Ok(()),
            Err(error) if tries < TRIES && is_unsettled(error.kind()) => {
                tracing::warn!(run = run.run, %error, "adding to `{name}` is tried again");
            }
            Err(error) => return Err(error.context(format!("adding run `{}` to `{name}`", run.run))),
        }
    }
}

/// Whether the table may know more than the error says.
fn is_unsettled(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Conflict | ErrorKind::OutcomeUnknown | ErrorKind::Retry)
}

/// Of the table.
pub(crate) fn columns() -> Vec<Column> {
    use ColumnType::{BigInt, Int, String, TimestampTz};
    let columns = [
        ("run", String),
        ("workflow", String),
        ("job", String),
        ("attempt", Int),
        ("status", String),
        ("into_table", String),
        ("tries", Int),
        ("started", TimestampTz),
        ("ended", TimestampTz),
        ("elapsed_ms", BigInt),
        ("read", String),
        ("rows_selected", BigInt),
        ("rows_written", BigInt),
        ("rows_deleted", BigInt),
        ("rows_quarantined", BigInt),
        ("bytes_scanned", BigInt),
        ("bytes_written", BigInt),
        ("snapshot_id", BigInt),
        ("parameters", String),
        ("quality", String),
        ("quarantine", String),
        ("error_kind", String),
        ("error", String),
        ("note", String),
        ("run_status", String),
        ("run_started", TimestampTz),
        ("run_ended", TimestampTz),
    ];
    columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect()
}

/// The rows of the attempt, in the order of [`columns`].
fn rows(run: &Run, schema: SchemaRef) -> Result<RecordBatch> {
    let jobs: Vec<(&String, &JobRecord)> = run.jobs.iter().filter(|(_, job)| job.attempt == run.attempt).collect();
    let text = |of: &dyn Fn(&JobRecord) -> Option<String>| -> ArrayRef {
        Arc::new(jobs.iter().map(|(_, job)| of(job)).collect::<StringArray>())
    };
    let same = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; jobs.len()])) };
    let int = |of: &dyn Fn(&JobRecord) -> u32| -> ArrayRef {
        Arc::new(jobs.iter().map(|(_, job)| i32::try_from(of(job)).ok()).collect::<Int32Array>())
    };
    let long = |of: &dyn Fn(&JobRecord) -> Option<i64>| -> ArrayRef {
        Arc::new(jobs.iter().map(|(_, job)| of(job)).collect::<Int64Array>())
    };
    let count = |of: &dyn Fn(&JobRecord) -> u64| long(&|job| i64::try_from(of(job)).ok());
    let time = |of: &dyn Fn(&JobRecord) -> Option<DateTime<Utc>>| -> ArrayRef {
        let micros = jobs.iter().map(|(_, job)| of(job).map(|t| t.timestamp_micros()));
        Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("+00:00"))
    };
    let parameters = json(&run.parameters)?;
    let quality = jobs.iter().map(|(_, job)| json(&job.outcome.quality)).collect::<Result<Vec<_>>>()?;
    let columns: Vec<ArrayRef> = vec![
        same(&run.run),
        same(&run.workflow),
        Arc::new(jobs.iter().map(|(name, _)| Some(name.as_str())).collect::<StringArray>()),
        int(&|job| job.attempt),
        text(&|job| Some(job.status.as_str().into())),
        text(&|job| Some(job.into.clone())),
        int(&|job| job.tries),
        time(&|job| job.started),
        time(&|job| job.ended),
        long(&|job| Some((job.ended? - job.started?).num_milliseconds())),
        text(&|job| job.outcome.read.map(|read| read.as_str().into())),
        count(&|job| job.outcome.rows_selected),
        count(&|job| job.outcome.rows_written),
        count(&|job| job.outcome.rows_deleted),
        count(&|job| job.outcome.rows_quarantined),
        count(&|job| job.outcome.bytes_scanned),
        count(&|job| job.outcome.bytes_written),
        long(&|job| job.outcome.snapshot_id.as_ref()?.parse().ok()),
        same(&parameters),
        Arc::new(StringArray::from(quality)),
        text(&|job| job.outcome.quarantine.clone()),
        text(&|job| job.error.as_ref().map(|error| error.kind.clone())),
        text(&|job| job.error.as_ref().map(|error| error.message.clone())),
        text(&|job| job.outcome.note.clone()),
        same(run.status.as_str()),
        time(&|_| Some(run.started)),
        time(&|_| run.ended),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::bug("a run has no JSON form").with_source(e))
}
