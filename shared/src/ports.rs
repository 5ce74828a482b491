//! The connections that every function works through: traits, whose adapters are other crates'.

use std::sync::Arc;

use crate::catalog::{AdvisoryLocks, Catalog};
use crate::clock::Clock;
use crate::model::Keys;
use crate::random::Random;
use crate::state::State;
use crate::storage::Storage;
use crate::stream::Stream;

/// The connections that every function works through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ports {
    pub storage: Storage,
    pub stream: Arc<dyn Stream>,
    pub catalog: Arc<dyn Catalog>,
    pub state: Arc<dyn State>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub keys: Keys,
    /// Shared by all that change tables in this process, and embedded with other processes over the same data.
    pub locks: AdvisoryLocks,
}
