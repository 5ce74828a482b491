//! Where answers go: standard output, the terminal by a pager, a file.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shared::error::Context;
use shared::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Columns and rows of a terminal of unknown size.
const USUAL: (usize, usize) = (80, 24);

/// Size of the terminal that standard output is, in columns and rows.
pub(in crate::cli) fn terminal_size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(USUAL, |size| (size.ws_col.into(), size.ws_row.into()))
}

/// Takes the bytes of one answer.
pub(in crate::cli) enum Target {
    Stdout,
    Screen(Screen),
    File(OutFile),
}

/// A file that answers are written to.
#[derive(Debug)]
pub(in crate::cli) struct OutFile {
    pub(in crate::cli) path: PathBuf,
    file: File,
    /// A file that means nothing until it is whole: it is removed unless it becomes so.
    removes: bool,
}

impl OutFile {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    /// What the system answers, with the path.
    pub(in crate::cli) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).context(|| format!("writing `{}`", path.display()))?;
        Ok(Self { path: path.to_owned(), file, removes: false })
    }

    /// The same file, for one more answer behind those that it has.
    ///
    /// # Errors
    /// `Limit` when no more files can be opened.
    pub(in crate::cli) fn again(&self) -> Result<Self> {
        let file = self.file.try_clone().context(|| format!("writing `{}`", self.path.display()))?;
        Ok(Self { path: self.path.clone(), file, removes: self.removes })
    }

    /// Removes the file when it is dropped before it was finished.
    pub(in crate::cli) fn all_or_nothing(mut self) -> Self {
        self.removes = true;
        self
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if self.removes
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a file that is not whole was left");
        }
    }
}

impl Target {
    /// Writes and empties `bytes`; false when the reader has gone.
    ///
    /// # Errors
    /// What the system answers.
    pub(in crate::cli) fn write(&mut self, bytes: &mut Vec<u8>) -> Result<bool> {
        if bytes.is_empty() {
            return Ok(true);
        }
        let there = match self {
            Self::Stdout => to_stdout(bytes),
            Self::Screen(screen) => screen.write(bytes),
            Self::File(out) => {
                let written = out.file.write_all(bytes).context(|| format!("writing `{}`", out.path.display()));
                written.map(|()| true)
            }
        };
        bytes.clear();
        there
    }

    /// Whether what is written shows up at once on the terminal.
    pub(in crate::cli) fn shows_at_once(&self) -> bool {
        matches!(self, Self::Screen(Screen { paging: Paging::Never, .. }))
    }

    /// Shows what was held back.
    ///
    /// # Errors
    /// What the system answers.
    pub(in crate::cli) fn finish(self) -> Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::Screen(screen) => screen.finish(),
            Self::File(mut out) => {
                out.removes = false;
                out.file.flush().context(|| format!("writing `{}`", out.path.display()))
            }
        }
    }
}

/// Writes to standard output; false when the reader has gone.
pub(in crate::cli) fn to_stdout(bytes: &[u8]) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::from(error).context("writing to standard output")),
    }
}

/// What shows an answer that is higher than the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Paging {
    /// Nothing: it runs through.
    Never,
    /// `less`, if there is one.
    Less,
    /// A command of the shell.
    By(String),
}

impl Paging {
    /// What the variable `PAGER` means.
    pub(in crate::cli) fn of(variable: Option<&str>) -> Self {
        match variable.map(str::trim) {
            None => Self::Less,
            Some("" | "cat") => Self::Never,
            Some(command) => Self::By(command.to_owned()),
        }
    }
}

/// A terminal. Text is held until it is whole, in a file past the height of the screen: whoever reads it page by page takes his time.
pub(in crate::cli) struct Screen {
    paging: Paging,
    height: usize,
    held: Vec<u8>,
    lines: usize,
    spool: Option<File>,
}

impl Screen {
    pub(in crate::cli) fn new(paging: Paging) -> Self {
        Self { paging, height: terminal_size().1, held: Vec::new(), lines: 0, spool: None }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<bool> {
        if self.paging == Paging::Never {
            return to_stdout(bytes);
        }
        self.lines += lines_of(bytes);
        self.held.extend_from_slice(bytes);
        // The prompt and the number of rows need a line each.
        if self.spool.is_some() || self.lines + 2 > self.height {
            let spool = match &mut self.spool {
                Some(spool) => spool,
                none => none.insert(tempfile::tempfile().context(|| "keeping an answer for the pager".to_owned())?),
            };
            spool.write_all(&self.held).context(|| "keeping an answer for the pager".to_owned())?;
            self.held.clear();
        }
        Ok(true)
    }

    fn finish(self) -> Result<()> {
        let Some(mut spool) = self.spool else { return to_stdout(&self.held).map(drop) };
        let rewind = |spool: &mut File| spool.seek(SeekFrom::Start(0)).map(drop);
        rewind(&mut spool)?;
        let mut pager = match &self.paging {
            Paging::By(command) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", command]);
                shell
            }
            Paging::Less | Paging::Never => {
                let mut less = Command::new("less");
                less.arg("-SRFX");
                less
            }
        };
        // Ctrl-C is the pager's while it runs: from here on it does not end this process.
        let _listening = signal(SignalKind::interrupt())?;
        match pager.stdin(Stdio::from(spool.try_clone()?)).status() {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                rewind(&mut spool)?;
                run_through(spool)
            }
            Err(error) => Err(Error::from(error).context("starting the pager")),
        }
    }
}

fn lines_of(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn run_through(mut spool: File) -> Result<()> {
    let mut part = vec![0; 1 << 16];
    loop {
        let read = spool.read(&mut part)?;
        if read == 0 || !to_stdout(&part[..read])? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_whole_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.parquet");
        let written = |finish: bool| {
            let mut target = Target::File(OutFile::create(&path).unwrap().all_or_nothing());
            target.write(&mut b"PAR1".to_vec()).unwrap();
            match finish {
                true => target.finish().unwrap(),
                false => drop(target),
            }
            path.exists()
        };
        assert!(!written(false));
        assert!(written(true));
    }

    #[test]
    fn the_pager_is_the_environments() {
        assert_eq!(Paging::of(None), Paging::Less);
        assert_eq!(Paging::of(Some("")), Paging::Never);
        assert_eq!(Paging::of(Some("more -d")), Paging::By("more -d".into()));
    }
}
