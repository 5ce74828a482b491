//! Rows → Parquet data files, one set for each partition.
//!
//! Rows go straight to the writer of their partition while few partitions are open. The rows of further partitions wait in
//! memory up to a budget; past it the partition that was used longest ago is closed to make room for the one that waits with
//! most. So any number of partitions works in bounded memory, and rows that come in order of their partition are written
//! without waiting. A closed file is finished in the background, a few at a time: most of that is waiting for the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float32Array, Float64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use arrow::row::{RowConverter, SortField};
use iceberg::spec::{
    DataFile, PartitionSpecRef, PrimitiveType, Schema, SchemaRef, Struct, StructType, TableMetadata, Transform, Type,
};
use object_store::buffered::BufWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowSchemaConverter, AsyncArrowWriter};
use parquet::basic::LogicalType;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::{SchemaDescriptor, Type as ParquetType, TypePtr};
use tokio::task::JoinSet;

use super::files::{Metrics, writer_properties};
use super::io::{IcebergContext, Io};
use super::lineage;
use super::metrics::{Written, data_file};
use super::partitioning::named_values;
use super::properties::read;
use super::schema::{self, arrow_type};
use super::transform;
use shared::model::keys;
use shared::{Error, Result};

/// Partitions that are written at the same time.
const OPEN_PARTITIONS: usize = 12;
/// Bytes of rows that wait for a writer.
const WAITING_BYTES: usize = 64 << 20;
/// Bytes of a finished data file, about.
const FILE_BYTES: usize = 128 << 20;
/// Files that are finished at the same time, and bytes that they hold in memory.
const CLOSING_FILES: usize = 16;
const CLOSING_BYTES: usize = 64 << 20;
/// Bytes that an upload keeps back until it has a part or the end.
const UPLOAD_BYTES: usize = 10 << 20;
/// Parts of a file that are on their way at the same time: each is held in memory until it has arrived.
const UPLOAD_PARTS: usize = 2;

/// Writes rows of one schema and partition spec.
pub struct Writer {
    io: Io,
    schema: SchemaRef,
    arrow: ArrowSchemaRef,
    spec: PartitionSpecRef,
    properties: WriterProperties,
    metrics: Arc<Metrics>,
    /// The table's own folder.
    location: String,
    /// First part of every file's name; no other commit uses it.
    prefix: String,
    siblings: u32,
    splitter: Option<Splitter>,
    open: BTreeMap<Arc<[u8]>, OpenFile>,
    waiting: BTreeMap<Arc<[u8]>, Waiting>,
    waiting_bytes: usize,
    clock: u64,
    created: Vec<String>,
    /// Files that are being finished, with the bytes that each holds.
    closing: JoinSet<(usize, Result<DataFile>)>,
    closing_bytes: usize,
    done: Vec<DataFile>,
    /// Bytes of a finished data file, about.
    file_bytes: usize,
    /// What files are marked with whose rows come in an order of the table.
    sort_order_id: Option<i32>,
}

struct OpenFile {
    partition: Struct,
    location: String,
    writer: AsyncArrowWriter<BufWriter>,
    nan_counts: HashMap<i32, u64>,
    used: u64,
}

