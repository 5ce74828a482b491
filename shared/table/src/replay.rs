//! Lines that were set aside as objects of a folder (error objects, quarantine) into their table, each once, whatever stops and
//! whoever works at the same time:
//!
//! - What is to be replayed is agreed on first: a plan in the state document `replays/{name}` names the objects.
//! - Whoever carries the plan out writes the lines that stay behind to an object of its own, hidden below `.replay/`, then commits
//!   the rows under the token `replay.{name}` whose value names the plan and the writer. So there is one commit for each plan, and
//!   it says whose lines stay behind.
//! - Then those lines become an object of the folder, the plan's objects are noted as done, and removed. A note outlasts the object:
//!   a batcher that was slow may write it again.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use shared::ports::Ports;
use shared::state::{change_json, get_json};
use shared::storage::ObjectInfo;
use shared::{Error, ErrorKind, Result};
use url::Url;

use super::{Committed, RowStream, Table, Token};

/// Bytes of objects that one plan takes at most, unless a single object is larger.
const MOST_BYTES: u64 = 64 << 20;
/// Objects that one plan takes at most: each is read and removed by a call of its own.
const MOST_OBJECTS: usize = 500;
/// How many calls are made at once.
const CALLS: usize = 16;
/// How long it is remembered that an object is done: longer than any stream keeps its records.
const REMEMBERED_MS: i64 = 400 * 86_400_000;
/// What begins the names of objects that nobody lists.
const HIDDEN: &str = ".replay/";

/// A folder of lines that wait for their table.
#[derive(Debug, Clone)]
pub struct Replays {
    ports: Ports,
    folder: Url,
    name: String,
}

/// Lines by what becomes of them.
#[derive(Debug)]
pub struct Sorted {
    pub rows: RowStream,
    /// How many rows there are.
    pub replayed: u64,
    /// The lines that stay behind, each with its end, and how many they are.
    pub left: Vec<u8>,
    pub left_lines: u64,
}

/// What knows the lines and the table.
#[async_trait]
pub trait Target: Send + Sync {
    /// The table as it is now.
    async fn table(&self) -> Result<Table>;

    /// Says of the lines of `objects`, in their order, what becomes of each. The same objects may be sorted again.
    async fn sort(&self, objects: &[Bytes]) -> Result<Sorted>;

    /// Commits the rows under the token.
    async fn commit(&self, table: &Table, rows: RowStream, token: Token) -> Result<Committed>;
}

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// Objects that are done.
    pub objects: u64,
    /// Rows that are in the table.
    pub replayed: u64,
    /// Lines that stay behind.
    pub left: u64,
}

/// The state document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    plan: Option<Plan>,
    /// When each object was done, milliseconds since the epoch, by its name in the folder.
    done: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    id: String,
    /// Names in the folder.
    objects: Vec<String>,
}

impl Replays {
    /// Of a folder; `name` tells it from all others, e.g. `errors/orders`.
    pub fn new(ports: &Ports, folder: Url, name: impl Into<String>) -> Self {
        Self { ports: ports.clone(), folder, name: name.into() }
    }

    /// The objects that wait, the oldest first.
    ///
    /// # Errors
    /// What storage and state answer.
    pub async fn waiting(&self) -> Result<Vec<ObjectInfo>> {
        let known = self.known().await?;
        let mut objects = self.ports.storage.list(&self.folder).await?;
        objects.retain(|object| {
            let name = self.name_of(&object.url);
            !name.starts_with(HIDDEN) && !known.done.contains_key(name)
        });
        objects.sort_by_key(|object| object.modified_ms);
        Ok(objects)
    }

