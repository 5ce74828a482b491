//! Threads of their own for work that computes, apart from those that serve requests, signals and timers: work that does not
//! yield keeps nobody else waiting, as the operating system shares the processors out.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::{Error, Result, deadline, telemetry};

/// Bytes of a thread's stack. Only what is used of it takes memory; deep expressions and plans use much.
const STACK: usize = 128 << 20;

/// A group of threads. Dropping it waits for nothing: work that is under way is not driven on.
#[derive(Debug)]
pub struct Threads {
    runtime: Option<Runtime>,
}

impl Threads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// `Limit` when the system gives no more threads.
    pub fn start(name: &str, count: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(count.max(1))
            .thread_name(name)
            .thread_stack_size(STACK)
            .enable_all()
            .build()
            .map_err(|e| {
                Error::limit(format!("expected {count} threads for `{name}`, found too few")).with_source(e)
            })?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Does the work there, under the deadline, trace and span of the caller. Only [`None`] after the threads have ended.
    pub fn spawn<F>(&self, work: F) -> Option<JoinHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.as_ref().map(|runtime| runtime.spawn(carried(work)))
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.runtime.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which asynchronous code may not do.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The work with what its task would not know otherwise: deadline, trace, span.
fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let (deadline, trace, span) = (deadline::current(), telemetry::trace::current(), tracing::Span::current());
    async move {
        let work = telemetry::trace::within(trace, work).instrument(span);
        match deadline {
            Some(at_ms) => deadline::until(at_ms, work).await,
            None => work.await,
        }
    }
}

/// Does work that goes deep on a stack of its own.
pub fn deep<T>(work: impl FnOnce() -> T) -> T {
    stacker::grow(STACK, work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_elsewhere_knows_its_deadline_and_trace() {
        let threads = Threads::start("test", 1).unwrap();
        let trace = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
        let seen = || async { (deadline::current(), telemetry::trace::current()) };
        let work = async { threads.spawn(seen()).unwrap().await.unwrap() };
        let known = deadline::until(7, telemetry::trace::within(trace.clone(), work)).await;
        assert_eq!(known, (Some(7), trace));
        assert_eq!(threads.spawn(seen()).unwrap().await.unwrap(), (None, None));
    }

    #[tokio::test]
    async fn threads_that_are_busy_keep_nobody_waiting_when_they_are_dropped() {
        let threads = Threads::start("test", 1).unwrap();
        let _busy = threads.spawn(async { std::thread::sleep(std::time::Duration::from_secs(2)) });
        let started = std::time::Instant::now();
        drop(threads);
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }

    #[test]
    fn deep_work_has_a_stack_of_its_own() {
        fn down(levels: usize) -> usize {
            let page = std::hint::black_box([levels as u8; 4096]);
            if levels == 0 { usize::from(page[0]) } else { down(levels - 1) + 1 }
        }
        assert_eq!(deep(|| down(10_000)), 10_000);
    }
}
