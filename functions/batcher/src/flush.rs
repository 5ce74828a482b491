//! Writing a stream to its table: plan an interval, read it, decode it, write the bad records to their objects, commit the
//! good ones together with the interval's end.
//!
//! Exactly once, whatever stops and whoever works at the same time:
//!
//! - The table's token holds the positions up to which the stream is in the table. They change only together with the rows.
//! - The interval that is written next is agreed on before anything is written, in the state document `batcher-plan/{stream}`.
//!   The document is read before the token. So once a plan begins at the token's positions, everyone who reads the token finds
//!   that plan and writes that interval; a new plan is made only under compare-and-swap against a plan that begins elsewhere,
//!   which the token has passed. The plan has the schema by which the interval is read, too: a lakehouse file that was edited counts from
//!   the next interval on. Hence there is one interval for each beginning, and its error objects, named by the beginning,
//!   have the same content whoever writes them, however often.
//! - Rows by that schema may not go into the table any more: it was dropped, or the stream has another one. Then they can't have
//!   come into it either, and the interval is planned anew by the schema of now. Error objects of before go first.

use std::collections::BTreeMap;
use std::sync::Arc;

use format::records::RecordSchema;
use serde::{Deserialize, Serialize};
use shared::erasure::{self, Kind};
use shared::error::Context;
use shared::model::{Column, Positions, ShardId, TableName};
use shared::ports::Ports;
use shared::project::StreamDeclaration;
use shared::state::{Expect, Version, get_json, put_json};
use shared::stream::Record;
use shared::telemetry::metrics::{self, Metric};
use shared::{Error, ErrorKind, Result, deadline};
use table::{Committed, RowStream, Table, Tables, Token};

use crate::decode::{Rows, decode};
use crate::pending::{self, Pending};
use crate::round::{Round, read_again, read_new};

/// Times that another batcher may come first before this one leaves the work to it.
const MAX_LOST: usize = 20;

/// What a flush did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub stream: String,
    pub table: String,
    /// Records read: stored and rejected together.
    pub records: u64,
    /// Rows in the table.
    pub stored: u64,
    /// Lines in the error objects.
    pub rejected: u64,
    /// Records that are not stored because whom they are about was erased.
    pub erased: u64,
    /// Records that events told of, but the stream no longer holds.
    pub missing: u64,
    /// How often records had a field that the schema lacks, by its name.
    pub ignored: BTreeMap<String, u64>,
    /// URLs of the error objects.
    pub error_objects: Vec<String>,
    /// The last snapshot that this flush made.
    pub snapshot: Option<i64>,
    /// Data files and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Commits that this flush made.
    pub commits: u64,
    /// Times that another writer of the table came first.
    pub conflicts: u64,
    /// Whether time was up before everything was written: the next flush goes on.
    pub unfinished: bool,
    /// What the table has of each shard.
    pub positions: Positions,
    pub elapsed_ms: i64,
}

/// The interval that is written next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    from: Positions,
    to: Positions,
    /// The columns by which its records are read; none in a plan of an earlier version: those of now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    schema: Vec<Column>,
    /// Whether it was planned anew by another schema: there may be error objects of the one before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    anew: bool,
}

/// An interval that is to be written, and its records.
struct Planned {
    round: Round,
    schema: Arc<RecordSchema>,
    anew: bool,
    /// Of the document that holds the plan; none where nothing was planned.
    version: Option<Version>,
}

/// How a round ended.
enum Outcome {
    /// Committed; the stream may have more.
    More,
    /// Everything is written, or nothing was there to write. What was counted up to `settled` is done with.
    CaughtUp { settled: Positions },
    /// Another batcher came first.
    Lost,
}

/// A stream and its table.
#[derive(Debug)]
pub(crate) struct Flush<'a> {
    pub(crate) ports: &'a Ports,
    pub(crate) tables: &'a Tables,
    pub(crate) name: &'a str,
    pub(crate) declaration: &'a StreamDeclaration,
    pub(crate) table: TableName,
    pub(crate) schema: Arc<RecordSchema>,
}

