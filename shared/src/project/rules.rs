//! What must hold in a lakehouse file beyond its shape: names, ranges, references. Every rule that is broken is reported.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use super::file::{
    Insight, Job, LakehouseFile, Location, Mode, OnSourceDelete, QualityAction, QualityRule, RuleCheck,
    StreamDeclaration, Workflow, Write,
};
use super::maintenance::{
    Compaction, DEFAULT_WORKFLOW, Expiry, Maintenance, MaintenancePolicy, OrphanRemoval, SortColumn,
};
use super::problem::{Problem, near, no_column, one_of};
use super::sql::{Select, check_condition, parameters};
use super::tree::{Node, Path};
use super::{lineage, units};
use crate::model::Transform;
use crate::model::name::check_identifier;
use crate::model::{ColumnType, TableName};
use crate::{Error, Result};

/// Parameters that every run has.
const BUILT_IN_PARAMETERS: [&str; 2] = ["run_id", "run_date"];
const MIB: u64 = 1 << 20;
const DAY: u64 = 86_400;

/// Checks a file of the right shape.
pub(super) struct Rules<'a> {
    file: &'a LakehouseFile,
    root: &'a Node,
    problems: Vec<Problem>,
    /// Who writes each table, and how.
    writers: BTreeMap<TableName, (Path, Writer)>,
}

/// How a table is written: whether others may write it too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Alone,
    /// A job that adds to what others wrote.
    Adding,
}

impl<'a> Rules<'a> {
    pub(super) fn check(file: &'a LakehouseFile, root: &'a Node) -> Vec<Problem> {
        let mut rules = Self { file, root, problems: Vec::new(), writers: BTreeMap::new() };
        rules.all();
        rules.problems
    }

    fn all(&mut self) {
        let top = Path::default();
        if self.file.version != 1 {
            self.report(&top.key("version"), format!("expected 1, found `{}`", self.file.version));
        }
        self.name(&top.key("database"), "database", &self.file.database);
        self.name(&top.key("system_database"), "database", &self.file.system_database);
        for (name, stream) in &self.file.streams {
            let path = top.key("streams").key(name);
            self.name(&path, "stream", name);
            self.stream(&path, name, stream);
        }
        for (name, location) in &self.file.locations {
            let path = top.key("locations").key(name);
            self.name(&path, "location", name);
            self.location(&path, location);
        }
        self.overlaps(&top.key("locations"));
        for (name, workflow) in &self.file.workflows {
            let path = top.key("workflows").key(name);
            self.name(&path, "workflow", name);
            if name == DEFAULT_WORKFLOW && self.file.maintenance.on().is_some() {
                let message = "expected another name: `maintenance` is the workflow that keeps the tables of streams by default (with \
                               `maintenance: off` at the top of the file there is none, and its name is free)";
                self.report(&path, message);
            }
            self.workflow(&path, workflow);
        }
        if let Some(policy) = self.file.maintenance.on() {
            self.policy(&top.key("maintenance"), policy);
        }
        for (name, insight) in &self.file.insights {
            let path = top.key("insights").key(name);
            self.name(&path, "insight", name);
            self.insight(&path, insight);
        }
    }

    fn stream(&mut self, path: &Path, name: &str, stream: &StreamDeclaration) {
        let schema = path.key("schema");
        if stream.schema.is_empty() {
            self.report(&schema, "expected at least one column, found none");
        }
        let mut columns: Vec<&str> = Vec::new();
        for (at, column) in stream.schema.iter().enumerate() {
            let path = schema.item(at).key("name");
            self.name(&path, "column", &column.name);
            if columns.contains(&column.name.as_str()) {
                self.report(&path, format!("expected each column once, found `{}` again", column.name));
            }
            columns.push(&column.name);
        }
        for (at, field) in stream.partition_by.iter().enumerate() {
            let path = path.key("partition_by").item(at);
            match stream.schema.iter().find(|c| c.name == field.column) {
                Some(column) if !takes(&column.ty, field.transform) => {
                    self.report(
                        &path,
                        format!("expected a column that `{field}` can part, found one of type {}", column.ty),
                    );
                }
                Some(_) => {}
                None => self.column(&path, &field.column, &columns),
            }
        }
        if let Some(key) = &stream.partition_key {
            self.column(&path.key("partition_key"), key, &columns);
        }
        self.was(path, name, stream);
        let table = path.key("table");
        if let Some(target) = self.table(&table, stream.table.as_deref().unwrap_or(name)) {
            self.writes(&table, target, Writer::Alone);
        }
        self.range(&path.key("shards"), u64::from(stream.shards), 1..=64);
        let size = path.key("buffer").key("size");
        self.range(&size, stream.buffer.size, units::ByteSize(MIB)..=units::ByteSize(128 * MIB));
        let interval = path.key("buffer").key("interval");
        self.range(&interval, stream.buffer.interval, units::Seconds(0)..=units::Seconds(900));
        self.range(&path.key("retention"), stream.retention, units::Seconds(DAY)..=units::Seconds(365 * DAY));
    }

