//! Data and delete files of others in Avro or ORC, read as Parquet: a file is written anew, once, as Parquet with the same rows in the
//! same order and the Iceberg ids of its fields, where queries spill to. The scan then reads that in its place, so that pruning,
//! addresses, row-level deletes and fields found by id are those of Parquet.
//!
//! Rows pass through batch by batch, out of the memory that queries share. What was read stays for the next query, in an eighth of the
//! spill space at most: data files never change. A file that can't be read as it is meant is refused by name.

mod avro;
mod fields;
mod orc;
mod reader;

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SpillFile, SpillWriter};
use futures::TryStreamExt;
use iceberg::spec::{DataFile, DataFileFormat};
use object_store::ObjectStoreExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use tokio::sync::OnceCell;

pub(super) use self::reader::TranscodingReaders;
use shared::error::Context;
use shared::storage::Storage;
use shared::{Error, Result};
use table::io::Io;

/// Rows of a batch.
const BATCH_ROWS: usize = 1024;
/// Bytes of a row group before it is compressed.
const GROUP_BYTES: usize = 16 << 20;
/// Rows of a row group.
const GROUP_ROWS: usize = 128 << 10;
/// The key under which a file's schema tells the format that it was read from.
const MARK: &str = "transcoded from";
/// Bytes of Parquet that are kept for later queries.
const KEPT_BYTES: u64 = 1 << 30;
/// The part of the spill space that they may take.
const KEPT_SHARE: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Format {
    Avro,
    Orc,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avro => "Avro",
            Self::Orc => "ORC",
        })
    }
}

/// A file that others wrote in Avro or ORC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Foreign {
    /// As the manifest names it.
    location: String,
    format: Format,
    bytes: u64,
    rows: u64,
}

impl Foreign {
    /// A file of a manifest; `None` for one in a format that is not transcoded.
    pub(super) fn of(file: &DataFile) -> Option<Self> {
        let format = match file.file_format() {
            DataFileFormat::Avro => Format::Avro,
            DataFileFormat::Orc => Format::Orc,
            DataFileFormat::Parquet | DataFileFormat::Puffin => return None,
        };
        let (bytes, rows) = (file.file_size_in_bytes(), file.record_count());
        Some(Self { location: file.file_path().to_owned(), format, bytes, rows })
    }

    fn refused(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let (format, location) = (self.format, &self.location);
        Error::invalid(format!("expected a file in {format} that can be read, found `{location}`")).with_source(error)
    }
}

/// A file's rows as Parquet, removed from the disk when nobody reads it any longer.
pub(super) struct Transcoded {
    /// Held: the file goes with it.
    _file: Arc<dyn SpillFile>,
    path: PathBuf,
    footer: Arc<ParquetMetaData>,
    bytes: u64,
    /// Whether fields have Iceberg ids.
    has_ids: bool,
}

impl fmt::Debug for Transcoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcoded").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Transcoded {
    /// The Parquet file for whoever reads it while this is held.
    ///
    /// # Errors
    /// `Retry` when it is gone from the disk.
    pub(super) fn open(&self) -> Result<std::fs::File> {
        std::fs::File::open(&self.path)
            .map_err(|e| Error::retry("a file is gone from the spill directory").with_source(e))
    }

    async fn ranges(self: &Arc<Self>, ranges: Vec<std::ops::Range<u64>>) -> Result<Vec<Bytes>> {
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let mut file = this.open()?;
            let read = ranges.into_iter().map(|range| {
                file.seek(SeekFrom::Start(range.start))?;
                let mut bytes = Vec::new();
                (&mut file).take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
                Ok(Bytes::from(bytes))
            });
            read.collect()
        });
        read.await.map_err(|e| Error::bug("reading spilled rows broke off").with_source(e))?
    }
}

type Cell = Arc<OnceCell<Arc<Transcoded>>>;

#[derive(Debug, Default)]
struct Kept {
    files: HashMap<Foreign, (Cell, u64)>,
    /// Counts the uses of files: the one that was used last has the highest number.
    uses: u64,
}

