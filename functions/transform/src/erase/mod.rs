//! `POST /erasures`: rows of a subject leave every place that keeps them.
//!
//! One request is one pass: the subject is remembered (as hashes) against streams and error objects that still hold it, rows are
//! deleted from all tables, files rewritten, older versions removed ([`tables`]), raw files rewritten ([`files`]), lines of error
//! objects and the quarantine and all stored answers removed ([`objects`]). A pass may be repeated and stopped anywhere; the erasure is
//! complete when a pass finds nothing and nothing is in its way.

mod files;
mod objects;
mod tables;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::api::{Request, Response};
use shared::catalog::Table;
use shared::erasure::{self, Subject};
use shared::model::TableName;
use shared::{Error, ErrorKind, Result, deadline};

use crate::Transform;

/// The body of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wanted {
    /// Whose rows: `column = value` or `column IN (…)`, joined by AND.
    r#where: String,
    /// `table` or `database.table`; none: all of the lakehouse.
    #[serde(default)]
    tables: Vec<String>,
    /// Say what would be removed, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// Remove also records below `errors/` that can't be read and hold a value of each column as a word.
    #[serde(default)]
    broken: bool,
}

/// What a pass found and did.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Milliseconds since the epoch.
    at_ms: i64,
    dry_run: bool,
    /// Whether this pass found nothing, and nothing was in its way: the erasure is done.
    complete: bool,
    tables: Vec<tables::TableReport>,
    files: Vec<files::FileReport>,
    objects: Vec<objects::ObjectReport>,
    /// Stored answers of queries that were removed, or would be.
    results: u64,
    /// Whether a table or stream has the columns.
    #[serde(skip)]
    matched: bool,
    /// What is to happen before the next pass.
    remaining: Vec<String>,
    /// What the erasure does not reach, and until when it is there.
    not_reached: Vec<String>,
    /// Where the report is kept, without the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Report {
    /// Whether the pass came upon anything of the subject.
    fn found(&self) -> bool {
        self.tables.iter().any(tables::TableReport::found)
            || self.files.iter().any(|file| file.rows > 0)
            || self.objects.iter().any(|object| object.records > 0)
    }
}

/// What is in the scope of a pass.
struct Scope<'a> {
    subject: &'a Subject,
    /// None: all.
    tables: Option<Vec<TableName>>,
    dry_run: bool,
    broken: bool,
}

impl Scope<'_> {
    fn holds(&self, table: &TableName) -> bool {
        self.tables.as_ref().is_none_or(|tables| tables.contains(table))
    }
}

