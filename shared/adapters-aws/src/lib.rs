//! The ports on AWS: streams in Kinesis, the catalog in Glue, objects in S3, state as objects beside them.
//!
//! [`Aws`] is the account, region and endpoints that the environment names; [`open`] makes the ports of it. `client` has the retries of
//! SDK calls and says which of our errors an answer is; `kinesis` pauses by itself where Kinesis throttles.

mod client;
pub mod glue;
pub mod kinesis;
pub mod state;
pub mod storage;

use std::sync::Arc;

use shared::Result;
use shared::catalog::AdvisoryLocks;
use shared::clock::{Clock, SystemClock};
use shared::config::Settings;
use shared::model::Keys;
use shared::ports::Ports;
use shared::random::{Random, SystemRandom};
use shared::storage::Storage;

pub use self::client::Aws;
use self::glue::GlueCatalog;
use self::kinesis::KinesisStream;
use self::state::ObjectState;

/// The ports over `storage`. Nothing is called yet.
///
/// # Errors
/// `Invalid` for a warehouse that can hold no objects.
pub fn open(aws: &Aws, settings: &Settings, storage: Storage) -> Result<Ports> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let keys = Keys::new(settings.warehouse.clone())?;
    Ok(Ports {
        stream: Arc::new(KinesisStream::new(aws, &settings.stream_prefix, clock.clone(), random.clone())),
        catalog: Arc::new(GlueCatalog::new(aws)),
        state: Arc::new(ObjectState::new(storage.clone(), keys.state(), random.clone())),
        storage,
        clock,
        random,
        keys,
        locks: AdvisoryLocks::default(),
    })
}