/// Reads files of others, each once for all who ask at the same time.
#[derive(Debug, Default)]
pub(super) struct Transcoder {
    kept: Mutex<Kept>,
}

impl Transcoder {
    /// The one of the tables that `io` reads, which keeps their files as long as they do.
    pub(super) fn of(io: &Io) -> Arc<Self> {
        io.extensions().get_or_default()
    }

    /// The file as Parquet. A file whose fields have no Iceberg ids is read only if the table `is_mapped`: it tells the ids of names.
    ///
    /// # Errors
    /// What the store answers; `Invalid`, naming the file, when it can't be read or has no ids; `Limit` past the memory or the spill
    /// space of queries.
    pub(super) async fn parquet(
        &self,
        storage: &Storage,
        runtime: &Arc<RuntimeEnv>,
        file: &Foreign,
        is_mapped: bool,
    ) -> Result<Arc<Transcoded>> {
        let cell = self.cell(file);
        let found =
            cell.get_or_try_init(|| async { transcode(storage, runtime, file).await.map(Arc::new) }).await.cloned();
        drop(cell);
        self.trim(KEPT_BYTES.min(runtime.disk_manager.max_temp_directory_size() / KEPT_SHARE));
        let found = found?;
        if !found.has_ids && !is_mapped {
            return Err(
                file.refused("expected Iceberg ids of its fields or a name mapping of the table, found neither")
            );
        }
        Ok(found)
    }

    fn cell(&self, file: &Foreign) -> Cell {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        let (cell, used) = kept.files.entry(file.clone()).or_default();
        *used = now;
        Arc::clone(cell)
    }

    /// Forgets what failed, and what was used the longest ago past `room` bytes.
    fn trim(&self, room: u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.files.retain(|_, (cell, _)| cell.initialized() || Arc::strong_count(cell) > 1);
        let mut whole: Vec<_> =
            kept.files.iter().filter_map(|(f, (c, used))| Some((*used, c.get()?.bytes, f.clone()))).collect();
        whole.sort_unstable_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut bytes = 0;
        for (_, size, file) in whole {
            bytes += size;
            if bytes > room {
                kept.files.remove(&file);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).files.len()
    }
}

/// What a format's reader makes of a file.
struct Rows {
    /// The columns, with the Iceberg ids of their fields at any depth.
    schema: SchemaRef,
    has_ids: bool,
    /// Bytes that reading takes besides the batches.
    memory: usize,
    batches: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>,
}

async fn transcode(storage: &Storage, runtime: &Arc<RuntimeEnv>, file: &Foreign) -> Result<Transcoded> {
    let doing = || format!("reading `{}`", file.location);
    let original = fetch(storage, runtime, file).await.context(doing)?;
    let parquet = runtime.disk_manager.create_tmp_file("reading a file as Parquet")?;
    let work = Work {
        file: file.clone(),
        original,
        parquet,
        memory: MemoryConsumer::new("files in Avro and ORC").register(&runtime.memory_pool),
    };
    // When whoever waits is gone, the work ends.
    let awaited = Arc::new(());
    let waiting = Arc::downgrade(&awaited);
    let done = tokio::task::spawn_blocking(move || work.run(&waiting)).await;
    drop(awaited);
    match done {
        Ok(done) => done,
        Err(error) if error.is_panic() => Err(file.refused("its values can't be decoded")),
        Err(error) => Err(Error::bug("reading a file broke off").with_source(error).context(doing())),
    }
}

/// Copies the file to the spill space, through the stores of the session, which count what is read.
async fn fetch(storage: &Storage, runtime: &Arc<RuntimeEnv>, file: &Foreign) -> Result<Arc<dyn SpillFile>> {
    let url = storage.locate(&file.location)?;
    let (_, path) = storage.resolve(&url)?;
    let store = runtime.object_store(ObjectStoreUrl::parse(&url[..url::Position::BeforePath])?)?;
    let copy = runtime.disk_manager.create_tmp_file("reading a file in Avro or ORC")?;
    let mut writer = copy.open_writer()?;
    let mut chunks = store.get(&path).await?.into_stream();
    while let Some(chunk) = chunks.try_next().await? {
        writer.write_all(&chunk).map_err(no_room)?;
    }
    writer.flush().map_err(no_room)?;
    writer.finish()?;
    Ok(copy)
}

struct Work {
    file: Foreign,
    original: Arc<dyn SpillFile>,
    parquet: Arc<dyn SpillFile>,
    memory: MemoryReservation,
}

impl Work {
    fn run(self, waiting: &Weak<()>) -> Result<Transcoded> {
        let path = local(&self.original)?;
        let rows = match self.file.format {
            Format::Avro => avro::open(path),
            Format::Orc => orc::open(path),
        };
        let mut rows = rows.map_err(|e| self.file.refused(e))?;
        // The scan takes columns by their names alone where a file's schema is the table's own to the last detail: it never is.
        let mark = (MARK.to_owned(), self.file.format.to_string());
        rows.schema = Arc::new(rows.schema.as_ref().clone().with_metadata([mark].into()));
        let (has_ids, schema) = (rows.has_ids, rows.schema.clone());
        let writer = self.parquet.open_writer()?;
        let mut writer = ArrowWriter::try_new(writer, schema, Some(properties())).map_err(|e| self.not_written(e))?;
        self.pour(rows, &mut writer, waiting)?;
        let mut inner: Box<dyn SpillWriter> = writer.into_inner().map_err(|e| self.not_written(e))?;
        inner.flush().map_err(no_room)?;
        inner.finish()?;
        let path = local(&self.parquet)?.to_owned();
        let file = std::fs::File::open(&path).context(|| "opening spilled rows".to_owned())?;
        let mut footer = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip);
        footer.try_parse(&file).map_err(|e| self.not_written(e))?;
        let footer = Arc::new(footer.finish().map_err(|e| self.not_written(e))?);
        let bytes = file.metadata().context(|| "reading spilled rows".to_owned())?.len();
        Ok(Transcoded { _file: Arc::clone(&self.parquet), path, footer, bytes, has_ids })
    }

