//! What an incremental job has read so far, and what it reads next.
//!
//! The bookmark lies in the token of the snapshot that holds the job's rows (key `job.{workflow}.{job}`), so rows and bookmark
//! change together or not at all:
//!
//! - Of an **Iceberg table** it is a snapshot: the job reads what was added after it.
//! - Of a **file table** it is a generation, and the state document `bookmarks/{workflow}/{job}` lists the files (URL and etag)
//!   of that generation. Before the commit the document announces the next generation; the token then says whether the commit
//!   happened. A crash before the commit leaves an announcement that no token names (dropped), a crash behind it one that the
//!   token does name (taken over): no file is read twice or passed over.
//!
//! If what was read before has been changed since (rows removed, files replaced), new rows alone don't tell the whole story. Of an
//! Iceberg table the job's `on_source_delete` decides; of a file table jobs that overwrite or merge read everything again, jobs that
//! append fail.

mod files;

use std::collections::BTreeMap;

use engine::Input;
use serde::{Deserialize, Serialize};
use shared::catalog::Table as Entry;
use shared::model::TableName;
use shared::ports::Ports;
use shared::project::{OnSourceDelete, Write};
use shared::state::State;
use shared::{Error, ErrorKind, Result};
use table::{Read, Tables};
use table_datafusion::ReadTable;

pub use self::files::{Announcement, Replaced};
use crate::record::ReadMode;

/// The value of a job's token: which try wrote the snapshot, and what it had read by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub run: String,
    pub attempt: u32,
    /// Part of the mark because data files are named after it: two tries never write the same file.
    pub r#try: u32,
    pub bookmark: Option<Bookmark>,
}

/// What was read so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bookmark {
    /// Everything in this snapshot.
    Snapshot { table: TableName, snapshot: i64 },
    /// The files of this generation.
    Files { table: TableName, generation: u64 },
}

/// What a try reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub mode: ReadMode,
    pub inputs: BTreeMap<TableName, Input>,
    /// What will have been read once it is committed.
    pub bookmark: Option<Bookmark>,
    /// What became of rows that were read before, if some are gone.
    pub gone: Option<Gone>,
    pub note: Option<String>,
}

/// Rows of a table that were there at the snapshot `after` and are gone at `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    pub table: TableName,
    pub after: i64,
    pub to: i64,
    /// Whether what the job made of them is to leave; otherwise they are passed over.
    pub propagate: bool,
}

impl Gone {
    /// The rows, as an input of the job's query.
    pub fn rows(&self) -> BTreeMap<TableName, Input> {
        let left = Read::Left { after: self.after, to: self.to };
        BTreeMap::from([(self.table.clone(), Input::Rows(left))])
    }
}

/// Whose bookmark it is.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    pub workflow: &'a str,
    pub job: &'a str,
    pub write: Write,
    /// What is done when rows that were read are gone; none: everything is read again.
    pub source_deletes: Option<OnSourceDelete>,
}

impl Mark {
    /// Reads a token's value.
    ///
    /// # Errors
    /// `Bug` when it is not what this version writes.
    pub fn parse(value: &str) -> Result<Self> {
        serde_json::from_str(value)
            .map_err(|e| Error::bug(format!("job token `{value}` is not what this version writes")).with_source(e))
    }

    /// The token's value.
    ///
    /// # Errors
    /// None that can be caused from outside.
    pub fn to_value(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::bug("a job token has no JSON form").with_source(e))
    }
}

impl Reading {
    /// Every table whole.
    pub fn full() -> Self {
        Self { mode: ReadMode::Full, inputs: BTreeMap::new(), bookmark: None, gone: None, note: None }
    }

    fn of(mode: ReadMode, table: &TableName, input: Input, bookmark: Bookmark) -> Self {
        Self {
            mode,
            inputs: BTreeMap::from([(table.clone(), input)]),
            bookmark: Some(bookmark),
            gone: None,
            note: None,
        }
    }

    /// Nothing; the bookmark stays where it is. Planning the query still reads no row.
    fn nothing() -> Self {
        Self { mode: ReadMode::NothingNew, ..Self::full() }
    }
}

/// Decides what an incremental job reads of `table` next, and announces it; `mark` is the newest in its target table.
///
/// # Errors
/// `Invalid` when a job that appends finds that what it has read was changed; `NotFound` for an unknown table.
pub async fn next(
    ports: &Ports,
    tables: &Tables,
    reader: Reader<'_>,
    table: &TableName,
    mark: Option<&Mark>,
) -> Result<Reading> {
    let (reading, announcement) = look(ports, tables, reader, table, mark).await?;
    if let Some(announcement) = announcement {
        announcement.store(ports, reader).await?;
    }
    Ok(reading)
}

