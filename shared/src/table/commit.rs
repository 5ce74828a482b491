//! The commit protocol.
//!
//! Rows are written to data files once. Then, in a loop: take the newest metadata as the base, check the token against it,
//! prepare a snapshot on top, write the metadata under a fresh name, and swap the catalog's pointer under the version that
//! was read. All tries share one snapshot id, so after any failure the table itself tells whether a try went through: its
//! history holds the id or it does not. Only what certainly can't become current is removed.

use std::time::Duration;

use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::{DataFile, FormatVersion};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::conform::Conform;
use super::merge::Merge;
use super::snapshot::{Build, Delta, Prepared, live_files};
use super::write::Writer;
use super::{Change, Committed, Table, Token};
use crate::{Error, ErrorKind, Result};

/// How long a commit keeps trying once its rows are written.
const DEADLINE: Duration = Duration::from_secs(60);
/// Tries whose outcome stays unknown; then the catalog is taken for unreachable.
const UNKNOWN_TRIES: u32 = 8;
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A commit whose rows are written.
struct Work<'a> {
    change: Rows,
    incoming: Vec<DataFile>,
    spec_id: i32,
    token: Option<&'a Token>,
    snapshot_id: i64,
    /// Every data file that was begun, to be removed if the commit fails for certain.
    created: Vec<String>,
    /// The catalog version under which a try was sent whose answer was lost: it may become current while that version lasts.
    pending: Option<String>,
}

enum Rows {
    Append,
    Overwrite,
    Merge(Box<Merge>),
}

/// What became of a try.
enum Outcome {
    Committed,
    /// It can't become current any more.
    Lost(Table),
    /// It may still become current.
    Unknown(Table),
}

pub(super) async fn commit(
    table: &Table,
    change: Change,
    rows: SendableRecordBatchStream,
    token: Option<Token>,
) -> Result<Committed> {
    let span = tracing::info_span!("commit", table = %table.name(), snapshot_id = tracing::field::Empty);
    async {
        let committed = write_and_commit(table, change, rows, token).await?;
        if committed.attempts > 0 {
            tracing::Span::current().record("snapshot_id", committed.snapshot_id);
            let Committed { rows_added, files_added, bytes_added, .. } = committed;
            tracing::info!(rows_added, files_added, bytes_added, "table committed");
        }
        Ok(committed)
    }
    .instrument(span)
    .await
}

async fn write_and_commit(
    table: &Table,
    change: Change,
    rows: SendableRecordBatchStream,
    token: Option<Token>,
) -> Result<Committed> {
    let base = table.reload().await?;
    let version = base.metadata.format_version();
    if version != FormatVersion::V2 {
        return Err(Error::invalid(format!("expected a table of Iceberg's format v2 to write to, found `{version}`")));
    }
    check_token(&base, token.as_ref())?;
    let (work, counts) = write(&base, change, rows, token.as_ref()).await?;
    let nothing = work.incoming.is_empty() && token.is_none();
    let replaces = matches!(work.change, Rows::Overwrite) && base.current_snapshot().is_some();
    if nothing && !replaces {
        return Ok(Committed { snapshot_id: base.current_snapshot().unwrap_or(0), ..Committed::default() });
    }
    work.run(base, counts).await
}

/// # Errors
/// `Conflict` when the newest value is not the expected one.
fn check_token(base: &Table, token: Option<&Token>) -> Result<()> {
    let Some(token) = token else { return Ok(()) };
    let found = base.token(&token.key);
    if found == token.expected {
        return Ok(());
    }
    let shown = |value: &Option<String>| value.as_ref().map_or("none".to_owned(), |v| format!("`{v}`"));
    Err(Error::conflict(format!(
        "expected the token `{}` to be {}, found {}: another writer did this work",
        token.key,
        shown(&token.expected),
        shown(&found)
    )))
}

