//! Scans of CSV and JSON files by this project's own decoders, whose errors name file, line and column: DataFusion's would take
//! columns by position only, make other values of some that don't fit, and cut files inside quoted fields.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, apply_expression_roots};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::meter::Uncharged;
use format::Compression;
use format::CsvColumns;
use format::csv::cursor::Cursor;
use format::csv::decode::{CsvDecoder, CsvTable, header_cells};
use format::json::decode::JsonDecoder;
use format::records::Source;
use format::rows::{BYTE_ORDER_MARK, RowDecoder, Span};
use shared::Error;
use table_datafusion::writes_constants;

/// Rows of a batch unless the scan says otherwise.
const BATCH_ROWS: usize = 8192;

/// Bytes that are read of a local file at once.
const BLOCK: usize = 1 << 20;

/// Bytes that are read behind a part at once, until its last row ends.
const BEHIND: u64 = 64 << 10;

/// Bytes in which the header of a file must end that is read in parts.
const HEADER_BYTES: u64 = 1 << 20;

/// How the rows of a table's files are written.
#[derive(Debug, Clone)]
pub(super) enum RowFormat {
    Csv(Arc<CsvTable>),
    Json(Arc<Vec<Source>>),
}

/// A scan of files of rows.
#[derive(Clone)]
pub(super) struct RowFiles {
    format: RowFormat,
    schema: TableSchema,
    projection: SplitProjection,
    batch_rows: usize,
    /// Whether a large file may be read in parts at once.
    splittable: bool,
    metrics: ExecutionPlanMetricsSet,
}

impl RowFiles {
    pub(super) fn new(format: RowFormat, schema: TableSchema, splittable: bool) -> Self {
        let projection = SplitProjection::unprojected(&schema);
        Self { format, schema, projection, batch_rows: BATCH_ROWS, splittable, metrics: ExecutionPlanMetricsSet::new() }
    }

    fn decoder(&self, span: Span, header: Option<&[Vec<u8>]>) -> shared::Result<Box<dyn RowDecoder>> {
        let asked = self.projection.file_indices.clone();
        let schema: SchemaRef = Arc::new(self.schema.file_schema().project(&asked)?);
        Ok(match &self.format {
            RowFormat::Csv(table) => {
                let mut decoder = CsvDecoder::new(Arc::clone(table), asked, schema, self.batch_rows, span)?;
                if let Some(header) = header {
                    decoder.with_header(header)?;
                }
                Box::new(decoder)
            }
            RowFormat::Json(sources) => {
                Box::new(JsonDecoder::new(sources.as_ref().clone(), asked, schema, self.batch_rows, span))
            }
        })
    }

    /// Whether a line's end in the middle of a file may lie inside a quoted field.
    fn may_quote(&self) -> bool {
        matches!(&self.format, RowFormat::Csv(table) if table.format.quote.is_some())
    }

    /// The header of a CSV file whose columns are found by its names.
    async fn header(&self, store: &dyn ObjectStore, file: &PartitionedFile) -> shared::Result<Option<Vec<Vec<u8>>>> {
        let RowFormat::Csv(table) = &self.format else { return Ok(None) };
        if !table.format.header || table.format.columns == CsvColumns::Position {
            return Ok(None);
        }
        let meta = &file.object_meta;
        let head = store.get_range(&meta.location, 0..meta.size.min(HEADER_BYTES)).await?;
        let cells = header_cells(&table.format, &head);
        cells.map(Some).ok_or_else(|| Error::limit(format!("expected a header of at most {HEADER_BYTES} bytes")))
    }
}