impl Transform {
    /// Carries out one pass.
    ///
    /// # Errors
    /// `Invalid` for a condition that names no subject; `NotFound` for an unknown table; otherwise what the ports answer.
    pub(crate) async fn erase(&self, request: &Request) -> Result<Response> {
        let wanted: Wanted = request.json()?;
        let subject = Subject::parse(&wanted.r#where)?;
        let named =
            wanted.tables.iter().map(|table| self.context.project.table_name(table)).collect::<Result<Vec<_>>>()?;
        let scope = Scope {
            subject: &subject,
            tables: (!named.is_empty()).then_some(named),
            dry_run: wanted.dry_run,
            broken: wanted.broken,
        };
        Response::json(200, &self.pass(&scope).await?)
    }

    async fn pass(&self, scope: &Scope<'_>) -> Result<Report> {
        let ports = &self.context.ports;
        let mut report = Report { at_ms: ports.clock.now_ms(), dry_run: scope.dry_run, ..Report::default() };
        let all = self.tables_in(scope).await?;
        self.streams(scope, &mut report)?;
        // Runs that have read what is deleted now may write it when the pass is over.
        let running = self.under_way().await?;
        let mut is_known = false;
        if !scope.dry_run {
            let streams = scope.tables.is_some().then(|| self.streams_into(scope)).transpose()?;
            let (state, random) = (ports.state.as_ref(), &*ports.random);
            is_known = erasure::remember(state, random, scope.subject, streams, report.at_ms).await?;
            self.settle_files().await?;
        }
        for table in &all {
            if deadline::is_near(ports.clock.as_ref()) {
                report.remaining.push("time was up before all tables were looked at: the same request goes on".into());
                break;
            }
            match table.is_iceberg() {
                true => self.erase_table(scope, table, &mut report).await?,
                false => self.erase_files(scope, table, &mut report).await?,
            }
        }
        if !report.matched && report.remaining.is_empty() {
            let columns: Vec<_> = scope.subject.columns().map(|column| format!("`{column}`")).collect();
            return Err(Error::not_found(format!(
                "no table or stream in question has all of the columns {}",
                columns.join(", ")
            )));
        }
        self.erase_objects(scope, &mut report).await?;
        report.remaining.extend(running);
        report
            .not_reached
            .push("versions of objects that were removed or written anew, where the bucket keeps versions".into());
        report.not_reached.push(
            "log lines; records of runs and `tarn.runs`, which quote rows that broke rules; reasons of refused records, which the status tells for a \
             day; the history of `tarn sql`; files of locations that are in no table; copies outside of the warehouse, such as backups"
                .into(),
        );
        // A batcher at work may not know yet of a subject that is remembered for the first time.
        report.complete = is_known && !report.found() && report.remaining.is_empty();
        if !scope.dry_run {
            self.keep(&mut report).await?;
        }
        Ok(report)
    }

    /// The tables in scope.
    async fn tables_in(&self, scope: &Scope<'_>) -> Result<Vec<Table>> {
        let catalog = &self.context.ports.catalog;
        if let Some(names) = &scope.tables {
            let mut tables = Vec::with_capacity(names.len());
            for name in names {
                tables.push(catalog.get_table(name).await?);
            }
            return Ok(tables);
        }
        let mut tables = Vec::new();
        for database in self.context.project.databases() {
            match catalog.list_tables(database).await {
                Ok(listed) => tables.extend(listed),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tables)
    }

    /// Streams whose table is in scope.
    fn streams_into(&self, scope: &Scope<'_>) -> Result<BTreeSet<String>> {
        let project = &self.context.project;
        let mut streams = BTreeSet::new();
        for name in project.file().streams.keys() {
            if scope.holds(&project.stream_table(name)?) {
                streams.insert(name.clone());
            }
        }
        Ok(streams)
    }

    /// Says of each stream in scope how long it keeps its records.
    fn streams(&self, scope: &Scope<'_>, report: &mut Report) -> Result<()> {
        for name in self.streams_into(scope)? {
            let declared = self.context.project.stream(&name)?;
            let has = |column: &str| declared.schema.iter().any(|own| own.name.eq_ignore_ascii_case(column));
            if scope.subject.columns().all(has) {
                report.matched = true;
                let hours = declared.retention.0.div_ceil(3600);
                report.not_reached.push(format!(
                    "records in the stream `{name}`: it keeps each for {hours} h; those that arrived until now are not written to a table any more"
                ));
            }
        }
        Ok(())
    }

    /// Runs that go on.
    async fn under_way(&self) -> Result<Vec<String>> {
        let mut running = Vec::new();
        for workflow in self.context.project.file().workflows.keys() {
            if let Some(run) = self.leases.runs(workflow).await? {
                running
                    .push(format!("run `{run}` goes on, and may write rows that it has read before: wait for its end"));
            }
        }
        Ok(running)
    }

    async fn keep(&self, report: &mut Report) -> Result<()> {
        let ports = &self.context.ports;
        let url = ports.keys.erasure(&ports.random.uuid_at(report.at_ms).to_string());
        let text =
            serde_json::to_vec(&json!(report)).map_err(|e| Error::bug("a report has no JSON form").with_source(e))?;
        ports.storage.put(&url, text).await?;
        tracing::info!(report = %url, complete = report.complete, "a pass of an erasure is done");
        report.url = Some(ports.storage.address(&url).to_string());
        Ok(())
    }
}