/// Names of one commit's data files begin with what the commit is for, if it says so. A uuid follows, because two tries at
/// the same interval may write different bytes: neither may touch the other's files.
fn file_prefix(token: Option<&Token>) -> String {
    use sha2::{Digest, Sha256};
    let id = Uuid::new_v4();
    match token {
        Some(token) => {
            let digest = Sha256::digest(format!("{}\n{}", token.key, token.value));
            let interval: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            format!("{interval}-{id}")
        }
        None => id.to_string(),
    }
}

/// Writes the rows to data files.
async fn write<'a>(
    base: &Table,
    change: Change,
    rows: SendableRecordBatchStream,
    token: Option<&'a Token>,
) -> Result<(Work<'a>, Committed)> {
    let mut writer = Writer::new(&base.io, &base.metadata, file_prefix(token))?;
    let mut change = match change {
        Change::Append => Rows::Append,
        Change::Overwrite => Rows::Overwrite,
        Change::Merge { key } => {
            let schema_id = base.metadata.current_schema_id();
            Rows::Merge(Box::new(Merge::new(&key, writer.arrow_schema(), schema_id)?))
        }
    };
    match drain(&mut writer, rows, &mut change).await {
        Ok(incoming) => {
            let counts = Committed {
                rows_added: incoming.iter().map(DataFile::record_count).sum(),
                files_added: incoming.len() as u64,
                bytes_added: incoming.iter().map(DataFile::file_size_in_bytes).sum(),
                ..Committed::default()
            };
            let created = writer.created().to_vec();
            let spec_id = base.metadata.default_partition_spec_id();
            let snapshot_id = new_snapshot_id(base);
            Ok((Work { change, incoming, spec_id, token, snapshot_id, created, pending: None }, counts))
        }
        Err(error) => {
            writer.settle().await;
            base.io.discard(writer.created().to_vec()).await;
            Err(error)
        }
    }
}

async fn drain(writer: &mut Writer, mut rows: SendableRecordBatchStream, change: &mut Rows) -> Result<Vec<DataFile>> {
    let conform = Conform::new(&rows.schema(), writer.arrow_schema())?;
    while let Some(batch) = rows.next().await {
        let batch = conform.apply(&batch?)?;
        if let Rows::Merge(merge) = change {
            merge.observe(&batch)?;
        }
        writer.write(batch).await?;
    }
    writer.finish().await
}

