//! Where statements run: on threads of the engine's own, a few for each that runs at once.
//!
//! A statement has a slot from its planning to its last row. Its threads are its own, so that the operating system shares the
//! processors out between statements, however long one computes without yielding, and whoever called waits beside it and can
//! leave at any time.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::RecordBatchStream;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::queue::{Permit, Queue};
use super::stats::timed_out;
use super::stop::Stop;
use super::{Answer, Outcome, Progress};
use shared::threads::Threads;
use shared::{Error, Result};

/// Slots for each processor, and how many there are at least.
const EACH: usize = 4;
const LEAST: usize = 8;
/// Batches of an answer that wait for its reader.
const AHEAD: usize = 2;
/// How long a statement may take to end by itself, in good order, after its deadline.
const PATIENCE: Duration = Duration::from_millis(500);

/// The slots of an engine.
#[derive(Debug)]
pub(super) struct Slots {
    queue: Arc<Queue>,
    /// Of slots that nobody has.
    idle: Mutex<Vec<Threads>>,
    /// Threads of a slot.
    threads: usize,
}

/// The threads of one statement, and its place in the queue.
struct Slot {
    threads: Option<Threads>,
    home: Arc<Slots>,
    _permit: Permit,
}

impl Slots {
    /// Slots of `threads` each.
    pub(super) fn new(threads: usize) -> Arc<Self> {
        let queue = Queue::new((EACH * threads).max(LEAST));
        Arc::new(Self { queue, idle: Mutex::default(), threads })
    }

    /// Runs `work` in a slot, once it is the caller's turn.
    ///
    /// # Errors
    /// What the work gives; `Limit` after the time of `stop`, `Retry` when too many wait, `Bug` when the work panicked.
    pub(super) async fn run<F>(self: &Arc<Self>, caller: &str, stop: &Arc<Stop>, work: F) -> Result<Answer>
    where
        F: Future<Output = Result<Answer>> + Send + 'static,
    {
        let permit = match stop.deadline() {
            None => self.queue.permit(caller).await?,
            Some((at, timeout)) => {
                let permit = tokio::time::timeout_at(at, self.queue.permit(caller)).await;
                permit.map_err(|_| timed_out(timeout))??
            }
        };
        let slot = self.open(permit)?;
        let (head, mut first) = oneshot::channel();
        let (rows, rest) = mpsc::channel(AHEAD);
        let is_cut = Arc::new(AtomicBool::new(false));
        let task = slot.start(deliver(work, head, rows, Arc::clone(stop), Arc::clone(&is_cut)))?;
        let mut task = Running { task, stop: Arc::clone(stop) };
        match task.first(&mut first).await? {
            Some(Head { schema, outcome, progress }) => {
                let overdue = overdue(stop);
                let rows = Delivered { schema: Arc::clone(&schema), rows: rest, task: Some(task), overdue, is_cut };
                Ok(Answer { schema, rows: Box::pin(rows), outcome, progress })
            }
            None => Err(task.broken_off().await),
        }
    }

    /// The idle threads that have the least to do; new ones while some of an earlier statement are still at work on all.
    fn open(self: &Arc<Self>, permit: Permit) -> Result<Slot> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let least = (0..idle.len()).min_by_key(|at| idle[*at].tasks());
        let threads = match least {
            Some(at) if idle[at].tasks() == 0 || idle.len() >= self.queue.most() => idle.swap_remove(at),
            _ => Threads::start("query", self.threads)?,
        };
        Ok(Slot { threads: Some(threads), home: Arc::clone(self), _permit: permit })
    }
}

impl Slot {
    /// Starts the work, which has the slot until it ends.
    fn start(self, work: impl Future<Output = ()> + Send + 'static) -> Result<JoinHandle<()>> {
        let gone = || Error::bug("the threads of queries have ended");
        // The work holds the slot, which holds the threads: they are idle again when the work is dropped there.
        let threads = self.threads.as_ref().ok_or_else(gone)?;
        let (give, take) = oneshot::channel::<Self>();
        let task = threads.spawn(async move {
            let _slot = take.await;
            work.await;
        });
        let task = task.ok_or_else(gone)?;
        give.send(self).map_err(|_| gone())?;
        Ok(task)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.threads.take());
    }
}

