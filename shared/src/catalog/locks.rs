//! Advisory locks of tables: writers of the same one go one after the other, as far as they know of each other.
//!
//! A commit needs no lock: the catalog swaps a table's pointer only under the version that was read, and who came second
//! tries again. But those who try at the same time make each other work for nothing, so those of one process wait for a
//! lock, in the order in which they came, and those of other processes on the same machine by a locked file. It is a courtesy
//! and no more: whoever has waited long enough, or can't lock, goes on without, and a lock ends with the future or the process
//! that holds it, however that ends.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};

use crate::model::TableName;

/// Pause between two looks at a file that another process has locked.
const LOOKS: Duration = Duration::from_millis(3);

type Queue = tokio::sync::Mutex<()>;

/// From this number of tables on those that nobody waits for are forgotten.
const TABLES: usize = 64;

/// The locks of a process, one for each table. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct AdvisoryLocks {
    tables: Arc<Mutex<HashMap<TableName, Weak<Queue>>>>,
    /// Where processes lock files, if others may be on the same machine.
    folder: Option<Arc<Path>>,
}

/// Whoever holds it changes the table; it is released when it is dropped.
#[derive(Debug)]
pub struct AdvisoryLock {
    // In the order in which they end: the next one of this process finds the file free.
    _file: Option<File>,
    _held: Option<OwnedMutexGuard<()>>,
    /// Whether others had it meanwhile, so that what was read of the table before may be old.
    pub waited: bool,
}

impl AdvisoryLocks {
    /// Locks shared with all processes that lock files in `folder`, which is made when it is needed.
    pub fn across(folder: PathBuf) -> Self {
        Self { folder: Some(folder.into()), ..Self::default() }
    }

    /// Waits for those that came before, but not longer than `patience`.
    pub async fn acquire(&self, table: &TableName, patience: Duration) -> AdvisoryLock {
        let until = Instant::now() + patience;
        let queue = self.queue(table);
        let (held, waited) = match queue.clone().try_lock_owned() {
            Ok(held) => (Some(held), false),
            Err(_) => (timeout_at(until, queue.lock_owned()).await.ok(), true),
        };
        if held.is_none() {
            tracing::debug!(%table, ?patience, "goes on without its lock: another writer of this process takes long");
            return AdvisoryLock { _file: None, _held: None, waited };
        }
        let (file, waited_too) = match &self.folder {
            Some(folder) => locked(folder.join(format!("{table}.lock")), until).await,
            None => (None, false),
        };
        AdvisoryLock { _file: file, _held: held, waited: waited || waited_too }
    }

    fn queue(&self, table: &TableName) -> Arc<Queue> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = tables.get(table).and_then(Weak::upgrade) {
            return queue;
        }
        if tables.len() >= TABLES {
            tables.retain(|_, queue| queue.strong_count() > 0);
        }
        let queue = Arc::new(Queue::default());
        tables.insert(table.clone(), Arc::downgrade(&queue));
        queue
    }
}

/// The locked file, and whether another process had it. A lock ends with its file.
async fn locked(path: PathBuf, until: Instant) -> (Option<File>, bool) {
    let open = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        File::options().create(true).append(true).open(&path)
    };
    let mut waited = false;
    let error = match open() {
        Err(error) => error,
        // Asked again and again: a thread that waits for the lock could not be told to stop.
        Ok(file) => loop {
            match file.try_lock() {
                Ok(()) => return (Some(file), waited),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                    tracing::debug!(path = %path.display(), "goes on without its lock: another process takes long");
                    return (None, true);
                }
                Err(TryLockError::WouldBlock) => waited = true,
                Err(TryLockError::Error(error)) => break error,
            }
            tokio::time::sleep(LOOKS).await;
        },
    };
    tracing::debug!(%error, path = %path.display(), "goes on without its lock: the file can't be locked");
    (None, waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn processes_wait_for_each_other_by_a_file() {
        let folder = tempfile::tempdir().unwrap();
        // As in two processes: a lock is that of an open file.
        let [one, other] = [(); 2].map(|()| AdvisoryLocks::across(folder.path().join("turns")));
        let first = one.acquire(&table(1), LONG).await;
        assert!(first._file.is_some() && !first.waited);
        let late = other.acquire(&table(1), Duration::from_millis(30)).await;
        assert!(late._file.is_none() && late.waited, "it goes on without");
        drop(late);
        let second = tokio::spawn(async move { other.acquire(&table(1), LONG).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(!second.is_finished());
        drop(first);
        let second = tokio::time::timeout(Duration::from_secs(60), second).await.unwrap().unwrap();
        assert!(second._file.is_some() && second.waited);
    }

    #[tokio::test]
    async fn where_no_file_can_be_locked_writers_go_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let locks = AdvisoryLocks::across(file.path().join("turns"));
        assert!(!locks.acquire(&table(1), LONG).await.waited);
    }

    const LONG: Duration = Duration::from_secs(3600);

    fn table(number: usize) -> TableName {
        TableName::new("db", format!("t{number}")).unwrap()
    }

    #[tokio::test]
    async fn writers_go_in_the_order_in_which_they_came() {
        let locks = AdvisoryLocks::default();
        let first = locks.acquire(&table(1), LONG).await;
        assert!(!first.waited);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..3 {
            let (locks, order) = (locks.clone(), order.clone());
            writers.spawn(async move {
                let lock = locks.acquire(&table(1), LONG).await;
                assert!(lock.waited);
                order.lock().unwrap().push(writer);
            });
            tokio::task::yield_now().await;
        }
        assert!(!locks.acquire(&table(2), LONG).await.waited, "another table");
        assert!(order.lock().unwrap().is_empty());
        drop(first);
        writers.join_all().await;
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_lock_ends_when_its_holder_is_cancelled() {
        let locks = AdvisoryLocks::default();
        let holder = tokio::spawn({
            let locks = locks.clone();
            async move {
                let _lock = locks.acquire(&table(1), LONG).await;
                std::future::pending::<()>().await;
            }
        });
        tokio::task::yield_now().await;
        holder.abort();
        let next = tokio::time::timeout(LONG / 60, locks.acquire(&table(1), LONG)).await.unwrap();
        assert!(next._held.is_some());
    }

    #[tokio::test]
    async fn who_has_waited_long_enough_goes_on() {
        let locks = AdvisoryLocks::default();
        let _first = locks.acquire(&table(1), LONG).await;
        let started = tokio::time::Instant::now();
        let second = locks.acquire(&table(1), Duration::from_millis(30)).await;
        assert!(second.waited && second._held.is_none());
        assert!(started.elapsed() >= Duration::from_millis(30));
    }

    #[tokio::test]
    async fn tables_that_nobody_writes_to_are_forgotten() {
        let locks = AdvisoryLocks::default();
        let kept = locks.acquire(&table(0), LONG).await;
        for number in 1..1000 {
            locks.acquire(&table(number), LONG).await;
        }
        assert!(locks.tables.lock().unwrap().len() <= TABLES);
        assert!(locks.queue(&table(0)).try_lock().is_err(), "held");
        drop(kept);
        assert!(locks.queue(&table(0)).try_lock().is_ok());
    }
}
