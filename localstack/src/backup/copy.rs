//! Contents from files into the store and back, several at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use shared::error::Context;
use shared::{Error, ErrorKind, Result};

use super::manifest::{Entry, PART_BYTES};
use super::pins::Pinned;
use super::store::Store;

/// Files that are copied at the same time: each waits for the disk for most of the time.
const WORKERS: usize = 8;
const BUFFER: usize = 1 << 20;
/// How often a file is read that somebody writes to at the same time.
const READS: u32 = 5;

/// What a file's content is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) parts: Vec<String>,
    /// Bytes that the store did not have.
    pub(super) new: u64,
}

/// An entry of the manifest, and how many of its bytes the store did not have.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) entry: Entry,
    pub(super) new: u64,
}

/// Calls `work` with each of `items`, several at a time; gives what it gave, in their order.
///
/// # Errors
/// The first that a call gave; no further one begins then.
pub(super) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (done, failure) = (Mutex::new(Vec::with_capacity(items.len())), Mutex::new(None));
    let worker = || {
        while !has_failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            match work(item) {
                Ok(value) => done.lock().unwrap_or_else(PoisonError::into_inner).push((at, value)),
                Err(error) => {
                    has_failed.store(true, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(items.len()) {
            scope.spawn(worker);
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, value)| value).collect())
}

/// Stores what `source` holds, in parts of `part_bytes`.
///
/// # Errors
/// `Limit` on a full disk; what reading answers.
pub(super) fn store(store: &Store, source: &mut File, part_bytes: u64) -> Result<Content> {
    let (mut content, mut buffer) = (Content { size: 0, parts: Vec::new(), new: 0 }, vec![0; BUFFER]);
    loop {
        let (draft, mut digest, mut length) = (store.draft(), Sha256::new(), 0_u64);
        let mut part = source.take(part_bytes);
        let doing = || format!("writing `{}`", draft.display());
        let mut target = File::create(&draft).context(doing)?;
        loop {
            let read = part.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
            target.write_all(&buffer[..read]).context(doing)?;
            length += read as u64;
        }
        if length == 0 {
            std::fs::remove_file(&draft).context(doing)?;
            return Ok(content);
        }
        let sum = hex(&digest.finalize());
        if store.keep(&draft, &target, &sum, length)? {
            content.new += length;
        }
        content.size += length;
        content.parts.push(sum);
    }
}

/// Writes parts from the store to the file `to`, and compares them with their checksums.
///
/// # Errors
/// `Bug`, naming the content, when it is missing or not what its name says; `Limit` on a full disk.
pub(super) fn fetch(store: &Store, entry: &Entry, to: &Path) -> Result<()> {
    let doing = || format!("writing `{}`", to.display());
    let mut target = File::create(to).context(doing)?;
    let (mut buffer, mut size) = (vec![0; BUFFER], 0);
    for sum in &entry.parts {
        size += verified(store, sum, &mut buffer, |bytes| target.write_all(bytes).context(doing))?;
    }
    if size != entry.size {
        return Err(Error::bug(format!("expected {} bytes of `{}`, found {size}", entry.size, entry.path)));
    }
    target.set_modified(entry.modified()).and_then(|()| target.sync_all()).context(doing)
}

/// Reads a content whole and compares it with its checksum; gives its bytes.
///
/// # Errors
/// As [`fetch`]; those of `take`.
pub(super) fn verified(
    store: &Store,
    sum: &str,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let path = store.content(sum);
    let damaged = |found: &str| {
        Error::bug(format!("expected a content with the checksum in its name, found `{}` {found}", path.display()))
    };
    let mut source = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged("missing")),
        source => source.context(|| format!("reading `{}`", path.display()))?,
    };
    let (mut digest, mut size) = (Sha256::new(), 0);
    loop {
        let read = source.read(buffer).context(|| format!("reading `{}`", path.display()))?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        take(&buffer[..read])?;
        size += read as u64;
    }
    match hex(&digest.finalize()) == sum {
        true => Ok(size),
        false => Err(damaged("damaged")),
    }
}

/// Stores a pinned object, unless the backup before has it as it is.
///
/// # Errors
/// `NotFound` when it could not be linked and has gone; `Retry` when somebody goes on writing to it; as [`store`].
pub(super) fn store_object(store: &Store, pinned: &Pinned, before: &HashMap<&str, &Entry>) -> Result<Copied> {
    let known = before.get(pinned.path.as_str()).filter(|entry| pinned.is(entry) && store.holds(entry));
    if let Some(entry) = known {
        return Ok(Copied { entry: (*entry).clone(), new: 0 });
    }
    let doing = || format!("reading `{}`", pinned.source.display());
    for _ in 0..READS {
        let mut source = File::open(&pinned.source).context(doing)?;
        let begun = source.metadata().context(doing)?;
        let content = self::store(store, &mut source, u64::MAX).context(doing)?;
        let ended = source.metadata().context(doing)?;
        let stamp = |metadata: &std::fs::Metadata| (metadata.mtime(), metadata.mtime_nsec(), metadata.len());
        // Only who copies a file into the folder by hand writes to it in place.
        if stamp(&begun) == stamp(&ended) && content.size == ended.len() {
            let entry = Entry::new(&pinned.path, &ended, content.parts);
            return Ok(Copied { entry, new: content.new });
        }
    }
    Err(Error::retry(format!(
        "expected `{}` to stay as it is while it is read, found that it goes on changing",
        pinned.path
    )))
}

/// Stores the copy of a database.
///
/// # Errors
/// As [`store`].
pub(super) fn store_database(store: &Store, name: &str, copy: &Path) -> Result<Copied> {
    let doing = || format!("reading `{}`", copy.display());
    let mut source = File::open(copy).context(doing)?;
    let metadata = source.metadata().context(doing)?;
    let content = self::store(store, &mut source, PART_BYTES)?;
    Ok(Copied { entry: Entry::new(name, &metadata, content.parts), new: content.new })
}

/// Stores a small file that is in memory.
///
/// # Errors
/// As [`store`].
pub(super) fn store_bytes(store: &Store, name: &str, bytes: &[u8]) -> Result<Copied> {
    let draft = store.draft();
    std::fs::write(&draft, bytes).context(|| format!("writing `{}`", draft.display()))?;
    let copied = store_database(store, name, &draft);
    std::fs::remove_file(&draft).context(|| format!("removing `{}`", draft.display()))?;
    copied
}

/// Whether the error says that what was pinned without a link has gone.
pub(super) fn has_gone(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

fn hex(digest: &[u8]) -> String {
    use std::fmt::Write as _;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a text can't fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
