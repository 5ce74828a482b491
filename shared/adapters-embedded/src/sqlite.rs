//! One SQLite file behind async calls: what the embedded adapters stand on.
//!
//! Write-ahead log with `synchronous=FULL`: what a call has written is on the disk when it returns, and survives both
//! `kill -9` and a power cut. Calls run on tokio's blocking threads, those to a database in memory at once. Readers have a connection of their own and do not wait
//! for writers.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use shared::error::Context;
use shared::{Error, ErrorKind, Result};

const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The tables of a file and the version of their shape.
pub(crate) struct Schema {
    pub(crate) version: i64,
    pub(crate) sql: &'static str,
}

/// An open file, or a database in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
    /// Whether a call may have to wait for a disk.
    is_on_disk: bool,
}

impl Database {
    /// Opens the file at `path`, made when it is absent.
    ///
    /// # Errors
    /// `Denied` when it can't be opened, `Limit` on a full disk, `Invalid` when another version of Tarn wrote it, `Bug` when
    /// it is no SQLite file.
    pub(crate) fn open(path: &Path, schema: &Schema) -> Result<Self> {
        let connect = || -> Result<Connection> {
            let connection = Connection::open(path)?;
            configure(&connection)?;
            Ok(connection)
        };
        let open = || -> Result<Self> {
            let mut writer = connect()?;
            prepare(&mut writer, schema)?;
            Ok(Self { writer: share(writer), reader: share(connect()?), is_on_disk: true })
        };
        open().context(|| format!("opening `{}`", path.display()))
    }

    /// A database that ends with its last clone.
    pub(crate) fn in_memory(schema: &Schema) -> Result<Self> {
        let mut connection = Connection::open_in_memory()?;
        prepare(&mut connection, schema)?;
        let writer = share(connection);
        Ok(Self { reader: writer.clone(), writer, is_on_disk: false })
    }

    /// Runs `work` on one state of the database.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let reader = self.reader.clone();
        let work = move || work(&locked(&reader).transaction_with_behavior(TransactionBehavior::Deferred)?);
        self.run(work).await?
    }

    /// Runs `work` in a transaction that is committed when it succeeds and undone when it fails.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.with_writer(move |connection| transact(connection, work)).await?
    }

    /// Lends the writing connection to `work`, which goes on even when the caller stops waiting.
    pub(crate) async fn with_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T> {
        let writer = self.writer.clone();
        self.run(move || work(&mut locked(&writer))).await
    }

    /// What is in memory is at once there: a simulation of time has no threads to wait for.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        if self.is_on_disk { blocking(work).await } else { Ok(work()) }
    }
}

/// Runs `work` in a transaction that is committed when it succeeds and undone when it fails.
///
/// # Errors
/// Those of `work`; `OutcomeUnknown` when the disk failed while committing.
pub(crate) fn transact<T>(connection: &mut Connection, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&transaction)?;
    match transaction.commit() {
        Ok(()) => Ok(value),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) => {
            Err(Error::new(ErrorKind::OutcomeUnknown, "the disk failed while committing").with_source(error))
        }
        Err(error) => Err(error.into()),
    }
}

/// Locks, passing over the panic of an earlier holder: its transaction was undone.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn share(connection: Connection) -> Arc<Mutex<Connection>> {
    Arc::new(Mutex::new(connection))
}

fn configure(connection: &Connection) -> Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch("PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")?;
    Ok(())
}

/// Makes the tables of a new file; checks the version of an old one.
fn prepare(connection: &mut Connection, schema: &Schema) -> Result<()> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        0 => transact(connection, |transaction| {
            transaction.execute_batch(schema.sql)?;
            transaction.pragma_update(None, "user_version", schema.version)?;
            Ok(())
        }),
        found if found == schema.version => Ok(()),
        found => Err(Error::invalid(format!(
            "expected a file of version {}, found version {found}: another version of Tarn wrote it",
            schema.version
        ))),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::bug("a call to SQLite stopped before its end").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema { version: 3, sql: "CREATE TABLE t (x INTEGER)" };

    #[tokio::test]
    async fn a_failed_write_leaves_nothing_behind() {
        let database = Database::in_memory(&SCHEMA).unwrap();
        let failed = database
            .write(|t| {
                t.execute("INSERT INTO t VALUES (1)", [])?;
                Err::<(), _>(Error::conflict("no"))
            })
            .await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Conflict);
        let count: i64 = database.read(|t| Ok(t.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(count, 0);
    }

    #[test]
    fn a_file_of_another_version_is_refused_with_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        Database::open(&path, &Schema { version: 9, sql: SCHEMA.sql }).unwrap();
        let error = Database::open(&path, &SCHEMA).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(text.contains("x.db") && text.contains("version 3") && text.contains("version 9"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        std::fs::write(&path, vec![b'x'; 4096]).unwrap();
        let error = Database::open(&path, &SCHEMA).unwrap_err();
        assert!(error.to_string().contains("x.db"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Bug);
    }

    #[test]
    fn a_folder_that_is_not_there_is_denied() {
        let error = Database::open(Path::new("/nowhere/at/all.db"), &SCHEMA).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
}
