//! Compaction: the rows of files are arranged anew in files of a good size, in the order that was asked for, without the rows
//! that are deleted. No row changes, so readers and other writers need not care.
//!
//! Files are grouped by partition ([`plan`]) and by size ([`pack`]), each group is read, sorted if asked (spilling to disk past the memory it may take)
//! and written, and groups are committed some at a time ([`commit`]). Rows that come meanwhile never conflict; a group of which
//! somebody else changed a file is left as it is.

mod commit;
mod order;
mod pack;
mod plan;
#[cfg(test)]
mod tests;
mod zorder;

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use iceberg::spec::DataFile;

use self::commit::{Done, Replacement};
use self::order::Order;
use self::pack::Packing;
use self::plan::{Group, Rules};
use super::scan;
use shared::{Error, Result};
use table::conform::Conform;
use table::write::Writer;
use table::{Alter, SortField, Table, commit as protocol, properties};

/// Bytes of a file that is neither too small nor too large, unless the table or the caller says otherwise.
const TARGET_BYTES: u64 = 128 << 20;
/// Files of one partition that are worth being put together.
const MIN_INPUT_FILES: usize = 5;
/// Bytes of files that are sorted together: their rows may have to spill to disk at several times that size.
const SORTED_GROUP_BYTES: u64 = 512 << 20;
/// Bytes of new files after which a commit is made, so that what is done stays done.
const COMMIT_BYTES: u64 = 1 << 30;
/// Bytes that a sort holds before it spills, unless the caller says otherwise.
const MEMORY_BYTES: u64 = 256 << 20;

/// What files are put together for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Arrangement {
    /// Files of a good size, their rows in the order in which they came.
    #[default]
    BinPack,
    /// Files whose rows are sorted by these; by the table's sort order when empty.
    Sort(Vec<SortField>),
    /// Files whose rows lie near each other that have near values in all of these columns.
    ZOrder(Vec<String>),
}

/// A compaction.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    pub arrangement: Arrangement,
    /// Only files that may hold rows which all of these let pass (default: all files).
    pub filters: Vec<Expr>,
    /// Bytes of a file (default: the table's `write.target-file-size-bytes`, or 128 MiB).
    pub target_file_bytes: Option<u64>,
    /// Bytes that a sort may hold in memory (default: 256 MiB).
    pub memory_bytes: Option<u64>,
    /// Where a sort spills to (default: the system's folder for temporary files).
    pub spill: Option<PathBuf>,
    /// Files of a partition from which on they are put together (default: 5); files of a wrong size, with deleted rows or of an
    /// earlier partitioning are rewritten alone too.
    pub min_input_files: Option<usize>,
    /// Tell what would be done, change nothing.
    pub dry_run: bool,
}

/// What a compaction did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Files that were put together, group by group.
    pub groups: u64,
    /// Groups that were left as they are because others changed their files meanwhile.
    pub conflicts: u64,
    pub files_removed: u64,
    pub bytes_removed: u64,
    /// 0 in a dry run, which does not know.
    pub files_added: u64,
    /// 0 in a dry run.
    pub bytes_added: u64,
    pub delete_files_removed: u64,
    /// Snapshots that were made, oldest first.
    pub snapshots: Vec<i64>,
}

pub(super) async fn run(table: &Table, rewrite: &Rewrite) -> Result<Rewritten> {
    let mut base = table.reload().await?;
    protocol::check(&base, None)?;
    if let Arrangement::Sort(fields) = &rewrite.arrangement
        && !fields.is_empty()
        && !rewrite.dry_run
    {
        // So that files which are sorted are told from those that are not, the next time too.
        base = base.alter(&[Alter::NameSortOrder(fields.clone())]).await?;
    }
    let job = Job::new(&base, rewrite)?;
    let groups = job.groups().await?;
    if rewrite.dry_run {
        return Ok(told(&groups));
    }
    let mut rewritten = Rewritten::default();
    let mut replacement = Replacement::new(&base);
    for group in groups {
        let done = match job.write(group).await {
            Ok(done) => done,
            Err(error) => {
                // What is done already is as good as ever.
                replacement.commit(&mut rewritten).await?;
                return Err(error);
            }
        };
        replacement.push(done);
        if replacement.bytes() >= COMMIT_BYTES {
            replacement.commit(&mut rewritten).await?;
        }
    }
    replacement.commit(&mut rewritten).await?;
    let Rewritten { groups, conflicts, files_removed, files_added, .. } = rewritten;
    tracing::info!(table = %table.name(), groups, conflicts, files_removed, files_added, "table compacted");
    Ok(rewritten)
}

