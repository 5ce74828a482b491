//! What a query takes: figures while it runs, its deadline, and the shape of the rows that leave it.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_plan::ExecutionPlan;
use futures::{Stream, StreamExt};
use tokio::time::Sleep;

use super::Stats;
use super::meter::Meter;
use super::semantics::shown_name;
use crate::Error;
use crate::clock::Clock;

/// Where the figures of a running query come from. Cheap to clone; outlives the rows.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    rows: AtomicU64,
    meter: Arc<Meter>,
    plan: Option<Arc<dyn ExecutionPlan>>,
    clock: Arc<dyn Clock>,
    started_ms: i64,
    /// 0 while the query runs.
    ended_ms: AtomicI64,
}

impl Progress {
    pub(super) fn new(
        meter: Arc<Meter>,
        plan: Option<Arc<dyn ExecutionPlan>>,
        clock: Arc<dyn Clock>,
        started_ms: i64,
    ) -> Self {
        let (rows, ended_ms) = (AtomicU64::new(0), AtomicI64::new(0));
        Self(Arc::new(Figures { rows, meter, plan, clock, started_ms, ended_ms }))
    }

    /// The figures so far; final once the rows have ended or were dropped.
    pub fn stats(&self) -> Stats {
        let figures = &self.0;
        let ended_ms = match figures.ended_ms.load(Ordering::Relaxed) {
            0 => figures.clock.now_ms(),
            ended => ended,
        };
        Stats {
            rows: figures.rows.load(Ordering::Relaxed),
            bytes_scanned: figures.meter.bytes(),
            files_scanned: figures.plan.as_ref().map_or(0, |plan| files_of(plan.as_ref()).len() as u64),
            spilled_bytes: figures.plan.as_ref().map_or(0, |plan| spilled_by(plan.as_ref())),
            elapsed_ms: u64::try_from(ended_ms - figures.started_ms).unwrap_or(0),
        }
    }

    fn end(&self) {
        let now = self.0.clock.now_ms().max(1);
        let _ = self.0.ended_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Paths of the files that the plan reads.
pub(super) fn files_of(plan: &dyn ExecutionPlan) -> BTreeSet<String> {
    let mut files: BTreeSet<String> = plan.children().into_iter().flat_map(|child| files_of(child.as_ref())).collect();
    if let Some(config) = scan_of(plan) {
        files.extend(config.file_groups.iter().flat_map(|g| g.iter()).map(|f| f.object_meta.location.to_string()));
    }
    files
}

/// The file scan that this node is, if it is one.
pub(super) fn scan_of(plan: &dyn ExecutionPlan) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

fn spilled_by(plan: &dyn ExecutionPlan) -> u64 {
    let here = plan.metrics().and_then(|m| m.spilled_bytes()).unwrap_or(0) as u64;
    here + plan.children().into_iter().map(|child| spilled_by(child.as_ref())).sum::<u64>()
}

/// The rows of a query: counted, cut off at its deadline, in the types that tables and clients know.
pub(super) struct Counted {
    rows: SendableRecordBatchStream,
    schema: SchemaRef,
    deadline: Option<(Pin<Box<Sleep>>, Duration)>,
    progress: Progress,
    done: bool,
}

impl Counted {
    /// `remaining` of the whole `timeout` is left for the rows. With `views` columns stay in the types they have.
    pub(super) fn new(
        rows: SendableRecordBatchStream,
        views: bool,
        deadline: Option<(tokio::time::Instant, Duration)>,
        progress: Progress,
    ) -> Self {
        let schema = shown_schema(&rows.schema());
        let schema = if views { schema } else { plain_schema(&schema) };
        let deadline = deadline.map(|(at, timeout)| (Box::pin(tokio::time::sleep_until(at)), timeout));
        Self { rows, schema, deadline, progress, done: false }
    }

    fn finish(&mut self) {
        self.done = true;
        self.progress.end();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.progress.end();
    }
}

impl Stream for Counted {
    type Item = datafusion::common::Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Some((sleep, timeout)) = &mut self.deadline
            && sleep.as_mut().poll(cx).is_ready()
        {
            let error = timed_out(*timeout);
            self.finish();
            return Poll::Ready(Some(Err(DataFusionError::External(Box::new(error)))));
        }
        let polled = self.rows.poll_next_unpin(cx);
        match polled {
            Poll::Ready(Some(Ok(batch))) => {
                self.progress.0.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                Poll::Ready(Some(plain(batch, &self.schema)))
            }
            Poll::Ready(end) => {
                self.finish();
                let meter = &self.progress.0.meter;
                Poll::Ready(end.map(|last| last.map_err(|e| meter.explain(e))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl RecordBatchStream for Counted {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

pub(super) fn timed_out(timeout: Duration) -> Error {
    Error::limit(format!("the query was stopped: expected it to take at most {} s", timeout.as_secs_f64()))
}

/// Columns under the names that the statement gives them.
fn shown_schema(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().all(|field| shown_name(field.name()) == field.name()) {
        return Arc::clone(schema);
    }
    let shown = |field: &FieldRef| Arc::new(Field::clone(field).with_name(shown_name(field.name())));
    let fields: Fields = schema.fields().iter().map(shown).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Views and dictionaries become the plain types; names and nullability stay.
fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(plain_field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn plain_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::clone(field).with_data_type(plain_type(field.data_type())))
}

fn plain_type(ty: &DataType) -> DataType {
    match ty {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        other => other.clone(),
    }
}

fn plain(batch: RecordBatch, schema: &SchemaRef) -> datafusion::common::Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => arrow::compute::cast(column, field.data_type()),
        })
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
