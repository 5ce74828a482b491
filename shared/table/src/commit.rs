//! The commit protocol, whatever is committed.
//!
//! In a loop: take the newest metadata as the base, check the token against it, ask the [`Operation`] what changes in its
//! files, prepare a snapshot on top, write the metadata under a fresh name, and swap the catalog's pointer under the version
//! that was read. What takes long is worked out ahead; for the rest the writers of one process wait for their turn, so that
//! they don't undo each other's work. All tries share one snapshot id, so after any failure the table itself tells whether a try
//! went through: its history holds the id or it does not. Only what certainly can't become current is removed. How often and
//! after what pauses it is tried: [`Retries`].

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::spec::{FormatVersion, TableMetadata};
use tokio::time::Instant;
use tracing::Instrument;

use super::manifests::Manifests;
use super::properties::Retries;
use super::snapshot::{Delta, Prepared, prepare};
use super::{Committed, RowStream, Table, Token, append};
use shared::digest::sha256_hex;
use shared::telemetry::metrics::{self, Metric};
use shared::{Error, ErrorKind, Result};

/// Tries whose outcome stays unknown; then the catalog is taken for unreachable.
const UNKNOWN_TRIES: u32 = 8;
/// Tries that are made even if each takes longer than the deadline, as those of a change that rewrites much may.
const TRIES: u32 = 5;
/// Tries that work ahead while others may write. An operation whose work keeps being outdated has its turn for all of it.
const TRIES_AHEAD: u32 = 2;
/// Tries that may fail because others changed the table underneath.
const OUTDATED_TRIES: u32 = 5;
/// Tries to find out what became of a commit.
const LOOK_UPS: u32 = 5;

/// Something to commit.
#[async_trait]
pub trait Operation: Send {
    /// What changes in the files of `base`. Asked again with a newer base when somebody else came first: files that were
    /// written before may serve again, as long as what they rest on still holds.
    ///
    /// # Errors
    /// `Conflict` when what was committed meanwhile does not go together with this.
    async fn delta(&mut self, base: &Table) -> Result<Delta>;

    /// Whether [`Operation::delta`] of `base` takes no work to speak of: what was worked out before serves, or there is none.
    ///
    /// # Errors
    /// What reading the table's metadata answers.
    async fn holds(&mut self, base: &Table) -> Result<bool> {
        let _ = base;
        Ok(true)
    }

    /// Every data and delete file that was begun, whether it is in use or not.
    fn created(&self) -> Vec<String>;

    /// Waits until nothing is being written any more, so that what was begun can be removed.
    async fn settle(&mut self) {}
}

/// An operation on its way into a table.
struct Commit<'a> {
    operation: &'a mut dyn Operation,
    token: Option<&'a Token>,
    snapshot_id: i64,
    manifests: Manifests,
    retries: Retries,
    /// The catalog version under which a try was sent whose answer was lost: it may become current while that version lasts.
    pending: Option<String>,
    /// When the last try had its files and began to prepare the snapshot.
    began: Instant,
    /// Tries that failed against a state which was no longer current.
    outdated: u32,
    /// Tries that others came before.
    lost: u64,
}

/// What a try is to swap in.
enum Ready {
    Yes(Box<(Delta, Prepared)>),
    NothingToDo,
    /// What was worked out ahead no longer holds.
    Outdated,
}

/// What became of a try.
enum Outcome {
    /// Nothing was to be done.
    Nothing,
    Committed(Committed),
    /// It can't become current any more.
    Lost(Table),
    /// It may still become current.
    Unknown(Table),
}

/// Checks that a table can be written to and that the token holds, before rows are read.
///
/// # Errors
/// `Invalid` for a format that is not written; `Conflict` when the token's newest value is not the expected one.
pub fn check(base: &Table, token: Option<&Token>) -> Result<()> {
    let version = base.metadata.format_version();
    if version < FormatVersion::V2 {
        return Err(Error::invalid(format!(
            "expected a table of Iceberg's format v2 or v3 to write to, found `{version}`: let the engine that made it upgrade it"
        )));
    }
    check_token(base, token)
}

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
pub fn file_prefix(base: &Table, token: Option<&Token>) -> String {
    let id = base.ports.random.uuid();
    match token {
        Some(token) => {
            let interval = sha256_hex(format!("{}\n{}", token.key, token.value), 6);
            format!("{interval}-{id}")
        }
        None => id.to_string(),
    }
}