impl FileSource for RowFiles {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let opener = RowOpener { source: self.clone(), store, compression: config.file_compression_type };
        ProjectionOpener::try_new(self.projection.clone(), Arc::new(opener), self.schema.file_schema())
    }

    fn table_schema(&self) -> &TableSchema {
        &self.schema
    }

    fn with_batch_size(&self, batch_rows: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_rows, ..self.clone() })
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        match self.format {
            RowFormat::Csv(_) => "csv",
            RowFormat::Json(_) => "json",
        }
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (kind, &self.format) {
            (DisplayFormatType::Default | DisplayFormatType::Verbose, RowFormat::Csv(table)) => {
                write!(f, ", has_header={}", table.format.header)
            }
            _ => Ok(()),
        }
    }

    fn supports_repartitioning(&self) -> bool {
        self.splittable
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.projection.source.iter().map(|projected| &projected.expr), f)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        if writes_constants(projection) {
            return Ok(None);
        }
        let merged = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.schema.file_schema(), &merged);
        Ok(Some(Arc::new(Self { projection, ..self.clone() })))
    }
}

struct RowOpener {
    source: RowFiles,
    store: Arc<dyn ObjectStore>,
    compression: FileCompressionType,
}

impl FileOpener for RowOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let (source, store, compression) = (self.source.clone(), Arc::clone(&self.store), self.compression);
        Ok(Box::pin(async move {
            let doing = format!("reading `{}`", file.object_meta.location);
            let named = move |error: DataFusionError| DataFusionError::from(Error::from(error).context(doing.clone()));
            let rows = rows_of(&source, &store, &file, compression).await.map_err(&named)?;
            Ok(rows.map_err(named).boxed())
        }))
    }
}

/// DataFusion's name of a compression.
pub(super) fn datafusion_compression(compression: Compression) -> FileCompressionType {
    match compression {
        Compression::None => FileCompressionType::UNCOMPRESSED,
        Compression::Gzip => FileCompressionType::GZIP,
        Compression::Bzip2 => FileCompressionType::BZIP2,
        Compression::Zstd => FileCompressionType::ZSTD,
        Compression::Xz => FileCompressionType::XZ,
    }
}

type Pieces = BoxStream<'static, Result<Bytes>>;

async fn rows_of(
    source: &RowFiles,
    store: &Arc<dyn ObjectStore>,
    file: &PartitionedFile,
    compression: FileCompressionType,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let meta = &file.object_meta;
    let Some(range) = &file.range else {
        let pieces = pieces(store.as_ref(), meta, None, compression).await?;
        return Ok(batches(pieces, source.decoder(Span::whole(), None)?).boxed());
    };
    let (start, end) = (range.start.unsigned_abs(), range.end.unsigned_abs());
    let span_end = if end >= meta.size { u64::MAX } else { end };
    if start == 0 {
        let decoder = source.decoder(Span { end: span_end, ..Span::whole() }, None)?;
        return Ok(batches(on_from(Arc::clone(store), meta.clone(), 0, end), decoder).boxed());
    }
    let Some((pieces, at, line)) = first_row(source, store, meta, start, end).await? else {
        return Ok(futures::stream::empty().boxed());
    };
    let header = source.header(store.as_ref(), file).await?;
    let span = Span { start: at, end: span_end, line };
    let decoder = source.decoder(span, header.as_deref())?;
    Ok(batches(pieces, decoder).boxed())
}

