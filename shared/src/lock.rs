//! One process on one data directory.
//!
//! The lock is the operating system's on the file `tarn.lock`, so it ends with its process, however that ends. The file says
//! who holds it: the process id on the first line, a note (the HTTP address) on the second.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Context;
use crate::{Error, ErrorKind, Result};

const NAME: &str = "tarn.lock";
/// Times that the lock is tried, and the pause between: one that only looks has it for a moment.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(5);
/// How often one that waits for the lock looks.
const LOOK: Duration = Duration::from_millis(50);

/// The lock of a data directory, held until it is dropped.
#[derive(Debug)]
pub struct DataLock {
    file: File,
    path: PathBuf,
}

/// The process that holds a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// What the holder says of itself, e.g. `http://127.0.0.1:8080`; may be empty.
    pub note: String,
}

impl DataLock {
    /// Takes the lock of the directory `data`, which is made when it is absent.
    ///
    /// # Errors
    /// `Conflict`, with the holder's process id and note, when another process has it; `Denied` when the file can't be written.
    pub fn acquire(data: &Path, note: &str) -> Result<Self> {
        std::fs::create_dir_all(data).context(|| format!("making the folder `{}`", data.display()))?;
        let path = data.join(NAME);
        let doing = || format!("locking `{}`", path.display());
        let file = open(&path).context(doing)?;
        let mut locked = file.try_lock();
        for _ in 1..TRIES {
            if matches!(locked, Err(TryLockError::WouldBlock)) {
                std::thread::sleep(PAUSE);
                locked = file.try_lock();
            }
        }
        match locked {
            Ok(()) => {
                let mut lock = Self { file, path: path.clone() };
                lock.set_note(note)?;
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => Err(in_use(data, read(file).context(doing)?)),
            Err(TryLockError::Error(error)) => Err(Error::from(error).context(doing())),
        }
    }

    /// Replaces the note, e.g. when the address is known.
    ///
    /// # Errors
    /// `Limit` on a full disk.
    pub fn set_note(&mut self, note: &str) -> Result<()> {
        let text = format!("{}\n{}\n", std::process::id(), note.replace('\n', " "));
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())
        };
        write().context(|| format!("writing `{}`", self.path.display()))
    }

    /// Takes the lock as [`DataLock::acquire`] does, but waits for up to `patience` while a command has it, which is soon done: one
    /// that says nothing of itself.
    ///
    /// # Errors
    /// As [`DataLock::acquire`].
    pub async fn acquire_in_turn(data: &Path, note: &str, patience: Duration) -> Result<Self> {
        let began = Instant::now();
        loop {
            let refused = match Self::acquire(data, note) {
                Err(error) if error.kind() == ErrorKind::Conflict && began.elapsed() < patience => error,
                other => return other,
            };
            // One's own note is an old one: whoever has the directory now has not written theirs yet.
            if Self::holder(data)?.is_some_and(|holder| !holder.note.is_empty() && holder.note != note) {
                return Err(refused);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the last holder said of itself, if it ended without saying that it did: it was killed.
    ///
    /// # Errors
    /// As [`DataLock::holder`].
    pub fn left_by_a_killed(data: &Path) -> Result<Option<String>> {
        let path = data.join(NAME);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("opening `{}`", path.display()))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(read(file)?.map(|holder| holder.note).filter(|note| !note.is_empty())),
            Err(_) => Ok(None),
        }
    }

    /// Who holds the directory `data` now; `None` when nobody does.
    ///
    /// # Errors
    /// `Denied` when the file can't be read.
    pub fn holder(data: &Path) -> Result<Option<Holder>> {
        let path = data.join(NAME);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("opening `{}`", path.display()))?,
        };
        // A shared lock: two that only look don't take each other for the holder.
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => read(file).context(|| format!("reading `{}`", path.display())),
            Err(TryLockError::Error(error)) => Err(Error::from(error).context(format!("locking `{}`", path.display()))),
        }
    }
}