    /// The name that a stream had before.
    fn was(&mut self, path: &Path, name: &str, stream: &StreamDeclaration) {
        let Some(was) = &stream.was else { return };
        let path = path.key("was");
        self.name(&path, "stream", was);
        if self.file.streams.contains_key(was) {
            self.report(
                &path,
                format!("expected a name that no stream has any more, found `{was}`, which is declared"),
            );
        }
        let heirs = self.file.streams.iter().filter(|(_, other)| other.was.as_ref() == Some(was));
        if let Some((first, _)) = heirs.map(|(heir, _)| (heir, ())).next().filter(|(first, ())| *first != name) {
            self.report(
                &path,
                format!("expected each former name once, found `{was}`, which stream `{first}` has too"),
            );
        }
        if stream.table.is_none() {
            let message = format!(
                "`was` expects `table`, as a table is not renamed with its stream (e.g. `table: {was}`), found none"
            );
            self.report(&path, message);
        }
    }

    fn location(&mut self, path: &Path, location: &Location) {
        if let Some(database) = &location.database {
            self.name(&path.key("database"), "database", database);
        }
        if let Some(table) = &location.table {
            let database = location.database.as_deref().unwrap_or(&self.file.database);
            let table_path = path.key("table");
            let target = TableName::new(database, table);
            if let Some(target) = self.good(&table_path, target) {
                self.writes(&table_path, target, Writer::Alone);
            }
        }
        if let Some(sample) = location.sample {
            self.range(&path.key("sample"), u64::from(sample), 1..=249);
        }
        for (at, pattern) in location.exclude.iter().enumerate() {
            if let Err(error) = globset::Glob::new(pattern) {
                self.report(&path.key("exclude").item(at), format!("expected a glob pattern: {error}"));
            }
        }
    }

    /// No file may belong to two locations.
    fn overlaps(&mut self, locations: &Path) {
        let folder = |name: &str, location: &Location| {
            let path = location.path.clone().unwrap_or_else(|| format!("raw/{name}"));
            format!("{}/", path.trim_matches('/'))
        };
        let folders: Vec<_> = self.file.locations.iter().map(|(name, l)| (name, folder(name, l))).collect();
        for (at, (name, mine)) in folders.iter().enumerate() {
            for (other, theirs) in &folders[..at] {
                if mine.starts_with(theirs) || theirs.starts_with(mine) {
                    let message = format!(
                        "expected a folder of its own, found `{mine}`, which overlaps `{theirs}` of location `{other}`"
                    );
                    self.report(&locations.key(name), message);
                }
            }
        }
    }

    fn workflow(&mut self, path: &Path, workflow: &Workflow) {
        self.range(&path.key("parallel"), u64::from(workflow.parallel), 1..=16);
        for name in workflow.parameters.keys() {
            self.name(&path.key("parameters").key(name), "parameter", name);
        }
        if workflow.jobs.is_empty() && workflow.maintenance.is_empty() {
            self.report(&path.key("jobs"), "expected at least one job, found none");
        }
        for (name, job) in &workflow.jobs {
            let path = path.key("jobs").key(name);
            self.name(&path, "job", name);
            self.job(&path, name, job, workflow);
        }
        for (name, maintenance) in &workflow.maintenance {
            let path = path.key("maintenance").key(name);
            self.name(&path, "job", name);
            if workflow.jobs.contains_key(name) {
                self.report(&path, format!("expected a name that no other job has, found `{name}`"));
            }
            self.maintenance(&path, name, maintenance, workflow);
        }
        if let Err(error) = lineage::job_order(workflow, &self.file.database) {
            self.report(&path.key("jobs"), error.to_string());
        }
    }

