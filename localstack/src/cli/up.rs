//! `tarn up`: the runtime until a signal; anew when its lakehouse file was edited.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use shared::config::Settings;
use shared::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::{Format, Up};
use super::output::Out;
use crate::runtime::access::AccessPolicy;
use crate::runtime::{self, OpenLakehouse, Options, Takeover};

/// How often the lakehouse file is looked at. An edit is taken over when it stayed the same for one look.
const LOOK: Duration = Duration::from_secs(1);
/// After how long one that could not be taken over is judged again.
const AGAIN: Duration = Duration::from_secs(30);

/// Runs until SIGINT or SIGTERM, a second one of which ends it at once; one line with the URL says that it is ready.
pub(super) async fn run(settings: &Settings, up: &Up, out: &Out) -> Result<()> {
    let max_body = usize::try_from(up.max_body.0).map_err(|e| {
        Error::invalid(format!("expected a body size in range, found `{}`", up.max_body)).with_source(e)
    })?;
    let access = AccessPolicy { hosts: up.allow_host.clone(), origins: up.allow_origin.clone() };
    let takeover = if up.allow { Takeover::Allowed } else { Takeover::Safe };
    let mut options = Options { port: up.port, max_body, in_flight: usize::from(up.in_flight), access, takeover };
    // Before anything is opened: a signal during the start is not lost.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (mut is_ready, mut refused) = (false, None);
    loop {
        let mut running = match runtime::start(settings, &options).await {
            Err(error) if is_ready => {
                // What was judged can't be opened, or was edited again since: the file before goes on.
                let as_before = Options { takeover: Takeover::Never, ..options.clone() };
                let running = runtime::start(settings, &as_before).await?;
                running.lakehouse().tell_file_problem(&error);
                refused = running.lakehouse().declaration();
                running
            }
            started => started?,
        };
        options.port = running.port;
        if !is_ready {
            match out.format() {
                Format::Json => out.text(&format!("{}\n", json!({"url": running.url, "pid": std::process::id()})))?,
                _ => out.text(&format!("tarn is ready at {}\n", running.url))?,
            }
            is_ready = true;
        }
        let lakehouse = running.lakehouse().clone();
        let is_edited = tokio::select! {
            failed = running.failed() => return failed,
            () = edited(&lakehouse, refused.take(), options.takeover) => true,
            _ = interrupt.recv() => false,
            _ = terminate.recv() => false,
        };
        drop(lakehouse);
        if is_edited {
            tracing::info!("the lakehouse file was edited: it is taken over when what is under way is finished");
            let finished = async {
                running.lull().await;
                running.finish().await
            };
            tokio::select! {
                finished = finished => finished?,
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            }
            continue;
        }
        tracing::info!("stopping: what is under way may finish first");
        return tokio::select! {
            stopped = running.stop() => stopped,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
    }
}

/// Returns when the lakehouse file was edited and can be taken over; not for `refused`, a text that could not. One that can't is
/// told of, in the log and the status, and judged again from time to time: what exists may have changed.
async fn edited(lakehouse: &Arc<OpenLakehouse>, refused: Option<String>, takeover: Takeover) {
    let mut judged = refused.unwrap_or_else(|| lakehouse.text().to_owned());
    let (mut last, mut judged_at) = (Some(judged.clone()), Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = lakehouse.declaration();
        let is_settled = now == last;
        last.clone_from(&now);
        if now.is_none() && is_settled && !lakehouse.has_file_problem() {
            lakehouse.tell_file_problem(&Error::not_found("expected the lakehouse file, found none"));
        }
        let is_back = now.as_deref() == Some(lakehouse.text());
        let is_due = lakehouse.has_file_problem() && (is_back || judged_at.elapsed() >= AGAIN);
        // A file that is being replaced may be away for a moment.
        let Some(text) = now.filter(|now| is_settled && (is_due || *now != judged)) else { continue };
        if lakehouse.judge(&text, takeover).await {
            return;
        }
        (judged, judged_at) = (text, Instant::now());
    }
}
