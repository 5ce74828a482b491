//! What a lakehouse file changes over the one before it, and what then happens. Pure: what tables and streams hold is looked at by
//! whoever owns them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DEFAULT_WORKFLOW, Job, Mode, Project, StreamDeclaration, Switch, Switched, Write};
use crate::Result;

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It can't be: the file is not taken over.
    Impossible,
    /// Something stays behind: the file is taken over only when that is allowed.
    NeedsAllow,
    /// It is taken over.
    Applied,
}

impl Effect {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Impossible => "impossible",
            Self::NeedsAllow => "needs_allow",
            Self::Applied => "applied",
        }
    }
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub effect: Effect,
    /// `stream`, `location`, `workflow`, `job`, `insight`, `database`.
    pub subject: String,
    pub name: String,
    /// What differs.
    pub what: String,
    /// What happens, or why it can't.
    pub then: String,
}

impl Change {
    pub fn new(effect: Effect, subject: &str, name: &str, what: impl Into<String>, then: impl Into<String>) -> Self {
        Self { effect, subject: subject.into(), name: name.into(), what: what.into(), then: then.into() }
    }
}

/// A stream that goes on under another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    pub from: String,
    pub to: String,
}

/// The streams that a file gives another name, if what they hold is there: those that say what they were, and those that get a name
/// back that they had in the file before.
pub fn renames(before: &Project, after: &Project) -> Vec<Rename> {
    let (old, new) = (&before.file().streams, &after.file().streams);
    let rename = |(to, declared): (&String, &StreamDeclaration)| {
        let named = declared.was.as_ref().filter(|was| old.contains_key(*was));
        let back = || old.iter().find(|(name, old)| old.was.as_ref() == Some(to) && !new.contains_key(*name));
        let from = named.or_else(|| back().map(|(name, _)| name)).or(declared.was.as_ref())?;
        (!old.contains_key(to)).then(|| Rename { from: from.clone(), to: to.clone() })
    };
    new.iter().filter_map(rename).collect()
}

/// What differs between two files, apart from what only tables and streams can tell: tables of streams, columns, partitioning, shards.
///
/// # Errors
/// `Invalid` for a table's name that is none.
pub fn between(before: &Project, after: &Project) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let applied =
        |subject: &str, name: &str, what: String, then: &str| Change::new(Effect::Applied, subject, name, what, then);
    for database in after.databases().difference(before.databases()) {
        changes.push(applied("database", database, "new".into(), "it is made"));
    }
    for database in before.databases().difference(after.databases()) {
        let then = "it stays, with its tables, but statements see it only while something in the file names it";
        changes.push(applied("database", database, "no longer named".into(), then));
    }
    if before.database() != after.database() {
        let by_default = after.file().locations.iter().filter(|(_, location)| location.database.is_none());
        for name in by_default.map(|(name, _)| name).filter(|name| before.file().locations.contains_key(*name)) {
            let then = format!(
                "its tables stay in `{}`; files that come, and those that are touched, make new ones in `{}`",
                before.database(),
                after.database()
            );
            changes.push(Change::new(Effect::NeedsAllow, "location", name, "another database", then));
        }
    }
    let renames = renames(before, after);
    for (name, stream) in &after.file().streams {
        let was = renames.iter().find(|rename| rename.to == *name).map_or(name, |rename| &rename.from);
        match before.file().streams.get(was) {
            None => changes.push(applied("stream", name, "new".into(), "it is made, its table with its first records")),
            Some(old) => stream_changes(name, (was, old), stream, &mut changes),
        }
    }
    let stays = "the tables of its files stay in the catalog, and are crawled no more";
    let (old, new) = (&before.file().locations, &after.file().locations);
    compare("location", old, new, stays, "its next crawl follows it", &mut changes);
    let (old, new) = (&before.file().insights, &after.file().insights);
    compare("insight", old, new, "its table, if it has one, stays", "its next answer follows it", &mut changes);
    maintenance_changes(before, after, &mut changes);
    let declared = |project: &Project, name: &String| !project.keeps_by_default(name);
    let old_workflows: BTreeMap<_, _> =
        before.file().workflows.iter().filter(|(name, _)| declared(before, name)).collect();
    for (name, workflow) in after.file().workflows.iter().filter(|(name, _)| declared(after, name)) {
        let Some(old) = old_workflows.get(name) else {
            changes.push(applied("workflow", name, "new".into(), "it runs when it is asked for or due"));
            continue;
        };
        if old.schedule != workflow.schedule {
            changes.push(applied("workflow", name, "another schedule".into(), "it counts from now"));
        }
        if (&old.parameters, old.parallel) != (&workflow.parameters, workflow.parallel) {
            changes.push(applied("workflow", name, "other parameters".into(), "from its next run on"));
        }
        if old.maintenance != workflow.maintenance {
            changes.push(applied("workflow", name, "other maintenance".into(), "from its next run on"));
        }
        job_changes(name, (before, &old.jobs), (after, &workflow.jobs), &mut changes)?;
    }
    let is_gone = |name: &String| !after.file().workflows.contains_key(name) || !declared(after, name);
    for name in old_workflows.keys().filter(|name| is_gone(name)) {
        changes.push(applied("workflow", name, "removed".into(), "its tables stay"));
    }
    Ok(changes)
}

