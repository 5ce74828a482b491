//! Deleted places as a selection of rows for DataFusion's Parquet scan, made when a file is opened.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::morsel::{MorselPlan, MorselPlanner, Morselizer};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use roaring::RoaringTreemap;

use super::Loader;
use table::deletes::Deletes;

/// What a file of a scan says of its deleted rows.
#[derive(Debug)]
pub(crate) struct DeletedPlaces {
    /// The file as the manifest names it.
    pub(crate) location: String,
    pub(crate) deletes: Arc<Deletes>,
    pub(crate) loader: Arc<Loader>,
}

/// Opens files without their deleted rows, then as the scan underneath does.
pub(crate) struct DeletingMorselizer {
    pub(crate) inner: Arc<dyn Morselizer>,
    pub(crate) readers: Arc<dyn ParquetFileReaderFactory>,
    pub(crate) metrics: ExecutionPlanMetricsSet,
    pub(crate) partition: usize,
}

impl fmt::Debug for DeletingMorselizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeletingMorselizer").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Morselizer for DeletingMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        if file.extensions.get::<DeletedPlaces>().is_none() {
            return self.inner.plan_file(file);
        }
        Ok(Box::new(Opening {
            inner: self.inner.clone(),
            readers: self.readers.clone(),
            metrics: self.metrics.clone(),
            partition: self.partition,
            file,
        }))
    }
}

struct Opening {
    inner: Arc<dyn Morselizer>,
    readers: Arc<dyn ParquetFileReaderFactory>,
    metrics: ExecutionPlanMetricsSet,
    partition: usize,
    file: PartitionedFile,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("file", &self.file.object_meta.location).finish_non_exhaustive()
    }
}

impl MorselPlanner for Opening {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok(Some(MorselPlan::new().with_pending_planner(async move { self.select().await })))
    }
}

impl Opening {
    async fn select(mut self) -> Result<Box<dyn MorselPlanner>> {
        if let Some(deleted) = self.file.extensions.get::<DeletedPlaces>() {
            let places = deleted.loader.places(&deleted.location, &deleted.deletes).await?;
            if !places.is_empty() {
                let file = self.file.clone();
                let mut reader = self.readers.create_reader(self.partition, file, None, &self.metrics)?;
                let footer = reader.get_metadata(None).await?;
                let rows: Vec<_> = footer.row_groups().iter().map(|group| group.num_rows().unsigned_abs()).collect();
                self.file.extensions.insert(without(&places, &rows));
            }
        }
        self.inner.plan_file(self.file)
    }
}

/// The rows of row groups of these sizes that are not deleted.
fn without(deleted: &RoaringTreemap, groups: &[u64]) -> ParquetAccessPlan {
    let mut start = 0;
    let mut places = deleted.iter().peekable();
    let access = groups.iter().map(|rows| {
        let end = start + rows;
        let mut selectors: Vec<RowSelector> = Vec::new();
        let mut next = start;
        while let Some(place) = places.next_if(|place| *place < end) {
            push(&mut selectors, place - next, false);
            push(&mut selectors, 1, true);
            next = place + 1;
        }
        push(&mut selectors, end - next, false);
        start = end;
        match selectors.as_slice() {
            [] => RowGroupAccess::Scan,
            [only] if only.skip => RowGroupAccess::Skip,
            [_] => RowGroupAccess::Scan,
            _ => RowGroupAccess::Selection(RowSelection::from(selectors)),
        }
    });
    ParquetAccessPlan::new(access.collect())
}

fn push(selectors: &mut Vec<RowSelector>, rows: u64, skip: bool) {
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    match selectors.last_mut() {
        _ if rows == 0 => {}
        Some(last) if last.skip == skip => last.row_count += rows,
        _ => selectors.push(RowSelector { row_count: rows, skip }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_places_become_selections_of_row_groups() {
        let plan = without(&[0, 1, 5, 8, 9, 99].into_iter().collect(), &[3, 5, 2, 4]);
        let selection = |rows: &[(usize, bool)]| {
            let rows = rows.iter().map(|(row_count, skip)| RowSelector { row_count: *row_count, skip: *skip });
            RowGroupAccess::Selection(RowSelection::from(rows.collect::<Vec<_>>()))
        };
        let expected = [
            selection(&[(2, true), (1, false)]),
            selection(&[(2, false), (1, true), (2, false)]),
            RowGroupAccess::Skip,
            RowGroupAccess::Scan,
        ];
        assert_eq!(plan.inner(), expected);
    }
}
