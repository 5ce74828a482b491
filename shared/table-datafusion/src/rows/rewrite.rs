//! Copy on write: the rows of a file that stay are written anew.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use iceberg::spec::DataFile;
use roaring::RoaringTreemap;
use tokio::task::JoinSet;

use crate::address::{FILE, POS};
use crate::scan;
use shared::{Error, Result};
use table::Table;
use table::conform::Conform;
use table::snapshot::LiveFile;
use table::write::Writer;

/// Rows of smaller files are written together; larger files keep their rows to themselves, and so their narrow bounds.
const SMALL_FILE_BYTES: u64 = 32 << 20;

/// Large files that are written anew at the same time: each takes a core, and memory for a row group.
const PARALLEL_FILES: usize = 4;

/// Writes the rows of `files` that are not at the places given with each.
///
/// # Errors
/// What reading and writing answer.
pub(super) async fn without(base: &Table, files: Vec<(LiveFile, RoaringTreemap)>, writer: &mut Writer) -> Result<()> {
    let left = files.into_iter().filter(|(file, gone)| gone.len() < file.data().record_count());
    let (large, small): (Vec<_>, Vec<_>) =
        left.partition(|(file, _)| file.data().file_size_in_bytes() >= SMALL_FILE_BYTES);
    for (file, gone) in small {
        keep(base, &file, &gone, writer).await?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(PARALLEL_FILES);
    let mut rewrites = JoinSet::new();
    let mut result = Ok(());
    for (file, gone) in large {
        while rewrites.len() >= cores {
            result = result.and(joined(&mut rewrites, writer).await);
        }
        if result.is_err() {
            break;
        }
        let mut own = match writer.sibling(base.metadata(), file.data().file_size_in_bytes()) {
            Ok(own) => own,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        let base = base.clone();
        rewrites.spawn(async move {
            let kept = keep(&base, &file, &gone, &mut own).await;
            let written = match kept {
                Ok(()) => own.finish().await,
                Err(error) => Err(error),
            };
            own.settle().await;
            (own, written)
        });
    }
    while !rewrites.is_empty() {
        result = result.and(joined(&mut rewrites, writer).await);
    }
    result
}

/// Waits for one of the files. What it began belongs to `writer` from here on.
async fn joined(rewrites: &mut JoinSet<(Writer, Result<Vec<DataFile>>)>, writer: &mut Writer) -> Result<()> {
    let Some(joined) = rewrites.join_next().await else { return Ok(()) };
    let (own, written) = joined.map_err(|e| Error::bug("rewriting a data file broke off").with_source(e))?;
    let (finished, result) = match written {
        Ok(finished) => (finished, Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    };
    writer.adopt(&own, finished);
    result
}

/// Writes the rows of a file that are not at the places of `gone`, in their order.
async fn keep(base: &Table, file: &LiveFile, gone: &RoaringTreemap, writer: &mut Writer) -> Result<()> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    scan::register_store(&session, base, file)?;
    let frame = session.read_table(scan::traced_files(base, vec![file.clone()])?)?;
    let mut rows = frame.execute_stream().await?;
    let schema = rows.schema();
    let place = schema.index_of(POS)?;
    let columns: Vec<usize> =
        (0..schema.fields().len()).filter(|i| ![FILE, POS].contains(&schema.field(*i).name().as_str())).collect();
    let conform = Conform::new(&Arc::new(schema.project(&columns)?), writer.arrow_schema())?;
    while let Some(batch) = rows.try_next().await? {
        let places = cast(batch.column(place), &DataType::Int64)?;
        let places = places.as_primitive::<Int64Type>();
        if places.null_count() > 0 {
            return Err(Error::bug("expected the place of every row, found none for some"));
        }
        let stays: BooleanArray =
            places.values().iter().map(|place| Some(!gone.contains(place.unsigned_abs()))).collect();
        let batch = batch.project(&columns)?;
        let kept = if stays.false_count() == 0 { batch } else { filter_record_batch(&batch, &stays)? };
        writer.write(conform.apply(&kept)?).await?;
    }
    Ok(())
}