struct Waiting {
    partition: Struct,
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl Writer {
    /// # Errors
    /// `Invalid` for a schema or partition spec that Tarn can't write.
    pub fn new(io: &Io, metadata: &TableMetadata, prefix: String) -> Result<Self> {
        let (schema, spec) = (metadata.current_schema().clone(), metadata.default_partition_spec().clone());
        let splitter = if spec.is_unpartitioned() { None } else { Some(Splitter::new(&schema, &spec)?) };
        let file_bytes = read(metadata, "write.target-file-size-bytes", "a number of bytes")?.unwrap_or(FILE_BYTES);
        let arrow = schema::arrow_schema(&schema)?;
        let properties = writer_properties(metadata, &schema, &arrow)?;
        let metrics = Arc::new(Metrics::of(metadata, &schema)?);
        Ok(Self {
            io: io.clone(),
            arrow,
            schema,
            spec,
            properties,
            metrics,
            location: metadata.location().to_owned(),
            prefix,
            siblings: 0,
            splitter,
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            clock: 0,
            created: Vec::new(),
            closing: JoinSet::new(),
            closing_bytes: 0,
            done: Vec::new(),
            file_bytes,
            sort_order_id: None,
        })
    }

    /// The same with files of another size.
    pub fn with_file_bytes(self, file_bytes: usize) -> Self {
        Self { file_bytes, ..self }
    }

    /// The same for rows that come in this order of the table.
    pub fn with_sort_order(self, sort_order_id: Option<i32>) -> Self {
        Self { sort_order_id, ..self }
    }

    /// The same for rows that may be older than the files they go to: with their lineage, if the table keeps one.
    pub fn with_lineage(self, metadata: &TableMetadata) -> Self {
        match lineage::is_kept(metadata) {
            true => Self { arrow: lineage::with_columns(&self.arrow), ..self },
            false => self,
        }
    }

    /// A name for a file of deletion vectors.
    pub fn next_vectors(&mut self) -> String {
        let location = keys::deletion_vectors(&self.location, &self.prefix, self.created.len());
        self.created.push(location.clone());
        location
    }

    /// A writer of rows out of a file of `bytes` whose files have other names: those of one partition stay together.
    /// [`Writer::adopt`] takes its files back.
    pub fn sibling(&mut self, metadata: &TableMetadata, bytes: u64) -> Result<Self> {
        self.siblings += 1;
        let mut sibling = Self::new(&self.io, metadata, format!("{}-{}", self.prefix, self.siblings))?;
        sibling.arrow = self.arrow.clone();
        // The same rows may take a little more room than before.
        sibling.file_bytes = sibling.file_bytes.max(usize::try_from(bytes + bytes / 4).unwrap_or(usize::MAX));
        Ok(sibling)
    }

    /// Answers for everything that a sibling began, and has what it finished.
    pub fn adopt(&mut self, sibling: &Self, finished: Vec<DataFile>) {
        self.created.extend_from_slice(&sibling.created);
        self.done.extend(finished);
    }

    /// What batches must look like: the table's columns with their field ids, then those of the lineage if it is written.
    pub fn arrow_schema(&self) -> &ArrowSchemaRef {
        &self.arrow
    }

    /// A name for a file of the partition `folder` that holds something else than rows of the table.
    pub fn next_location(&mut self, partition: &Struct, spec: &PartitionSpecRef, kind: &str) -> String {
        let folder = folder(spec, &self.schema, partition);
        let prefix = format!("{}-{kind}", self.prefix);
        let location = keys::data_file(&self.location, &folder, &prefix, self.created.len());
        self.created.push(location.clone());
        location
    }

    /// Every file that was begun, finished or not.
    pub fn created(&self) -> &[String] {
        &self.created
    }

    /// # Errors
    /// What the store answers (`Limit` on a full disk); `Invalid` for values that the partition transform refuses.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let Some(splitter) = &self.splitter else {
            return self.write_part(Arc::from([]), Struct::empty(), batch).await;
        };
        for part in splitter.split(batch)? {
            self.write_part(part.key, part.partition, part.rows).await?;
        }
        Ok(())
    }

    /// Closes every file and gives what was written.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn finish(&mut self) -> Result<Vec<DataFile>> {
        self.roll().await?;
        while !self.closing.is_empty() {
            self.closed().await?;
        }
        self.done.sort_by(|a, b| a.file_path().cmp(b.file_path()));
        Ok(std::mem::take(&mut self.done))
    }

    /// Has every file finished, so that the rows which come next go to others.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn roll(&mut self) -> Result<()> {
        for key in self.open.keys().cloned().collect::<Vec<_>>() {
            self.close(&key).await?;
        }
        for key in self.waiting.keys().cloned().collect::<Vec<_>>() {
            self.admit(&key).await?;
            self.close(&key).await?;
        }
        Ok(())
    }

    /// Waits until nothing is being written any more, so that what was begun can be removed.
    pub async fn settle(&mut self) {
        while self.closing.join_next().await.is_some() {}
    }

    async fn write_part(&mut self, key: Arc<[u8]>, partition: Struct, rows: RecordBatch) -> Result<()> {
        self.clock += 1;
        if !self.open.contains_key(&key) && self.open.len() < OPEN_PARTITIONS {
            self.begin(&key, partition.clone())?;
        }
        if self.open.contains_key(&key) {
            return self.append(&key, &rows).await;
        }
        let bytes = rows.get_array_memory_size();
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting { partition, batches: Vec::new(), bytes: 0 });
        waiting.batches.push(rows);
        waiting.bytes += bytes;
        self.waiting_bytes += bytes;
        if self.waiting_bytes > WAITING_BYTES { self.make_room().await } else { Ok(()) }
    }

    /// Closes the partition that was used longest ago and opens the one that waits with most.
    async fn make_room(&mut self) -> Result<()> {
        let oldest = self.open.iter().min_by_key(|(_, file)| file.used).map(|(key, _)| key.clone());
        let largest = self.waiting.iter().max_by_key(|(_, waiting)| waiting.bytes).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.close(&key).await?;
        }
        match largest {
            Some(key) => self.admit(&key).await,
            None => Ok(()),
        }
    }

    /// Opens a partition that waits and writes its rows.
    async fn admit(&mut self, key: &Arc<[u8]>) -> Result<()> {
        let Some(waiting) = self.waiting.remove(key) else { return Ok(()) };
        self.waiting_bytes -= waiting.bytes;
        self.begin(key, waiting.partition)?;
        let rows = concat_batches(&self.arrow, &waiting.batches)?;
        self.append(key, &rows).await
    }

    fn begin(&mut self, key: &Arc<[u8]>, partition: Struct) -> Result<()> {
        let folder = folder(&self.spec, &self.schema, &partition);
        let location = keys::data_file(&self.location, &folder, &self.prefix, self.created.len());
        let store = self.io.storage().writer(&self.io.url(&location)?)?.with_max_concurrency(UPLOAD_PARTS);
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone());
        let writer = parquet_schema(&self.arrow, &self.schema)
            .and_then(|schema| {
                AsyncArrowWriter::try_new_with_options(store, self.arrow.clone(), options.with_parquet_schema(schema))
            })
            .doing(|| format!("writing `{location}`"))?;
        self.created.push(location.clone());
        let file = OpenFile { partition, location, writer, nan_counts: HashMap::new(), used: self.clock };
        self.open.insert(key.clone(), file);
        Ok(())
    }

    async fn append(&mut self, key: &Arc<[u8]>, rows: &RecordBatch) -> Result<()> {
        let Some(file) = self.open.get_mut(key) else { return Ok(()) };
        file.used = self.clock;
        count_nans(&self.schema, rows, &mut file.nan_counts);
        file.writer.write(rows).await.doing(|| format!("writing `{}`", file.location))?;
        if file.writer.bytes_written() + file.writer.in_progress_size() >= self.file_bytes {
            self.close(key).await?;
        }
        Ok(())
    }

    /// Has a file finished, as soon as there is room for it.
    async fn close(&mut self, key: &Arc<[u8]>) -> Result<()> {
        let Some(file) = self.open.remove(key) else { return Ok(()) };
        let bytes = file.writer.in_progress_size() + file.writer.bytes_written().min(UPLOAD_BYTES);
        while self.closing.len() >= CLOSING_FILES
            || (!self.closing.is_empty() && self.closing_bytes + bytes > CLOSING_BYTES)
        {
            self.closed().await?;
        }
        self.closing_bytes += bytes;
        let (schema, metrics) = (self.schema.clone(), self.metrics.clone());
        let (spec_id, order_id) = (self.spec.spec_id(), self.sort_order_id);
        self.closing.spawn(async move { (bytes, file.finish(&schema, &metrics, spec_id, order_id).await) });
        Ok(())
    }

    /// Waits for one of the files that are being finished.
    async fn closed(&mut self) -> Result<()> {
        let Some(closed) = self.closing.join_next().await else { return Ok(()) };
        let (bytes, file) = closed.map_err(|e| Error::bug("finishing a data file broke off").with_source(e))?;
        self.closing_bytes -= bytes;
        self.done.push(file?);
        Ok(())
    }
}

