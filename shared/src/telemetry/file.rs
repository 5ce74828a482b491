//! A log in files of a folder: `tarn.log` is written, older ones are `tarn.1.log`, `tarn.2.log`, …

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of a file, about, before the next one is begun.
const MOST_BYTES: u64 = 16 << 20;
/// Older files that are kept.
const KEPT: usize = 4;

/// Writes the log. The folder is made with the first line.
#[derive(Debug)]
pub struct LogFile {
    folder: PathBuf,
    open: Option<(File, u64)>,
    most_bytes: u64,
}

impl LogFile {
    /// In `folder`, after what is there.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, open: None, most_bytes: MOST_BYTES }
    }

    /// The file that takes the next line, and its bytes.
    fn opened(&mut self) -> io::Result<&mut (File, u64)> {
        let (file, bytes) = match self.open.take() {
            Some(open) => open,
            None => self.begun()?,
        };
        if bytes < self.most_bytes {
            return Ok(self.open.insert((file, bytes)));
        }
        drop(file);
        for older in (0..KEPT).rev() {
            match std::fs::rename(path(&self.folder, older), path(&self.folder, older + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let next = self.begun()?;
        Ok(self.open.insert(next))
    }

    fn begun(&self) -> io::Result<(File, u64)> {
        std::fs::create_dir_all(&self.folder)?;
        let file = OpenOptions::new().create(true).append(true).open(path(&self.folder, 0))?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (file, bytes) = self.opened()?;
        let written = file.write(line)?;
        *bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open.as_mut().map_or(Ok(()), |(file, _)| file.flush())
    }
}

/// The file that is written, for 0, or an older one.
fn path(folder: &Path, older: usize) -> PathBuf {
    folder.join(if older == 0 { "tarn.log".to_owned() } else { format!("tarn.{older}.log") })
}

/// The files of a log, the oldest first; the last one is being written. Those that are not there are left out.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    (0..=KEPT).rev().map(|older| path(folder, older)).filter(|path| path.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_becomes_the_first_older_one_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("logs");
        let mut log = LogFile { most_bytes: 6, ..LogFile::new(folder.clone()) };
        for line in 0..14 {
            writeln!(log, "{line:02}").unwrap();
        }
        let read = || files(&folder).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect::<Vec<_>>();
        assert_eq!(read(), ["04\n05\n", "06\n07\n", "08\n09\n", "10\n11\n", "12\n13\n"]);
        let mut again = LogFile { most_bytes: 6, ..LogFile::new(folder.clone()) };
        writeln!(again, "14").unwrap();
        assert_eq!(read(), ["06\n07\n", "08\n09\n", "10\n11\n", "12\n13\n", "14\n"]);
    }
}
