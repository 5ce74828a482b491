//! `tarn up`: the runtime until a signal.

use serde_json::json;
use shared::config::Settings;
use shared::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::{Format, Up};
use super::output::Out;
use crate::runtime::access::AccessPolicy;
use crate::runtime::{self, Options};

/// Runs until SIGINT or SIGTERM, a second one of which ends it at once; one line with the URL says that it is ready.
pub(super) async fn run(settings: &Settings, up: &Up, out: &Out) -> Result<()> {
    let max_body = usize::try_from(up.max_body.0).map_err(|e| {
        Error::invalid(format!("expected a body size in range, found `{}`", up.max_body)).with_source(e)
    })?;
    let access = AccessPolicy { hosts: up.allow_host.clone(), origins: up.allow_origin.clone() };
    let options = Options { port: up.port, max_body, in_flight: usize::from(up.in_flight), access };
    // Before anything is opened: a signal during the start is not lost.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut running = runtime::start(settings, &options).await?;
    match out.format() {
        Format::Json => {
            out.text(&format!("{}\n", json!({"url": running.url, "pid": std::process::id()})))?;
        }
        _ => out.text(&format!("tarn is ready at {}\n", running.url))?,
    }
    tokio::select! {
        failed = running.failed() => return failed,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: what is under way may finish first");
    tokio::select! {
        stopped = running.stop() => stopped,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}
