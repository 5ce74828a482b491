//! Streams in SQLite.
//!
//! Sequence numbers are the row ids of one table, so they grow within every stream and are never used twice. Puts that wait
//! for the disk at the same time share one transaction. Expired records are not read, and are removed by later puts.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Transaction};
use tokio::sync::oneshot;

use crate::sqlite::{Database, Schema, locked, transact};
use shared::clock::Clock;
use shared::model::{SequenceNumber, ShardId};
use shared::stream::check::{check_batch, check_spec};
use shared::stream::{
    Backlog, MAX_READ_BYTES, MAX_READ_RECORDS, NewRecord, PutOutcome, ReadBatch, ReadFrom, Record, Shard, Stream,
    StreamSpec,
};
use shared::{Error, ErrorKind, Result};

mod shard;

use shard::{shard_id, shard_of};

const SCHEMA: Schema = Schema {
    version: 1,
    sql: "
        CREATE TABLE streams (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            shards INTEGER NOT NULL,
            retention_hours INTEGER NOT NULL
        );
        CREATE TABLE records (
            sequence INTEGER PRIMARY KEY AUTOINCREMENT,
            stream INTEGER NOT NULL REFERENCES streams (id),
            shard INTEGER NOT NULL,
            arrival_ms INTEGER NOT NULL,
            partition_key TEXT NOT NULL,
            data BLOB NOT NULL
        );
        CREATE INDEX records_by_shard ON records (stream, shard, sequence);
    ",
};

/// Expired records that one put removes at most, so that no put waits long for it.
const EXPIRED_PER_PUT: i64 = 2_000;
/// How long records live at least that come out of a backup, unless they had less time left when it was made.
const GRACE_MS: i64 = 6 * 3_600_000;
/// Puts look for expired records no more often than this.
const EXPIRY_EVERY_MS: i64 = 10_000;

/// [`Stream`] in one SQLite file. It never throttles.
#[derive(Debug, Clone)]
pub struct EmbeddedStream {
    database: Database,
    clock: Arc<dyn Clock>,
    /// Puts that wait for the writing connection; whoever gets it next commits them all.
    waiting: Arc<Mutex<Vec<Put>>>,
    /// When a put last looked for expired records, milliseconds since the epoch.
    swept_ms: Arc<Mutex<i64>>,
}

#[derive(Debug)]
struct Put {
    stream: String,
    records: Vec<NewRecord>,
    reply: oneshot::Sender<Result<Vec<PutOutcome>>>,
}

/// A row of `streams`.
struct StreamRow {
    id: i64,
    shards: u32,
    retention_ms: i64,
}

impl EmbeddedStream {
    /// Opens the file at `path`, made when it is absent.
    ///
    /// # Errors
    /// `Denied` when it can't be opened, `Limit` on a full disk, `Invalid` when another version of Tarn wrote it.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self::new(Database::open(path, &SCHEMA)?, clock))
    }

    /// Streams that end with the last clone.
    ///
    /// # Errors
    /// `Bug` when SQLite can't open in memory.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self::new(Database::in_memory(&SCHEMA)?, clock))
    }

    /// Gives the records of the file at `path`, which lay unused for `away_ms`, the life back that they lost by it: what no table
    /// holds yet must not expire before anybody could write it. A record has as long to live as it had before, but [`GRACE_MS`] at
    /// most, and no less than it has anyway. Others keep the time of their arrival, by which a repeated request finds what it has
    /// stored, and the order of the times stays.
    ///
    /// # Errors
    /// As [`EmbeddedStream::open`].
    pub async fn revive(path: &Path, away_ms: i64, now_ms: i64) -> Result<()> {
        let database = Database::open(path, &SCHEMA)?;
        let update = "UPDATE records SET arrival_ms = max(arrival_ms, min(arrival_ms + ?1, ?2 - (
                          SELECT retention_hours * 3600000 FROM streams WHERE streams.id = records.stream)))";
        database
            .write(move |transaction| {
                transaction.execute(update, (away_ms.max(0), now_ms + GRACE_MS))?;
                Ok(())
            })
            .await
    }

    fn new(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock, waiting: Arc::default(), swept_ms: Arc::default() }
    }

    /// Whether it is time to look for expired records again.
    fn sweep_is_due(&self, now_ms: i64) -> bool {
        let mut swept_ms = locked(&self.swept_ms);
        let due = now_ms - *swept_ms >= EXPIRY_EVERY_MS;
        if due {
            *swept_ms = now_ms;
        }
        due
    }
}

