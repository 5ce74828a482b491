//! Catalog, state and streams of a simulated process.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use shared::catalog::{AdvisoryLocks, Catalog, Database, KeyFilter, Partition, Table, TableInput};
use shared::model::{ShardId, TableName};
use shared::ports::Ports;
use shared::state::{Document, Expect, State, Version};
use shared::stream::{NewRecord, PutOutcome, ReadBatch, ReadFrom, Shard, Stream, StreamSpec};
use shared::{Error, ErrorKind, Result};

use super::store::SimulatedStore;
use super::{Failure, Process};

impl Process {
    /// The ports of one life: those of the world, with what may go wrong between.
    pub(super) fn ports(&self, sound: &Ports) -> Ports {
        let process = self.clone();
        Ports {
            storage: sound.storage.wrapped(|store| SimulatedStore::wrap(&process, store)),
            stream: Arc::new(SimulatedStream { process: self.clone(), inner: Arc::clone(&sound.stream) }),
            catalog: Arc::new(SimulatedCatalog { process: self.clone(), inner: Arc::clone(&sound.catalog) }),
            state: Arc::new(SimulatedState { process: self.clone(), inner: Arc::clone(&sound.state) }),
            clock: Arc::clone(&self.world) as _,
            random: Arc::clone(&self.random) as _,
            keys: sound.keys.clone(),
            locks: AdvisoryLocks::default(),
        }
    }
}

/// A call that changes nothing can be made again whatever happened.
fn reading<T>(failure: Failure) -> Result<T> {
    Err(Error::retry(format!("simulated: {failure:?}")))
}

/// Of a call that changes something its caller learns that nobody knows.
fn writing<T>(failure: Failure) -> Result<T> {
    let kind = if failure == Failure::Lost { ErrorKind::OutcomeUnknown } else { ErrorKind::Retry };
    Err(Error::new(kind, format!("simulated: {failure:?}")))
}

#[derive(Debug)]
struct SimulatedCatalog {
    process: Process,
    inner: Arc<dyn Catalog>,
}

#[async_trait]
impl Catalog for SimulatedCatalog {
    async fn create_database(&self, database: &Database) -> Result<()> {
        self.process.call("create_database", writing, self.inner.create_database(database)).await
    }

    async fn get_database(&self, name: &str) -> Result<Database> {
        self.process.call("get_database", reading, self.inner.get_database(name)).await
    }

    async fn list_databases(&self) -> Result<Vec<Database>> {
        self.process.call("list_databases", reading, self.inner.list_databases()).await
    }

    async fn delete_database(&self, name: &str) -> Result<()> {
        self.process.call("delete_database", writing, self.inner.delete_database(name)).await
    }

    async fn create_table(&self, input: &TableInput) -> Result<Table> {
        self.process.call("create_table", writing, self.inner.create_table(input)).await
    }

    async fn get_table(&self, name: &TableName) -> Result<Table> {
        self.process.call("get_table", reading, self.inner.get_table(name)).await
    }

    async fn list_tables(&self, database: &str) -> Result<Vec<Table>> {
        self.process.call("list_tables", reading, self.inner.list_tables(database)).await
    }

    async fn update_table(&self, input: &TableInput, expected_version: &str) -> Result<Table> {
        self.process.call("update_table", writing, self.inner.update_table(input, expected_version)).await
    }

    async fn delete_table(&self, name: &TableName) -> Result<()> {
        self.process.call("delete_table", writing, self.inner.delete_table(name)).await
    }

    async fn table_versions(&self, name: &TableName) -> Result<Vec<Table>> {
        self.process.call("table_versions", reading, self.inner.table_versions(name)).await
    }

    async fn create_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        self.process.call("create_partitions", writing, self.inner.create_partitions(name, partitions)).await
    }

    async fn list_partitions(&self, name: &TableName, filters: &[KeyFilter]) -> Result<Vec<Partition>> {
        self.process.call("list_partitions", reading, self.inner.list_partitions(name, filters)).await
    }

    async fn update_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        self.process.call("update_partitions", writing, self.inner.update_partitions(name, partitions)).await
    }

    async fn delete_partitions(&self, name: &TableName, values: &[Vec<String>]) -> Result<()> {
        self.process.call("delete_partitions", writing, self.inner.delete_partitions(name, values)).await
    }
}

#[derive(Debug)]
struct SimulatedState {
    process: Process,
    inner: Arc<dyn State>,
}

#[async_trait]
impl State for SimulatedState {
    async fn get(&self, key: &str) -> Result<Option<Document>> {
        self.process.call(&format!("state get {key}"), reading, self.inner.get(key)).await
    }

    async fn put(&self, key: &str, bytes: Bytes, expect: Expect) -> Result<Version> {
        self.process.call(&format!("state put {key}"), writing, self.inner.put(key, bytes, expect)).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<()> {
        self.process.call(&format!("state delete {key}"), writing, self.inner.delete(key, expect)).await
    }

    async fn list_first(&self, prefix: &str, most: usize) -> Result<Vec<String>> {
        self.process.call(&format!("state list {prefix}"), reading, self.inner.list_first(prefix, most)).await
    }
}

#[derive(Debug)]
struct SimulatedStream {
    process: Process,
    inner: Arc<dyn Stream>,
}

#[async_trait]
impl Stream for SimulatedStream {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        self.process.call("create_stream", writing, self.inner.create(spec)).await
    }

    fn declared<'a>(&self, resource: &'a str) -> Option<&'a str> {
        self.inner.declared(resource)
    }

    async fn list(&self) -> Result<Vec<String>> {
        self.process.call("list_streams", reading, self.inner.list()).await
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>> {
        self.process.call("shards", reading, self.inner.shards(stream)).await
    }

    /// A put is busy for each of its records, and one whose reply is lost may have stored them.
    async fn put(&self, stream: &str, records: Vec<NewRecord>) -> Result<Vec<PutOutcome>> {
        let count = records.len();
        let told = |failure| {
            let message = format!("simulated: {failure:?}");
            let outcome = match failure {
                Failure::Busy => PutOutcome::Throttled { message },
                Failure::Lost => PutOutcome::Unknown { message },
            };
            Ok(vec![outcome; count])
        };
        self.process.call("put_records", told, self.inner.put(stream, records)).await
    }

    async fn read(&self, stream: &str, shard: &ShardId, from: ReadFrom, max_records: usize) -> Result<ReadBatch> {
        self.process.call(&format!("read {shard}"), reading, self.inner.read(stream, shard, from, max_records)).await
    }
}
