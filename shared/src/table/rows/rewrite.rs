//! Copy on write: the rows of a file that stay are written anew.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use crate::table::address::{FILE, POS};
use crate::table::conform::Conform;
use crate::table::snapshot::LiveFile;
use crate::table::write::Writer;
use crate::table::{Table, scan};
use crate::{Error, Result};

/// Rows of smaller files are written together; larger files keep their rows to themselves, and so their narrow bounds.
const SMALL_FILE_BYTES: u64 = 32 << 20;

/// Writes the rows of `files` that are not at the places given with each.
pub(super) async fn without(base: &Table, files: &[(LiveFile, RoaringTreemap)], writer: &mut Writer) -> Result<()> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for (file, gone) in files {
        if gone.len() >= file.data().record_count() {
            continue;
        }
        scan::register_store(&session, base, file)?;
        let alone = file.data().file_size_in_bytes() >= SMALL_FILE_BYTES;
        if alone {
            writer.roll().await?;
        }
        keep(&session, base, file, gone, writer).await?;
        if alone {
            writer.roll().await?;
        }
    }
    Ok(())
}

async fn keep(
    session: &SessionContext,
    base: &Table,
    file: &LiveFile,
    gone: &RoaringTreemap,
    writer: &mut Writer,
) -> Result<()> {
    let frame = session.read_table(scan::addressed_files(base, vec![file.clone()])?)?;
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