#[async_trait]
impl Stream for EmbeddedStream {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        check_spec(spec)?;
        let spec = spec.clone();
        self.database
            .write(move |transaction| match find(transaction, &spec.name)? {
                None => {
                    let insert = "INSERT INTO streams (name, shards, retention_hours) VALUES (?1, ?2, ?3)";
                    transaction.execute(insert, (&spec.name, spec.shards, spec.retention_hours))?;
                    Ok(())
                }
                Some(row) if row.shards == spec.shards => {
                    let update = "UPDATE streams SET retention_hours = ?1 WHERE id = ?2";
                    transaction.execute(update, (spec.retention_hours, row.id))?;
                    Ok(())
                }
                Some(row) => Err(Error::conflict(format!(
                    "stream `{}` exists with {} shards, expected {}",
                    spec.name, row.shards, spec.shards
                ))),
            })
            .await
    }

    fn can_reshard(&self) -> bool {
        false
    }

    fn can_rename(&self) -> bool {
        true
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to, now_ms) = (from.to_owned(), to.to_owned(), self.clock.now_ms());
        self.database
            .write(move |transaction| {
                let Some(row) = find(transaction, &from)? else { return existing(transaction, &to).map(drop) };
                if let Some(other) = find(transaction, &to)? {
                    give_way(transaction, &other, &to, now_ms)?;
                }
                transaction.execute("UPDATE streams SET name = ?1 WHERE id = ?2", (&to, row.id))?;
                Ok(())
            })
            .await
    }

    async fn list(&self) -> Result<Vec<String>> {
        self.database
            .read(|transaction| {
                let mut statement = transaction.prepare_cached("SELECT name FROM streams ORDER BY name")?;
                let names = statement.query_map([], |row| row.get(0))?;
                Ok(names.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>> {
        let stream = stream.to_owned();
        let row = self.database.read(move |transaction| existing(transaction, &stream)).await?;
        let shard = |number| Shard { id: shard_id(number), parents: Vec::new(), open: true };
        Ok((0..row.shards).map(shard).collect())
    }

    async fn put(&self, stream: &str, records: Vec<NewRecord>) -> Result<Vec<PutOutcome>> {
        check_batch(&records)?;
        let (reply, answer) = oneshot::channel();
        locked(&self.waiting).push(Put { stream: stream.to_owned(), records, reply });
        let this = self.clone();
        let work = move |connection: &mut Connection| {
            let puts = std::mem::take(&mut *locked(&this.waiting));
            let now_ms = this.clock.now_ms();
            let sweep = !puts.is_empty() && this.sweep_is_due(now_ms);
            commit(connection, puts, now_ms, sweep);
        };
        self.database.with_writer(work).await?;
        answer.await.map_err(|e| Error::bug("a put was dropped before it was answered").with_source(e))?
    }

    async fn read(&self, stream: &str, shard: &ShardId, from: ReadFrom, max_records: usize) -> Result<ReadBatch> {
        let (stream, shard, now_ms) = (stream.to_owned(), shard.clone(), self.clock.now_ms());
        let max_records = max_records.clamp(1, MAX_READ_RECORDS);
        self.database
            .read(move |transaction| {
                let row = existing(transaction, &stream)?;
                let number = number_of(&row, &stream, &shard)?;
                Reader { transaction, row, number, now_ms }.read(from, max_records)
            })
            .await
    }

    async fn backlog(&self, stream: &str, shard: &ShardId, after: Option<&SequenceNumber>) -> Result<Option<Backlog>> {
        let (stream, shard, now_ms) = (stream.to_owned(), shard.clone(), self.clock.now_ms());
        let after = after.map_or(0, row_id);
        self.database
            .read(move |transaction| {
                let row = existing(transaction, &stream)?;
                let number = number_of(&row, &stream, &shard)?;
                Reader { transaction, row, number, now_ms }.backlog(after).map(Some)
            })
            .await
    }
}

fn find(transaction: &Transaction<'_>, name: &str) -> Result<Option<StreamRow>> {
    let select = "SELECT id, shards, retention_hours FROM streams WHERE name = ?1";
    let row = transaction.prepare_cached(select)?.query_row([name], |row| {
        let hours: i64 = row.get(2)?;
        Ok(StreamRow { id: row.get(0)?, shards: row.get(1)?, retention_ms: hours * 3_600_000 })
    });
    Ok(row.optional()?)
}

/// Removes a stream with what has expired in it.
///
/// # Errors
/// `Conflict` when it holds records.
fn give_way(transaction: &Transaction<'_>, stream: &StreamRow, name: &str, now_ms: i64) -> Result<()> {
    let count = "SELECT count(*) FROM records WHERE stream = ?1 AND arrival_ms > ?2";
    let live: i64 =
        transaction.prepare_cached(count)?.query_row((stream.id, now_ms - stream.retention_ms), |row| row.get(0))?;
    if live > 0 {
        return Err(Error::conflict(format!("expected no other stream `{name}`, found one that holds {live} records")));
    }
    transaction.execute("DELETE FROM records WHERE stream = ?1", [stream.id])?;
    transaction.execute("DELETE FROM streams WHERE id = ?1", [stream.id])?;
    Ok(())
}

fn existing(transaction: &Transaction<'_>, name: &str) -> Result<StreamRow> {
    find(transaction, name)?.ok_or_else(|| Error::not_found(format!("no stream `{name}`")))
}

fn number_of(row: &StreamRow, stream: &str, shard: &ShardId) -> Result<u32> {
    (0..row.shards)
        .find(|number| shard_id(*number) == *shard)
        .ok_or_else(|| Error::not_found(format!("no shard `{shard}` in stream `{stream}` of {} shards", row.shards)))
}

/// Commits the puts together and answers each. When that fails, each is tried alone, so that one can't fail the others.
fn commit(connection: &mut Connection, puts: Vec<Put>, now_ms: i64, sweep: bool) {
    if puts.is_empty() {
        return;
    }
    let committed = transact(connection, |transaction| {
        puts.iter().map(|put| store(transaction, put, now_ms, sweep)).collect::<Result<Vec<_>>>()
    });
    match committed {
        Ok(answers) => {
            for (put, answer) in puts.into_iter().zip(answers) {
                reply(put, answer);
            }
        }
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
            let text = error.to_string();
            for put in puts {
                reply(put, Err(Error::new(ErrorKind::OutcomeUnknown, text.clone())));
            }
        }
        Err(error) => match <[Put; 1]>::try_from(puts) {
            Ok([put]) => reply(put, Err(error)),
            Err(puts) => {
                for put in puts {
                    commit(connection, vec![put], now_ms, false);
                }
            }
        },
    }
}

/// A caller that no longer waits needs no answer.
fn reply(put: Put, answer: Result<Vec<PutOutcome>>) {
    if put.reply.send(answer).is_err() {
        tracing::debug!(stream = put.stream, "a put was committed after its caller had stopped waiting");
    }
}

/// Stores one put. The outer error undoes the transaction; the inner one is this put's alone and has stored nothing.
fn store(transaction: &Transaction<'_>, put: &Put, now_ms: i64, sweep: bool) -> Result<Result<Vec<PutOutcome>>> {
    let Some(row) = find(transaction, &put.stream)? else {
        return Ok(Err(Error::not_found(format!("no stream `{}`", put.stream))));
    };
    if sweep {
        remove_expired(transaction, &row, now_ms)?;
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO records (stream, shard, arrival_ms, partition_key, data) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let stored = put.records.iter().map(|record| {
        let shard = shard_of(&record.partition_key, row.shards);
        insert.execute((row.id, shard, now_ms, &record.partition_key, record.data.as_ref()))?;
        Ok(PutOutcome::Stored { shard: shard_id(shard), sequence: sequence(transaction.last_insert_rowid())? })
    });
    Ok(Ok(stored.collect::<Result<_>>()?))
}

fn remove_expired(transaction: &Transaction<'_>, row: &StreamRow, now_ms: i64) -> Result<()> {
    let delete = "DELETE FROM records WHERE sequence IN (SELECT sequence FROM (
                      SELECT sequence, arrival_ms FROM records WHERE stream = ?1 AND shard = ?2 ORDER BY sequence LIMIT ?4
                  ) WHERE arrival_ms <= ?3)";
    for shard in 0..row.shards {
        transaction.prepare_cached(delete)?.execute((row.id, shard, now_ms - row.retention_ms, EXPIRED_PER_PUT))?;
    }
    Ok(())
}

/// A number past every row id is past every record.
fn row_id(sequence: &SequenceNumber) -> i64 {
    sequence.as_str().parse().unwrap_or(i64::MAX)
}

fn sequence(row_id: i64) -> Result<SequenceNumber> {
    u64::try_from(row_id)
        .map(SequenceNumber::from)
        .map_err(|e| Error::bug(format!("expected a sequence number, found `{row_id}`")).with_source(e))
}

/// One read of one shard.
struct Reader<'a> {
    transaction: &'a Transaction<'a>,
    row: StreamRow,
    number: u32,
    now_ms: i64,
}

