//! The six functions in one process, and which of them owns a route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use batcher::Batcher;
use bytes::Bytes;
use crawl::Crawl;
use engine::Engine;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use ingest::Ingest;
use insight::Insight;
use query::Query;
use shared::api::status::PARTS;
use shared::api::{Body, Event, Reply, Response};
use shared::config::Settings;
use shared::ports::Ports;
use shared::project::Project;
use shared::threads::Threads;
use shared::{Error, Result};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use transform::Transform;
use transform::check::Checked;

/// Threads for each processor: a function that computes for long leaves some to the others.
const THREADS_EACH: usize = 4;

/// How long an answer waits for its reader to take the next part.
const READER_TIME: Duration = Duration::from_secs(60);

type Parts = BoxStream<'static, Result<Bytes>>;

/// A function by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    Ingest,
    Batcher,
    Crawl,
    Transform,
    Query,
    Insight,
}

impl Function {
    /// The name that logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Batcher => "batcher",
            Self::Crawl => "crawl",
            Self::Transform => "transform",
            Self::Query => "query",
            Self::Insight => "insight",
        }
    }

    /// The function of this name.
    fn parse(name: &str) -> Option<Self> {
        let all = [Self::Ingest, Self::Batcher, Self::Crawl, Self::Transform, Self::Query, Self::Insight];
        all.into_iter().find(|function| function.as_str() == name)
    }
}

/// The function that answers a path, given by its parts. `None`: nobody does.
pub fn owner_of(segments: &[&str]) -> Option<Function> {
    match segments {
        ["streams"] | ["streams", _, "records"] | ["files" | "uploads", ..] => Some(Function::Ingest),
        ["streams", _, "flush"] | ["streams", _, "errors", ..] | ["plan"] => Some(Function::Batcher),
        ["status", function] if PARTS.contains(function) => Function::parse(function),
        ["crawl" | "crawls"] => Some(Function::Crawl),
        ["workflows" | "runs", ..] | ["erasures"] | ["check"] => Some(Function::Transform),
        ["query"] => Some(Function::Query),
        ["insight"] | ["insights", ..] => Some(Function::Insight),
        _ => None,
    }
}

/// The six libraries, each built once.
pub struct Functions {
    ingest: Ingest,
    batcher: Batcher,
    crawl: Crawl,
    transform: Transform,
    query: Query,
    insight: Insight,
    /// Where the functions run: apart from the threads that serve HTTP, timers and signals.
    threads: Threads,
    /// Where the parts of answers are made, which may go on for long: apart from calls, which are short.
    answers: Threads,
    /// One call of the batcher at a time for each stream, as Lambda does for each shard.
    batching: BTreeMap<String, Mutex<()>>,
}

impl Functions {
    /// Builds all six over the same ports and engine.
    ///
    /// # Errors
    /// What a function refuses: `Invalid` for a setting, `Limit` for memory or spill space.
    pub fn open(settings: &Settings, project: &Arc<Project>, ports: &Ports) -> Result<Arc<Self>> {
        let engine = Engine::open(settings, ports)?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let batching = project.file().streams.keys().map(|name| (name.clone(), Mutex::new(()))).collect();
        Ok(Arc::new(Self {
            ingest: Ingest::new(project.clone(), ports.clone())?,
            batcher: Batcher::new(project.clone(), ports.clone())?,
            crawl: Crawl::new(project.clone(), ports.clone())?,
            transform: Transform::new(project.clone(), ports.clone(), engine.clone())?.within(settings),
            query: Query::new(project.clone(), ports.clone(), engine.clone())?,
            insight: Insight::new(project.clone(), ports.clone(), engine)?,
            threads: Threads::start("function", THREADS_EACH * processors)?,
            answers: Threads::start("answer", processors)?,
            batching,
        }))
    }

    /// What of another lakehouse file can't be planned over the tables that there are.
    ///
    /// # Errors
    /// As [`Transform::check`].
    pub async fn check(&self, text: &str, next: &Project) -> Result<Checked> {
        self.transform.check(text, next).await
    }

    /// Whether calls are under way.
    pub fn are_at_work(&self) -> bool {
        self.threads.tasks() + self.answers.tasks() > 0
    }