/// The columns of a data file as Arrow's writer has them, apart from uuids, which say in Parquet's words that they are some.
fn parquet_schema(arrow: &ArrowSchema, schema: &Schema) -> parquet::errors::Result<SchemaDescriptor> {
    let plain = ArrowSchemaConverter::new().convert(arrow)?;
    Ok(SchemaDescriptor::new(with_uuids(&plain.root_schema_ptr(), schema)?))
}

fn with_uuids(ty: &TypePtr, schema: &Schema) -> parquet::errors::Result<TypePtr> {
    let info = ty.get_basic_info();
    let id = info.has_id().then(|| info.id());
    let built = match ty.as_ref() {
        ParquetType::PrimitiveType { physical_type, type_length, .. } => {
            let field = id.and_then(|id| schema.field_by_id(id));
            if field.is_none_or(|field| *field.field_type != Type::Primitive(PrimitiveType::Uuid)) {
                return Ok(ty.clone());
            }
            ParquetType::primitive_type_builder(info.name(), *physical_type)
                .with_length(*type_length)
                .with_repetition(info.repetition())
                .with_id(id)
                .with_logical_type(Some(LogicalType::Uuid))
                .build()?
        }
        ParquetType::GroupType { fields, .. } => {
            let fields =
                fields.iter().map(|field| with_uuids(field, schema)).collect::<parquet::errors::Result<_>>()?;
            let group = ParquetType::group_type_builder(info.name())
                .with_fields(fields)
                .with_id(id)
                .with_logical_type(info.logical_type_ref().cloned())
                .with_converted_type(info.converted_type());
            let group = if info.has_repetition() { group.with_repetition(info.repetition()) } else { group };
            group.build()?
        }
    };
    Ok(Arc::new(built))
}

