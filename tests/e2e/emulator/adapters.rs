//! The adapters of AWS under the conformance suites of their ports.

use std::sync::Arc;

use adapters_aws::glue::GlueCatalog;
use adapters_aws::kinesis::KinesisStream;
use adapters_aws::state::ObjectState;
use shared::clock::SystemClock;
use shared::random::SystemRandom;
use shared::storage::Storage;
use testing::{catalog, state, storage, stream};
use url::Url;

use super::Emulator;

async fn bucket(emulator: &Emulator, name: &str) -> (Storage, Url) {
    let aws = emulator.aws().await;
    aws.s3().create_bucket().bucket(name).send().await.unwrap();
    let root = Url::parse(&format!("s3://{name}/lake%20house/")).unwrap();
    (adapters_aws::storage::open(&aws, std::slice::from_ref(&root)).unwrap(), root)
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_on_s3_conforms() {
    let (storage, root) = bucket(Emulator::ministack(), "conformance-storage").await;
    storage::conforms(&storage, &root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_on_s3_conforms() {
    let (storage, root) = bucket(Emulator::ministack(), "conformance-state").await;
    state::conforms(Arc::new(ObjectState::new(storage, root, Arc::new(SystemRandom)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_in_kinesis_conform() {
    let aws = Emulator::ministack().aws().await;
    let clock = Arc::new(SystemClock);
    stream::conforms(Arc::new(KinesisStream::new(&aws, "a-prefix-", clock, Arc::new(SystemRandom)))).await;
}

/// MiniStack keeps no earlier versions of tables.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_in_glue_conforms() {
    let gaps = catalog::Gaps { table_versions: true, ..Default::default() };
    let glue = GlueCatalog::new(&Emulator::ministack().aws().await);
    catalog::conforms_but_for(Arc::new(glue), gaps).await;
}

/// moto keeps earlier versions; it lets two updates win that meet.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_in_glue_keeps_every_version_of_a_table() {
    let gaps = catalog::Gaps { races: true, ..Default::default() };
    let glue = GlueCatalog::new(&Emulator::moto().aws().await);
    catalog::conforms_but_for(Arc::new(glue), gaps).await;
}