impl Flush<'_> {
    /// Writes everything that had arrived when the flush began.
    ///
    /// # Errors
    /// `Retry` when other batchers kept coming first; `OutcomeUnknown` when a commit may have happened (the next flush finds
    /// out); otherwise as the ports do. Nothing is lost or doubled by any of them.
    pub(crate) async fn run(&self) -> Result<Report> {
        let begun_ms = self.ports.clock.now_ms();
        let mut report = Report { stream: self.name.into(), table: self.table.to_string(), ..Report::default() };
        let settled = self.rounds(begun_ms, &mut report).await;
        report.count();
        match settled? {
            Some(settled) => drop(pending::update(self.ports, self.name, |p| p.settle(&settled)).await?),
            None => report.unfinished = true,
        }
        report.elapsed_ms = self.ports.clock.now_ms() - begun_ms;
        tracing::info!(
            stream = self.name,
            table = report.table,
            records = report.records,
            stored = report.stored,
            rejected = report.rejected,
            commits = report.commits,
            files = report.files,
            "stream written"
        );
        Ok(report)
    }

    /// Writes until nothing is left or time is up; what is settled then, `None` when time was up.
    async fn rounds(&self, begun_ms: i64, report: &mut Report) -> Result<Option<Positions>> {
        let mut lost = 0;
        loop {
            match self.round(begun_ms, report).await? {
                Outcome::More if deadline::is_near(self.ports.clock.as_ref()) => return Ok(None),
                Outcome::More => {}
                Outcome::CaughtUp { settled } => return Ok(Some(settled)),
                Outcome::Lost => lost += 1,
            }
            if lost > MAX_LOST {
                return Err(Error::retry(format!("other batchers of stream `{}` kept coming first", self.name)));
            }
        }
    }

    async fn round(&self, begun_ms: i64, report: &mut Report) -> Result<Outcome> {
        let state = self.ports.state.as_ref();
        let planned = get_json::<Plan>(state, &plan_key(self.name)).await?;
        let pending = pending::load(state, self.name).await?;
        let table = self.tables.ensure(&self.table, &self.declaration.schema, &self.declaration.partition_by).await?;
        let token = table.token(&token_key(self.name));
        let from = positions(token.as_deref())?;
        report.positions = from.clone();
        let may_be_tried = planned.as_ref().is_some_and(|(plan, _)| plan.from == from);
        let Some(planned) = self.plan(planned, &from).await? else { return Ok(Outcome::Lost) };
        let Planned { round, schema, anew, version } = planned;
        let to = round.to.clone();
        let mut settled = to.clone();
        let more = round.left_ms.is_some_and(|left_ms| left_ms <= begun_ms);
        if round.left_ms.is_none() {
            // The stream was read to its end, so what was counted before and isn't there any more won't come.
            settled.advance_all(pending.counted());
        }
        let missing = self.missing(&pending, &from, &settled, &round);
        if to != from {
            let shards: Vec<ShardId> = round.shards.iter().map(|(shard, _)| shard.clone()).collect();
            let (round, erased) = self.without_erased(round).await?;
            let rows = decode(self.name, &schema, round).await?;
            let sound: Vec<ShardId> = shards.into_iter().filter(|shard| !rows.failed.contains_key(shard)).collect();
            if anew {
                self.remove_errors(&sound, &from).await?;
            }
            let objects = self.write_failed(&rows, &from).await?;
            match self.commit(&table, &schema, &rows, token, &to).await {
                Ok(committed) => {
                    if may_be_tried {
                        self.remove_stale(&sound, &from).await;
                    }
                    report.erased += erased;
                    report.add(rows, objects, &committed, to);
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    report.conflicts += 1;
                    return Ok(Outcome::Lost);
                }
                Err(error) if error.kind() == ErrorKind::Invalid && schema.columns() != self.schema.columns() => {
                    tracing::warn!(stream = self.name, %error, "the interval is read by the schema of now");
                    self.plan_anew(from, to, version).await?;
                    return Ok(Outcome::Lost);
                }
                Err(error) => return Err(error),
            }
        }
        report.missing += missing;
        Ok(if more { Outcome::More } else { Outcome::CaughtUp { settled } })
    }

    /// The round without records of subjects that were erased after they had arrived, and how many those were.
    async fn without_erased(&self, mut round: Round) -> Result<(Round, u64)> {
        let erased = erasure::erased(self.ports.state.as_ref()).await?;
        let mut dropped = 0;
        if !erased.is_empty() {
            for (_, records) in &mut round.shards {
                let before = records.len();
                let kind = |column: &str| kind_of(self.declaration, column);
                let is_erased = |r: &Record| erased.iter().any(|e| e.is_record(self.name, r.arrival_ms, &r.data, kind));
                records.retain(|record| !is_erased(record));
                dropped += (before - records.len()) as u64;
            }
        }
        if dropped > 0 {
            tracing::info!(stream = self.name, records = dropped, "records of erased subjects are left out");
        }
        Ok((round, dropped))
    }

    /// Records that were counted but are not in the stream: they fell out of its retention before they were written.
    fn missing(&self, pending: &Pending, from: &Positions, to: &Positions, round: &Round) -> u64 {
        let mut missing = 0;
        for (shard, counted) in pending.counted_between(from, to) {
            let last = pending.counted().of(&shard);
            let records = round.shards.iter().filter(|(id, _)| *id == shard).flat_map(|(_, records)| records);
            let read = records.filter(|r| r.sequence <= last).count() as u64;
            let lost = counted.saturating_sub(read);
            if lost > 0 {
                tracing::error!(stream = self.name, %shard, records = lost, "records left the stream before they were written");
            }
            missing += lost;
        }
        missing
    }

    /// The records of the interval that begins at `from`: as planned by whoever was first, or planned here. `None` when another
    /// batcher planned at the same time.
    async fn plan(&self, planned: Option<(Plan, Version)>, from: &Positions) -> Result<Option<Planned>> {
        let stream = self.ports.stream.as_ref();
        let now = |round, version| Planned { round, schema: self.schema.clone(), anew: false, version };
        let expect = match planned {
            Some((plan, version)) if plan.from == *from => {
                let round = read_again(stream, self.name, from, &plan.to).await?;
                let schema = match plan.schema.is_empty() || plan.schema == self.schema.columns() {
                    true => self.schema.clone(),
                    false => Arc::new(RecordSchema::new(&plan.schema)?),
                };
                return Ok(Some(Planned { round, schema, anew: plan.anew, version: Some(version) }));
            }
            Some((_, version)) => Expect::Version(version),
            None => Expect::Absent,
        };
        let size = usize::try_from(self.declaration.buffer.size.0).unwrap_or(usize::MAX);
        let round = read_new(stream, self.name, from, size, self.ports.clock.as_ref()).await?;
        if round.is_empty() {
            return Ok(Some(now(round, None)));
        }
        let schema = self.schema.columns().to_vec();
        let plan = Plan { from: from.clone(), to: round.to.clone(), schema, anew: false };
        match put_json(self.ports.state.as_ref(), &plan_key(self.name), &plan, expect).await {
            Ok(version) => Ok(Some(now(round, Some(version)))),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Plans the same interval by the schema of now, unless another batcher has planned meanwhile.
    async fn plan_anew(&self, from: Positions, to: Positions, version: Option<Version>) -> Result<()> {
        let plan = Plan { from, to, schema: self.schema.columns().to_vec(), anew: true };
        let expect = version.map_or(Expect::Absent, Expect::Version);
        match put_json(self.ports.state.as_ref(), &plan_key(self.name), &plan, expect).await {
            Err(error) if error.kind() != ErrorKind::Conflict => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the error object of each shard that has bad records; gives their URLs.
    async fn write_failed(&self, rows: &Rows, from: &Positions) -> Result<Vec<String>> {
        let mut urls = Vec::new();
        for (shard, object) in &rows.failed {
            let url = self.ports.keys.error_object(self.name, shard, &from.of(shard));
            self.ports.storage.put(&url, object.clone()).await?;
            urls.push(url.into());
        }
        Ok(urls)
    }

    /// Removes the error objects of shards whose records are all in the table by now: an earlier try may have left some, of records
    /// that were erased since or of a version that planned without a schema, and their replay would store the records again. Not
    /// before the commit: until then the earlier try may still commit, and its errors count.
    async fn remove_stale(&self, sound: &[ShardId], from: &Positions) {
        if let Err(error) = self.remove_errors(sound, from).await {
            tracing::warn!(stream = self.name, %error, "error objects of an earlier try are still there");
        }
    }

    async fn remove_errors(&self, shards: &[ShardId], from: &Positions) -> Result<()> {
        for shard in shards {
            self.ports.storage.delete(&self.ports.keys.error_object(self.name, shard, &from.of(shard))).await?;
        }
        Ok(())
    }

    async fn commit(
        &self,
        table: &Table,
        schema: &RecordSchema,
        rows: &Rows,
        token: Option<String>,
        to: &Positions,
    ) -> Result<Committed> {
        let value =
            serde_json::to_string(to).map_err(|e| Error::bug("stream positions have no JSON form").with_source(e))?;
        let token = Token { key: token_key(self.name), expected: token, value };
        let batches = RowStream::of_batches(schema.arrow().clone(), rows.batches.clone());
        let committed = table.append(batches, Some(token)).await;
        committed.context(|| format!("writing stream `{}` to table `{}`", self.name, self.table))
    }
}

impl Report {
    /// Tells the metrics, also of a flush that fails later on.
    fn count(&self) {
        metrics::emit(
            &[("stream", &self.stream)],
            &[
                Metric::count("RecordsWritten", self.stored),
                Metric::count("RecordsFailed", self.rejected),
                Metric::count("StreamCommits", self.commits),
                Metric::count("StreamCommitConflicts", self.conflicts),
            ],
        );
    }

    fn add(&mut self, rows: Rows, objects: Vec<String>, committed: &Committed, to: Positions) {
        self.records += rows.records;
        self.stored += rows.stored;
        self.rejected += rows.rejected;
        for (name, count) in rows.ignored {
            *self.ignored.entry(name).or_default() += count;
        }
        self.error_objects.extend(objects);
        self.snapshot = Some(committed.snapshot_id);
        self.files += committed.files_added;
        self.bytes += committed.bytes_added;
        self.commits += 1;
        self.conflicts += u64::from(committed.attempts.saturating_sub(1));
        self.positions = to;
    }
}

/// What the texts of a stream's column stand for.
pub(crate) fn kind_of(declaration: &StreamDeclaration, column: &str) -> Kind {
    let own = declaration.schema.iter().find(|own| own.name.eq_ignore_ascii_case(column));
    own.map_or(Kind::Any, |own| Kind::of(&own.ty))
}

/// The token's key in the table.
pub(crate) fn token_key(stream: &str) -> String {
    format!("stream.{stream}")
}

pub(crate) fn plan_key(stream: &str) -> String {
    format!("batcher-plan/{stream}")
}

/// The positions that a token holds; a table without one has nothing of the stream.
pub(crate) fn positions(token: Option<&str>) -> Result<Positions> {
    let Some(text) = token else { return Ok(Positions::default()) };
    serde_json::from_str(text)
        .map_err(|e| Error::bug(format!("expected stream positions in the table, found `{text}`")).with_source(e))
}
