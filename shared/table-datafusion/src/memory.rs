//! The memory that changes of tables share with whoever else works beside them.

use std::sync::Arc;

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation, UnboundedMemoryPool};
use table::Tables;
use table::io::Io;

/// Where the memory comes from.
#[derive(Debug)]
struct Pool(Arc<dyn MemoryPool>);

impl Default for Pool {
    fn default() -> Self {
        Self(Arc::new(UnboundedMemoryPool::default()))
    }
}

/// Tables whose changes take what they hold of many rows, such as the keys of a merge, out of `pool`.
#[must_use]
pub fn with_memory(tables: Tables, pool: Arc<dyn MemoryPool>) -> Tables {
    tables.with_extension(Pool(pool))
}

/// Memory for `what`, none of it taken yet.
pub(crate) fn reservation(io: &Io, what: &str) -> MemoryReservation {
    MemoryConsumer::new(what).register(&io.extensions().get_or_default::<Pool>().0)
}
