//! Reads the heads of files.

use format::detect::{self, Magic, WHOLE_BYTES};
use format::parquet::{self, Footer};
use format::{FileFault, Sample};
use futures::StreamExt;
use shared::ports::Ports;
use shared::storage::Storage;
use shared::{Error, ErrorKind, Result, deadline};

use crate::select::Object;

/// Files read, or looked at, at the same time.
pub const CONCURRENCY: usize = 16;

/// A file and what its head shows.
#[derive(Debug)]
pub struct ReadFile {
    pub object: Object,
    pub sample: Result<Sample, FileFault>,
}

/// Reads the heads of all, some at a time, in the order given; when time is up those that were begun.
///
/// # Errors
/// What storage answers, but for a file that went away: that is reported as a fault of the file.
pub async fn read_all(ports: &Ports, objects: Vec<Object>) -> Result<Vec<ReadFile>> {
    let (storage, clock) = (&ports.storage, ports.clock.as_ref());
    let time = deadline::working_time(clock).map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    let end_ms = time.map(|time| clock.now_ms().saturating_add(time));
    // The first ones are always begun, so that every crawl gets on.
    let may_begin = |at: usize| at < CONCURRENCY || end_ms.is_none_or(|end_ms| clock.now_ms() < end_ms);
    let objects = futures::stream::iter(objects).enumerate().take_while(|(at, _)| std::future::ready(may_begin(*at)));
    // Spawned one by one as places come free: parsing takes a core, so each file is a task of its own.
    let tasks = objects.map(|(_, object)| {
        let storage = storage.clone();
        tokio::spawn(async move { read(&storage, object).await })
    });
    let mut reading = tasks.buffered(CONCURRENCY);
    let mut files = Vec::new();
    while let Some(file) = reading.next().await {
        files.push(file.map_err(|e| Error::bug("reading a file's head broke off").with_source(e))??);
    }
    Ok(files)
}

async fn read(storage: &Storage, object: Object) -> Result<ReadFile> {
    let sample = match sample(storage, &object).await {
        Ok(sample) => sample,
        Err(error) if error.kind() == ErrorKind::NotFound => Err(FileFault::Vanished),
        Err(error) => return Err(error),
    };
    Ok(ReadFile { object, sample })
}

async fn sample(storage: &Storage, object: &Object) -> Result<Result<Sample, FileFault>> {
    if object.size == 0 {
        return Ok(Err(FileFault::Empty));
    }
    let length = detect::head_bytes(object.size);
    let name = object.path.rsplit('/').next().unwrap_or_default();
    let first = if is_named_parquet(name) { object.size.min(4) } else { length };
    let head = storage.get_range(&object.url, 0..first).await?;
    match detect::magic(&head) {
        Err(fault) => Ok(Err(fault)),
        Ok(Magic::Parquet) => footer(storage, object).await,
        Ok(Magic::Text) => {
            let head = if first < length { storage.get_range(&object.url, 0..length).await? } else { head };
            match detect::sample_text(name, head, length == object.size) {
                // More of the file may show the end of its first record.
                Err(FileFault::TooLarge { .. }) if length < WHOLE_BYTES.min(object.size) => {
                    let length = WHOLE_BYTES.min(object.size);
                    let head = storage.get_range(&object.url, 0..length).await?;
                    Ok(detect::sample_text(name, head, length == object.size))
                }
                sample => Ok(sample),
            }
        }
    }
}

/// Parquet is read from its end, so its head is needed for four bytes only.
fn is_named_parquet(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".parquet")
}

async fn footer(storage: &Storage, object: &Object) -> Result<Result<Sample, FileFault>> {
    let tail = storage.get_range(&object.url, detect::footer_range(object.size)).await?;
    match parquet::footer(tail, object.size) {
        Err(fault) => Ok(Err(fault)),
        Ok(Footer::Sample(sample)) => Ok(Ok(*sample)),
        Ok(Footer::Needs(bytes)) => {
            let start = object.size.saturating_sub(bytes);
            let tail = storage.get_range(&object.url, start..object.size).await?;
            Ok(match parquet::footer(tail, object.size) {
                Ok(Footer::Sample(sample)) => Ok(*sample),
                Ok(Footer::Needs(_)) => Err(FileFault::Corrupt { found: "the Parquet footer has no end".into() }),
                Err(fault) => Err(fault),
            })
        }
    }
}