impl Drop for DataLock {
    /// Nobody need wait for a holder that ended in good order.
    fn drop(&mut self) {
        if let Err(error) = self.file.set_len(0) {
            tracing::warn!(%error, "the lock of the data directory still names this process");
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// The holder that the file names; `None` when it is just writing its name.
fn read(mut file: File) -> Result<Option<Holder>> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut lines = text.lines();
    let pid = lines.next().and_then(|line| line.parse().ok());
    let note = lines.next().unwrap_or_default().to_owned();
    Ok(pid.map(|pid| Holder { pid, note }))
}

fn in_use(data: &Path, holder: Option<Holder>) -> Error {
    let by = match holder {
        Some(Holder { pid, note }) if note.is_empty() => format!("process {pid}"),
        Some(Holder { pid, note }) => format!("process {pid} (`{note}`)"),
        None => "another process that has just started".into(),
    };
    Error::conflict(format!("data directory `{}` is in use by {by}", data.display()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::ErrorKind;

    const DATA: &str = "TARN_TEST_LOCK_DATA";

    /// The child: holds the lock until it is killed. Without its variable it does nothing.
    #[test]
    fn holds_the_lock_until_it_is_killed() {
        let Ok(data) = std::env::var(DATA) else { return };
        let _lock = DataLock::acquire(Path::new(&data), "http://127.0.0.1:1").unwrap();
        println!("locked");
        std::thread::sleep(std::time::Duration::from_secs(60));
    }

    fn holder_of(data: &Path) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lock::tests::holds_the_lock_until_it_is_killed", "--nocapture"])
            .env(DATA, data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("locked")), "the child takes the lock");
        child
    }

    #[test]
    fn a_second_process_is_refused_with_the_first_ones_pid_until_that_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("new");
        assert_eq!(DataLock::holder(&data).unwrap(), None);
        let mut child = holder_of(&data);

        let holder = Holder { pid: child.id(), note: "http://127.0.0.1:1".into() };
        assert_eq!(DataLock::holder(&data).unwrap(), Some(holder));
        let error = DataLock::acquire(&data, "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let text = error.to_string();
        assert!(text.contains(&child.id().to_string()) && text.contains("http://127.0.0.1:1"), "{text}");

        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(DataLock::holder(&data).unwrap(), None);
        assert_eq!(DataLock::left_by_a_killed(&data).unwrap().as_deref(), Some("http://127.0.0.1:1"));
        DataLock::acquire(&data, "x").unwrap();
    }

    #[tokio::test]
    async fn a_command_is_waited_for_and_a_runtime_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let patience = Duration::from_secs(10);
        let command = DataLock::acquire(folder.path(), "").unwrap();
        let ended = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(command);
        });
        let runtime = DataLock::acquire_in_turn(folder.path(), "http://127.0.0.1:1", patience).await.unwrap();
        assert!(ended.is_finished());
        let began = Instant::now();
        let refused = DataLock::acquire_in_turn(folder.path(), "", patience).await.unwrap_err();
        assert!(refused.kind() == ErrorKind::Conflict && began.elapsed() < patience / 2, "{refused}");

        assert_eq!(DataLock::left_by_a_killed(folder.path()).unwrap(), None, "it lives");
        drop(runtime);
        assert_eq!(DataLock::left_by_a_killed(folder.path()).unwrap(), None, "it ended in good order");
    }

    #[test]
    fn a_note_can_be_replaced_and_the_lock_ends_with_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = DataLock::acquire(folder.path(), "a long note that is replaced").unwrap();
        lock.set_note("two\nlines").unwrap();
        let holder = DataLock::holder(folder.path()).unwrap().unwrap();
        assert_eq!((holder.pid, holder.note.as_str()), (std::process::id(), "two lines"));
        drop(lock);
        assert_eq!(DataLock::holder(folder.path()).unwrap(), None);
    }
}
