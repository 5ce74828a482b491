//! The memory of all queries: DataFusion's fair pool, with a bound on what one merge of spilled runs may take.
//!
//! A merge that reads spilled runs back can't spill, and takes memory for as many runs as the pool lets it: with two partitions
//! sorting, the first would leave nothing for the second. Held to a share, it merges fewer runs at a time instead.

use std::fmt;

use datafusion::common::Result;
use datafusion::common::resources_datafusion_err;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// What DataFusion calls the merge of a sort's spilled runs.
const MERGE: &str = "ExternalSorterMerge";

/// A [`FairSpillPool`] in which a merge takes `merge_share` bytes at most.
#[derive(Debug)]
pub(super) struct QueryMemory {
    pool: FairSpillPool,
    merge_share: usize,
}

impl QueryMemory {
    /// `bytes` for all queries; each of `partitions` may merge with its part of half of them.
    pub(super) fn new(bytes: usize, partitions: usize) -> Self {
        Self { pool: FairSpillPool::new(bytes), merge_share: bytes / (2 * partitions.max(1)) }
    }
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pool.fmt(f)
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &str {
        self.pool.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.pool.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.pool.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let merges = reservation.consumer().name().starts_with(MERGE);
        if merges && reservation.size().saturating_add(additional) > self.merge_share {
            return Err(resources_datafusion_err!(
                "a merge of spilled runs needs {additional} bytes more than its share of {}",
                self.merge_share
            ));
        }
        self.pool.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.pool.memory_limit()
    }
}