/// What is known of an answer before its rows.
struct Head {
    schema: SchemaRef,
    outcome: Option<Outcome>,
    progress: Progress,
}

type Row = datafusion::common::Result<RecordBatch>;

/// Does the work and passes its answer on, until its deadline: a reader that takes nothing any more keeps no slot beyond it.
async fn deliver(
    work: impl Future<Output = Result<Answer>>,
    head: oneshot::Sender<Result<Head>>,
    to: mpsc::Sender<Row>,
    stop: Arc<Stop>,
    is_cut: Arc<AtomicBool>,
) {
    let Answer { schema, mut rows, outcome, progress } = match work.await {
        Ok(answer) => answer,
        Err(error) => {
            // An error here and below means that nobody waits any more.
            let _ = head.send(Err(error));
            return;
        }
    };
    if head.send(Ok(Head { schema, outcome, progress })).is_err() {
        return;
    }
    while let Some(batch) = rows.next().await {
        let sent = to.send(batch);
        let gone = match stop.deadline_of_answer() {
            None => sent.await.is_err(),
            Some((at, _)) => match tokio::time::timeout_at(at + PATIENCE, sent).await {
                Ok(sent) => sent.is_err(),
                Err(_) => {
                    is_cut.store(true, Ordering::SeqCst);
                    true
                }
            },
        };
        if gone {
            return;
        }
    }
}

/// Ends a little after the deadline, if there is one.
fn overdue(stop: &Stop) -> Option<(Pin<Box<Sleep>>, Duration)> {
    stop.deadline_of_answer().map(|(at, timeout)| (Box::pin(tokio::time::sleep_until(at + PATIENCE)), timeout))
}

/// A statement at work; dropping it ends the work, unless that is committing.
struct Running {
    task: JoinHandle<()>,
    stop: Arc<Stop>,
}

impl Running {
    /// The head of the answer; none when the work ended without one.
    async fn first(&mut self, first: &mut oneshot::Receiver<Result<Head>>) -> Result<Option<Head>> {
        if let Some((sleep, timeout)) = overdue(&self.stop) {
            tokio::select! {
                biased;
                head = &mut *first => return head.ok().transpose(),
                () = sleep => if self.stop.stop() {
                    return Err(timed_out(timeout));
                }
            }
        }
        // What is being committed is waited for.
        first.await.ok().transpose()
    }

    /// Why the work ended without an answer.
    async fn broken_off(mut self) -> Error {
        let _ended = (&mut self.task).await;
        why()
    }
}

/// The panic's own words may hold what a row says: they are for the log, not for who asked.
fn why() -> Error {
    Error::bug("the query broke off: the log says where")
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stop.stop() {
            self.task.abort();
        }
    }
}

/// The rows of an answer as they come from its slot.
struct Delivered {
    schema: SchemaRef,
    rows: mpsc::Receiver<Row>,
    /// None after the end.
    task: Option<Running>,
    overdue: Option<(Pin<Box<Sleep>>, Duration)>,
    /// Whether the work ended before its last row, as nobody took the rows.
    is_cut: Arc<AtomicBool>,
}

