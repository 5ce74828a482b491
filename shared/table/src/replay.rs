//! Lines that were set aside as objects of a folder (error objects, quarantine) into their table, each once, whatever stops and
//! whoever works at the same time:
//!
//! - What is to be replayed is agreed on first: a plan in the state document `replays/{name}` names the objects.
//! - Whoever carries the plan out writes the lines that stay behind to an object of its own, hidden below `.replay/`, then commits
//!   the rows under the token `replay.{name}` whose value names the plan and the writer. So there is one commit for each plan, and
//!   it says whose lines stay behind.
//! - Then those lines become an object of the folder, the plan's objects are noted as done, and removed. A note outlasts the object:
//!   a batcher that was slow may write it again.
//!
//! Lines are discarded the same way. No table is asked then: the first writer that enters its name in the plan is the one whose lines
//! stay behind. So whoever finds a plan, of either kind, can carry it out.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
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

    /// Says of the lines of `objects`, in their order, what becomes of each over `table`. The same objects may be sorted again.
    async fn sort(&self, table: &Table, objects: &[Bytes]) -> Result<Sorted>;

    /// Commits the rows under the token to the table for which they were sorted.
    async fn commit(&self, table: &Table, rows: RowStream, token: Token) -> Result<Committed>;

    /// Whether a line is one of those that a discard asked for, by what was given to [`Replays::discard`].
    ///
    /// # Errors
    /// `Bug` for a wish of another form.
    fn is_discarded(&self, wanted: &Value, line: &[u8]) -> Result<bool>;
}

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// Objects that are done.
    pub objects: u64,
    /// Rows that are in the table.
    pub replayed: u64,
    /// Lines that are gone for good.
    pub discarded: u64,
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
    /// Set where lines are discarded, not replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    discard: Option<Discard>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Discard {
    /// Which lines, in the words of the [`Target`].
    wanted: Value,
    /// Whose lines stay behind, once that is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
}

impl Known {
    /// The plan, if it still is the one to be carried out.
    fn current(&mut self, plan: &Plan) -> Option<&mut Plan> {
        self.plan.as_mut().filter(|current| current.id == plan.id)
    }
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
        let plan = self.agree(objects, None).await?;
        self.carry_out_if_any(plan, target).await
    }

    /// Removes lines of some of `objects` for good: those that `wanted` names. Otherwise as [`Replays::replay`].
    ///
    /// # Errors
    /// As [`Replays::replay`].
    pub async fn discard(&self, objects: &[ObjectInfo], wanted: &Value, target: &dyn Target) -> Result<Replayed> {
        let discard = Discard { wanted: wanted.clone(), writer: None };
        let plan = self.agree(objects, Some(discard)).await?;
        self.carry_out_if_any(plan, target).await
    }

    /// Carries out what an earlier replay or discard left unfinished, if it did. Until then rows may be in the table and still wait.
    ///
    /// # Errors
    /// As [`Replays::replay`].
    pub async fn finish(&self, target: &dyn Target) -> Result<Replayed> {
        let plan = self.known().await?.plan;
        self.carry_out_if_any(plan, target).await
    }

    /// Lets the object `name` count again, though it was done: it is about to be written anew.
    ///
    /// # Errors
    /// `Retry` while it is being replayed or discarded.
    pub async fn reopen(&self, name: &str) -> Result<()> {
        let open = |known: &mut Known| known.done.remove(name).is_some();
        let known = self.change(open).await?;
        match known.plan.is_some_and(|plan| plan.objects.iter().any(|object| object == name)) {
            true => Err(Error::retry(format!("`{name}` of `{}` is being replayed or discarded", self.name))),
            false => Ok(()),
        }
    }

    /// The plan that is to be carried out: the one that there is, or a new one of `objects`.
    async fn agree(&self, objects: &[ObjectInfo], discard: Option<Discard>) -> Result<Option<Plan>> {
        let mut bytes = 0;
        let fits = |object: &&ObjectInfo| {
            let first = bytes == 0;
            bytes += object.size.max(1);
            first || bytes <= MOST_BYTES
        };
        let names =
            objects.iter().take_while(fits).take(MOST_OBJECTS).map(|object| self.name_of(&object.url).to_owned());
        let fresh = Plan { id: self.ports.random.uuid().simple().to_string(), objects: names.collect(), discard };
        let agree = |known: &mut Known| {
            let is_new = known.plan.is_none() && !fresh.objects.is_empty();
            if is_new {
                known.plan = Some(fresh.clone());
            }
            is_new
        };
        Ok(self.change(agree).await?.plan)
    }

    async fn carry_out_if_any(&self, plan: Option<Plan>, target: &dyn Target) -> Result<Replayed> {
        let Some(plan) = plan else { return Ok(Replayed::default()) };
        match &plan.discard {
            Some(discard) => self.carry_out_discard(&plan, discard, target).await,
            None => self.carry_out(&plan, target).await,
        }
    }

    /// Settles which lines stay behind, then does it.
    async fn carry_out_discard(&self, plan: &Plan, discard: &Discard, target: &dyn Target) -> Result<Replayed> {
        let mut done = Replayed { objects: plan.objects.len() as u64, ..Replayed::default() };
        if let Some(writer) = &discard.writer {
            self.settle(plan, writer).await?;
            return Ok(done);
        }
        let own = self.ports.random.uuid().simple().to_string();
        let mut left = Vec::new();
        for text in self.texts(plan).await? {
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                if target.is_discarded(&discard.wanted, line)? {
                    done.discarded += 1;
                } else {
                    done.left += 1;
                    left.extend_from_slice(line);
                    left.push(b'\n');
                }
            }
        }
        if !left.is_empty() {
            self.ports.storage.put(&self.object(&hidden(plan, &own))?, left).await?;
        }
        let enter = |known: &mut Known| match known.current(plan).and_then(|plan| plan.discard.as_mut()) {
            Some(discard) if discard.writer.is_none() => {
                discard.writer = Some(own.clone());
                true
            }
            _ => false,
        };
        let entered = self.change(enter).await?.current(plan).and_then(|plan| plan.discard.clone()?.writer);
        let Some(writer) = entered else { return Err(self.others()) };
        self.settle(plan, &writer).await?;
        // Both read the same objects, which nobody has removed before the plan was settled.
        Ok(done)
    }

    fn others(&self) -> Error {
        Error::retry(format!("others replay or discard `{}` at the same time", self.name))
    }

    async fn carry_out(&self, plan: &Plan, target: &dyn Target) -> Result<Replayed> {
        let table = target.table().await?;
        // Read after the table: while the plan is not settled, no later one can have moved the token.
        if self.known().await?.current(plan).is_none() {
            return Err(self.others());
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
        let sorted = target.sort(table, &self.texts(plan).await?).await?;
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
                self.writer_of(&now, plan).ok_or_else(|| self.others())
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
            let is_current = known.current(plan).is_some();
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

    async fn texts(&self, plan: &Plan) -> Result<Vec<Bytes>> {
        let mut texts = Vec::with_capacity(plan.objects.len());
        for names in plan.objects.chunks(CALLS) {
            texts.extend(try_join_all(names.iter().map(|name| self.text(name))).await?);
        }
        Ok(texts)
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
