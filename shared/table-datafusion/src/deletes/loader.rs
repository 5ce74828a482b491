//! Reads the delete files of one scan, each once, within the memory that queries share.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{DataFile, DataFileFormat};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{PARQUET_FIELD_ID_META_KEY, ProjectionMask};
use parquet::file::reader::ChunkReader;
use roaring::RoaringTreemap;
use tokio::sync::OnceCell;

use crate::floats::comparable;
use crate::transcode::{Foreign, Transcoder};
use shared::{Error, Result};
use table::deletes::{Deletes, Scope, vector};
use table::io::{IcebergContext, Io};
use table::manifests::{DELETED_PATH, DELETED_POS};

/// Delete files that are read at the same time.
const PARALLEL_READS: usize = 8;
/// Bytes that a row of an equality delete takes besides its values.
const ROW_BYTES: usize = 64;

/// A column that equality deletes compare.
#[derive(Debug, Clone)]
pub(crate) struct EqualityColumn {
    pub(crate) name: String,
    /// The type that values are compared in: the column's present one.
    pub(crate) ty: DataType,
}

/// Deleted rows by data file.
type Places = HashMap<String, RoaringTreemap>;
type Once<T> = Arc<OnceCell<Arc<T>>>;

pub(crate) struct Loader {
    io: Io,
    runtime: Arc<RuntimeEnv>,
    /// Locations of the scan's data files that have position deletes; what is said of others is passed over.
    wanted: HashSet<String>,
    /// By field id.
    columns: HashMap<i32, EqualityColumn>,
    positions: Mutex<HashMap<String, Once<Places>>>,
    equality: Mutex<HashMap<usize, Once<EqualityRows>>>,
    memory: MemoryReservation,
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("memory", &self.memory.size()).finish_non_exhaustive()
    }
}

/// The rows of a scope's delete files, and the sequence number up to which each deletes.
pub(crate) struct EqualityRows {
    converter: RowConverter,
    rows: HashMap<Box<[u8]>, i64>,
}

impl EqualityRows {
    /// Adds to `deleted` which rows of `values` that were added with `sequence` are deleted.
    ///
    /// # Errors
    /// `Bug` for values of other types than the deletes'.
    pub(crate) fn mark(&self, values: &[ArrayRef], sequence: i64, deleted: &mut [bool]) -> Result<()> {
        let values: Vec<ArrayRef> = values.iter().map(comparable).collect();
        let rows = self.converter.convert_columns(&values)?;
        for (row, deleted) in rows.iter().zip(deleted) {
            *deleted |= self.rows.get(row.as_ref()).is_some_and(|until| *until > sequence);
        }
        Ok(())
    }
}

impl Loader {
    pub(crate) fn new(
        io: Io,
        runtime: Arc<RuntimeEnv>,
        wanted: HashSet<String>,
        columns: HashMap<i32, EqualityColumn>,
    ) -> Self {
        let memory = MemoryConsumer::new("row-level deletes").register(&runtime.memory_pool);
        let (positions, equality) = (Mutex::default(), Mutex::default());
        Self { io, runtime, wanted, columns, positions, equality, memory }
    }

    pub(crate) fn column(&self, id: i32) -> Option<&EqualityColumn> {
        self.columns.get(&id)
    }

    /// Places of the deleted rows of a data file.
    ///
    /// # Errors
    /// What the store answers; `Limit` past the memory of queries; `Bug` for a damaged file, `Invalid` for one of a format that
    /// is not read.
    pub(crate) async fn places(&self, location: &str, deletes: &Deletes) -> Result<RoaringTreemap> {
        if let Some(vector) = &deletes.vector {
            let file = vector.data();
            let blob = self.get(file, Some(vector::range(file)?)).await?;
            return vector::parse(&blob, file.file_path());
        }
        let reads: Vec<_> = deletes.positions.iter().map(|file| self.places_in(file.data())).collect();
        let mut reads = stream::iter(reads).buffer_unordered(PARALLEL_READS);
        let mut all = RoaringTreemap::new();
        while let Some(places) = reads.try_next().await? {
            if let Some(places) = places.get(location) {
                all |= places;
            }
        }
        Ok(all)
    }

    /// What a position delete file says, read once.
    async fn places_in(&self, file: &DataFile) -> Result<Arc<Places>> {
        let once = entry(&self.positions, file.file_path().to_owned());
        once.get_or_try_init(|| async { self.positions(file).await.map(Arc::new) }).await.cloned()
    }

    /// The rows of a scope.
    ///
    /// # Errors
    /// As [`Loader::places`].
    pub(crate) async fn rows(&self, scope: &Arc<Scope>) -> Result<Arc<EqualityRows>> {
        let once = entry(&self.equality, Arc::as_ptr(scope).addr());
        let rows = once.get_or_try_init(|| async { self.equality(scope).await.map(Arc::new) });
        rows.await.cloned()
    }

    async fn positions(&self, file: &DataFile) -> Result<Places> {
        let path = file.file_path();
        let (reader, schema) = self.read(file, &[(DELETED_PATH, "file_path"), (DELETED_POS, "pos")]).await?;
        let (paths, positions) = (column(&schema, DELETED_PATH, "file_path"), column(&schema, DELETED_POS, "pos"));
        let (Some(paths), Some(positions)) = (paths, positions) else {
            return Err(damaged("the columns `file_path` and `pos`", path));
        };
        let mut all = Places::new();
        for batch in reader {
            let batch = batch?;
            let paths = cast(batch.column(paths), &DataType::Utf8)?;
            let positions = cast(batch.column(positions), &DataType::Int64)?;
            let (paths, positions) = (paths.as_string::<i32>(), positions.as_primitive::<Int64Type>());
            let mut start = 0;
            while start < paths.len() {
                let name = paths.value(start);
                let end = (start..paths.len()).find(|row| paths.value(*row) != name).unwrap_or(paths.len());
                if self.wanted.contains(name) {
                    let places = all.entry(name.to_owned()).or_default();
                    places.extend(positions.values()[start..end].iter().map(|place| place.unsigned_abs()));
                }
                start = end;
            }
        }
        self.memory.try_grow(all.values().map(RoaringTreemap::serialized_size).sum())?;
        Ok(all)
    }