/// The bytes of a file from the first row on that begins at `start` or behind it, the offset of that row, and its line where it is
/// known. Where a field may hold line breaks, all that is before must be looked at; another part's query is charged for it.
async fn first_row(
    source: &RowFiles,
    store: &Arc<dyn ObjectStore>,
    meta: &ObjectMeta,
    start: u64,
    end: u64,
) -> Result<Option<(Pieces, u64, Option<u64>)>> {
    // The byte before decides whether a row begins just here.
    let mut place = Cursor::inside_plain_row();
    let whole = source.may_quote();
    if let (RowFormat::Csv(table), true) = (&source.format, whole) {
        place = Cursor::start(&table.format);
        let before = GetRange::Bounded(0..start);
        let mut before = pieces(store.as_ref(), meta, Some((before, false)), FileCompressionType::UNCOMPRESSED).await?;
        let mut first = true;
        while let Some(piece) = before.try_next().await? {
            let marked = std::mem::take(&mut first) && piece.starts_with(BYTE_ORDER_MARK);
            place.skip(&piece[if marked { BYTE_ORDER_MARK.len() } else { 0 }..]);
        }
    } else {
        place.skip(&store.get_range(&meta.location, start - 1..start).await?);
    }
    let mut pieces = on_from(Arc::clone(store), meta.clone(), start, end);
    let mut at = start;
    while let Some(mut piece) = pieces.try_next().await? {
        if let Some(more) = place.row_start(&piece) {
            let rest = piece.split_off(more);
            let line = whole.then_some(place.lines + 1);
            let pieces = futures::stream::once(async { Ok(rest) }).chain(pieces).boxed();
            return Ok(Some((pieces, at + more as u64, line)));
        }
        at += piece.len() as u64;
    }
    Ok(None)
}

/// The bytes of a file from `start` to `end`, and on while they are asked for: the last row of a part ends behind it.
fn on_from(store: Arc<dyn ObjectStore>, meta: ObjectMeta, start: u64, end: u64) -> Pieces {
    let held: Option<Pieces> = None;
    futures::stream::try_unfold((store, meta, start, held), move |(store, meta, mut next, mut held)| async move {
        loop {
            if let Some(pieces) = &mut held
                && let Some(piece) = pieces.try_next().await?
            {
                return Ok(Some((piece, (store, meta, next, held))));
            }
            let to = if next < end { end } else { next + BEHIND }.min(meta.size);
            if next >= to {
                return Ok(None);
            }
            let range = Some((GetRange::Bounded(next..to), true));
            held = Some(pieces(store.as_ref(), &meta, range, FileCompressionType::UNCOMPRESSED).await?);
            next = to;
        }
    })
    .boxed()
}

/// The uncompressed bytes of a file, or of a range of it; `false`: which the query is not charged for.
async fn pieces(
    store: &dyn ObjectStore,
    meta: &ObjectMeta,
    range: Option<(GetRange, bool)>,
    compression: FileCompressionType,
) -> Result<Pieces> {
    let mut options = GetOptions::default();
    if let Some((range, counts)) = range {
        options.range = Some(range);
        if !counts {
            options.extensions.insert(Uncharged);
        }
    }
    let found = store.get_opts(&meta.location, options).await?;
    let range = found.range.clone();
    match found.payload {
        GetResultPayload::File(mut opened, _) => {
            if range.start > 0 {
                opened.seek(SeekFrom::Start(range.start))?;
            }
            let opened = opened.take(range.end - range.start);
            Ok(futures::stream::iter(Blocks(compression.convert_read(opened)?)).boxed())
        }
        GetResultPayload::Stream(bytes) => compression.convert_stream(bytes.map_err(DataFusionError::from).boxed()),
    }
}

/// A reader's bytes, some at a time.
struct Blocks<R>(R);

impl<R: Read> Iterator for Blocks<R> {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        let mut block = Vec::with_capacity(BLOCK);
        match self.0.by_ref().take(BLOCK as u64).read_to_end(&mut block) {
            Ok(0) => None,
            Ok(_) => Some(Ok(block.into())),
            Err(error) => Some(Err(error.into())),
        }
    }
}

/// The batches that `decoder` makes of the bytes.
fn batches(pieces: Pieces, decoder: Box<dyn RowDecoder>) -> impl Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::try_unfold((pieces, decoder, false), |(mut pieces, mut decoder, mut ended)| async move {
        loop {
            if let Some(batch) = decoder.next()? {
                return Ok(Some((batch, (pieces, decoder, ended))));
            }
            if ended || decoder.is_done() {
                return Ok(None);
            }
            match pieces.try_next().await? {
                Some(piece) => decoder.feed(piece),
                None => {
                    decoder.end();
                    ended = true;
                }
            }
        }
    })
}