/// The folder of a partition, as Iceberg's other writers name it.
fn folder(spec: &PartitionSpecRef, schema: &SchemaRef, partition: &Struct) -> String {
    let types = spec.partition_type(schema).unwrap_or_else(|_| StructType::new(Vec::new()));
    named_values(spec, &types, partition).collect::<Vec<_>>().join("/")
}

impl OpenFile {
    async fn finish(
        mut self,
        schema: &SchemaRef,
        metrics: &Metrics,
        spec_id: i32,
        sort_order_id: Option<i32>,
    ) -> Result<DataFile> {
        let footer = self.writer.finish().await.doing(|| format!("writing `{}`", self.location))?;
        let written = Written {
            size: self.writer.bytes_written() as u64,
            location: self.location,
            footer: &footer,
            partition: self.partition,
            spec_id,
            sort_order_id,
            nan_counts: self.nan_counts,
        };
        data_file(schema, metrics, written)
    }
}

fn count_nans(schema: &SchemaRef, rows: &RecordBatch, counts: &mut HashMap<i32, u64>) {
    for (field, column) in schema.as_struct().fields().iter().zip(rows.columns()) {
        let any = column.as_any();
        let nans = if let Some(values) = any.downcast_ref::<Float64Array>() {
            values.iter().flatten().filter(|v| v.is_nan()).count()
        } else if let Some(values) = any.downcast_ref::<Float32Array>() {
            values.iter().flatten().filter(|v| v.is_nan()).count()
        } else {
            continue;
        };
        *counts.entry(field.id).or_default() += nans as u64;
    }
}

