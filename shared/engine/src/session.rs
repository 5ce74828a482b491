//! The DataFusion sessions of one engine: memory, spill space and caches are shared, stores and catalog belong to one query.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::catalog::{CatalogProviderList, MemoryCatalogProviderList};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionState;
use datafusion::prelude::SessionConfig;

use super::memory::QueryMemory;
use super::meter::{Meter, WarehouseStores};
use super::split::SplitBatches;
use super::stop::{Stop, StopJoins};
use super::top::SortManyRows;
use super::watch::{StatementLimits, WatchFunctions, WatchLambdas, WatchWindows};
use super::{bounds, date_bin, date_format, date_trunc, dates, semantics, single};
use shared::config::Settings;
use shared::error::Context;
use shared::storage::Storage;
use shared::{Error, Result};

/// Name of the only catalog, as Athena calls it.
pub(super) const CATALOG: &str = "awsdatacatalog";

/// Consumers named when memory runs out.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// Makes sessions.
pub(super) struct Sessions {
    base: SessionState,
    /// Bytes that all queries may hold together.
    pub(super) memory: u64,
    /// The folder that queries spill to.
    pub(super) spill: PathBuf,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    /// # Errors
    /// `Denied` or `Limit` when the spill directory can't be made.
    pub(super) fn open(settings: &Settings) -> Result<Self> {
        let config = config(settings.memory);
        let runtime = runtime(settings, config.target_partitions())?;
        let mut builder =
            SessionStateBuilder::new().with_config(config).with_runtime_env(Arc::new(runtime)).with_default_features();
        builder.expr_planners().get_or_insert_default().insert(0, trino_functions::Operators::planner()?);
        let mut base = semantics::rules(builder).build();
        datafusion_functions_json::register_all(&mut base)?;
        trino_functions::register(&mut base)?;
        dates::register(&mut base)?;
        date_format::register(&mut base)?;
        date_bin::register(&mut base)?;
        date_trunc::register(&mut base)?;
        single::register(&mut base)?;
        semantics::register(&mut base)?;
        bounds::register(&mut base, settings.memory)?;
        Ok(Self { base, memory: settings.memory, spill: settings.spill.clone() })
    }

    pub(super) fn memory_pool(&self) -> Arc<dyn MemoryPool> {
        Arc::clone(&self.base.runtime_env().memory_pool)
    }

    /// What has the registry of functions.
    pub(super) fn functions(&self) -> &SessionState {
        &self.base
    }

    /// How many partitions of a plan run at once.
    pub(super) fn partitions(&self) -> usize {
        self.base.config().target_partitions()
    }

    /// A session whose unqualified tables lie in `database` and whose reads are counted by `meter`; its plans heed `stop`.
    pub(super) fn start(
        &self,
        database: &str,
        storage: &Storage,
        meter: &Arc<Meter>,
        stop: &Arc<Stop>,
    ) -> SessionState {
        let runtime = RuntimeEnv {
            object_store_registry: Arc::new(WarehouseStores::new(storage.clone(), Arc::clone(meter))),
            ..self.base.runtime_env().as_ref().clone()
        };
        let memory = usize::try_from(self.memory).unwrap_or(usize::MAX);
        let catalogs: Arc<dyn CatalogProviderList> = Arc::new(MemoryCatalogProviderList::new());
        let config = self.base.config().clone().with_default_catalog_and_schema(CATALOG, database);
        let limits = StatementLimits { stop: Arc::clone(stop), memory: self.memory };
        let mut state = SessionStateBuilder::new_from_existing(self.base.clone())
            .with_config(config)
            .with_runtime_env(Arc::new(runtime))
            .with_catalog_list(catalogs)
            .with_analyzer_rule(Arc::new(WatchFunctions(limits.clone())))
            .with_analyzer_rule(Arc::new(WatchLambdas(limits.clone())))
            .with_physical_optimizer_rule(Arc::new(SortManyRows))
            .with_physical_optimizer_rule(Arc::new(WatchWindows(limits)))
            .with_physical_optimizer_rule(Arc::new(SplitBatches { memory }))
            .with_physical_optimizer_rule(Arc::new(StopJoins { stop: Arc::clone(stop) }))
            .build();
        // The time that `now()` gives.
        state.mark_start_execution();
        state
    }
}

fn config(memory: u64) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_collect_statistics(true)
        .with_parquet_pruning(true)
        .with_parquet_bloom_filter_pruning(true);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    // As SQL has it: a number with a point is exact.
    options.sql_parser.parse_float_as_decimal = true;
    // As in Athena, whichever the direction.
    options.sql_parser.default_null_ordering = "nulls_last".into();
    // Takes a column that may be null in one plan and not in the other for a fault.
    options.execution.skip_physical_aggregate_schema_check = true;
    // Drops groups whose minimum or maximum is NaN.
    options.optimizer.enable_topk_aggregation = false;
    // Filters run on decoded batches, not while Parquet decodes: of TPC-H's queries 20 of 22 are faster so, by a third on the whole.
    options.execution.parquet.pushdown_filters = false;
    // Times of INT96 as nanoseconds would wrap outside of 1677 to 2262; tables hold microseconds.
    options.execution.parquet.coerce_int96 = Some("us".into());
    // What a sort keeps back for merging its spilled runs, in each partition: a small engine must not lose all memory to it.
    let share = usize::try_from(memory).unwrap_or(usize::MAX) / (16 * options.execution.target_partitions.max(1));
    options.execution.sort_spill_reservation_bytes = share.min(options.execution.sort_spill_reservation_bytes);
    config
}

/// Memory and spill space as the settings say; footers and statistics of files are kept between queries, listings never are.
fn runtime(settings: &Settings, partitions: usize) -> Result<RuntimeEnv> {
    std::fs::create_dir_all(&settings.spill)
        .context(|| format!("making the spill directory `{}`", settings.spill.display()))?;
    let memory = usize::try_from(settings.memory).map_err(|_| {
        Error::limit(format!("expected memory that this machine can address, found {}", settings.memory))
    })?;
    let caches = CacheManagerConfig::default()
        .with_list_files_cache_limit(0)
        .with_file_statistics_cache_limit((memory / 64).clamp(1 << 20, 32 << 20))
        .with_metadata_cache_limit((memory / 16).clamp(4 << 20, 128 << 20));
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![settings.spill.clone()]))
        .with_max_temp_directory_size(settings.spill_limit);
    Ok(RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(TrackConsumersPool::new(QueryMemory::new(memory, partitions), CONSUMERS_NAMED)))
        .with_disk_manager_builder(disk)
        .with_cache_manager(caches)
        .build()?)
}
