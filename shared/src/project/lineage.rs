//! What feeds what: streams, locations, jobs and insights, and the tables between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::file::{Insight, InsightKind, Job, Mode, Workflow, Write};
use super::maintenance::Maintenance;
use super::sql::Select;
use super::{LakehouseFile, Project, Schedule};
use crate::model::TableName;
use crate::{Error, Result};

/// A graph of a lakehouse. Nodes are named `stream:flights`, `location:weather`, `table:nyc.flights`, `job:curate.daily`,
/// `insight:departures`; an edge leads from what is read to what reads it, and from what writes to what it writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lineage {
    pub nodes: BTreeSet<String>,
    /// `[from, to]`.
    pub edges: BTreeSet<(String, String)>,
    /// Tables that are read, but written by nothing in the lakehouse file.
    pub undeclared: BTreeSet<TableName>,
}

impl Lineage {
    /// The graph of a validated file.
    ///
    /// # Errors
    /// `Bug` when the file was not validated.
    pub fn of(project: &Project) -> Result<Self> {
        let mut graph = Self::default();
        let mut read = BTreeSet::new();
        for name in project.file.streams.keys() {
            graph.edge(format!("stream:{name}"), table_node(&project.stream_table(name)?));
        }
        for (workflow, declaration) in &project.file.workflows {
            for (name, job) in &declaration.jobs {
                let node = format!("job:{workflow}.{name}");
                for table in Select::parse(&job.sql, project.database())?.reads {
                    graph.edge(table_node(&table), node.clone());
                    read.insert(table);
                }
                graph.edge(node, table_node(&project.table_name(&job.into)?));
            }
        }
        for (name, insight) in &project.file.insights {
            let node = format!("insight:{name}");
            for table in Select::parse(&insight.sql, project.database())?.reads {
                graph.edge(table_node(&table), node.clone());
                read.insert(table);
            }
            if let Some(into) = &insight.into {
                graph.edge(node, table_node(&project.table_name(into)?));
            }
        }
        for name in project.file.locations.keys() {
            graph.edge(format!("location:{name}"), table_node(&project.location_table(name)?));
        }
        let written: BTreeSet<String> = graph.edges.iter().map(|(_, to)| to.clone()).collect();
        graph.undeclared = read.into_iter().filter(|table| !written.contains(&table_node(table))).collect();
        Ok(graph)
    }

    fn edge(&mut self, from: String, to: String) {
        self.nodes.extend([from.clone(), to.clone()]);
        self.edges.insert((from, to));
    }
}

fn table_node(table: &TableName) -> String {
    format!("table:{table}")
}

/// The databases of a validated file: its own, Tarn's, and those of every table that it writes or reads.
///
/// # Errors
/// `Bug` when the file was not validated.
pub(super) fn databases(file: &LakehouseFile) -> Result<BTreeSet<String>> {
    let jobs: Vec<&Job> = file.workflows.values().flat_map(|workflow| workflow.jobs.values()).collect();
    let selects = jobs.iter().map(|job| &job.sql).chain(file.insights.values().map(|insight| &insight.sql));
    let kept = file.workflows.values().flat_map(|workflow| workflow.maintenance.values());
    let written = jobs.iter().map(|job| &job.into).chain(kept.map(|maintenance| &maintenance.table));
    let written = written.chain(file.streams.values().filter_map(|stream| stream.table.as_ref()));
    let written = written.chain(file.insights.values().filter_map(|insight| insight.into.as_ref()));
    let own = [file.database.clone(), file.system_database.clone()];
    let mut found: BTreeSet<String> =
        own.into_iter().chain(file.locations.values().filter_map(|l| l.database.clone())).collect();
    for table in written {
        found.insert(TableName::parse(table, &file.database)?.database);
    }
    for sql in selects {
        found.extend(Select::parse(sql, &file.database)?.reads.into_iter().map(|table| table.database));
    }
    Ok(found)
}

/// The jobs of a workflow, each after those that it needs: the ones in `after`, and those that write what it reads. Where the
/// user says `after`, no contrary order is inferred.
///
/// # Errors
/// `Invalid` when jobs wait for each other in a circle, which the message names.
pub fn job_order(workflow: &Workflow, database: &str) -> Result<Vec<String>> {
    let needs = job_needs(workflow, database);
    let mut order: Vec<String> = Vec::new();
    while order.len() < needs.len() {
        let ready = needs.iter().find(|(job, needs)| {
            !order.contains(job) && needs.iter().all(|need| order.contains(need) || !workflow.has_job(need))
        });
        match ready {
            Some((job, _)) => order.push(job.clone()),
            None => {
                let circle = circle(&needs, &order);
                return Err(Error::invalid(format!("jobs wait for each other in a circle: {circle}")));
            }
        }
    }
    Ok(order)
}