    fn maintenance(&mut self, path: &Path, name: &str, maintenance: &Maintenance, workflow: &Workflow) {
        self.table(&path.key("table"), &maintenance.table);
        if maintenance.compact.is_none() && maintenance.expire.is_none() && maintenance.orphans.is_none() {
            self.report(path, "expected something to do: `compact`, `expire` or `orphans`, found none");
        }
        self.after(path, name, &maintenance.after, workflow);
        self.range(&path.key("retries"), u64::from(maintenance.retries), 0..=10);
        self.range(&path.key("timeout"), maintenance.timeout, units::Seconds(1)..=units::Seconds(DAY));
        if let Some(compaction) = &maintenance.compact {
            self.compaction(&path.key("compact"), compaction);
        }
        if let Some(expiry) = &maintenance.expire {
            self.expiry(&path.key("expire"), expiry);
        }
        if let Some(removal) = &maintenance.orphans {
            self.orphans(&path.key("orphans"), removal);
        }
    }

    fn policy(&mut self, path: &Path, policy: &MaintenancePolicy) {
        if let Some(compaction) = policy.compact.on() {
            let path = path.key("compact");
            for (field, columns) in [("sort", &compaction.sort), ("z_order", &compaction.z_order)] {
                if !columns.is_empty() {
                    let message = format!(
                        "`{field}` is for a workflow's `maintenance` of one table, as tables have different columns"
                    );
                    self.report(&path.key(field), message);
                }
            }
            self.compaction(&path, compaction);
        }
        if let Some(expiry) = policy.expire.on() {
            self.expiry(&path.key("expire"), expiry);
        }
        if let Some(removal) = policy.orphans.on() {
            self.orphans(&path.key("orphans"), removal);
        }
    }

    fn compaction(&mut self, path: &Path, compaction: &Compaction) {
        for (at, column) in compaction.sort.iter().enumerate() {
            self.good(&path.key("sort").item(at), SortColumn::parse(column));
        }
        for (at, column) in compaction.z_order.iter().enumerate() {
            self.name(&path.key("z_order").item(at), "column", column);
        }
        if !compaction.sort.is_empty() && !compaction.z_order.is_empty() {
            self.report(path, "expected `sort` or `z_order`, found both");
        }
        if let Some(size) = compaction.file_size {
            self.range(&path.key("file_size"), size, units::ByteSize(MIB)..=units::ByteSize(4096 * MIB));
        }
        if let Some(files) = compaction.min_files {
            self.range(&path.key("min_files"), files, 2..=1000);
        }
    }

    fn expiry(&mut self, path: &Path, expiry: &Expiry) {
        if let Some(keep) = expiry.keep {
            self.range(&path.key("keep"), keep, 1..=u32::MAX);
        }
    }

    fn orphans(&mut self, path: &Path, removal: &OrphanRemoval) {
        if let Some(age) = removal.older_than {
            self.range(&path.key("older_than"), age, units::Seconds(DAY)..=units::Seconds(3650 * DAY));
        }
    }

    /// The jobs that a job is declared to wait for.
    fn after(&mut self, path: &Path, name: &str, after: &[String], workflow: &Workflow) {
        for (at, needed) in after.iter().enumerate() {
            if needed == name || !workflow.has_job(needed) {
                let all = workflow.jobs.keys().chain(workflow.maintenance.keys());
                let others: Vec<&String> = all.filter(|other| *other != name).collect();
                let message =
                    format!("expected another job of this workflow, found `{needed}`{}", near(needed, &others));
                self.report(&path.key("after").item(at), message);
            }
        }
    }

    fn job(&mut self, path: &Path, name: &str, job: &Job, workflow: &Workflow) {
        let select = self.select(&path.key("sql"), &job.sql);
        let columns = select.as_ref().and_then(|s| s.columns.as_deref());
        self.parameters(&path.key("sql"), &job.sql, workflow);
        if let Some(target) = self.table(&path.key("into"), &job.into) {
            let writer = if job.write == Write::Overwrite { Writer::Alone } else { Writer::Adding };
            self.writes(&path.key("into"), target, writer);
        }
        self.key_of(path, job, columns);
        self.incremental(path, job, select.as_ref());
        self.source_deletes(path, job);
        for (at, field) in job.partition_by.iter().enumerate() {
            self.column_of(&path.key("partition_by").item(at), &field.column, columns);
        }
        self.after(path, name, &job.after, workflow);
        self.range(&path.key("retries"), u64::from(job.retries), 0..=10);
        self.range(&path.key("timeout"), job.timeout, units::Seconds(1)..=units::Seconds(DAY));
        for (at, rule) in job.quality.iter().enumerate() {
            let path = path.key("quality").item(at);
            if job.quality[..at].iter().any(|r| r.name == rule.name) {
                self.report(&path.key("name"), format!("expected each rule once, found `{}` again", rule.name));
            }
            self.quality(&path, rule, columns);
            if let RuleCheck::Row(condition) = &rule.check {
                self.parameters(&path.key("check").key("row"), condition, workflow);
            }
        }
    }