/// Checks that manifests can hold the values of a partition field: the `iceberg` crate does not write all of them, or not read
/// them again.
///
/// # Errors
/// `Invalid`, naming the field, when they can't.
pub fn check_partition_type(name: &str, transform: Transform, source: &Type) -> Result<()> {
    use PrimitiveType as P;
    let (Transform::Identity, Type::Primitive(ty @ (P::Uuid | P::TimestampNs | P::TimestamptzNs))) =
        (transform, source)
    else {
        return Ok(());
    };
    let instead = if *ty == P::Uuid { "bucket(n, …)" } else { "day(…)" };
    Err(Error::invalid(format!(
        "partition field `{name}`: expected a column of a type that can be partitioned by as it is, found `{ty}`: take `{instead}`"
    )))
}

/// Tells rows apart by their partition.
struct Splitter {
    fields: Vec<SplitField>,
    converter: RowConverter,
}

struct SplitField {
    column: usize,
    transform: Transform,
    ty: Type,
}

struct Part {
    key: Arc<[u8]>,
    partition: Struct,
    rows: RecordBatch,
}

impl Splitter {
    fn new(schema: &SchemaRef, spec: &PartitionSpecRef) -> Result<Self> {
        let partition_type = spec.partition_type(schema).doing(|| "reading the partition spec".into())?;
        let mut fields = Vec::with_capacity(spec.fields().len());
        let mut sort_fields = Vec::with_capacity(spec.fields().len());
        for (field, target) in spec.fields().iter().zip(partition_type.fields()) {
            let column = schema.as_struct().fields().iter().position(|f| f.id == field.source_id).ok_or_else(|| {
                Error::invalid(format!("expected the partition field `{}` over a top-level column", field.name))
            })?;
            check_partition_type(&field.name, field.transform, &target.field_type)?;
            sort_fields.push(SortField::new(arrow_type(&target.field_type)?));
            let ty = target.field_type.as_ref().clone();
            fields.push(SplitField { column, transform: field.transform, ty });
        }
        Ok(Self { fields, converter: RowConverter::new(sort_fields)? })
    }

    fn split(&self, batch: RecordBatch) -> Result<Vec<Part>> {
        let values: Vec<ArrayRef> = self
            .fields
            .iter()
            .map(|f| {
                transform::apply(f.transform, batch.column(f.column)).map_err(|e| e.context("computing partitions"))
            })
            .collect::<Result<_>>()?;
        let rows = self.converter.convert_columns(&values)?;
        let mut groups: BTreeMap<&[u8], Vec<u32>> = BTreeMap::new();
        let keys: Vec<_> = rows.iter().collect();
        for (row, key) in keys.iter().zip(0_u32..) {
            groups.entry(row.as_ref()).or_default().push(key);
        }
        if groups.len() == 1 {
            let partition = self.partition(&values, 0)?;
            return Ok(vec![Part { key: Arc::from(rows.row(0).as_ref()), partition, rows: batch }]);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, rows)| rows[0]);
        groups
            .into_iter()
            .map(|(key, indices)| {
                let partition = self.partition(&values, indices[0] as usize)?;
                let rows = take_record_batch(&batch, &UInt32Array::from(indices))?;
                Ok(Part { key: Arc::from(key), partition, rows })
            })
            .collect()
    }

    /// The partition values of one row.
    fn partition(&self, values: &[ArrayRef], row: usize) -> Result<Struct> {
        let mut literals = Vec::with_capacity(values.len());
        for (field, value) in self.fields.iter().zip(values) {
            literals.push(transform::literal(value, row, &field.ty)?);
        }
        Ok(literals.into_iter().collect())
    }
}