fn told(groups: &[Group]) -> Rewritten {
    let files = || groups.iter().flat_map(|group| &group.files);
    Rewritten {
        groups: groups.len() as u64,
        files_removed: files().count() as u64,
        bytes_removed: files().map(|file| file.data().file_size_in_bytes()).sum(),
        ..Rewritten::default()
    }
}

/// A compaction of one state of a table.
struct Job<'a> {
    base: &'a Table,
    rewrite: &'a Rewrite,
    order: Order,
    target: u64,
}

impl<'a> Job<'a> {
    fn new(base: &'a Table, rewrite: &'a Rewrite) -> Result<Self> {
        protocol::check(base, None)?;
        let expected = "a number of bytes";
        let property = properties::read(base.metadata(), "write.target-file-size-bytes", expected)?;
        let target = rewrite.target_file_bytes.or(property).unwrap_or(TARGET_BYTES);
        if target == 0 {
            return Err(Error::invalid("expected files of at least 1 byte, found a target of 0"));
        }
        Ok(Self { base, rewrite, order: Order::of(base.metadata(), &rewrite.arrangement)?, target })
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let data = plan::Inventory::of(self.base).await?.data;
        let sorts = !matches!(self.rewrite.arrangement, Arrangement::BinPack);
        let rules = Rules {
            packing: Packing {
                target: self.target,
                capacity: if sorts { SORTED_GROUP_BYTES.max(self.target) } else { self.target },
                least: self.rewrite.min_input_files.unwrap_or(MIN_INPUT_FILES),
                in_order: sorts,
            },
            spec_id: self.base.metadata().default_partition_spec_id(),
            sorts,
            order_id: self.order.id(),
        };
        let state = SessionContext::new().state();
        let files = match self.rewrite.filters.as_slice() {
            [] => data,
            filters => scan::may_match(&state, self.base, data, filters)?,
        };
        Ok(plan::groups(files, &rules))
    }

    /// Reads a group and writes it anew.
    async fn write(&self, group: Group) -> Result<Done> {
        let mut writer = Writer::new(self.base.io(), self.base.metadata(), protocol::file_prefix(self.base, None))?
            .with_file_bytes(usize::try_from(self.target).unwrap_or(usize::MAX))
            .with_sort_order(self.order.id())
            .with_lineage(self.base.metadata());
        match self.pour(&group, &mut writer).await {
            Ok(files) => Ok(Done::new(group, files, writer.created().to_vec())),
            Err(error) => {
                writer.settle().await;
                self.base.io().discard(writer.created().to_vec()).await;
                Err(error)
            }
        }
    }

    async fn pour(&self, group: &Group, writer: &mut Writer) -> Result<Vec<DataFile>> {
        let session = self.session()?;
        for file in &group.files {
            scan::register_store(&session, self.base, file)?;
        }
        let frame = scan::moving(&session, self.base, group.files.clone())?;
        let keys = self.order.keys(&group.files)?;
        let frame = if keys.is_empty() { frame } else { frame.sort(keys)? };
        let mut rows = frame.execute_stream().await?;
        let conform = Conform::new(&rows.schema(), writer.arrow_schema())?;
        while let Some(batch) = rows.try_next().await? {
            writer.write(conform.apply(&batch)?).await?;
        }
        writer.finish().await
    }

    /// One partition, so that files are read one after the other and a sort gives one order.
    fn session(&self) -> Result<SessionContext> {
        let memory = usize::try_from(self.rewrite.memory_bytes.unwrap_or(MEMORY_BYTES)).unwrap_or(usize::MAX);
        let mut config = SessionConfig::new().with_target_partitions(1);
        let execution = &mut config.options_mut().execution;
        execution.sort_spill_reservation_bytes = execution.sort_spill_reservation_bytes.min(memory / 16);
        let mode = match &self.rewrite.spill {
            Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
            None => DiskManagerMode::OsTmpDirectory,
        };
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
            .build()?;
        Ok(SessionContext::new_with_config_rt(config, Arc::new(runtime)))
    }
}