/// As [`next`], but nothing is announced: gives what would be.
///
/// # Errors
/// As [`next`].
pub async fn look(
    ports: &Ports,
    tables: &Tables,
    reader: Reader<'_>,
    table: &TableName,
    mark: Option<&Mark>,
) -> Result<(Reading, Option<Announcement>)> {
    let entry = ports.catalog.get_table(table).await?;
    match read_up_to(&entry, table, mark) {
        UpTo::Snapshot(after) => Ok((next_rows(tables, reader, table, after).await?, None)),
        UpTo::Generation(committed) => files::look(ports, reader, &entry, committed).await,
    }
}

/// What a job has read of a table: none when it has read nothing.
enum UpTo {
    Snapshot(Option<i64>),
    Generation(Option<u64>),
}

fn read_up_to(entry: &Entry, table: &TableName, mark: Option<&Mark>) -> UpTo {
    let bookmark = mark.and_then(|mark| mark.bookmark.as_ref());
    match (entry.is_iceberg(), bookmark) {
        (true, Some(Bookmark::Snapshot { table: of, snapshot })) if of == table => UpTo::Snapshot(Some(*snapshot)),
        (true, _) => UpTo::Snapshot(None),
        (false, Some(Bookmark::Files { table: of, generation })) if of == table => UpTo::Generation(Some(*generation)),
        (false, _) => UpTo::Generation(None),
    }
}

/// Takes note that the rows behind `bookmark` were committed.
///
/// # Errors
/// What the state answers; the next run then does this in its place.
pub async fn settle(state: &dyn State, reader: Reader<'_>, bookmark: Option<&Bookmark>) -> Result<()> {
    match bookmark {
        Some(Bookmark::Files { generation, .. }) => files::settle(state, reader, *generation).await,
        Some(Bookmark::Snapshot { .. }) | None => Ok(()),
    }
}

async fn next_rows(tables: &Tables, reader: Reader<'_>, table: &TableName, after: Option<i64>) -> Result<Reading> {
    let input = tables.load(table).await?;
    let Some(to) = input.current_snapshot() else { return Ok(Reading::nothing()) };
    let bookmark = Bookmark::Snapshot { table: table.clone(), snapshot: to };
    let whole = |mode| Reading::of(mode, table, Input::Rows(Read::Snapshot(to)), bookmark.clone());
    let Some(after) = after else { return Ok(whole(ReadMode::Full)) };
    if after == to {
        return Ok(Reading::nothing());
    }
    let added = Read::Added { after: Some(after), to };
    let error = match input.provider(added.clone()).await {
        Ok(_) => return Ok(Reading::of(ReadMode::Incremental, table, Input::Rows(added), bookmark)),
        Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound) => error,
        Err(error) => return Err(error),
    };
    let came = Read::Came { after, to };
    let is_kept = input.metadata().snapshot_by_id(after).is_some();
    let is_line = is_kept && input.history().iter().any(|snapshot| snapshot.id == after);
    let gone = |propagate| Some(Gone { table: table.clone(), after, to, propagate });
    let why = match is_kept {
        true => format!("rows of `{table}` that were read before have been changed or removed since snapshot {after}"),
        false => format!("the snapshot {after} of `{table}`, up to which was read, is gone"),
    };
    match reader.source_deletes {
        Some(OnSourceDelete::Propagate) if is_kept => {
            let note = format!("{why}: everything was read again, and rows whose source is gone left");
            Ok(Reading { gone: gone(true), note: Some(note), ..whole(ReadMode::FullAfterRewrite) })
        }
        Some(OnSourceDelete::Ignore) if is_line || (is_kept && reader.write == Write::Merge) => {
            let note = format!("{why}: what was made of them stays");
            let reading = Reading::of(ReadMode::Incremental, table, Input::Rows(came), bookmark);
            Ok(Reading { gone: gone(false), note: Some(note), ..reading })
        }
        Some(OnSourceDelete::Fail) => {
            Err(Error::invalid(format!("{why}, and `on_source_delete` is `fail`")).with_source(error))
        }
        _ => rewritten(reader, whole(ReadMode::FullAfterRewrite), why).map_err(|refusal| refusal.with_source(error)),
    }
}

/// Reads everything, if the job's way of writing allows it.
fn rewritten(reader: Reader<'_>, whole: Reading, why: String) -> Result<Reading> {
    match reader.write {
        Write::Overwrite | Write::Merge => {
            Ok(Reading { note: Some(format!("{why}: everything was read again")), ..whole })
        }
        Write::Append => Err(Error::invalid(format!(
            "{why}: appending everything again would double rows; expected a job that merges or overwrites, or a new target table"
        ))),
    }
}
