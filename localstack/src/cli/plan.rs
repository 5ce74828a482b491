//! `tarn plan`: what the lakehouse file changes over the one in force.

use std::process::ExitCode;

use serde_json::{Value, json};
use shared::error::Context;
use shared::project::Project;
use shared::project::changes::{Change, Effect};
use shared::{Error, Result};

use super::caller::{Caller, Lakehouse, json_body, request};
use super::output::{Out, Rows};
use crate::runtime::Takeover;

/// The exit code is 2 when something is impossible, 1 when something needs to be allowed or can't be planned.
pub(super) async fn run(lakehouse: &Lakehouse, out: &Out) -> Result<ExitCode> {
    let path = &lakehouse.settings.project;
    let text = std::fs::read_to_string(path).context(|| format!("reading the lakehouse file `{}`", path.display()))?;
    // Its own mistakes are told with their places before anybody is asked.
    Project::parse(&text, &path.display().to_string())?;
    let caller = Caller::connect_with(lakehouse, Takeover::Never).await?;
    let ask = |path: &str| {
        let mut ask = request("POST", path, None);
        ask.headers.insert("content-type".into(), "application/yaml".into());
        ask.body = text.clone().into();
        ask
    };
    let mut answer = json_body(&caller.ask(ask("/plan")).await?)?;
    let checked = json_body(&caller.ask(ask("/check")).await?)?;
    let mut changes = changes_of(&checked)?;
    changes.extend(changes_of(&answer)?);
    changes.sort_by_key(|change| change.effect);
    answer["changes"] = json!(changes);
    for part in ["problems", "unchecked"] {
        answer[part] = checked[part].clone();
    }
    out.document(&answer, |answer: &Value| {
        Rows::of_objects(&answer["changes"], &["effect", "subject", "name", "what", "then"])
    })?;
    if changes.is_empty() {
        out.note("nothing changes");
    }
    let problems = answer["problems"].as_array().map_or(&[][..], Vec::as_slice);
    for problem in problems {
        let place = format!("{}:{}:{}", path.display(), problem["line"], problem["column"]);
        out.note(&format!("{place}: {}: {}", text_of(&problem["path"]), text_of(&problem["message"])));
    }
    for part in answer["unchecked"].as_array().into_iter().flatten() {
        out.note(&format!("not checked: {} {}", text_of(&part["path"]), text_of(&part["why"])));
    }
    Ok(match changes.iter().map(|change| change.effect).min() {
        Some(Effect::Impossible) => ExitCode::from(2),
        Some(Effect::NeedsAllow) => ExitCode::FAILURE,
        // What can't be planned by the file in force either is no change, and still wrong.
        Some(Effect::Applied) | None if !problems.is_empty() => ExitCode::FAILURE,
        Some(Effect::Applied) | None => ExitCode::SUCCESS,
    })
}

fn changes_of(answer: &Value) -> Result<Vec<Change>> {
    serde_json::from_value(answer["changes"].clone())
        .map_err(|e| Error::bug(format!("expected changes, found `{answer}`")).with_source(e))
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