/// Commits what `operation` changes as one snapshot, on top of `base` or of what came since. When it fails for certain, the
/// operation's files are removed.
///
/// # Errors
/// `Conflict` when the token no longer holds, when the operation says so, or when retries ran out; `OutcomeUnknown` when it
/// can't be found out whether the commit happened.
pub async fn run(base: Table, operation: &mut dyn Operation, token: Option<&Token>) -> Result<Committed> {
    let span = tracing::info_span!("commit", table = %base.name(), snapshot_id = tracing::field::Empty);
    async {
        let retries = match Retries::of(&base.metadata) {
            Ok(retries) => retries,
            Err(error) => {
                operation.settle().await;
                base.io.discard(operation.created()).await;
                return Err(error);
            }
        };
        let snapshot_id = new_snapshot_id(&base);
        let manifests = Manifests::new(&base, snapshot_id);
        let mut commit = Commit {
            operation,
            token,
            snapshot_id,
            manifests,
            retries,
            pending: None,
            began: Instant::now(),
            outdated: 0,
            lost: 0,
        };
        let outcome = commit.run(base).await;
        Counts::of(&outcome, commit.lost).tell();
        let committed = outcome?;
        if committed.attempts > 0 {
            tracing::Span::current().record("snapshot_id", committed.snapshot_id);
            let Committed { rows_added, rows_updated, rows_deleted, files_added, bytes_added, .. } = committed;
            tracing::info!(rows_added, rows_updated, rows_deleted, files_added, bytes_added, "table committed");
        }
        Ok(committed)
    }
    .instrument(span)
    .await
}

/// What the metrics say of a commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Snapshots made.
    pub commits: u64,
    /// Times that another writer came first.
    pub conflicts: u64,
}

impl Counts {
    /// `lost` is how many tries others came before; who finds it out otherwise has a conflict too.
    fn of(outcome: &Result<Committed>, lost: u64) -> Self {
        match outcome {
            Ok(committed) => Self { commits: u64::from(committed.attempts > 0), conflicts: lost },
            Err(error) if error.kind() == ErrorKind::Conflict => Self { commits: 0, conflicts: lost.max(1) },
            Err(_) => Self { commits: 0, conflicts: lost },
        }
    }

    /// Tells the metrics, whichever function it is that commits.
    pub fn tell(&self) {
        if *self != Self::default() {
            let counts = [Metric::count("Commits", self.commits), Metric::count("CommitConflicts", self.conflicts)];
            metrics::emit(&[], &counts);
        }
    }
}

/// The first state of a table that no catalog knows yet.
pub struct First {
    pub metadata: Arc<TableMetadata>,
    /// URL of `metadata`, which is written.
    pub location: String,
    pub committed: Committed,
}

/// Writes the rows of a table that is being made, and its metadata; gives every file that was written. When it fails, none is
/// left.
///
/// # Errors
/// What reading the rows and writing them answer; `Invalid` for rows that don't fit.
pub async fn first(unborn: &Table, rows: RowStream, token: Option<&Token>) -> Result<(First, Vec<String>)> {
    let mut operation = append::append(unborn, rows, token).await?;
    let snapshot_id = new_snapshot_id(unborn);
    let mut manifests = Manifests::new(unborn, snapshot_id);
    let written = async {
        let delta = operation.delta(unborn).await?;
        if delta.is_empty() && token.is_none() {
            let (metadata, location) = (unborn.metadata.clone(), unborn.next_location());
            unborn.io.put_metadata(&location, &metadata).await?;
            return Ok((
                First { metadata, location: location.clone(), committed: Committed::default() },
                vec![location],
            ));
        }
        let prepared = prepare(unborn, &mut manifests, snapshot_id, &delta, token).await?;
        let committed = Committed { attempts: 1, ..committed(snapshot_id, &delta, &prepared) };
        let Prepared { metadata, location, files, .. } = prepared;
        Ok((First { metadata, location, committed }, files))
    };
    let written = written.await;
    let begun = operation.created().into_iter().chain(manifests.files().to_vec());
    match written {
        Ok((first, files)) => Ok((first, begun.chain(files).collect())),
        Err(error) => {
            unborn.io.discard(begun.collect::<Vec<_>>()).await;
            Err(error)
        }
    }
}