/// What differs in how tables are kept by default. Which tables these are follows from streams and workflows.
fn maintenance_changes(before: &Project, after: &Project, changes: &mut Vec<Change>) {
    let (what, then) = match (&before.file().maintenance, &after.file().maintenance) {
        (old, new) if old == new => return,
        (_, Switched::Off) => ("off", "tables are kept only by workflows whose `maintenance` names them"),
        (Switched::Off, Switched::On(_)) => ("on", "tables of streams are kept by its schedule"),
        (Switched::On(_), Switched::On(_)) => ("changed", "from its next run on"),
    };
    changes.push(Change::new(Effect::Applied, "workflow", DEFAULT_WORKFLOW, what, then));
}

fn stream_changes(
    name: &str,
    (old_name, old): (&str, &StreamDeclaration),
    new: &StreamDeclaration,
    changes: &mut Vec<Change>,
) {
    let mut applied =
        |what: String, then: String| changes.push(Change::new(Effect::Applied, "stream", name, what, then));
    if old.buffer != new.buffer {
        applied("another buffer".into(), "from the next commit on".into());
    }
    if old.partition_key != new.partition_key {
        applied("another partition key".into(), "of records that come".into());
    }
    if new.partition_by.is_empty() && !old.partition_by.is_empty() {
        applied(
            "no partitioning".into(),
            "its table keeps what it has: ALTER TABLE … DROP PARTITION FIELD ends it".into(),
        );
    }
    if old.retention != new.retention {
        applied(format!("retention {} → {}", old.retention, new.retention), "of what the stream holds too".into());
    }
    if let Some(was) = new.was.as_ref().filter(|was| old.was.as_ref() != Some(*was) && *was != old_name) {
        applied(format!("`was: {was}`"), "nothing is carried over: the stream is there already".into());
    }
    if old.maintenance != new.maintenance {
        let then = if new.maintenance == Switch::On {
            "its table is kept by default"
        } else {
            "its table is not kept by default"
        };
        applied("`maintenance`".into(), then.into());
    }
    if old.keep_rejects != new.keep_rejects {
        let then = if new.keep_rejects { "refused records are kept" } else { "refused records are no longer kept" };
        applied("`keep_rejects`".into(), then.into());
    }
}

