//! The statements of earlier sessions: a line each in a file that every entry is added to at once, so that no kill and no other
//! session loses one. The form is that of rustyline's history, version 2.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use shared::Result;
use shared::error::Context;

const VERSION: &str = "#V2\n";
/// Bytes of the file that a new session reads; of a larger one the older half is dropped.
const MOST: u64 = 4 << 20;

/// The file, which may lie in a folder that is yet to be made.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
    /// Entries that have no place yet.
    waiting: Vec<String>,
}

impl History {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, waiting: Vec::new() }
    }

    /// The entries of earlier sessions, oldest first.
    ///
    /// # Errors
    /// What reading the file gives; an absent one has none.
    pub(super) fn load(&self) -> Result<Vec<String>> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|mut file| {
            let size = file.metadata()?.len();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            text = String::from_utf8_lossy(&bytes).into_owned();
            Ok(size)
        });
        let size = read.context(|| format!("reading `{}`", self.path.display()))?;
        if size > MOST {
            text = newer_half(&text);
            replace(&self.path, &text).context(|| format!("shortening `{}`", self.path.display()))?;
        }
        let lines = text.strip_prefix(VERSION).unwrap_or(&text).lines();
        Ok(lines.filter(|line| !line.is_empty()).map(unescaped).collect())
    }

    /// Adds an entry, and those before it that could not be added.
    ///
    /// # Errors
    /// What writing the file gives: it is tried again with the next entry.
    pub(super) fn add(&mut self, entry: &str) -> Result<()> {
        self.waiting.push(entry.to_owned());
        self.write().context(|| format!("writing `{}`", self.path.display()))
    }

    /// Adds what waits for the file's folder.
    ///
    /// # Errors
    /// As [`History::add`].
    pub(super) fn catch_up(&mut self) -> Result<()> {
        self.write().context(|| format!("writing `{}`", self.path.display()))
    }

    fn write(&mut self) -> std::io::Result<()> {
        if self.waiting.is_empty() || self.path.parent().is_some_and(|folder| !folder.is_dir()) {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let head = if file.metadata()?.len() == 0 { VERSION } else { "" };
        let lines: String = self.waiting.iter().map(|entry| escaped(entry) + "\n").collect();
        // One write: lines of two sessions don't mix.
        file.write_all((head.to_owned() + &lines).as_bytes())?;
        self.waiting.clear();
        Ok(())
    }
}

fn escaped(entry: &str) -> String {
    entry.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescaped(line: &str) -> String {
    let (mut entry, mut chars) = (String::new(), line.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => entry.push('\n'),
                Some(c) => entry.push(c),
                None => entry.push('\\'),
            },
            c => entry.push(c),
        }
    }
    entry
}

fn newer_half(text: &str) -> String {
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let kept: String = lines[lines.len() / 2..].iter().flat_map(|line| [line, "\n"]).collect();
    VERSION.to_owned() + &kept
}

/// Puts another file in the place of this one at once.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sessions_keep_each_others_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sql_history");
        let (mut one, mut other) = (History::new(path.clone()), History::new(path.clone()));
        one.add("SELECT 1\nFROM t").unwrap();
        other.add("SELECT '\\n'").unwrap();
        one.add("SELECT 3").unwrap();
        assert_eq!(one.load().unwrap(), ["SELECT 1\nFROM t", "SELECT '\\n'", "SELECT 3"]);
    }

    #[test]
    fn entries_wait_for_a_folder_that_is_yet_to_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::new(folder.path().join("data/sql_history"));
        history.add("SELECT 1").unwrap();
        assert_eq!(history.load().unwrap(), [""; 0]);
        std::fs::create_dir(folder.path().join("data")).unwrap();
        history.catch_up().unwrap();
        assert_eq!(history.load().unwrap(), ["SELECT 1"]);
    }

    #[test]
    fn of_a_large_history_the_newer_half_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sql_history");
        let entry = |n: usize| format!("SELECT {n}, '{}'", "x".repeat(1000));
        let lines: String = (0..5000).map(|n| entry(n) + "\n").collect();
        std::fs::write(&path, VERSION.to_owned() + &lines).unwrap();
        let history = History::new(path.clone());
        let kept = history.load().unwrap();
        assert_eq!((kept.len(), kept.last().unwrap()), (2500, &entry(4999)));
        assert_eq!(history.load().unwrap(), kept);
    }
}
