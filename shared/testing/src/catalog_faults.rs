//! A catalog that counts what is written to it, knows which partitions it was asked for, and whose next updates of a table fail,
//! before or after they took effect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use shared::catalog::{Catalog, Database, KeyFilter, MAX_PARTITIONS_PER_CALL, Partition, Table, TableInput};
use shared::model::TableName;
use shared::{Error, ErrorKind, Result};

/// How an update fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happened.
    Refused(ErrorKind),
    /// The table was updated, but the caller does not learn it.
    LostReply(ErrorKind),
    /// Nothing ever answers.
    Hang,
    /// The table was updated, then nothing answers.
    HangAfter,
}

#[derive(Debug)]
pub struct FaultyCatalog {
    inner: Arc<dyn Catalog>,
    faults: Mutex<BTreeMap<TableName, VecDeque<Fault>>>,
    /// How the next updates of a table's partitions fail.
    partitions: Mutex<BTreeMap<TableName, VecDeque<Fault>>>,
    /// Tables of which somebody removes the partitions that are to be updated next.
    removals: Mutex<BTreeSet<TableName>>,
    /// How the next reads of a table fail, if they do.
    reads: Mutex<BTreeMap<TableName, VecDeque<Option<ErrorKind>>>>,
    writes: AtomicUsize,
    /// What partitions were asked for, and how many were given.
    listings: Mutex<Vec<(Vec<KeyFilter>, usize)>>,
}

impl FaultyCatalog {
    /// No fault until one is asked for.
    pub fn new(inner: Arc<dyn Catalog>) -> Arc<Self> {
        let writes = AtomicUsize::new(0);
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            partitions: Mutex::default(),
            removals: Mutex::default(),
            reads: Mutex::default(),
            writes,
            listings: Mutex::default(),
        })
    }

    /// The next updates of `table`, or its removal, fail like this, one after the other.
    pub fn fail(&self, table: &TableName, faults: &[Fault]) {
        self.faults.lock().unwrap().insert(table.clone(), faults.iter().copied().collect());
    }

    /// The next updates of partitions of `table` fail like this, one after the other.
    pub fn fail_partitions(&self, table: &TableName, faults: &[Fault]) {
        self.partitions.lock().unwrap().insert(table.clone(), faults.iter().copied().collect());
    }

    /// The partitions of `table` that are updated next are removed before.
    pub fn remove_partitions(&self, table: &TableName) {
        self.removals.lock().unwrap().insert(table.clone());
    }

    /// The next reads of `table` fail like this, one after the other; `None` lets one through.
    pub fn fail_reads(&self, table: &TableName, faults: &[Option<ErrorKind>]) {
        self.reads.lock().unwrap().insert(table.clone(), faults.iter().copied().collect());
    }

    /// Whether all faults happened: a test whose faults did not has tested nothing.
    pub fn is_spent(&self) -> bool {
        let all = |faults: &Mutex<BTreeMap<_, VecDeque<_>>>| faults.lock().unwrap().values().all(VecDeque::is_empty);
        all(&self.faults) && all(&self.partitions)
    }

    /// Calls so far that were to change something.
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// What partitions were asked for since this was asked last, and how many were given.
    pub fn listings(&self) -> Vec<(Vec<KeyFilter>, usize)> {
        std::mem::take(&mut *self.listings.lock().unwrap())
    }

    fn next(&self, table: &TableName) -> Option<Fault> {
        self.faults.lock().unwrap().get_mut(table)?.pop_front()
    }

    fn write(&self) -> &dyn Catalog {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.as_ref()
    }
}

async fn failing<T>(fault: Option<Fault>, call: impl Future<Output = Result<T>>) -> Result<T> {
    match fault {
        None => call.await,
        Some(Fault::Refused(kind)) => Err(Error::new(kind, "injected: refused")),
        Some(Fault::LostReply(kind)) => {
            call.await?;
            Err(Error::new(kind, "injected: the reply was lost"))
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::HangAfter) => {
            call.await?;
            std::future::pending().await
        }
    }
}

#[async_trait]
impl Catalog for FaultyCatalog {
    async fn update_table(&self, input: &TableInput, expected_version: &str) -> Result<Table> {
        failing(self.next(&input.name), self.write().update_table(input, expected_version)).await
    }

    async fn create_database(&self, database: &Database) -> Result<()> {
        self.write().create_database(database).await
    }

    async fn get_database(&self, name: &str) -> Result<Database> {
        self.inner.get_database(name).await
    }

    async fn list_databases(&self) -> Result<Vec<Database>> {
        self.inner.list_databases().await
    }

    async fn delete_database(&self, name: &str) -> Result<()> {
        self.write().delete_database(name).await
    }

    async fn create_table(&self, input: &TableInput) -> Result<Table> {
        self.write().create_table(input).await
    }

    async fn get_table(&self, name: &TableName) -> Result<Table> {
        let fault = self.reads.lock().unwrap().get_mut(name).and_then(VecDeque::pop_front).flatten();
        match fault {
            Some(kind) => Err(Error::new(kind, "injected: the table was not read")),
            None => self.inner.get_table(name).await,
        }
    }

    async fn list_tables(&self, database: &str) -> Result<Vec<Table>> {
        self.inner.list_tables(database).await
    }

    async fn delete_table(&self, name: &TableName) -> Result<()> {
        failing(self.next(name), self.write().delete_table(name)).await
    }

    async fn table_versions(&self, name: &TableName) -> Result<Vec<Table>> {
        self.inner.table_versions(name).await
    }

    async fn create_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        assert!(partitions.len() <= MAX_PARTITIONS_PER_CALL, "{} partitions in one call", partitions.len());
        self.write().create_partitions(name, partitions).await
    }

    async fn list_partitions(&self, name: &TableName, filters: &[KeyFilter]) -> Result<Vec<Partition>> {
        let found = self.inner.list_partitions(name, filters).await?;
        self.listings.lock().unwrap().push((filters.to_vec(), found.len()));
        Ok(found)
    }

    async fn update_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        if self.removals.lock().unwrap().remove(name) {
            let values: Vec<_> = partitions.iter().map(|partition| partition.values.clone()).collect();
            self.inner.delete_partitions(name, &values).await?;
        }
        let fault = self.partitions.lock().unwrap().get_mut(name).and_then(VecDeque::pop_front);
        failing(fault, self.write().update_partitions(name, partitions)).await
    }

    async fn delete_partitions(&self, name: &TableName, values: &[Vec<String>]) -> Result<()> {
        self.write().delete_partitions(name, values).await
    }
}