    async fn equality(&self, scope: &Scope) -> Result<EqualityRows> {
        let columns = scope.ids.iter().map(|id| {
            let found = self.columns.get(id);
            found.ok_or_else(|| {
                Error::invalid(format!("expected the column of the field id {id} to compare, found none"))
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let converter = RowConverter::new(columns.iter().map(|c| SortField::new(c.ty.clone())).collect())?;
        let mut rows: HashMap<Box<[u8]>, i64> = HashMap::new();
        let named: Vec<_> = scope.ids.iter().copied().zip(columns.iter().map(|c| c.name.as_str())).collect();
        let named = named.as_slice();
        let reads: Vec<_> = scope
            .files
            .iter()
            .map(|file| async move { Ok::<_, Error>((file, self.read(file.data(), named).await?)) })
            .collect();
        let mut reads = stream::iter(reads).buffer_unordered(PARALLEL_READS);
        while let Some((file, (reader, schema))) = reads.try_next().await? {
            let (data, sequence) = (file.data(), file.sequence());
            let places = named.iter().map(|(id, name)| {
                column(&schema, *id, name).ok_or_else(|| damaged(&format!("the column `{name}`"), data.file_path()))
            });
            let places = places.collect::<Result<Vec<_>>>()?;
            for batch in reader {
                let batch = batch?;
                let values =
                    places.iter().zip(&columns).map(|(place, c)| Ok(comparable(&cast(batch.column(*place), &c.ty)?)));
                let found = converter.convert_columns(&values.collect::<Result<Vec<_>>>()?)?;
                self.memory.try_grow(found.size() + found.num_rows() * ROW_BYTES)?;
                for row in &found {
                    let until = rows.entry(Box::from(row.as_ref())).or_insert(sequence);
                    *until = sequence.max(*until);
                }
            }
        }
        Ok(EqualityRows { converter, rows })
    }

    /// Some columns of a delete file, by field id or, without ids, by name.
    async fn read(&self, file: &DataFile, columns: &[(i32, &str)]) -> Result<(ParquetRecordBatchReader, Schema)> {
        let path = file.file_path();
        if let Some(foreign) = Foreign::of(file) {
            // Columns are found by their ids alone.
            let transcoded =
                Transcoder::of(&self.io).parquet(self.io.storage(), &self.runtime, &foreign, false).await?;
            return project(transcoded.open()?, path, columns);
        }
        if file.file_format() != DataFileFormat::Parquet {
            let found = file.file_format();
            return Err(Error::invalid(format!(
                "expected delete files in Parquet, Avro or ORC, found `{found}` in `{path}`"
            )));
        }
        project(self.get(file, None).await?, path, columns)
    }

    /// A whole file or a part of it, through the stores of the session, which count what is read.
    async fn get(&self, file: &DataFile, range: Option<std::ops::Range<u64>>) -> Result<Bytes> {
        let size = range.as_ref().map_or(file.file_size_in_bytes(), |range| range.end - range.start);
        // Held while the bytes are.
        let held = self.memory.new_empty();
        held.try_grow(usize::try_from(size).unwrap_or(usize::MAX))?;
        let url = self.io.url(file.file_path())?;
        let (_, path) = self.io.storage().resolve(&url)?;
        let store = self.runtime.object_store(ObjectStoreUrl::parse(&url[..url::Position::BeforePath])?)?;
        let read = async {
            match range {
                Some(range) => store.get_range(&path, range).await,
                None => store.get(&path).await?.bytes().await,
            }
        };
        read.await.map_err(|e| Error::from(e).context(format!("reading the delete file `{}`", file.file_path())))
    }
}

/// Some columns of a file of Parquet, by field id or, without ids, by name.
fn project(
    parquet: impl ChunkReader + 'static,
    path: &str,
    columns: &[(i32, &str)],
) -> Result<(ParquetRecordBatchReader, Schema)> {
    let doing = || format!("reading the delete file `{path}`");
    let builder = ParquetRecordBatchReaderBuilder::try_new(parquet).doing(doing)?;
    let wanted: Vec<_> = columns.iter().filter_map(|(id, name)| column(builder.schema(), *id, name)).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let schema = (0..builder.schema().fields().len()).filter(|place| wanted.contains(place));
    let schema = builder.schema().project(&schema.collect::<Vec<_>>())?;
    Ok((builder.with_projection(mask).build().doing(doing)?, schema))
}

fn entry<K: std::hash::Hash + Eq, T>(map: &Mutex<HashMap<K, Once<T>>>, key: K) -> Once<T> {
    map.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
}

/// The place of a column of a delete file.
fn column(schema: &Schema, id: i32, name: &str) -> Option<usize> {
    let id_of = |field: &arrow::datatypes::Field| field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse::<i32>().ok();
    let by_id = schema.fields().iter().position(|field| id_of(field) == Some(id));
    by_id.or_else(|| schema.fields().iter().position(|field| id_of(field).is_none() && field.name() == name))
}

fn damaged(expected: &str, path: &str) -> Error {
    Error::bug(format!("expected {expected} in the delete file `{path}`, found none"))
}
