//! `tarn plan`: what the lakehouse file changes over the one in force.

use std::process::ExitCode;

use serde_json::Value;
use shared::error::Context;
use shared::project::Project;
use shared::project::changes::{Change, Effect};
use shared::{Error, Result};

use super::caller::{Caller, Lakehouse, json_body, request};
use super::output::{Out, Rows};
use crate::runtime::Takeover;

/// The exit code is 2 when something is impossible, 1 when something needs to be allowed.
pub(super) async fn run(lakehouse: &Lakehouse, out: &Out) -> Result<ExitCode> {
    let path = &lakehouse.settings.project;
    let text = std::fs::read_to_string(path).context(|| format!("reading the lakehouse file `{}`", path.display()))?;
    // Its own mistakes are told with their places before anybody is asked.
    Project::parse(&text, &path.display().to_string())?;
    let caller = Caller::connect_with(lakehouse, Takeover::Never).await?;
    let mut ask = request("POST", "/plan", None);
    ask.headers.insert("content-type".into(), "application/yaml".into());
    ask.body = text.into();
    let answer = json_body(&caller.ask(ask).await?)?;
    let changes: Vec<Change> = serde_json::from_value(answer["changes"].clone())
        .map_err(|e| Error::bug(format!("expected changes, found `{answer}`")).with_source(e))?;
    out.document(&answer, |answer: &Value| {
        Rows::of_objects(&answer["changes"], &["effect", "subject", "name", "what", "then"])
    })?;
    if changes.is_empty() {
        out.note("nothing changes");
    }
    Ok(match changes.iter().map(|change| change.effect).min() {
        Some(Effect::Impossible) => ExitCode::from(2),
        Some(Effect::NeedsAllow) => ExitCode::FAILURE,
        Some(Effect::Applied) | None => ExitCode::SUCCESS,
    })
}
