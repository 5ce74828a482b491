//! Streams that an edited lakehouse file gives another name: what they hold, where their tables stand and what is kept of them goes on
//! under the new one. Only while this process alone has the data directory, and before any function works.
//!
//! What is to be done is written down first, with the file that says so; whoever opens the directory next does the rest. So a kill in
//! the middle loses and doubles nothing, whatever the file says by then: a rename that has begun is finished, and that file is in force.

use std::sync::Arc;

use batcher::Batcher;
use ingest::Ingest;
use serde::{Deserialize, Serialize};
use shared::model::TableName;
use shared::ports::Ports;
use shared::project::Project;
use shared::project::changes::{Rename, renames};
use shared::state::{self, Expect, get_json, put_json};
use shared::{Error, ErrorKind, Result, erasure};

use super::lakehouse::IN_FORCE;
use super::triggers;

/// The state document of renames that have begun.
const BEGUN: &str = "project/renames";

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    /// The lakehouse file that says so.
    text: String,
    streams: Vec<Move>,
    /// Whether nothing is left of earlier streams of the new names.
    is_clear: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Move {
    rename: Rename,
    /// The table that both write to.
    table: Option<TableName>,
}

/// Renames the streams that `next` gives another name; its `text` is in force then, if there are any.
///
/// # Errors
/// What the ports answer: what has begun is finished when the directory is opened again. `Conflict` when an earlier stream of a new
/// name holds records.
pub(super) async fn carry_out(ports: &Ports, before: &Project, next: &Project, text: &str) -> Result<()> {
    let mut streams = Vec::new();
    for rename in renames(before, next) {
        if held(ports, &rename.from).await?.is_none() {
            continue;
        }
        // What has begun must come to its end.
        let in_the_way = held(ports, &rename.to).await?.unwrap_or_default();
        if in_the_way > 0 {
            let Rename { from, to } = &rename;
            return Err(Error::conflict(format!(
                "expected no other stream `{to}` than `{from}`, which becomes it, found one that holds {in_the_way} records"
            )));
        }
        let (old, new) = (before.stream_table(&rename.from).ok(), next.stream_table(&rename.to)?);
        let table = old.is_none_or(|old| old == new).then_some(new);
        streams.push(Move { rename, table });
    }
    if streams.is_empty() {
        return Ok(());
    }
    let begun = Begun { text: text.into(), streams, is_clear: false };
    put_json(ports.state.as_ref(), BEGUN, &begun, Expect::Anything).await?;
    finish(ports).await
}

/// Records that a stream holds; none when it is not there.
async fn held(ports: &Ports, name: &str) -> Result<Option<u64>> {
    let shards = match ports.stream.shards(name).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        shards => shards?,
    };
    let mut records = 0;
    for shard in shards {
        records += ports.stream.backlog(name, &shard.id, None).await?.map_or(0, |backlog| backlog.records);
    }
    Ok(Some(records))
}

/// Does what is left of renames that have begun.
///
/// # Errors
/// As [`carry_out`].
pub(super) async fn finish(ports: &Ports) -> Result<()> {
    let state = ports.state.as_ref();
    let Some((mut begun, _)) = get_json::<Begun>(state, BEGUN).await? else { return Ok(()) };
    let project = Arc::new(Project::parse(&begun.text, "the lakehouse file that renames streams")?);
    let batcher = Batcher::new(project.clone(), ports.clone())?;
    if !begun.is_clear {
        for Move { rename, .. } in &begun.streams {
            batcher.make_way(&rename.to).await?;
            let delivered = triggers::position_key(&rename.to);
            if state.get(&delivered).await?.is_some() {
                state.delete(&delivered, Expect::Anything).await?;
            }
        }
        begun.is_clear = true;
        put_json(state, BEGUN, &begun, Expect::Anything).await?;
    }
    let ingest = Ingest::new(project, ports.clone())?;
    for Move { rename, table } in &begun.streams {
        let Rename { from, to } = rename;
        ports.stream.rename(from, to).await?;
        batcher.carry_over(rename, table.as_ref()).await?;
        ingest.rename(from, to).await?;
        erasure::rename_stream(state, &*ports.random, from, to).await?;
        for function in ["batcher", "delivery"] {
            jobs::failures::rename(ports, function, from, to).await?;
        }
        state::rename(state, &triggers::position_key(from), &triggers::position_key(to)).await?;
        tracing::info!(from, to, "the stream goes on under another name");
    }
    state.put(IN_FORCE, begun.text.into(), Expect::Anything).await?;
    state.delete(BEGUN, Expect::Anything).await
}

#[cfg(test)]
mod tests;