/// A positive number that the table has not used.
fn new_snapshot_id(base: &Table) -> i64 {
    loop {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let id = (high ^ low).cast_signed() & i64::MAX;
        if id > 0 && base.metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

impl Work<'_> {
    async fn run(mut self, mut base: Table, mut counts: Committed) -> Result<Committed> {
        let deadline = Instant::now() + DEADLINE;
        counts.snapshot_id = self.snapshot_id;
        let mut unknown = 0;
        loop {
            counts.attempts += 1;
            let error = match self.attempt(&base, &mut counts).await {
                Ok(Outcome::Committed) => return Ok(counts),
                Ok(Outcome::Lost(now)) => {
                    self.pending.take_if(|version| *version != now.entry.version);
                    base = now;
                    Error::conflict(format!(
                        "expected to commit within {DEADLINE:?}, other writers came first each time"
                    ))
                }
                Ok(Outcome::Unknown(now)) => {
                    self.pending = Some(now.entry.version.clone());
                    base = now;
                    unknown += 1;
                    Error::new(ErrorKind::OutcomeUnknown, "the catalog's answer was lost")
                }
                Err(error) => return self.fail(&base, error).await,
            };
            if let Err(error) = check_token(&base, self.token) {
                return self.fail(&base, error).await;
            }
            if Instant::now() >= deadline || unknown == UNKNOWN_TRIES {
                return self.fail(&base, error).await;
            }
            tokio::time::sleep(pause(counts.attempts)).await;
        }
    }

    /// Removes the data files unless they may be in use.
    async fn fail(&mut self, base: &Table, error: Error) -> Result<Committed> {
        if error.kind() == ErrorKind::OutcomeUnknown {
            return Err(error);
        }
        if self.pending.is_some() {
            let message = "an earlier try may still take effect, and the last one failed";
            return Err(Error::new(ErrorKind::OutcomeUnknown, message).with_source(error));
        }
        base.io.discard(std::mem::take(&mut self.created)).await;
        Err(error)
    }

    async fn attempt(&mut self, base: &Table, counts: &mut Committed) -> Result<Outcome> {
        let (delta, rewritten_rows) = self.delta(base, counts).await?;
        let prepared = Build::new(base, self.snapshot_id).prepare(&delta, self.token).await?;
        counts.rows_deleted = prepared.rows_removed - rewritten_rows;
        match base.swap(&prepared.metadata, prepared.location.clone()).await {
            Ok(_) => Ok(Outcome::Committed),
            Err(error) => self.settle(base, prepared, error).await,
        }
    }

    /// What this commit changes in the files of `base`, and how many of the added rows were there before.
    async fn delta(&mut self, base: &Table, counts: &mut Committed) -> Result<(Delta, u64)> {
        let mut delta = Delta { added: self.incoming.clone(), spec_id: self.spec_id, ..Delta::default() };
        let Some(parent) = base.metadata.current_snapshot() else { return Ok((delta, 0)) };
        match &mut self.change {
            Rows::Append => Ok((delta, 0)),
            Rows::Overwrite => {
                let live = live_files(&base.io, &base.metadata, parent).await?;
                delta.removed = live.iter().map(|file| file.data().file_path().to_owned()).collect();
                Ok((delta, 0))
            }
            Rows::Merge(merge) => {
                let live = live_files(&base.io, &base.metadata, parent).await?;
                let replaced = merge.replace(base, &live, &file_prefix(self.token), &mut self.created).await?;
                let kept = replaced.added.iter().map(DataFile::record_count).sum();
                counts.files_added = (delta.added.len() + replaced.added.len()) as u64;
                delta.removed = replaced.removed;
                delta.added.extend(replaced.added);
                counts.bytes_added = delta.added.iter().map(DataFile::file_size_in_bytes).sum();
                Ok((delta, kept))
            }
        }
    }

    /// Looks up what became of a try that failed with `error`.
    async fn settle(&self, base: &Table, prepared: Prepared, error: Error) -> Result<Outcome> {
        let passing = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Retry | ErrorKind::OutcomeUnknown);
        let now = match look_up(base).await {
            Ok(now) => now,
            Err(_) if !passing => return Err(error),
            Err(lookup) if lookup.kind() == ErrorKind::NotFound => return Err(lookup),
            Err(lookup) => {
                let message = "the commit may have happened, and the table could not be read to find out";
                return Err(Error::new(ErrorKind::OutcomeUnknown, message).with_source(lookup));
            }
        };
        if now.metadata.snapshot_by_id(self.snapshot_id).is_some() {
            return Ok(Outcome::Committed);
        }
        let superseded = now.entry.version != base.entry.version;
        if passing && !superseded && error.kind() != ErrorKind::Conflict {
            return Ok(Outcome::Unknown(now));
        }
        base.io.discard(prepared.files).await;
        if passing { Ok(Outcome::Lost(now)) } else { Err(error) }
    }
}

/// Reloads the table, a few times if need be.
async fn look_up(base: &Table) -> Result<Table> {
    let mut tries = 0;
    loop {
        tries += 1;
        match base.reload().await {
            Err(error) if tries < 5 && matches!(error.kind(), ErrorKind::Retry | ErrorKind::OutcomeUnknown) => {
                tokio::time::sleep(pause(tries)).await;
            }
            other => return other,
        }
    }
}

/// Grows with the number of tries, up to [`LONGEST_PAUSE`]; random, so that writers don't meet again.
fn pause(attempts: u32) -> Duration {
    let longest = Duration::from_millis(10).saturating_mul(1 << attempts.min(6)).min(LONGEST_PAUSE);
    let share = f64::from(Uuid::new_v4().as_bytes()[0]) / 256.0;
    longest.mul_f64(0.25 + 0.75 * share)
}