/// A positive number that the table has not used.
fn new_snapshot_id(base: &Table) -> i64 {
    loop {
        let (high, low) = base.ports.random.uuid().as_u64_pair();
        let id = (high ^ low).cast_signed() & i64::MAX;
        if id > 0 && base.metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

fn committed(snapshot_id: i64, delta: &Delta, prepared: &Prepared) -> Committed {
    Committed {
        snapshot_id,
        rows_added: delta.rows.added,
        rows_updated: delta.rows.updated,
        rows_deleted: delta.rows.deleted,
        files_added: prepared.added.data_files,
        files_removed: prepared.removed.data_files,
        delete_files_added: prepared.added.delete_files,
        bytes_added: prepared.added.bytes,
        attempts: 0,
    }
}

impl Commit<'_> {
    async fn run(&mut self, mut base: Table) -> Result<Committed> {
        let deadline = Instant::now() + self.retries.deadline;
        let (mut attempts, mut unknown) = (0, 0);
        loop {
            attempts += 1;
            let error = match self.attempt(&mut base, attempts).await {
                Ok(Outcome::Committed(committed)) => return Ok(Committed { attempts, ..committed }),
                Ok(Outcome::Nothing) => {
                    // Unless a try whose answer was lost may be using them.
                    if self.pending.is_none() {
                        base.io.discard(self.operation.created()).await;
                    }
                    let snapshot_id = base.current_snapshot().unwrap_or(0);
                    return Ok(Committed { snapshot_id, ..Committed::default() });
                }
                Ok(Outcome::Lost(now)) => {
                    self.lost += 1;
                    self.pending.take_if(|version| *version != now.entry.version);
                    base = now;
                    let within = self.retries.deadline;
                    Error::conflict(format!(
                        "expected to commit within {within:?}, other writers came first each time ({attempts} tries)"
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
            let late = Instant::now() >= deadline && attempts >= TRIES;
            if late || unknown == UNKNOWN_TRIES || !self.retries.allow(attempts) {
                return self.fail(&base, error).await;
            }
            let pause = match self.pending {
                Some(_) => self.retries.pause(&*base.ports.random, attempts),
                None => self.retries.pause_after(&*base.ports.random, attempts, self.began.elapsed()),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Removes the files of the commit unless they may be in use.
    async fn fail(&mut self, base: &Table, error: Error) -> Result<Committed> {
        self.operation.settle().await;
        if error.kind() == ErrorKind::OutcomeUnknown {
            return Err(error);
        }
        if self.pending.is_some() {
            let message = "an earlier try may still take effect, and the last one failed";
            return Err(Error::new(ErrorKind::OutcomeUnknown, message).with_source(error));
        }
        base.io.discard(self.operation.created()).await;
        base.io.discard(self.manifests.files().to_vec()).await;
        Err(error)
    }

    async fn attempt(&mut self, base: &mut Table, attempts: u32) -> Result<Outcome> {
        let ahead = attempts <= TRIES_AHEAD;
        if ahead && let Err(error) = self.work_ahead(base).await {
            return self.outdated(base, error).await;
        }
        let _lock = base.ports.locks.acquire(base.name(), self.retries.deadline / 2).await;
        // A try that is on its way, its outcome unknown, is found out about when this one fails.
        if self.pending.is_none() {
            *base = self.look_up(base).await?;
            check_token(base, self.token)?;
        }
        let (delta, prepared) = match self.prepare(base, ahead).await {
            Ok(Ready::Yes(ready)) => *ready,
            Ok(Ready::NothingToDo) => return Ok(Outcome::Nothing),
            Ok(Ready::Outdated) => return Ok(Outcome::Lost(base.clone())),
            Err(error) => return self.outdated(base, error).await,
        };
        let base = &*base;
        match base.swap(&prepared.metadata, prepared.location.clone()).await {
            Ok(_) => {
                self.tidy(base, &delta, &prepared).await;
                Ok(Outcome::Committed(committed(self.snapshot_id, &delta, &prepared)))
            }
            Err(error) => self.settle(base, &delta, prepared, error).await,
        }
    }

    /// Does what takes long, so that others need not wait for it.
    async fn work_ahead(&mut self, base: &Table) -> Result<()> {
        self.began = Instant::now();
        if !self.operation.holds(base).await? {
            self.operation.delta(base).await?;
        }
        Ok(())
    }

    /// What is to be swapped in.
    async fn prepare(&mut self, base: &Table, ahead: bool) -> Result<Ready> {
        self.began = Instant::now();
        if ahead && !self.operation.holds(base).await? {
            return Ok(Ready::Outdated);
        }
        let delta = self.operation.delta(base).await?;
        self.began = Instant::now();
        if delta.is_empty() && self.token.is_none() {
            return Ok(Ready::NothingToDo);
        }
        let prepared = prepare(base, &mut self.manifests, self.snapshot_id, &delta, self.token).await?;
        Ok(Ready::Yes(Box::new((delta, prepared))))
    }

    /// Others may have removed files, and let the snapshots expire that named them, while they were being read.
    async fn outdated(&mut self, base: &Table, error: Error) -> Result<Outcome> {
        self.operation.settle().await;
        self.began = Instant::now();
        match base.reload().await {
            Ok(now) if now.location != base.location && self.outdated < OUTDATED_TRIES => {
                self.outdated += 1;
                tracing::debug!(%error, "the table changed while a commit was prepared");
                Ok(Outcome::Lost(now))
            }
            _ => Err(error),
        }
    }

    /// Removes what earlier tries wrote and the one that became current does without.
    async fn tidy(&mut self, base: &Table, delta: &Delta, prepared: &Prepared) {
        // A try whose answer was lost may have been the one: then its files are in use.
        if self.pending.is_some() {
            return;
        }
        let used: HashSet<&str> = delta.added.iter().map(|added| added.file.file_path()).collect();
        let unused = self.operation.created().into_iter().filter(|file| !used.contains(file.as_str()));
        let manifests = self.manifests.files().iter().filter(|file| !prepared.manifests.contains(*file)).cloned();
        base.io.discard(unused.chain(manifests).collect::<Vec<_>>()).await;
    }

    /// Looks up what became of a try that failed with `error`.
    async fn settle(&mut self, base: &Table, delta: &Delta, prepared: Prepared, error: Error) -> Result<Outcome> {
        let passing = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Retry | ErrorKind::OutcomeUnknown);
        let now = match self.look_up(base).await {
            Ok(now) => now,
            // A refusal is one; a defect on the way back says nothing of what happened.
            Err(_) if !passing && error.kind() != ErrorKind::Bug => return Err(error),
            Err(lookup) if lookup.kind() == ErrorKind::NotFound => return Err(lookup),
            Err(lookup) => {
                let message = "the commit may have happened, and the table could not be read to find out";
                return Err(Error::new(ErrorKind::OutcomeUnknown, message).with_source(lookup));
            }
        };
        if now.metadata.snapshot_by_id(self.snapshot_id).is_some() {
            return Ok(Outcome::Committed(committed(self.snapshot_id, delta, &prepared)));
        }
        let superseded = now.entry.version != base.entry.version;
        if passing && !superseded && error.kind() != ErrorKind::Conflict {
            return Ok(Outcome::Unknown(now));
        }
        base.io.discard(prepared.files).await;
        if passing { Ok(Outcome::Lost(now)) } else { Err(error) }
    }

    /// Reloads the table, a few times if need be.
    async fn look_up(&mut self, base: &Table) -> Result<Table> {
        let mut tries = 0;
        loop {
            tries += 1;
            match base.reload().await {
                Err(error)
                    if tries < LOOK_UPS && matches!(error.kind(), ErrorKind::Retry | ErrorKind::OutcomeUnknown) =>
                {
                    tokio::time::sleep(self.retries.pause(&*base.ports.random, tries)).await;
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_counts_once_and_every_time_that_another_writer_came_first() {
        let of = |outcome, lost| {
            let Counts { commits, conflicts } = Counts::of(&outcome, lost);
            (commits, conflicts)
        };
        assert_eq!(of(Ok(Committed { attempts: 3, ..Committed::default() }), 2), (1, 2));
        assert_eq!(of(Ok(Committed::default()), 0), (0, 0), "there was nothing to do");
        assert_eq!(of(Err(Error::conflict("the token is another")), 0), (0, 1));
        assert_eq!(of(Err(Error::conflict("tries ran out")), 4), (0, 4));
        assert_eq!(of(Err(Error::invalid("a row does not fit")), 1), (0, 1));
    }
}