    /// Frees what a process that was killed still holds. Only for the process that has the data directory, before it works.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn recover(&self) -> Result<()> {
        self.transform.expire_leases().await
    }

    /// Calls `function` with an event, on a task and threads of its own: a caller that goes away does not cut the work in half. A
    /// query that nobody waits for ends, unless it commits.
    ///
    /// # Errors
    /// What the function answers; `Bug` when it panicked.
    pub async fn call(self: &Arc<Self>, function: Function, event: Event) -> Result<Reply> {
        let functions = self.clone();
        let task = self.threads.spawn(async move {
            match function {
                Function::Ingest => functions.ingest.handle(event).await,
                Function::Batcher => functions.batcher.handle(event).await,
                Function::Crawl => functions.crawl.handle(event).await,
                Function::Transform => functions.transform.handle(event).await,
                Function::Query => functions.query.handle(event).await,
                Function::Insight => functions.insight.handle(event).await,
            }
        });
        let task = task.ok_or_else(|| Error::bug("the threads of the functions have ended"))?;
        let mut call = Call { task, ends_with_its_caller: function == Function::Query };
        let broke_off = |e| Error::bug(format!("`{}` broke off", function.as_str())).with_source(e);
        match (&mut call.task).await.map_err(broke_off)?? {
            Reply::Http(Response { status, headers, body: Body::Parts(parts) }) => {
                Ok(Response { status, headers, body: Body::Parts(self.made_apart(parts)?) }.into())
            }
            reply => Ok(reply),
        }
    }

    /// The parts of an answer, made on threads of their own. They end when nobody takes one for [`READER_TIME`].
    fn made_apart(&self, mut parts: Parts) -> Result<Parts> {
        let (to, from) = mpsc::channel(1);
        let making = self.answers.spawn(async move {
            loop {
                let part = tokio::select! {
                    part = parts.next() => part,
                    () = to.closed() => return,
                };
                let is_last = part.is_none();
                match tokio::time::timeout(READER_TIME, to.send(part)).await {
                    Ok(sent) if is_last || sent.is_err() => return,
                    Ok(_) => {}
                    Err(_) => {
                        tracing::warn!("an answer was broken off: its reader took nothing for {READER_TIME:?}");
                        return;
                    }
                }
            }
        });
        making.ok_or_else(|| Error::bug("the threads of answers have ended"))?;
        let part = |from: Option<mpsc::Receiver<Option<Result<Bytes>>>>| async move {
            let mut from = from?;
            match from.recv().await {
                Some(part) => Some((part?, Some(from))),
                // Broken off: an answer that is whole ends with no part.
                None => Some((Err(Error::limit("expected the parts of the answer to be taken as they come")), None)),
            }
        };
        Ok(stream::unfold(Some(from), part).boxed())
    }

    /// Calls the batcher about `stream`, after any call about it that is still under way.
    ///
    /// # Errors
    /// As [`Functions::call`]; `NotFound` for a stream that is not declared.
    pub async fn batch(self: &Arc<Self>, stream: &str, event: Event) -> Result<Reply> {
        let turn = self.batching.get(stream).ok_or_else(|| {
            let known: Vec<_> = self.batching.keys().map(|n| format!("`{n}`")).collect();
            Error::not_found(format!("no stream `{stream}`: expected one of {}", known.join(", ")))
        })?;
        let _turn = turn.lock().await;
        self.call(Function::Batcher, event).await
    }
}

/// A call under way.
struct Call {
    task: JoinHandle<Result<Reply>>,
    ends_with_its_caller: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.ends_with_its_caller {
            self.task.abort();
        }
    }
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Functions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(path: &str) -> Option<Function> {
        owner_of(&path.split('/').filter(|s| !s.is_empty()).collect::<Vec<_>>())
    }

    #[test]
    fn every_documented_route_has_its_function() {
        for (path, function) in [
            ("/streams", Function::Ingest),
            ("/streams/flights/records", Function::Ingest),
            ("/streams/flights/flush", Function::Batcher),
            ("/streams/flights/errors", Function::Batcher),
            ("/streams/flights/errors/replay", Function::Batcher),
            ("/streams/flights/errors/discard", Function::Batcher),
            ("/workflows/curate/quarantine/replay", Function::Transform),
            ("/files/weather/2013/01/w.csv", Function::Ingest),
            ("/crawl", Function::Crawl),
            ("/crawls", Function::Crawl),
            ("/status/batcher", Function::Batcher),
            ("/plan", Function::Batcher),
            ("/check", Function::Transform),
            ("/workflows/curate/runs", Function::Transform),
            ("/runs/1", Function::Transform),
            ("/runs/1/resume", Function::Transform),
            ("/query", Function::Query),
            ("/insight", Function::Insight),
            ("/insights/daily", Function::Insight),
        ] {
            assert_eq!(owner(path), Some(function), "{path}");
        }
    }

    #[test]
    fn an_undocumented_route_has_none() {
        for path in ["/", "/status/query", "/stream", "/streams/flights", "/query/x", "/etc/passwd"] {
            assert_eq!(owner(path), None, "{path}");
        }
    }
}
