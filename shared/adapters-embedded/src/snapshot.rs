//! One state of all databases of a data directory, while processes go on writing to them.
//!
//! The databases stand still together for a moment: whoever takes a snapshot has the write lock of each, so no transaction is half
//! done and none begins. In that moment a reader of each is opened. A reader sees its database as it was then for as long as it
//! lives (SQLite's write-ahead log keeps what is newer apart), so the locks are given back before anything is copied.
//!
//! Nobody else holds two of these locks at once, so no order of taking them can end in a deadlock.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::backup::Backup;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use shared::error::Context;
use shared::{Error, Result};

/// The databases of a data directory: the one whose transactions are the longest first, so that the others wait for it the least.
pub const DATABASES: [&str; 3] = ["stream.db", "catalog.db", "state.db"];

/// How long a write lock is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked for: a writer that is busy leaves it for less than a millisecond between two transactions.
const LOOK: Duration = Duration::from_micros(200);
/// Pages that are copied at a time.
const PAGES: i32 = 4096;

/// Readers of all databases, which see the same moment.
#[derive(Debug)]
pub struct Snapshot {
    readers: Vec<(&'static str, Connection)>,
}

impl Snapshot {
    /// Takes a snapshot of the databases in the folder `data`. `still` runs while none of them changes: it should be quick, as
    /// all writers wait for it. Gives what it gave, and for how long writers had to wait.
    ///
    /// # Errors
    /// `NotFound` when a database is missing; `Retry` when its lock can't be had; those of `still`.
    pub fn take<T>(data: &Path, still: impl FnOnce() -> Result<T>) -> Result<(Self, T, Duration)> {
        let open = || DATABASES.iter().map(|name| Ok((*name, existing(&data.join(name))?))).collect::<Result<Vec<_>>>();
        let (writers, readers) = (open()?, open()?);
        let mut began = None;
        for (name, writer) in &writers {
            lock(writer).context(|| format!("waiting for the lock of `{}`", data.join(name).display()))?;
            began.get_or_insert_with(Instant::now);
        }
        for (name, reader) in &readers {
            let begin = "BEGIN; SELECT count(*) FROM sqlite_master";
            reader.execute_batch(begin).context(|| format!("reading `{}`", data.join(name).display()))?;
        }
        let value = still()?;
        drop(writers);
        Ok((Self { readers }, value, began.map_or(Duration::ZERO, |began| began.elapsed())))
    }

    /// Writes one of the [`DATABASES`] to the file `to`, which must not exist.
    ///
    /// # Errors
    /// `Limit` on a full disk; `Bug` when the database is damaged.
    pub fn copy(&self, name: &str, to: &Path) -> Result<()> {
        let copy = || -> Result<()> {
            let mut target = Connection::open(to)?;
            target.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")?;
            Backup::new(self.reader(name)?, &mut target)?.run_to_completion(PAGES, Duration::ZERO, None)?;
            // One file, without a log beside it.
            target.execute_batch("PRAGMA journal_mode=DELETE;")?;
            let found: String = target.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            match found.as_str() {
                "ok" => Ok(()),
                found => Err(Error::bug(format!("expected a sound database, found it damaged: {found}"))),
            }
        };
        copy().context(|| format!("copying `{name}` to `{}`", to.display()))
    }

    /// A document of the state, as it was.
    ///
    /// # Errors
    /// `Bug` when the database is damaged.
    pub fn document(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let select = "SELECT body FROM documents WHERE key = ?1";
        Ok(self.reader("state.db")?.query_row(select, [key], |row| row.get(0)).optional()?)
    }

    fn reader(&self, name: &str) -> Result<&Connection> {
        let found = self.readers.iter().find(|(known, _)| *known == name).map(|(_, reader)| reader);
        found.ok_or_else(|| Error::bug(format!("expected one of the databases {DATABASES:?}, found `{name}`")))
    }
}

fn existing(path: &Path) -> Result<Connection> {
    let doing = || format!("opening `{}`", path.display());
    if !path.is_file() {
        return Err(Error::not_found("expected a database of a data directory, found none").context(doing()));
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).context(doing)?;
    connection.busy_timeout(Duration::ZERO).context(doing)?;
    Ok(connection)
}

/// Takes the write lock.
fn lock(connection: &Connection) -> Result<()> {
    let began = Instant::now();
    loop {
        match connection.execute_batch("BEGIN IMMEDIATE") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && began.elapsed() < PATIENCE => {
                std::thread::sleep(LOOK);
            }
            begun => return Ok(begun?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn database(folder: &Path, name: &str) -> Connection {
        let connection = Connection::open(folder.join(name)).unwrap();
        connection.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (x INTEGER);").unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }

    fn count(path: &Path) -> i64 {
        Connection::open(path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    /// A writer that adds a row to the first, then to the second, then to the third, and so on: in no state that it leaves does a
    /// later one hold more than an earlier one.
    #[test]
    fn all_databases_are_seen_at_one_moment_while_a_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let writers: Vec<_> = DATABASES.iter().map(|name| database(folder.path(), name)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let writing = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for writer in &writers {
                    writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
                }
            }
        });
        let mut before = 0;
        for round in 0..20 {
            let (snapshot, seen, _) =
                Snapshot::take(folder.path(), || Ok(DATABASES.map(|name| count(&folder.path().join(name))))).unwrap();
            std::thread::sleep(Duration::from_millis(2));
            let copies = DATABASES.map(|name| {
                let to = folder.path().join(format!("{round}-{name}"));
                snapshot.copy(name, &to).unwrap();
                count(&to)
            });
            assert_eq!(copies, seen, "what was there while the databases stood still");
            assert!(copies[0] - copies[2] <= 1 && copies[0] >= copies[1] && copies[1] >= copies[2], "{copies:?}");
            assert!(copies[0] >= before);
            before = copies[0];
        }
        stop.store(true, Ordering::Relaxed);
        writing.join().unwrap();
        assert!(before > 0, "the writer wrote something");
    }

    #[test]
    fn a_folder_without_databases_is_refused_and_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let error = Snapshot::take(folder.path(), || Ok(())).unwrap_err();
        assert_eq!(error.kind(), shared::ErrorKind::NotFound, "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