impl Stream for Delivered {
    type Item = Row;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Row>> {
        let this = &mut *self;
        let Some(running) = &mut this.task else { return Poll::Ready(None) };
        let failed = |error: Error| Poll::Ready(Some(Err(DataFusionError::from(error))));
        match this.rows.poll_recv(cx) {
            Poll::Ready(Some(batch)) => return Poll::Ready(Some(batch)),
            Poll::Ready(None) => {
                // The channel closes when the work ends, well or by a panic.
                let ended = std::task::ready!(running.task.poll_unpin(cx));
                this.task = None;
                return match (&this.overdue, ended) {
                    (_, Err(_)) => failed(why()),
                    (Some((_, timeout)), Ok(())) if this.is_cut.load(Ordering::SeqCst) => failed(timed_out(*timeout)),
                    (_, Ok(())) => Poll::Ready(None),
                };
            }
            Poll::Pending => {}
        }
        if let Some((sleep, timeout)) = &mut this.overdue
            && sleep.as_mut().poll(cx).is_ready()
        {
            let error = timed_out(*timeout);
            this.task = None;
            return failed(error);
        }
        Poll::Pending
    }
}

impl RecordBatchStream for Delivered {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use arrow::array::Int64Array;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::TryStreamExt;

    use super::*;
    use shared::ErrorKind;
    use shared::clock::SystemClock;

    fn answer(rows: impl Stream<Item = Row> + Send + 'static) -> Answer {
        let schema = batch().schema();
        let progress = Progress::new(Arc::default(), None, Arc::new(SystemClock), 0);
        let rows = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), rows));
        Answer { schema, rows, outcome: None, progress }
    }

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap()
    }

    async fn collect(answer: Answer) -> Result<Vec<RecordBatch>> {
        answer.rows.try_collect().await.map_err(Error::from)
    }

    #[tokio::test]
    async fn rows_come_from_the_slot_to_their_end() {
        let slots = Slots::new(1);
        let work = async { Ok(answer(futures::stream::iter((0..10).map(|_| Ok(batch()))))) };
        let answer = slots.run("", &Stop::after(None), work).await.unwrap();
        assert_eq!(collect(answer).await.unwrap().len(), 10);
    }

    #[tokio::test]
    async fn a_panic_is_the_error_of_its_statement_alone() {
        let slots = Slots::new(1);
        let planning = async { panic!("while planning") };
        let error = slots.run("", &Stop::after(None), planning).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Bug);
        assert!(!error.to_string().contains("while planning"), "{error}");
        let work = async {
            Ok(answer(futures::stream::iter(0..2).map(|n| if n == 0 { Ok(batch()) } else { panic!("while running") })))
        };
        let broken = slots.run("", &Stop::after(None), work).await.unwrap();
        assert_eq!(collect(broken).await.unwrap_err().kind(), ErrorKind::Bug, "it is no end of the rows");
        let next = slots.run("", &Stop::after(None), async { Ok(answer(futures::stream::empty())) }).await.unwrap();
        assert!(collect(next).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_waits_leaves_at_the_deadline_whatever_the_work_does() {
        let slots = Slots::new(1);
        let began = Instant::now();
        let computes = async {
            std::thread::sleep(Duration::from_secs(20));
            Err(Error::bug("too late"))
        };
        let stop = Stop::after(Some(Duration::from_millis(100)));
        let error = slots.run("", &stop, computes).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
        let rows = futures::stream::once(async {
            std::thread::sleep(Duration::from_secs(20));
            Ok(batch())
        });
        let stop = Stop::after(Some(Duration::from_millis(100)));
        let started = slots.run("", &stop, async { Ok(answer(rows)) }).await.unwrap();
        assert_eq!(collect(started).await.unwrap_err().kind(), ErrorKind::Limit);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn what_commits_is_waited_for() {
        let slots = Slots::new(1);
        let stop = Stop::after(Some(Duration::from_millis(10)));
        let own = Arc::clone(&stop);
        let commits = async move {
            assert!(own.commit());
            tokio::time::sleep(PATIENCE + Duration::from_millis(500)).await;
            Ok(answer(futures::stream::empty()))
        };
        assert!(slots.run("", &stop, commits).await.is_ok());
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        let slots = Slots::new(1);
        let (alive, ended) = oneshot::channel::<()>();
        let work = async move {
            let _alive = alive;
            std::future::pending().await
        };
        let stop = Stop::after(None);
        let waiting = slots.run("", &stop, work);
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().is_err());
    }
}
