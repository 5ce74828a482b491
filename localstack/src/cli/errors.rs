//! `tarn errors`: what was refused or set aside, shown, replayed and discarded.

use serde_json::{Map, Value, json};
use shared::api::status::counted;
use shared::{Error, Result};

use super::arguments::{Discard, ErrorFilter, Errors, ErrorsCommand, Format, Replay, Show};
use super::caller::{Caller, Lakehouse, json_body, request};
use super::confirm::confirm;
use super::output::{Out, Rows};
use crate::runtime::Takeover;

/// Characters of a record that a table shows.
const SHOWN_CHARACTERS: usize = 300;

pub(super) async fn run(lakehouse: &Lakehouse, errors: &Errors, out: &Out) -> Result<()> {
    let takeover = match errors.command {
        ErrorsCommand::Replay(_) | ErrorsCommand::Discard(_) => Takeover::Safe,
        ErrorsCommand::List | ErrorsCommand::Show(_) => Takeover::Never,
    };
    let caller = Caller::connect_with(lakehouse, takeover).await?;
    match &errors.command {
        ErrorsCommand::List => list(&caller, out).await,
        ErrorsCommand::Show(show) => show_some(&caller, show, out).await,
        ErrorsCommand::Replay(replay) => replay_some(&caller, replay, out).await,
        ErrorsCommand::Discard(discard) => discard_some(&caller, discard, out).await,
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

/// What is given of a filter, by its name in requests.
fn given(filter: &ErrorFilter) -> impl Iterator<Item = (String, String)> {
    let ErrorFilter { job, rule, since, until, code, .. } = filter.clone();
    let all = [("job", job), ("rule", rule), ("since", since), ("until", until), ("code", code)];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)))
}

/// The route of what was refused or set aside.
fn route(name: &str, filter: &ErrorFilter, rest: &str) -> String {
    match filter.workflow {
        true => format!("/workflows/{name}/quarantine{rest}"),
        false => format!("/streams/{name}/errors{rest}"),
    }
}

async fn show_some(caller: &Caller, show: &Show, out: &Out) -> Result<()> {
    let mut ask = request("GET", &route(&show.name, &show.filter, ""), None);
    ask.query.insert("limit".into(), show.limit.to_string());
    ask.query.extend(given(&show.filter));
    let mut answer = json_body(&caller.ask(ask).await?)?;
    if show.filter.workflow {
        return out.document(&answer, |answer| {
            Rows::of_objects(&answer["quarantine"], &["job", "run", "rules", "reason", "row"])
        });
    }
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

fn body(filter: &ErrorFilter, dry_run: bool) -> Map<String, Value> {
    let mut body: Map<String, Value> = given(filter).map(|(name, value)| (name, json!(value))).collect();
    body.insert("dryRun".into(), json!(dry_run));
    body
}

async fn replay_some(caller: &Caller, replay: &Replay, out: &Out) -> Result<()> {
    let mut body = body(&replay.filter, replay.dry_run);
    if replay.overwrite {
        body.insert("overwrite".into(), json!(true));
    }
    let spinner = out.spinner("replaying");
    let path = route(&replay.name, &replay.filter, "/replay");
    let answer = caller.json("POST", &path, Some(&Value::Object(body))).await;
    spinner.finish_and_clear();
    let answer = answer?;
    let columns: &[&str] = match replay.filter.workflow {
        true => &["workflow", "job", "table", "replayed", "superseded", "failing", "reason"],
        false => &["stream", "table", "replayed", "failing", "reason"],
    };
    out.document(&answer, |answer| Rows::of_objects(&json!([answer]), columns))?;
    let one = if replay.filter.workflow { "row" } else { "record" };
    match (answer["unfinished"] == true, answer["failing"].as_u64()) {
        (true, _) => Err(unfinished()),
        (false, Some(failing)) if failing > 0 => {
            Err(Error::invalid(format!("{} still can't be stored", counted(failing, one))))
        }
        _ => Ok(()),
    }
}

fn unfinished() -> Error {
    Error::retry("time was up before all were looked at: the same command does the rest")
}

async fn discard_some(caller: &Caller, discard: &Discard, out: &Out) -> Result<()> {
    let mut body = body(&discard.filter, true);
    let path = route(&discard.name, &discard.filter, "/discard");
    let mut found = caller.json("POST", &path, Some(&Value::Object(body.clone()))).await?;
    let count = found["discarded"].as_u64().unwrap_or_default();
    if !discard.dry_run && count > 0 {
        if !discard.yes {
            let one = if discard.filter.workflow { "row" } else { "record" };
            confirm(&format!("Remove {} for good?", counted(count, one)))?;
        }
        // What came since then was not asked about.
        body.insert("asOfMs".into(), found["asOfMs"].clone());
        body.insert("dryRun".into(), json!(false));
        let spinner = out.spinner("removing");
        let answer = caller.json("POST", &path, Some(&Value::Object(body))).await;
        spinner.finish_and_clear();
        found = answer?;
    }
    let of = if discard.filter.workflow { "workflow" } else { "stream" };
    out.document(&found, |answer| Rows::of_objects(&json!([answer]), &[of, "discarded"]))?;
    if found["unfinished"] == true { Err(unfinished()) } else { Ok(()) }
}
