//! The memory of all queries: DataFusion's fair pool, with a bound on what one merge of spilled runs may take, and on what the
//! process holds in truth.
//!
//! A merge that reads spilled runs back can't spill, and takes memory for as many runs as the pool lets it: with two partitions
//! sorting, the first would leave nothing for the second. Held to a share, it merges fewer runs at a time instead.
//!
//! Operators don't account for all that they hold: a thousand rows of a megabyte each wait unseen to be one batch. Once the heap is
//! past the limit by [`MARGIN`], nobody is given more: operators that can spill do, others end their query.

use std::fmt;

use datafusion::common::Result;
use datafusion::common::resources_datafusion_err;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

use shared::heap;

/// What DataFusion calls the merge of a sort's spilled runs.
const MERGE: &str = "ExternalSorterMerge";
/// Share of the memory by which the heap may pass it.
const MARGIN: u64 = 8;

/// # Errors
/// `Limit` when the process, with `more` bytes, would hold more than queries of `memory` bytes are to.
pub(super) fn check_heap(memory: u64, more: u64) -> shared::Result<()> {
    check(memory, u64::try_from(heap::in_use()).unwrap_or(u64::MAX).saturating_add(more))
}

fn check(memory: u64, held: u64) -> shared::Result<()> {
    if held <= memory.saturating_add(memory / MARGIN) {
        return Ok(());
    }
    Err(shared::Error::limit(format!(
        "expected queries to take at most {memory} bytes together, found {held} bytes in use: ask for less at once, or set TARN_MEMORY"
    )))
}

/// A [`FairSpillPool`] in which a merge takes `merge_share` bytes at most.
#[derive(Debug)]
pub(super) struct QueryMemory {
    pool: FairSpillPool,
    bytes: u64,
    merge_share: usize,
}

impl QueryMemory {
    /// `bytes` for all queries; each of `partitions` may merge with its part of half of them.
    pub(super) fn new(bytes: usize, partitions: usize) -> Self {
        let merge_share = bytes / (2 * partitions.max(1));
        Self { pool: FairSpillPool::new(bytes), bytes: u64::try_from(bytes).unwrap_or(u64::MAX), merge_share }
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
        check_heap(self.bytes, 0).map_err(|error| resources_datafusion_err!("{error}"))?;
        self.pool.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.pool.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_may_pass_the_memory_by_its_margin() {
        assert!(check(1000, 1125).is_ok());
        let error = check(1000, 1126).unwrap_err().to_string();
        assert!(error.contains("1000 bytes") && error.contains("1126 bytes"), "{error}");
    }
}
