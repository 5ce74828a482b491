//! What a query takes: figures while it runs, its deadline, and the shape of the rows that leave it.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
use super::semantics::{given_name, shown_name};
use super::stop::Stop;
use shared::Error;
use shared::clock::Clock;

/// Where the figures of a running query come from. Cheap to clone; outlives the rows.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    rows: AtomicU64,
    meter: Arc<Meter>,
    /// Until the query has ended: a plan is taken apart where it ran, as one that is deep takes much stack.
    plan: Mutex<Option<Arc<dyn ExecutionPlan>>>,
    /// Bytes that the plan's files hold of what it reads: about what it will scan. 0 where it is not known.
    expected_bytes: AtomicU64,
    /// What the plan took, once the query has ended.
    taken: OnceLock<Taken>,
    clock: Arc<dyn Clock>,
    started_ms: i64,
    /// 0 while the query runs.
    ended_ms: AtomicI64,
}

/// What the parts of a plan say of themselves.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    files: u64,
    spilled_bytes: u64,
}

impl Taken {
    fn by(plan: &dyn ExecutionPlan) -> Self {
        Self { files: files_of(plan).len() as u64, spilled_bytes: spilled_by(plan) }
    }
}

impl Progress {
    pub(super) fn new(
        meter: Arc<Meter>,
        plan: Option<Arc<dyn ExecutionPlan>>,
        clock: Arc<dyn Clock>,
        started_ms: i64,
    ) -> Self {
        let (rows, ended_ms) = (AtomicU64::new(0), AtomicI64::new(0));
        let (plan, taken) = (Mutex::new(plan), OnceLock::new());
        let expected_bytes = AtomicU64::new(0);
        Self(Arc::new(Figures { rows, meter, plan, expected_bytes, taken, clock, started_ms, ended_ms }))
    }

    pub(super) fn expect_bytes(&self, bytes: u64) {
        self.0.expected_bytes.store(bytes, Ordering::Relaxed);
    }

    /// About how many bytes the whole query will scan, told from the sizes of files and columns; none where nobody knows.
    pub fn expected_bytes(&self) -> Option<u64> {
        Some(self.0.expected_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// The figures so far; final once the rows have ended or were dropped.
    pub fn stats(&self) -> Stats {
        let figures = &self.0;
        let ended_ms = match figures.ended_ms.load(Ordering::Relaxed) {
            0 => figures.clock.now_ms(),
            ended => ended,
        };
        let taken = self.taken();
        Stats {
            rows: figures.rows.load(Ordering::Relaxed),
            bytes_scanned: figures.meter.bytes(),
            files_scanned: taken.files,
            spilled_bytes: taken.spilled_bytes,
            elapsed_ms: u64::try_from(ended_ms - figures.started_ms).unwrap_or(0),
        }
    }

    fn taken(&self) -> Taken {
        if let Some(taken) = self.0.taken.get() {
            return *taken;
        }
        let plan = self.0.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.as_ref().map_or_else(|| self.0.taken.get().copied().unwrap_or_default(), |plan| Taken::by(plan.as_ref()))
    }

    fn end(&self) {
        let taken = self.taken();
        self.0.taken.get_or_init(|| taken);
        drop(self.0.plan.lock().unwrap_or_else(PoisonError::into_inner).take());
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
    /// Set where a commit follows the last row.
    commit: Option<Arc<Stop>>,
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
        let schema = answer_schema(&rows.schema(), views);
        let deadline = deadline.map(|(at, timeout)| (Box::pin(tokio::time::sleep_until(at)), timeout));
        Self { rows, schema, deadline, progress, commit: None, done: false }
    }

    /// These rows are committed once they have ended, unless the statement was stopped by then.
    pub(super) fn before_commit(mut self, stop: &Arc<Stop>) -> Self {
        self.commit = Some(Arc::clone(stop));
        self
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
            return Poll::Ready(Some(Err(DataFusionError::from(error))));
        }
        let polled = self.rows.poll_next_unpin(cx);
        match polled {
            Poll::Ready(Some(Ok(batch))) => {
                self.progress.0.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                Poll::Ready(Some(plain(batch, &self.schema)))
            }
            Poll::Ready(end) => {
                self.finish();
                if let (None, Some(stop)) = (&end, &self.commit)
                    && !stop.commit()
                {
                    let error = Error::limit("the statement was stopped before its commit: nothing was changed");
                    return Poll::Ready(Some(Err(DataFusionError::from(error))));
                }
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

/// The schema of an answer with such rows; with `views` columns stay in the types they have.
pub(super) fn answer_schema(rows: &SchemaRef, views: bool) -> SchemaRef {
    let schema = shown_schema(rows);
    if views { schema } else { plain_schema(&schema) }
}

/// Columns under the names that the statement gives them.
fn shown_schema(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().all(|field| given_name(field.name()) == Some(field.name())) {
        return Arc::clone(schema);
    }
    let shown = |(i, field): (usize, &FieldRef)| Field::clone(field).with_name(shown_name(i, field.name()));
    let fields: Fields = schema.fields().iter().enumerate().map(shown).collect();
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