    /// The name of an object in the folder.
    pub fn name_of<'a>(&self, url: &'a Url) -> &'a str {
        url.as_str().strip_prefix(self.folder.as_str()).unwrap_or(url.as_str())
    }

    /// Replays some of `objects`, as many as one commit should take; a plan that an earlier replay left is finished instead. The
    /// caller calls again while there are more.
    ///
    /// # Errors
    /// What `target` answers; `Retry` when others replay at the same time. Nothing is lost or doubled then.
    pub async fn replay(&self, objects: &[ObjectInfo], target: &dyn Target) -> Result<Replayed> {
        let mut bytes = 0;
        let fits = |object: &&ObjectInfo| {
            let first = bytes == 0;
            bytes += object.size.max(1);
            first || bytes <= MOST_BYTES
        };
        let names =
            objects.iter().take_while(fits).take(MOST_OBJECTS).map(|object| self.name_of(&object.url).to_owned());
        let fresh = Plan { id: self.ports.random.uuid().simple().to_string(), objects: names.collect() };
        let agree = |known: &mut Known| {
            let is_new = known.plan.is_none() && !fresh.objects.is_empty();
            if is_new {
                known.plan = Some(fresh.clone());
            }
            is_new
        };
        match self.change(agree).await?.plan {
            Some(plan) => self.carry_out(&plan, target).await,
            None => Ok(Replayed::default()),
        }
    }

    async fn carry_out(&self, plan: &Plan, target: &dyn Target) -> Result<Replayed> {
        let table = target.table().await?;
        // Read after the table: while the plan is not settled, no later one can have moved the token.
        if self.known().await?.plan.as_ref() != Some(plan) {
            return Err(Error::retry(format!("others replayed `{}` at the same time", self.name)));
        }
        let mut replayed = Replayed { objects: plan.objects.len() as u64, ..Replayed::default() };
        let writer = match self.writer_of(&table, plan) {
            Some(writer) => writer,
            None => self.commit(plan, &table, target, &mut replayed).await?,
        };
        self.settle(plan, &writer).await?;
        Ok(replayed)
    }

    /// Whose commit of the plan the table holds.
    fn writer_of(&self, table: &Table, plan: &Plan) -> Option<String> {
        let token = table.token(&self.token_key())?;
        let (id, writer) = token.split_once('/')?;
        (id == plan.id).then(|| writer.to_owned())
    }

    /// Commits the plan's rows; gives whose commit it is.
    async fn commit(&self, plan: &Plan, table: &Table, target: &dyn Target, replayed: &mut Replayed) -> Result<String> {
        let writer = self.ports.random.uuid().simple().to_string();
        let mut texts = Vec::with_capacity(plan.objects.len());
        for names in plan.objects.chunks(CALLS) {
            texts.extend(try_join_all(names.iter().map(|name| self.text(name))).await?);
        }
        let sorted = target.sort(&texts).await?;
        if !sorted.left.is_empty() {
            self.ports.storage.put(&self.object(&hidden(plan, &writer))?, sorted.left).await?;
        }
        let value = format!("{}/{writer}", plan.id);
        let token = Token { key: self.token_key(), expected: table.token(&self.token_key()), value };
        match target.commit(table, sorted.rows, token).await {
            Ok(_) => {
                (replayed.replayed, replayed.left) = (sorted.replayed, sorted.left_lines);
                Ok(writer)
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let now = target.table().await?;
                self.writer_of(&now, plan)
                    .ok_or_else(|| Error::retry(format!("others replay `{}` at the same time", self.name)))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts what stays behind into the folder, notes the objects as done and removes them.
    async fn settle(&self, plan: &Plan, writer: &str) -> Result<()> {
        let storage = &self.ports.storage;
        let left = self.object(&hidden(plan, writer))?;
        match storage.get(&left).await {
            Ok(lines) => storage.put(&self.object(&format!("replayed/r-{}.ndjson", plan.id))?, lines).await?,
            // Nothing stays behind, or another has settled the plan.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let now_ms = self.ports.clock.now_ms();
        let done = |known: &mut Known| {
            let is_current = known.plan.as_ref() == Some(plan);
            if is_current {
                known.plan = None;
                known.done.retain(|_, at_ms| now_ms - *at_ms < REMEMBERED_MS);
                known.done.extend(plan.objects.iter().map(|name| (name.clone(), now_ms)));
            }
            is_current
        };
        self.change(done).await?;
        for names in plan.objects.chunks(CALLS) {
            try_join_all(names.iter().map(|name| self.remove(name))).await?;
        }
        let hidden = self.object(&format!("{HIDDEN}{}/", plan.id))?;
        for object in storage.list(&hidden).await? {
            storage.delete(&object.url).await?;
        }
        Ok(())
    }

    /// An object's text; empty when it is gone: it was removed by hand, or the plan was carried out meanwhile, which the commit finds.
    async fn text(&self, name: &str) -> Result<Bytes> {
        match self.ports.storage.get(&self.object(name)?).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Bytes::new()),
            other => other,
        }
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.ports.storage.delete(&self.object(name)?).await
    }

    fn object(&self, name: &str) -> Result<Url> {
        let wrong = |e| {
            Error::bug(format!("expected the name of an object in `{}`, found `{name}`", self.folder)).with_source(e)
        };
        self.folder.join(name).map_err(wrong)
    }

    async fn known(&self) -> Result<Known> {
        Ok(get_json(self.ports.state.as_ref(), &self.key()).await?.map(|(known, _)| known).unwrap_or_default())
    }

    async fn change(&self, change: impl FnMut(&mut Known) -> bool) -> Result<Known> {
        change_json(self.ports.state.as_ref(), &*self.ports.random, &self.key(), change).await
    }

    fn key(&self) -> String {
        format!("replays/{}", self.name)
    }

    fn token_key(&self) -> String {
        format!("replay.{}", self.name)
    }
}

/// Where a writer of the plan keeps what stays behind.
fn hidden(plan: &Plan, writer: &str) -> String {
    format!("{HIDDEN}{}/{writer}.ndjson", plan.id)
}