impl Workflow {
    /// Whether a job, of SQL or of maintenance, has this name.
    pub fn has_job(&self, name: &str) -> bool {
        self.jobs.contains_key(name) || self.maintenance.contains_key(name)
    }
}

/// The jobs that each job waits for: those in `after`, and the writers of what it reads or keeps, unless the user placed them after
/// it (it wants their rows of the run before). A job may read the table that it writes. SQL that does not parse reads nothing.
pub fn job_needs(workflow: &Workflow, database: &str) -> BTreeMap<String, BTreeSet<String>> {
    let after = workflow.jobs.iter().map(|(name, job)| (name, &job.after));
    let after = after.chain(workflow.maintenance.iter().map(|(name, maintenance)| (name, &maintenance.after)));
    let declared: BTreeMap<String, BTreeSet<String>> =
        after.map(|(name, after)| (name.clone(), after.iter().cloned().collect())).collect();
    let reads =
        workflow.jobs.iter().filter_map(|(name, job)| Some((name, Select::parse(&job.sql, database).ok()?.reads)));
    let kept = workflow.maintenance.iter().filter_map(|(name, maintenance)| {
        Some((name, BTreeSet::from([TableName::parse(&maintenance.table, database).ok()?])))
    });
    let mut needs = declared.clone();
    for (name, reads) in reads.chain(kept) {
        let writes = |other: &Job| TableName::parse(&other.into, database).is_ok_and(|t| reads.contains(&t));
        let writers = workflow.jobs.iter().filter(|(other, job)| *other != name && writes(job));
        let inferred = writers.map(|(other, _)| other.clone()).filter(|other| !waits_for(&declared, other, name));
        needs.entry(name.clone()).or_default().extend(inferred);
    }
    needs
}

fn waits_for(needs: &BTreeMap<String, BTreeSet<String>>, job: &str, other: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&String> = needs.get(job).into_iter().flatten().collect();
    while let Some(next) = open.pop() {
        if next == other {
            return true;
        }
        if seen.insert(next) {
            open.extend(needs.get(next).into_iter().flatten());
        }
    }
    false
}

/// A circle among the jobs that are not in `order`: `a` → `b` → `a`, each waiting for the next.
fn circle(needs: &BTreeMap<String, BTreeSet<String>>, order: &[String]) -> String {
    let mut path: Vec<&String> = needs.keys().filter(|job| waits_for(needs, job, job)).take(1).collect();
    while let Some(at) = path.last() {
        let stuck = needs[*at].iter().filter(|need| !order.contains(need) && waits_for(needs, need, path[0]));
        let Some(next) = stuck.min_by_key(|need| path.contains(need)) else { break };
        let closes = path.iter().position(|job| *job == next);
        path.push(next);
        if let Some(begin) = closes {
            path.drain(..begin);
            break;
        }
    }
    path.iter().map(|job| format!("`{job}`")).collect::<Vec<_>>().join(" → ")
}

impl Project {
    /// The table that a location's files become: the declared one, otherwise the one named by the folder (a crawl may find
    /// several tables in a folder; it names them by what it finds).
    ///
    /// # Errors
    /// `NotFound` for an unknown location; `Invalid` when its folder's name is no table name.
    pub fn location_table(&self, name: &str) -> Result<TableName> {
        let location = self.location(name)?;
        let folder = location.path.as_deref().and_then(|path| path.trim_end_matches('/').rsplit('/').next());
        let table = location.table.clone().unwrap_or_else(|| crate::model::name::to_identifier(folder.unwrap_or(name)));
        TableName::new(location.database.as_deref().unwrap_or(self.database()), table)
    }

    /// The jobs of a workflow in an order that meets all dependencies.
    ///
    /// # Errors
    /// `NotFound` for an unknown workflow.
    pub fn job_order(&self, workflow: &str) -> Result<Vec<String>> {
        job_order(self.workflow(workflow)?, self.database())
    }

