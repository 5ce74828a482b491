//! The embedded runtime: one process that hosts the six functions and plays for them what AWS has around Lambda.
//!
//! [`gateway`] is the HTTP API, [`triggers`] the stream's event source mapping, [`objects`] the bucket's notifications,
//! [`scheduler`] EventBridge; [`events`] holds the shapes they send. What each of them has done is in state documents, so a
//! restart goes on where the last process was, however it ended: everything is delivered at least once, and the functions make
//! once of it.

pub mod access;
mod body;
pub mod events;
pub mod functions;
pub mod gateway;
pub mod lakehouse;
mod objects;
mod renames;
mod scheduler;
mod shutdown;
mod status;
#[cfg(test)]
mod tests;
mod triggers;

use std::sync::Arc;
use std::time::Duration;

use shared::config::Settings;
use shared::telemetry::metrics;
use shared::{Error, Result};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use access::AccessPolicy;
use body::Bodies;
use gateway::Gateway;
pub use lakehouse::{OpenLakehouse, Takeover};
use objects::Watcher;
pub(crate) use objects::mark_of as object_mark;
use shutdown::Shutdown;
use triggers::{StreamTrigger, Wakeups};

/// How long tasks may take to finish after the gateway has closed: what is cut off then is done again at the next start.
const GRACE: Duration = Duration::from_secs(5);
/// How long a moment without work is waited for, while requests are still taken.
const LULL: Duration = Duration::from_secs(60);

/// How the runtime is reached and what it takes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Bytes of a request's body at most.
    pub max_body: usize,
    /// Requests under way at once at most.
    pub in_flight: usize,
    /// Whom requests may name and come from beside this machine.
    pub access: AccessPolicy,
    /// What becomes of a lakehouse file that changed.
    pub takeover: Takeover,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            max_body: 64 << 20,
            in_flight: 256,
            access: AccessPolicy::default(),
            takeover: Takeover::default(),
        }
    }
}

/// A runtime that answers requests.
#[derive(Debug)]
pub struct Running {
    /// E.g. `http://127.0.0.1:4000`.
    pub url: String,
    pub port: u16,
    stop: watch::Sender<bool>,
    gateway: tokio::task::JoinHandle<Result<()>>,
    tasks: JoinSet<()>,
    lakehouse: Arc<OpenLakehouse>,
}

/// Starts the runtime; it is ready when this returns.
///
/// # Errors
/// `Conflict` when the port is taken, otherwise as [`OpenLakehouse::open`].
pub async fn start(settings: &Settings, options: &Options) -> Result<Running> {
    metrics::keep();
    let listener = TcpListener::bind(("127.0.0.1", options.port))
        .await
        .map_err(|e| Error::conflict(format!("port {} on 127.0.0.1 can't be had", options.port)).with_source(e))?;
    let address = listener.local_addr()?;
    let url = format!("http://{address}");
    let lakehouse = Arc::new(OpenLakehouse::open(settings, &url, options.takeover).await?);
    let (sender, stop) = shutdown::channel();
    let wakeups = Wakeups::new(lakehouse.project.file().streams.keys());
    let watcher =
        Arc::new(Watcher::new(lakehouse.project.clone(), lakehouse.ports.clone(), lakehouse.functions.clone()));
    let tasks = spawn_triggers(&lakehouse, &wakeups, &watcher, &stop);
    let gateway = Gateway {
        lakehouse: lakehouse.clone(),
        wakeups,
        watcher,
        access: options.access.clone(),
        bodies: Bodies::new(options.max_body),
        in_flight: Arc::new(Semaphore::new(options.in_flight)),
    };
    let gateway = tokio::spawn(Arc::new(gateway).serve(listener, stop));
    tracing::info!(url, data = %settings.data.display(), "ready");
    Ok(Running { url, port: address.port(), stop: sender, gateway, tasks, lakehouse })
}

fn spawn_triggers(
    lakehouse: &Arc<OpenLakehouse>,
    wakeups: &Wakeups,
    watcher: &Arc<Watcher>,
    stop: &Shutdown,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for stream in lakehouse.project.file().streams.keys() {
        let trigger = StreamTrigger {
            stream: stream.clone(),
            ports: lakehouse.ports.clone(),
            functions: lakehouse.functions.clone(),
            wakeups: wakeups.clone(),
        };
        tasks.spawn(trigger.clone().run(stop.clone()));
        tasks.spawn(trigger.tick(stop.clone()));
    }
    tasks.spawn(watcher.clone().run(stop.clone()));
    for entry in jobs::schedule::entries(&lakehouse.project) {
        tasks.spawn(scheduler::run(entry, lakehouse.ports.clone(), lakehouse.functions.clone(), stop.clone()));
    }
    tasks.spawn(scheduler::serve_queue(lakehouse.ports.clone(), lakehouse.functions.clone(), stop.clone()));
    tasks
}

impl Running {
    /// Returns when the functions do nothing, or have gone on for a while.
    pub async fn lull(&self) {
        let begun = tokio::time::Instant::now();
        while self.lakehouse.functions.are_at_work() && begun.elapsed() < LULL {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops as [`Running::stop`] does, but waits for what is under way, however long that takes: the data directory is free then.
    ///
    /// # Errors
    /// As [`Running::stop`].
    pub async fn finish(mut self) -> Result<()> {
        self.stop.send_replace(true);
        let served = (&mut self.gateway).await.map_err(|e| Error::bug("the gateway broke off").with_source(e))?;
        while self.tasks.join_next().await.is_some() {}
        while self.lakehouse.functions.are_at_work() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        served
    }

    /// The opened lakehouse.
    pub fn lakehouse(&self) -> &Arc<OpenLakehouse> {
        &self.lakehouse
    }

    /// Stops: takes no new requests, lets those under way and the triggers finish, for some seconds. What is buffered stays in the
    /// stream.
    ///
    /// # Errors
    /// What made the gateway fail, if it did.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.send_replace(true);
        let served = self.gateway.await.map_err(|e| Error::bug("the gateway broke off").with_source(e))?;
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finished).await.is_err() {
            tracing::warn!(grace_s = GRACE.as_secs(), "triggers were still at work when the runtime stopped");
        }
        if self.lakehouse.functions.are_at_work() {
            // They may write as long as the process lives: so long the data directory is nobody else's.
            std::mem::forget(Arc::clone(&self.lakehouse));
        }
        served
    }

    /// Waits until the gateway ends by itself, which it does only by failing.
    ///
    /// # Errors
    /// What made it fail.
    pub async fn failed(&mut self) -> Result<()> {
        (&mut self.gateway).await.map_err(|e| Error::bug("the gateway broke off").with_source(e))?
    }
}