    /// Writes all rows. There must be as many as the manifest says: a file that is cut short may look whole.
    fn pour(&self, rows: Rows, writer: &mut ArrowWriter<Box<dyn SpillWriter>>, waiting: &Weak<()>) -> Result<()> {
        let mut found = 0_u64;
        self.memory.try_resize(rows.memory)?;
        for batch in rows.batches {
            if waiting.strong_count() == 0 {
                return Err(Error::retry("nobody waits for the file any longer"));
            }
            let batch =
                batch.and_then(|batch| fields::conform(&batch, &rows.schema)).map_err(|e| self.file.refused(e))?;
            found += batch.num_rows() as u64;
            if found > self.file.rows {
                break;
            }
            self.memory.try_resize(rows.memory + batch.get_array_memory_size() + writer.memory_size())?;
            writer.write(&batch).map_err(|e| self.not_written(e))?;
            if writer.in_progress_size() > GROUP_BYTES {
                writer.flush().map_err(|e| self.not_written(e))?;
            }
        }
        match found == self.file.rows {
            true => Ok(()),
            false => {
                let more = if found > self.file.rows { "at least " } else { "" };
                Err(self
                    .file
                    .refused(format!("expected {} rows as the manifest has it, found {more}{found}", self.file.rows)))
            }
        }
    }

    fn not_written(&self, error: ParquetError) -> Error {
        match error {
            ParquetError::External(source) => match source.downcast::<std::io::Error>() {
                Ok(error) => no_room(*error),
                Err(source) => self.file.refused(source),
            },
            other => self.file.refused(other),
        }
    }
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .build()
}

fn local(file: &Arc<dyn SpillFile>) -> Result<&Path> {
    file.path().ok_or_else(|| Error::invalid("expected spill space on a disk of this machine, found another kind"))
}

fn no_room(error: std::io::Error) -> Error {
    Error::limit("the query needs more spill space than it may use").with_source(error)
}