    /// What feeds what, for people.
    ///
    /// # Errors
    /// `Bug` when the file was not validated.
    pub fn explain(&self) -> Result<String> {
        let mut text = format!("lakehouse `{}`\n", self.database());
        self.explain_sources(&mut text)?;
        for (name, workflow) in &self.file.workflows {
            let when = when(workflow.schedule.as_ref());
            if self.keeps_by_default(name) {
                line(&mut text, format_args!("\nworkflow {name}, by default, {when}"));
                for maintenance in workflow.maintenance.values() {
                    line(&mut text, format_args!("  {}", self.explain_maintenance(maintenance)?));
                }
                continue;
            }
            line(&mut text, format_args!("\nworkflow {name}, {when}, {} at once", workflow.parallel));
            for (at, job) in self.job_order(name)?.iter().enumerate() {
                let job_text = match (workflow.jobs.get(job), workflow.maintenance.get(job)) {
                    (Some(job), _) => self.explain_job(job)?,
                    (None, Some(maintenance)) => self.explain_maintenance(maintenance)?,
                    (None, None) => continue,
                };
                line(&mut text, format_args!("  {}. {job}: {job_text}", at + 1));
            }
        }
        if !self.file.insights.is_empty() {
            line(&mut text, format_args!("\ninsights"));
        }
        for (name, insight) in &self.file.insights {
            let insight_text = self.explain_insight(insight)?;
            line(&mut text, format_args!("  {name}: {insight_text}"));
        }
        let undeclared = Lineage::of(self)?.undeclared;
        if !undeclared.is_empty() {
            let tables = list(&undeclared);
            line(&mut text, format_args!("\nread, but written by nothing here (must be in the catalog): {tables}"));
        }
        Ok(text)
    }

    fn explain_sources(&self, text: &mut String) -> Result<()> {
        if !self.file.streams.is_empty() {
            line(text, format_args!("\nstreams"));
        }
        for (name, stream) in &self.file.streams {
            let (table, columns, buffer) = (self.stream_table(name)?, stream.schema.len(), &stream.buffer);
            let parts: Vec<_> = stream.partition_by.iter().map(ToString::to_string).collect();
            let parts = if parts.is_empty() { String::new() } else { format!(", parted by {}", parts.join(", ")) };
            let buffer = format!("written at {} or after {}", buffer.size, buffer.interval);
            line(text, format_args!("  {name} → {table}: {columns} columns, {buffer}{parts}"));
        }
        if !self.file.locations.is_empty() {
            line(text, format_args!("\nlocations"));
        }
        for (name, location) in &self.file.locations {
            let table = self.location_table(name)?;
            let folder = location.path.clone().unwrap_or_else(|| format!("raw/{name}/"));
            let trigger = if location.on_object { "crawled when a file lands" } else { "crawled" };
            let schedule = location.schedule.as_ref().map(|s| format!(", {s}")).unwrap_or_default();
            line(text, format_args!("  {name} → {table}: {folder}, {trigger}{schedule}"));
        }
        Ok(())
    }

    fn explain_job(&self, job: &Job) -> Result<String> {
        let changed = match &job.incremental {
            Some(table) if job.mode == Mode::Incremental => Some(self.table_name(table)?),
            _ => None,
        };
        let reads = Select::parse(&job.sql, self.database())?.reads;
        let source =
            |t: &TableName| if Some(t) == changed.as_ref() { format!("{t} (new rows)") } else { t.to_string() };
        let reads: Vec<_> = reads.iter().map(source).collect();
        let how = match job.write {
            Write::Overwrite => "overwrite".into(),
            Write::Append => "append".into(),
            Write::Merge => format!("merge by {}", job.key.join(", ")),
        };
        let rules = match job.quality.len() {
            0 => String::new(),
            1 => ", 1 rule".into(),
            n => format!(", {n} rules"),
        };
        Ok(format!("{} → {} ({how}{rules})", list(&reads), self.table_name(&job.into)?))
    }

    fn explain_maintenance(&self, maintenance: &Maintenance) -> Result<String> {
        let parts = [
            maintenance.compact.as_ref().map(|_| "compacted"),
            maintenance.expire.as_ref().map(|_| "old snapshots expired"),
            maintenance.orphans.as_ref().map(|_| "orphans removed"),
            maintenance.dry_run.then_some("as a dry run"),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        Ok(format!("{} ({})", self.table_name(&maintenance.table)?, parts.join(", ")))
    }

    fn explain_insight(&self, insight: &Insight) -> Result<String> {
        let reads = list(&Select::parse(&insight.sql, self.database())?.reads);
        let kind = match insight.kind {
            InsightKind::Forecast => format!("forecast of {} for {} periods", insight.value, insight.horizon),
            InsightKind::Anomalies => format!("anomalies of {}", insight.value),
            InsightKind::Narrative => format!("narrative of {}", insight.value),
        };
        let into = match &insight.into {
            Some(into) => format!(" → {}", self.table_name(into)?),
            None => String::new(),
        };
        Ok(format!("{reads} → {kind}, {}{into}", when(insight.schedule.as_ref())))
    }
}

fn when(schedule: Option<&Schedule>) -> String {
    schedule.map_or_else(|| "on demand".into(), |schedule| format!("at {schedule}"))
}

fn list<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// Adds a line; writing to a string can't fail.
fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{arguments}");
}
