//! `tarn errors`: what was refused or set aside, shown and replayed.

use serde_json::{Map, Value, json};
use shared::api::status::counted;
use shared::{Error, Result};

use super::arguments::{Errors, ErrorsCommand, Format, Replay, Show};
use super::caller::{Caller, Lakehouse, json_body, request};
use super::output::{Out, Rows};
use crate::runtime::Takeover;

/// Characters of a record that a table shows.
const SHOWN_CHARACTERS: usize = 300;

pub(super) async fn run(lakehouse: &Lakehouse, errors: &Errors, out: &Out) -> Result<()> {
    let takeover = match errors.command {
        ErrorsCommand::Replay(_) => Takeover::Safe,
        ErrorsCommand::List | ErrorsCommand::Show(_) => Takeover::Never,
    };
    let caller = Caller::connect_with(lakehouse, takeover).await?;
    match &errors.command {
        ErrorsCommand::List => list(&caller, out).await,
        ErrorsCommand::Show(show) => show_some(&caller, show, out).await,
        ErrorsCommand::Replay(replay) => replay_some(&caller, replay, out).await,
    }
}

/// One row a stream and one a workflow that has some.
async fn list(caller: &Caller, out: &Out) -> Result<()> {
    let batcher = caller.json("GET", "/status/batcher", None).await?;
    let transform = caller.json("GET", "/status/transform", None).await?;
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let streams = items(&batcher["streams"]).into_iter().filter(|stream| stream["errors"]["objects"] != 0);
    let streams = streams.map(|stream| entry("stream", &stream["name"], &stream["errors"]));
    let workflows = items(&transform["quarantine"]);
    let workflows = workflows.iter().map(|aside| entry("workflow", &aside["workflow"], aside));
    let all: Vec<Value> = streams.chain(workflows).collect();
    out.document(&json!({"errors": all}), |all| {
        Rows::of_objects(&all["errors"], &["kind", "name", "records", "objects", "newest"])
    })
}

fn entry(kind: &str, name: &Value, aside: &Value) -> Value {
    json!({"kind": kind, "name": name, "records": aside["records"], "objects": aside["objects"], "newest": aside["reasons"][0]})
}

async fn show_some(caller: &Caller, show: &Show, out: &Out) -> Result<()> {
    if show.workflow {
        let mut ask = request("GET", &format!("/workflows/{}/quarantine", show.name), None);
        ask.query.insert("limit".into(), show.limit.to_string());
        ask.query.extend(show.job.clone().map(|job| ("job".to_owned(), job)));
        let answer = json_body(&caller.ask(ask).await?)?;
        return out
            .document(&answer, |answer| Rows::of_objects(&answer["quarantine"], &["job", "run", "rules", "row"]));
    }
    let mut ask = request("GET", &format!("/streams/{}/errors", show.name), None);
    ask.query.insert("limit".into(), show.limit.to_string());
    let filters = [("since", &show.filter.since), ("until", &show.filter.until), ("code", &show.filter.code)];
    ask.query.extend(filters.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
    let mut answer = json_body(&caller.ask(ask).await?)?;
    if out.format() == Format::Table {
        for error in answer["errors"].as_array_mut().into_iter().flatten() {
            error["data"] = json!(shortened(error["data"].as_str().unwrap_or_default()));
        }
    }
    out.document(&answer, |answer| {
        Rows::of_objects(&answer["errors"], &["arrived", "code", "message", "attempts", "data"])
    })
}

/// A record as a table shows it.
fn shortened(data: &str) -> String {
    match data.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}… ({} bytes)", &data[..end], data.len()),
        None => data.to_owned(),
    }
}

async fn replay_some(caller: &Caller, replay: &Replay, out: &Out) -> Result<()> {
    let filters = [("since", &replay.filter.since), ("until", &replay.filter.until), ("code", &replay.filter.code)];
    let mut body: Map<String, Value> =
        filters.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))).collect();
    body.insert("dryRun".into(), json!(replay.dry_run));
    let spinner = out.spinner("replaying");
    let path = format!("/streams/{}/errors/replay", replay.stream);
    let answer = caller.json("POST", &path, Some(&Value::Object(body))).await;
    spinner.finish_and_clear();
    let answer = answer?;
    out.document(&answer, |answer| {
        Rows::of_objects(&json!([answer]), &["stream", "table", "replayed", "failing", "reason"])
    })?;
    match (answer["unfinished"] == true, answer["failing"].as_u64()) {
        (true, _) => Err(Error::retry("time was up before all were looked at: the same command does the rest")),
        (false, Some(failing)) if failing > 0 => {
            Err(Error::invalid(format!("{} still can't be stored", counted(failing, "record"))))
        }
        _ => Ok(()),
    }
}
