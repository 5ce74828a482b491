//! Changes of a table's metadata that add no snapshot: schema, partitioning, order, properties, references, expiry.
//!
//! The protocol is that of a commit: build on the newest metadata, write it under a fresh name, swap the pointer under the
//! version that was read; on conflict reload and build anew. The writers of one process take turns. Every name that was tried is kept, so after a failure the table
//! itself tells whether one of them took effect: it is the table's metadata file, or in the log of those before.

use std::sync::Arc;

use async_trait::async_trait;
use iceberg::spec::TableMetadata;
use tokio::time::Instant;

use super::Table;
use super::clocked::Clocked;
use super::properties::Retries;
use shared::{Error, ErrorKind, Result};

/// Tries whose outcome stays unknown; then the catalog is taken for unreachable.
const UNKNOWN_TRIES: u32 = 8;
/// Tries to find out what became of a revision.
const LOOK_UPS: u32 = 5;

/// What is made of a table's metadata, worked out anew for each state of the table that it is tried on.
#[async_trait]
pub(super) trait Revision: Send {
    /// The metadata after the change; `None` when there is nothing to change.
    async fn revise(&mut self, base: &Table) -> Result<Option<TableMetadata>>;
}

/// A revision that took effect, if there was one to make.
pub(super) struct Revised {
    /// The table right before; none when there was nothing to change.
    pub(super) before: Option<Table>,
    /// The table as it was last seen: right after, or after others changed it too.
    pub(super) now: Table,
}

/// A metadata file that was written and sent to the catalog without a clear answer.
struct Try {
    location: String,
    base: Table,
}

/// Makes a revision of the table, which was just loaded.
///
/// # Errors
/// What `revision` answers; `Conflict` when others came first until the deadline; `OutcomeUnknown` when it can't be found out
/// whether it took effect.
pub(super) async fn revise(mut base: Table, revision: &mut dyn Revision) -> Result<Revised> {
    // A setting that can't be read must not keep anybody from correcting it.
    let retries = Retries::of(&base.metadata).unwrap_or_default();
    let deadline = Instant::now() + retries.deadline;
    let mut tries: Vec<Try> = Vec::new();
    let (mut attempts, mut unknown) = (0, 0);
    loop {
        attempts += 1;
        let lock = base.ports.locks.acquire(base.name(), retries.deadline / 2).await;
        if lock.waited && tries.is_empty() {
            base = look_up(&base, retries).await?;
        }
        let clocked = match Clocked::new(&base) {
            Ok(clocked) => clocked,
            Err(error) => return Err(given_up(&tries, error)),
        };
        let revised = revision.revise(&clocked.base).await;
        let revised = match revised.and_then(|revised| revised.map(|revised| clocked.back(revised)).transpose()) {
            Ok(revised) => revised,
            Err(error) => return Err(given_up(&tries, error)),
        };
        let Some(metadata) = revised else { return Ok(Revised { before: None, now: base }) };
        let (metadata, location) = (Arc::new(metadata), base.next_location());
        if let Err(error) = base.io.put_metadata(&location, &metadata).await {
            base.io.discard([location]).await;
            return Err(given_up(&tries, error));
        }
        let error = match base.swap(&metadata, location.clone()).await {
            Ok(now) => return Ok(Revised { before: Some(base), now }),
            Err(error) => error,
        };
        tries.push(Try { location, base: base.clone() });
        let now = match found_out(&base, &error, retries).await {
            Ok(now) => now,
            Err(None) => return Err(error),
            Err(Some(lookup)) => return Err(lookup),
        };
        if let Some(done) = tries.iter().position(|one| names(&now, &one.location)) {
            let done = tries.swap_remove(done);
            return Ok(Revised { before: Some(done.base), now });
        }
        let superseded = now.entry.version != base.entry.version;
        match error.kind() {
            ErrorKind::Retry | ErrorKind::OutcomeUnknown if !superseded => unknown += 1,
            ErrorKind::Retry | ErrorKind::OutcomeUnknown | ErrorKind::Conflict => {
                discard_lost(&mut tries, &now, error.kind() == ErrorKind::Conflict).await;
            }
            _ => {
                discard_lost(&mut tries, &now, true).await;
                return Err(given_up(&tries, error));
            }
        }
        if Instant::now() >= deadline || unknown == UNKNOWN_TRIES || !retries.allow(attempts) {
            return Err(worn_out(&tries, attempts, error));
        }
        base = now;
        drop(lock);
        tokio::time::sleep(retries.pause(&*base.ports.random, attempts)).await;
    }
}

/// The table as it is now, after a try that failed with `error`; without an error of its own when `error` says it all.
async fn found_out(base: &Table, error: &Error, retries: Retries) -> Result<Table, Option<Error>> {
    let passing = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Retry | ErrorKind::OutcomeUnknown);
    match look_up(base, retries).await {
        Ok(now) => Ok(now),
        // A refusal is one; a defect on the way back says nothing of what happened.
        Err(_) if !passing && error.kind() != ErrorKind::Bug => Err(None),
        Err(lookup) if lookup.kind() == ErrorKind::NotFound => Err(Some(lookup)),
        Err(lookup) => {
            let message = "the change may have happened, and the table could not be read to find out";
            Err(Some(Error::new(ErrorKind::OutcomeUnknown, message).with_source(lookup)))
        }
    }
}

/// Whether the table's metadata is the file at `location`, or came after it.
fn names(table: &Table, location: &str) -> bool {
    table.location == location || table.metadata.metadata_log().iter().any(|entry| entry.metadata_file == location)
}

/// Forgets and removes what can't become current any more: its version is gone, or (`refused`) the catalog refused the last.
async fn discard_lost(tries: &mut Vec<Try>, now: &Table, refused: bool) {
    let last = tries.len().saturating_sub(1);
    let mut index = 0;
    let lost = |one: &mut Try| {
        let is_last = index == last;
        index += 1;
        one.base.entry.version != now.entry.version || (refused && is_last)
    };
    let lost: Vec<_> = tries.extract_if(.., lost).map(|one| one.location).collect();
    now.io.discard(lost).await;
}

/// The error of a revision that stops: what was sent without an answer may still take effect.
fn given_up(tries: &[Try], error: Error) -> Error {
    if tries.is_empty() {
        return error;
    }
    let message = "an earlier try may still take effect, and the last one failed";
    Error::new(ErrorKind::OutcomeUnknown, message).with_source(error)
}

/// The error of a revision that has tried long enough.
fn worn_out(tries: &[Try], attempts: u32, error: Error) -> Error {
    if tries.is_empty() {
        let message = format!("expected to change the table, other writers came first each time ({attempts} tries)");
        return Error::conflict(message).with_source(error);
    }
    Error::new(ErrorKind::OutcomeUnknown, "the catalog's answer was lost").with_source(error)
}

/// Reloads the table, a few times if need be.
async fn look_up(base: &Table, retries: Retries) -> Result<Table> {
    let mut tries = 0;
    loop {
        tries += 1;
        match base.reload().await {
            Err(error) if tries < LOOK_UPS && matches!(error.kind(), ErrorKind::Retry | ErrorKind::OutcomeUnknown) => {
                tokio::time::sleep(retries.pause(&*base.ports.random, tries)).await;
            }
            other => return other,
        }
    }
}
