//! How many rows go when whole files do.

use datafusion::prelude::{SessionContext, col};
use futures::TryStreamExt;

use crate::address::POS;
use crate::scan;
use shared::Result;
use table::Table;
use table::snapshot::LiveFile;

/// The rows of `files` that are not deleted by their place: delete files are read for that, data files are not. Those that are
/// deleted by their values count too, as only the values could tell.
///
/// # Errors
/// What reading answers.
pub(crate) async fn live_rows(base: &Table, files: &[LiveFile]) -> Result<u64> {
    let mut rows = 0;
    let mut unknown = Vec::new();
    for file in files {
        let all = file.data().record_count();
        match file.deletes() {
            Some(deletes) if deletes.has_places() && deletes.equality.is_empty() => match &deletes.vector {
                Some(vector) => rows += all.saturating_sub(vector.data().record_count()),
                None => unknown.push(file.clone()),
            },
            _ => rows += all,
        }
    }
    let Some(first) = unknown.first() else { return Ok(rows) };
    let session = SessionContext::new();
    scan::register_store(&session, base, first)?;
    let frame = session.read_table(scan::addressed_files(base, unknown)?)?;
    let places = frame.select(vec![col(POS)])?.execute_stream().await?;
    let counted = places.try_fold(0, |rows, batch| async move { Ok(rows + batch.num_rows() as u64) });
    Ok(rows + counted.await?)
}