impl Reader<'_> {
    fn read(&self, from: ReadFrom, max_records: usize) -> Result<ReadBatch> {
        let (after, since_ms) = match &from {
            ReadFrom::Oldest => (0, i64::MIN),
            ReadFrom::After(sequence) => (row_id(sequence), i64::MIN),
            ReadFrom::Time(time_ms) => (0, *time_ms),
        };
        let (records, cut) = self.records(after, since_ms, max_records)?;
        let Some(last) = records.last() else {
            return Ok(ReadBatch { next: self.caught_up(from)?, records, behind_ms: 0 });
        };
        let behind_ms = if cut { (self.newest_arrival()? - last.arrival_ms).max(1) } else { 0 };
        Ok(ReadBatch { next: ReadFrom::After(last.sequence.clone()), records, behind_ms })
    }

    fn backlog(&self, after: i64) -> Result<Backlog> {
        let select = "SELECT count(*), coalesce(sum(length(data)), 0), min(arrival_ms) FROM records
                      WHERE stream = ?1 AND shard = ?2 AND sequence > ?3 AND arrival_ms > ?4";
        let expired_ms = self.now_ms - self.row.retention_ms;
        let count = |row: &rusqlite::Row<'_>, column| -> rusqlite::Result<u64> {
            Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
        };
        let of_row = |row: &rusqlite::Row<'_>| {
            Ok(Backlog { records: count(row, 0)?, bytes: count(row, 1)?, oldest_ms: row.get(2)? })
        };
        let mut statement = self.transaction.prepare_cached(select)?;
        Ok(statement.query_row((self.row.id, self.number, after, expired_ms), of_row)?)
    }

    /// The records after `after` that arrived since `since_ms` and have not expired; whether a limit cut them off.
    fn records(&self, after: i64, since_ms: i64, max_records: usize) -> Result<(Vec<Record>, bool)> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT sequence, arrival_ms, partition_key, data FROM records
             WHERE stream = ?1 AND shard = ?2 AND sequence > ?3 AND arrival_ms >= ?4 ORDER BY sequence",
        )?;
        let since_ms = since_ms.max(self.now_ms - self.row.retention_ms + 1);
        let mut rows = statement.query((self.row.id, self.number, after, since_ms))?;
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let data =
                row.get_ref(3)?.as_blob().map_err(|e| Error::bug("expected bytes in a record").with_source(e))?;
            let partition_key: String = row.get(2)?;
            bytes += data.len() + partition_key.len();
            if records.len() == max_records || (bytes > MAX_READ_BYTES && !records.is_empty()) {
                return Ok((records, true));
            }
            records.push(Record {
                sequence: sequence(row.get(0)?)?,
                arrival_ms: row.get(1)?,
                data: bytes::Bytes::copy_from_slice(data),
                partition_key,
            });
        }
        Ok((records, false))
    }

    /// Where a reader that found nothing goes on. A time that has passed becomes a place, so that the next read need not
    /// search for it again.
    fn caught_up(&self, from: ReadFrom) -> Result<ReadFrom> {
        match from {
            ReadFrom::Time(time_ms) if time_ms <= self.now_ms => Ok(ReadFrom::After(sequence(self.last_sequence()?)?)),
            other => Ok(other),
        }
    }

    /// The newest sequence number that was ever given out, in any stream.
    fn last_sequence(&self) -> Result<i64> {
        let select = "SELECT seq FROM sqlite_sequence WHERE name = 'records'";
        Ok(self.transaction.prepare_cached(select)?.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
    }

    fn newest_arrival(&self) -> Result<i64> {
        let select = "SELECT arrival_ms FROM records WHERE stream = ?1 AND shard = ?2 ORDER BY sequence DESC LIMIT 1";
        Ok(self.transaction.prepare_cached(select)?.query_row((self.row.id, self.number), |row| row.get(0))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock::ManualClock;

    const HOUR_MS: i64 = 3_600_000;

    async fn stream(shards: u32) -> (EmbeddedStream, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(1_000));
        let stream = EmbeddedStream::in_memory(clock.clone()).unwrap();
        stream.create(&StreamSpec { name: "s".into(), shards, retention_hours: 24 }).await.unwrap();
        (stream, clock)
    }

    fn record(text: &str) -> NewRecord {
        NewRecord { partition_key: text.to_owned(), data: text.to_owned().into() }
    }

    #[tokio::test]
    async fn expired_records_are_not_read_and_later_puts_remove_them() {
        let (stream, clock) = stream(1).await;
        stream.put("s", vec![record("old")]).await.unwrap();
        clock.advance(24 * HOUR_MS);
        let batch = stream.read("s", &shard_id(0), ReadFrom::Oldest, 10).await.unwrap();
        assert_eq!(batch.records, Vec::new());
        assert_eq!(stream.backlog("s", &shard_id(0), None).await.unwrap(), Some(Backlog::default()), "expired");
        let PutOutcome::Stored { sequence, .. } = &stream.put("s", vec![record("new")]).await.unwrap()[0] else {
            panic!("not stored");
        };
        assert_eq!(sequence.as_str(), "2");
        let count = "SELECT count(*) FROM records";
        let kept: i64 = stream.database.read(move |t| Ok(t.query_row(count, [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(kept, 1);
    }

    #[tokio::test]
    async fn records_live_on_after_a_time_in_a_backup() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stream.db");
        let clock = Arc::new(ManualClock::at(0));
        let open = || EmbeddedStream::open(&path, clock.clone()).unwrap();
        let spec = StreamSpec { name: "s".into(), shards: 1, retention_hours: 24 };
        open().create(&spec).await.unwrap();
        // One that has expired when the backup is made, one that has an hour left, one that is new.
        for (text, after) in [("expired", 23), ("late", 23), ("new", 0)] {
            open().put("s", vec![record(text)]).await.unwrap();
            clock.advance(after * HOUR_MS);
        }
        let living = || async {
            let batch = open().read("s", &shard_id(0), ReadFrom::Oldest, 10).await.unwrap();
            batch.records.iter().map(|record| String::from_utf8(record.data.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        let of_time = |hours: i64| clock.advance(hours * HOUR_MS);
        assert_eq!(living().await, ["late", "new"]);
        EmbeddedStream::revive(&path, 0, clock.now_ms()).await.unwrap();
        of_time(100);
        assert_eq!(living().await, Vec::<String>::new(), "without more they are lost");
        EmbeddedStream::revive(&path, 100 * HOUR_MS, clock.now_ms()).await.unwrap();
        assert_eq!(living().await, ["late", "new"]);
        of_time(1);
        assert_eq!(living().await, ["new"], "each has as long to live as it had");
        of_time(4);
        assert_eq!(living().await, ["new"]);
    }

    #[tokio::test]
    async fn puts_that_meet_each_get_their_own_answer() {
        let (stream, _) = stream(2).await;
        let puts = (0..50).map(|i| {
            let stream = stream.clone();
            let name = if i % 10 == 0 { "absent" } else { "s" };
            tokio::spawn(async move { stream.put(name, vec![record(&format!("k{i}"))]).await })
        });
        for (i, put) in puts.collect::<Vec<_>>().into_iter().enumerate() {
            let answer = put.await.unwrap();
            match i % 10 {
                0 => assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotFound),
                _ => assert!(matches!(answer.unwrap()[..], [PutOutcome::Stored { .. }])),
            }
        }
    }
}