/// Things of one kind that only begin, end or differ.
fn compare<T: PartialEq>(
    subject: &str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
    end: &str,
    differ: &str,
    changes: &mut Vec<Change>,
) {
    for (name, new) in after {
        match before.get(name) {
            None => changes.push(Change::new(Effect::Applied, subject, name, "new", "it begins")),
            Some(old) if old != new => changes.push(Change::new(Effect::Applied, subject, name, "changed", differ)),
            Some(_) => {}
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        changes.push(Change::new(Effect::Applied, subject, name, "removed", end));
    }
}

fn job_changes(
    workflow: &str,
    (before, old_jobs): (&Project, &BTreeMap<String, Job>),
    (after, new_jobs): (&Project, &BTreeMap<String, Job>),
    changes: &mut Vec<Change>,
) -> Result<()> {
    for (name, new) in new_jobs {
        let job = format!("{workflow}.{name}");
        let mut applied =
            |what: &str, then: String| changes.push(Change::new(Effect::Applied, "job", &job, what, then));
        let Some(old) = old_jobs.get(name) else {
            applied("new", "from the workflow's next run on".into());
            continue;
        };
        let keeps = new.mode == Mode::Incremental || new.write != Write::Overwrite;
        let rows = if keeps {
            "rows that are there stay as they are; new ones follow it"
        } else {
            "its next run replaces all rows"
        };
        if old.sql != new.sql {
            applied("other SQL", rows.into());
        }
        let (from, to) = (before.table_name(&old.into)?, after.table_name(&new.into)?);
        if from != to {
            let then = format!("rows go to `{to}` from the next run on, all of them in the first; `{from}` stays");
            applied("another table", then);
        }
        if old.key != new.key {
            applied("another key", "rows that are there stay as they are, also those that share the new key".into());
        }
        let way = |job: &Job| (job.mode, job.incremental.clone(), job.write, job.source_deletes());
        if way(old) != way(new) {
            applied("another way to read or write", rows.into());
        }
        if old.quality != new.quality {
            applied("other quality rules", "of rows that its next runs give".into());
        }
        if old.partition_by != new.partition_by {
            applied("another partitioning", "of files that come; those that are there stay as they are".into());
        }
    }
    for name in old_jobs.keys().filter(|name| !new_jobs.contains_key(*name)) {
        let job = format!("{workflow}.{name}");
        changes.push(Change::new(Effect::Applied, "job", &job, "removed", "its table stays"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "
version: 1
database: shop
streams:
  orders: {schema: [{name: id, type: bigint}], table: a}
locations: {gone: {}, same: {}}
workflows:
  daily: {jobs: {one: {sql: SELECT 1 AS n, into: t}, two: {sql: SELECT 2 AS n, into: u, write: append}}}
";

    #[test]
    fn a_stream_goes_on_under_the_name_that_says_so_or_that_it_had() {
        let parsed = |streams: &[&str]| {
            let stream = |name: &&str| match name.split_once('<') {
                Some((name, was)) => {
                    format!("  {name}: {{was: {was}, table: t_{name}, schema: [{{name: id, type: bigint}}]}}\n")
                }
                None => format!("  {name}: {{schema: [{{name: id, type: bigint}}]}}\n"),
            };
            let text: String = streams.iter().map(stream).collect();
            Project::parse(&format!("version: 1\ndatabase: d\nstreams:\n{text}"), "test").unwrap()
        };
        for (before, after, expected) in [
            (&["a", "x"][..], &["b<a", "x"][..], &["a→b"][..]),
            (&["b<a"], &["b<a"], &[]),
            (&["b<a"], &["b"], &[]),
            // It is undone, or goes on.
            (&["b<a"], &["a"], &["b→a"]),
            (&["b<a"], &["c<b"], &["b→c"]),
            (&["c<b"], &["b<a"], &["c→b"]),
            // What nobody declares any more may be there still.
            (&["x"], &["b<a", "x"], &["a→b"]),
            (&["a", "b"], &["b<a"], &[]),
            (&["b<a"], &["a", "b"], &[]),
        ] {
            let found = renames(&parsed(before), &parsed(after));
            let found: Vec<_> = found.iter().map(|rename| format!("{}→{}", rename.from, rename.to)).collect();
            assert_eq!(found, expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn what_differs_is_told_once_with_what_happens() {
        let after = BEFORE
            .replace("table: a", "table: b, keep_rejects: true")
            .replace("gone: {}, same: {}", "same: {}, new: {}")
            .replace("SELECT 2", "SELECT 3")
            .replace("one: {sql: SELECT 1 AS n, into: t}", "uno: {sql: SELECT 1 AS n, into: mart.t}");
        let parsed = |text: &str| Project::parse(text, "test").unwrap();
        let changes = between(&parsed(BEFORE), &parsed(&after)).unwrap();
        let told: Vec<_> =
            changes.iter().map(|c| format!("{} {} {}: {}", c.effect.as_str(), c.subject, c.name, c.what)).collect();
        assert_eq!(
            told,
            [
                "applied database mart: new",
                "applied stream orders: `keep_rejects`",
                "applied location new: new",
                "applied location gone: removed",
                "applied job daily.two: other SQL",
                "applied job daily.uno: new",
                "applied job daily.one: removed",
            ]
        );
        assert_eq!(between(&parsed(BEFORE), &parsed(BEFORE)).unwrap(), []);
    }

    #[test]
    fn another_maintenance_by_default_is_told_as_what_it_is() {
        let told = |before: &str, after: &str| {
            let parsed = |more: &str| Project::parse(&format!("{BEFORE}{more}"), "test").unwrap();
            let changes = between(&parsed(before), &parsed(after)).unwrap();
            changes.iter().map(|c| format!("{} {}: {}", c.subject, c.name, c.what)).collect::<Vec<_>>()
        };
        assert_eq!(told("", "maintenance: off"), ["workflow maintenance: off"]);
        assert_eq!(told("maintenance: off", ""), ["workflow maintenance: on"]);
        assert_eq!(told("", "maintenance: {schedule: rate(1h)}"), ["workflow maintenance: changed"]);
        assert_eq!(told("", "maintenance: on"), [""; 0]);
        // A workflow of that name that the file declared itself.
        let declared = "  maintenance: {jobs: {three: {sql: SELECT 3 AS n, into: v}}}\nmaintenance: off";
        assert_eq!(told(declared, ""), ["workflow maintenance: on", "workflow maintenance: removed"]);
    }
}