    fn key_of(&mut self, path: &Path, job: &Job, columns: Option<&[String]>) {
        match (job.write, job.key.is_empty()) {
            (Write::Merge, true) => {
                self.report(path, "`write: merge` expects the columns that name a row in `key`, found none")
            }
            (Write::Append | Write::Overwrite, false) => {
                self.report(&path.key("key"), "`key` is for `write: merge` only");
            }
            _ => {}
        }
        for (at, key) in job.key.iter().enumerate() {
            self.column_of(&path.key("key").item(at), key, columns);
        }
    }

    fn incremental(&mut self, path: &Path, job: &Job, select: Option<&Select>) {
        match (job.mode, &job.incremental) {
            (Mode::Incremental, None) => {
                self.report(
                    path,
                    "`mode: incremental` expects the table whose new rows are read in `incremental`, found none",
                );
            }
            (Mode::Full, Some(_)) => {
                self.report(&path.key("incremental"), "`incremental` is for `mode: incremental` only")
            }
            (Mode::Incremental, Some(table)) => {
                let path = path.key("incremental");
                let Some(table) = self.table(&path, table) else { return };
                let Some(select) = select else { return };
                if !select.reads.contains(&table) {
                    let reads: Vec<_> = select.reads.iter().map(TableName::to_string).collect();
                    self.report(
                        &path,
                        format!("expected a table that the SQL reads ({}), found `{table}`", one_of(&reads)),
                    );
                }
            }
            (Mode::Full, None) => {}
        }
    }

    fn source_deletes(&mut self, path: &Path, job: &Job) {
        let path = path.key("on_source_delete");
        match (job.on_source_delete, job.mode, job.write) {
            (Some(_), Mode::Full, _) => {
                self.report(&path, "`on_source_delete` is for `mode: incremental` only: other jobs read everything each time");
            }
            (Some(OnSourceDelete::Propagate), _, Write::Append) => self.report(
                &path,
                "`propagate` expects `write: merge`, whose `key` says which rows leave; found `write: append`",
            ),
            (Some(OnSourceDelete::Ignore | OnSourceDelete::Propagate), _, Write::Overwrite) => self.report(
                &path,
                "expected `fail` or nothing with `write: overwrite`, which reads everything again when rows were deleted",
            ),
            _ => {}
        }
    }

    fn quality(&mut self, path: &Path, rule: &QualityRule, columns: Option<&[String]>) {
        let check = path.key("check");
        match &rule.check {
            RuleCheck::Row(condition) => {
                self.good(&check.key("row"), check_condition(condition));
            }
            RuleCheck::Completeness { column, at_least } => {
                let check = check.key("completeness");
                self.column_of(&check.key("column"), column, columns);
                self.range(&check.key("at_least"), *at_least, 0.0..=1.0);
            }
            RuleCheck::Unique(unique) => {
                let check = check.key("unique");
                if unique.is_empty() {
                    self.report(&check, "expected at least one column, found none");
                }
                for (at, column) in unique.iter().enumerate() {
                    self.column_of(&check.item(at), column, columns);
                }
            }
            RuleCheck::RowCount { at_least, at_most } => match (at_least, at_most) {
                (None, None) => self.report(&check.key("row_count"), "expected `at_least` or `at_most`, found neither"),
                (Some(low), Some(high)) if low > high => {
                    self.report(
                        &check.key("row_count"),
                        format!("expected `at_least` up to `at_most`, found {low} and {high}"),
                    );
                }
                _ => {}
            },
        }
        if rule.action == QualityAction::Quarantine && !matches!(rule.check, RuleCheck::Row(_)) {
            self.report(
                &path.key("action"),
                "`quarantine` is for `row` rules only: others are about all rows together",
            );
        }
    }

