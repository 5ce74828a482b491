//! The scheduler: runs crawls, workflows and insights when their schedule is due, by the same rules as the functions follow when
//! a tick on AWS names none ([`jobs::schedule`]).

use std::sync::Arc;
use std::time::Duration;

use jobs::Queue;
use jobs::schedule::{Entry, Kind, Occurrence, Progress};
use serde_json::json;
use shared::Result;
use shared::api::Event;
use shared::ports::Ports;

use super::events;
use super::functions::{Function, Functions};
use super::shutdown::Shutdown;

/// How often a schedule is compared with the clock.
const LOOK: Duration = Duration::from_millis(500);

/// Runs the entry whenever it is due, until told to stop.
pub(super) async fn run(entry: Entry, ports: Ports, functions: Arc<Functions>, mut stop: Shutdown) {
    loop {
        let call = |occurrence| call(entry.kind, occurrence, &ports, &functions);
        if let Err(error) = entry.run_if_due(&ports, call).await {
            tracing::error!(function = entry.kind.function(), name = entry.name, %error, "a schedule failed");
        }
        if !stop.sleep(LOOK).await {
            return;
        }
    }
}

/// Has the function `transform` do the runs that wait in its queue, until told to stop.
pub(super) async fn serve_queue(ports: Ports, functions: Arc<Functions>, mut stop: Shutdown) {
    let queue = Queue::of_workflows(&ports);
    loop {
        if let Err(error) = serve_what_waits(&queue, &ports, &functions).await {
            tracing::error!(%error, "the queue of runs was not served");
        }
        if !stop.sleep(LOOK).await {
            return;
        }
    }
}

async fn serve_what_waits(queue: &Queue, ports: &Ports, functions: &Arc<Functions>) -> Result<()> {
    if queue.waiting(None).await?.is_empty() {
        return Ok(());
    }
    let now_ms = ports.clock.now_ms();
    let event = events::schedule(&json!({"function": "transform", "queue": true}), &format!("queue-{now_ms}"), now_ms);
    functions.call(Function::Transform, Event::parse(event)?).await.map(drop)
}

async fn call(kind: Kind, occurrence: Occurrence, ports: &Ports, functions: &Arc<Functions>) -> Result<Progress<()>> {
    let detail = json!({"function": kind.function(), "name": occurrence.name});
    let event = events::schedule(&detail, &occurrence.id(), ports.clock.now_ms());
    functions.call(function(kind), Event::parse(event)?).await?;
    Ok(Progress::Done(()))
}

fn function(kind: Kind) -> Function {
    match kind {
        Kind::Crawl => Function::Crawl,
        Kind::Transform => Function::Transform,
        Kind::Insight => Function::Insight,
    }
}