    fn insight(&mut self, path: &Path, insight: &Insight) {
        let select = self.select(&path.key("sql"), &insight.sql);
        let columns = select.as_ref().and_then(|s| s.columns.as_deref());
        self.column_of(&path.key("date"), &insight.date, columns);
        self.column_of(&path.key("value"), &insight.value, columns);
        for (at, dimension) in insight.dimensions.iter().enumerate() {
            self.column_of(&path.key("dimensions").item(at), dimension, columns);
        }
        if insight.dimensions.len() > 5 {
            self.report(
                &path.key("dimensions"),
                format!("expected 5 columns at most, found {}", insight.dimensions.len()),
            );
        }
        self.range(&path.key("horizon"), u64::from(insight.horizon), 1..=1000);
        if let Some(season) = insight.season {
            self.range(&path.key("season"), u64::from(season), 1..=180);
        }
        self.range(&path.key("interval"), insight.interval, 0.5..=0.99);
        if let Some(into) = &insight.into
            && let Some(target) = self.table(&path.key("into"), into)
        {
            self.writes(&path.key("into"), target, Writer::Adding);
        }
    }

    fn select(&mut self, path: &Path, sql: &str) -> Option<Select> {
        let select = Select::parse(sql, &self.file.database);
        self.good(path, select)
    }

    fn parameters(&mut self, path: &Path, sql: &str, workflow: &Workflow) {
        for name in parameters(sql) {
            if BUILT_IN_PARAMETERS.contains(&name.as_str()) || workflow.parameters.contains_key(&name) {
                continue;
            }
            let declared: Vec<&str> =
                workflow.parameters.keys().map(String::as_str).chain(BUILT_IN_PARAMETERS).collect();
            let message = format!("expected a parameter of this workflow ({}), found `${{{name}}}`", one_of(&declared));
            self.report(path, message + &near(&name, &declared));
        }
    }

    fn writes(&mut self, path: &Path, table: TableName, writer: Writer) {
        match self.writers.get(&table) {
            Some((_, Writer::Adding)) if writer == Writer::Adding => {}
            Some((other, _)) => {
                let message =
                    format!("expected a table that nothing else writes, found `{table}`, which `{other}` writes");
                self.report(path, message);
            }
            None => {
                self.writers.insert(table, (path.clone(), writer));
            }
        }
    }

    fn table(&mut self, path: &Path, text: &str) -> Option<TableName> {
        self.good(path, TableName::parse(text, &self.file.database))
    }

    fn column(&mut self, path: &Path, name: &str, columns: &[&str]) {
        if !columns.contains(&name) {
            self.report(path, no_column(name, columns));
        }
    }

    /// A column of a query, if its columns are known.
    fn column_of(&mut self, path: &Path, name: &str, columns: Option<&[String]>) {
        if let Some(columns) = columns {
            self.column(path, name, &columns.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    fn name(&mut self, path: &Path, what: &str, name: &str) {
        self.good(path, check_identifier(what, name));
    }

    fn range<T: PartialOrd + Display>(&mut self, path: &Path, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            self.report(path, format!("expected {} to {}, found `{value}`", range.start(), range.end()));
        }
    }

    fn good<T>(&mut self, path: &Path, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.report(path, error.to_string())).ok()
    }

    fn report(&mut self, path: &Path, message: impl Into<String>) {
        self.problems.push(Problem { path: path.clone(), place: self.root.find(path), message: message.into() });
    }
}

/// Whether values of `ty` can be parted by `transform`, as the Iceberg spec says.
fn takes(ty: &ColumnType, transform: Transform) -> bool {
    let is_time = matches!(
        ty,
        ColumnType::Timestamp | ColumnType::TimestampTz | ColumnType::TimestampNs | ColumnType::TimestampTzNs
    );
    match transform {
        Transform::Identity => !matches!(ty, ColumnType::Array(_) | ColumnType::Map(..) | ColumnType::Struct(_)),
        Transform::Year | Transform::Month | Transform::Day => is_time || *ty == ColumnType::Date,
        Transform::Hour => is_time,
        Transform::Bucket(_) => !matches!(
            ty,
            ColumnType::Boolean
                | ColumnType::Float
                | ColumnType::Double
                | ColumnType::Array(_)
                | ColumnType::Map(..)
                | ColumnType::Struct(_)
        ),
        Transform::Truncate(_) => matches!(
            ty,
            ColumnType::TinyInt
                | ColumnType::SmallInt
                | ColumnType::Int
                | ColumnType::BigInt
                | ColumnType::Decimal(..)
                | ColumnType::String
                | ColumnType::Binary
        ),
    }
}
