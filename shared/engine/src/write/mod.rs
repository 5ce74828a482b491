//! Statements that write: their plans give rows, [`table`] commits them.
//!
//! | statement | what happens |
//! |---|---|
//! | CREATE, DROP | [`define`] |
//! | OPTIMIZE, VACUUM | [`maintenance`] |
//! | ALTER TABLE | [`alter`] |
//! | DELETE, UPDATE, MERGE | [`change`]: a query over rows with their addresses |
//! | INSERT, CREATE TABLE AS | [`insert`]: the rows of the query, in the table's types ([`assign`]), as one commit |
//!
//! A plan runs in the engine's memory; reads are metered as those of queries are.

mod alter;
mod assign;
mod change;
mod define;
mod insert;
mod maintenance;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{Query, Statement};
use futures::StreamExt;
use serde::{Serialize, Serializer};

use self::change::Rows;
pub(super) use self::define::athenas_property;
use self::maintenance::Report;
use super::names::{NamedTables, Resolved};
use super::statement::{Named, Optimize, Writing};
use super::stats::{Counted, Progress};
use super::{Answer, Description, Engine, Run, explain, functions, guard, limit, names_of, semantics};
use shared::catalog::Table as Entry;
use shared::digest::sha256_hex;
use shared::model::TableName;
use shared::ports::Ports;
use shared::principal::Access;
use shared::{Error, ErrorKind, Result};
use table::{Committed, Table, Tables, Token};

/// Longest idempotency key, as for records.
const MAX_KEY_CHARACTERS: usize = 256;

/// What a statement changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Its first words, e.g. `INSERT`.
    pub statement: &'static str,
    /// `database.table`, or a database.
    pub target: String,
    /// The snapshot that holds the change: a number, written as text because few readers of JSON keep all of its digits.
    #[serde(serialize_with = "as_text")]
    pub snapshot_id: Option<i64>,
    pub rows_added: u64,
    pub rows_updated: u64,
    pub rows_deleted: u64,
    /// Why nothing was changed, if nothing was.
    pub note: Option<String>,
}

fn as_text<S: Serializer>(id: &Option<i64>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    id.map(|id| id.to_string()).serialize(serializer)
}

impl Outcome {
    fn new(statement: &'static str, target: impl ToString) -> Self {
        Self { statement, target: target.to_string(), ..Self::default() }
    }

    fn of(statement: &'static str, table: &TableName, committed: &Committed) -> Self {
        Self {
            snapshot_id: Some(committed.snapshot_id).filter(|id| *id != 0),
            rows_added: committed.rows_added,
            rows_updated: committed.rows_updated,
            rows_deleted: committed.rows_deleted,
            ..Self::new(statement, table)
        }
    }

    fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// One row.
    fn batch(&self) -> Result<RecordBatch> {
        let count = |n: u64| -> ArrayRef { Arc::new(Int64Array::from(vec![i64::try_from(n).unwrap_or(i64::MAX)])) };
        Ok(RecordBatch::try_from_iter_with_nullable([
            ("statement", Arc::new(StringArray::from(vec![self.statement])) as ArrayRef, false),
            ("target", Arc::new(StringArray::from(vec![self.target.as_str()])), false),
            ("rows_added", count(self.rows_added), false),
            ("rows_updated", count(self.rows_updated), false),
            ("rows_deleted", count(self.rows_deleted), false),
            ("snapshot_id", Arc::new(Int64Array::from(vec![self.snapshot_id])), true),
            ("note", Arc::new(StringArray::from(vec![self.note.as_deref()])), true),
        ])?)
    }
}

/// Runs the statement to its end.
pub(super) async fn run(run: &Run<'_>, engine: &Engine, statement: Writing) -> Result<Answer> {
    let write = Write::new(run, engine);
    let (outcome, report) = write.execute(statement).await?;
    tracing::info!(
        statement = outcome.statement,
        target = outcome.target,
        snapshot_id = outcome.snapshot_id,
        rows_added = outcome.rows_added,
        rows_updated = outcome.rows_updated,
        rows_deleted = outcome.rows_deleted,
        "statement done"
    );
    let batch = report.map_or_else(|| outcome.batch(), |report| report.batch())?;
    let plan = write.plan.lock().unwrap_or_else(PoisonError::into_inner).take();
    let rows = MemoryStream::try_new(vec![batch.clone()], batch.schema(), None)?;
    let answer = run.answer(Box::pin(rows), plan)?;
    Ok(Answer { outcome: Some(outcome), ..answer })
}

/// What the statement would do, and the plan of its rows. Nothing is written.
pub(super) async fn explain(run: &Run<'_>, engine: &Engine, statement: Writing, verbose: bool) -> Result<Answer> {
    let write = Write::new(run, engine);
    let state = run.session(engine);
    let (effect, plan) = write.planned(&state, &statement).await?;
    let line = |kind: &str, text: String| {
        let column = |text: String| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
        RecordBatch::try_from_iter_with_nullable([
            ("plan_type", column(kind.to_owned()), false),
            ("plan", column(text), false),
        ])
    };
    let first = line("write", effect)?;
    let Some(Source { plan, tables }) = plan else {
        let rows = MemoryStream::try_new(vec![first.clone()], first.schema(), None)?;
        return run.answer(Box::pin(rows), None);
    };
    let explained = LogicalPlanBuilder::from(plan.clone()).explain(verbose, false)?.build()?;
    let explained = state.create_physical_plan(&explained).await.map_err(|e| run.explained(e))?;
    let physical = state.create_physical_plan(&plan).await.map_err(|e| run.explained(e))?;
    let rows = execute_stream(explained, state.task_ctx())?;
    let rows = explain::with_pruning(rows, explain::pruning(physical.as_ref(), &tables, &run.log));
    let schema = rows.schema();
    let first = RecordBatch::try_new(Arc::clone(&schema), first.columns().to_vec())?;
    let rows = futures::stream::once(async { Ok(first) }).chain(rows);
    run.answer(Box::pin(RecordBatchStreamAdapter::new(schema, rows)), None)
}

/// What the statement would do.
pub(super) async fn describe(run: &Run<'_>, engine: &Engine, statement: &Writing) -> Result<Description> {
    let write = Write::new(run, engine);
    let source = match statement {
        // Planning these reads as much as doing them.
        Writing::Optimize(Optimize { table, .. })
        | Writing::Vacuum { table }
        | Writing::Unregister { table }
        | Writing::DropTable { table, if_exists: false, .. } => {
            run.names().named(Access::Write, table).await?;
            None
        }
        _ => write.planned(&run.session(engine), statement).await?.1,
    };
    let schema = match statement {
        Writing::Optimize(_) | Writing::Vacuum { .. } => Report::default().batch()?.schema(),
        _ => Outcome::default().batch()?.schema(),
    };
    let reads = source.map(|source| names_of(&source.tables)).unwrap_or_default();
    let writes = statement.table().map(|table| write.name(table)).transpose()?;
    Ok(Description { statement: statement.command(), schema, reads, writes })
}

/// The rows that a statement writes, and the tables that they come from.
struct Source {
    plan: LogicalPlan,
    tables: Vec<Resolved>,
}

/// One statement under way.
struct Write<'a> {
    run: &'a Run<'a>,
    engine: &'a Engine,
    tables: Tables,
    /// The plan that ran, for the figures.
    plan: Mutex<Option<Arc<dyn ExecutionPlan>>>,
}

/// Whether a statement's work is still to be done.
enum Idempotency {
    /// It is, under this token.
    New(Option<Token>),
    /// It was done under the same idempotency key.
    Done(Outcome),
}

impl<'a> Write<'a> {
    fn new(run: &'a Run<'a>, engine: &'a Engine) -> Self {
        // What is written must not go through stores that only read.
        let ports = Ports { storage: engine.ports.storage.clone(), ..run.ports.clone() };
        Self { run, engine, tables: engine.tables.through(ports), plan: Mutex::new(None) }
    }

    async fn execute(&self, statement: Writing) -> Result<(Outcome, Option<Report>)> {
        let reported = |(outcome, report)| (outcome, Some(report));
        let outcome = match statement {
            Writing::CreateTable(made) => Box::pin(self.create_table(made)).await,
            Writing::DropTable { table, if_exists, purge } => Box::pin(self.drop_table(&table, if_exists, purge)).await,
            Writing::CreateDatabase { name, if_not_exists } => {
                Box::pin(self.create_database(&name, if_not_exists)).await
            }
            Writing::DropDatabase { name, if_exists } => Box::pin(self.drop_database(&name, if_exists)).await,
            Writing::Insert(insert) => Box::pin(self.insert(insert)).await,
            Writing::Register { table, file } => Box::pin(self.register(&table, &file)).await,
            Writing::Unregister { table } => Box::pin(self.unregister(&table)).await,
            Writing::Alter { table, alterations } => Box::pin(self.alter(&table, alterations)).await,
            Writing::Delete(delete) => Box::pin(self.change(Rows::Delete(&delete))).await,
            Writing::Update(update) => Box::pin(self.change(Rows::Update(&update))).await,
            Writing::Merge(merge) => Box::pin(self.change(Rows::Merge(&merge))).await,
            Writing::Optimize(asked) => return Box::pin(self.optimize(&asked, false)).await.map(reported),
            Writing::Vacuum { table } => return Box::pin(self.vacuum(&table, false)).await.map(reported),
        };
        Ok((outcome?, None))
    }

    /// What the statement would do, and the plan of its rows.
    async fn planned(&self, state: &SessionState, statement: &Writing) -> Result<(String, Option<Source>)> {
        match statement {
            Writing::Insert(insert) => {
                let table = self.iceberg(&insert.table).await?;
                let source = self.inserted(state, insert, &table).await?;
                Ok((insert.effect(table.name()), Some(source)))
            }
            Writing::Delete(delete) => self.planned_change(Rows::Delete(delete)).await,
            Writing::Update(update) => self.planned_change(Rows::Update(update)).await,
            Writing::Merge(merge) => self.planned_change(Rows::Merge(merge)).await,
            Writing::CreateTable(made) => self.creation(state, made).await,
            Writing::Alter { table, alterations } => {
                let (table, changes) = self.alterations(table, alterations).await?;
                let changes: Vec<_> = changes.iter().map(|change| format!("{change:?}")).collect();
                Ok((format!("change the table {}: {}", table.name(), changes.join("; ")), None))
            }
            Writing::Register { table, file } => {
                Ok((format!("register the table {} as `{file}` has it", self.name(table)?), None))
            }
            Writing::Unregister { table } => {
                Ok((format!("take the table {} out of the catalog and leave its files", self.name(table)?), None))
            }
            Writing::DropTable { table, .. } => Ok((format!("drop the table {}", self.name(table)?), None)),
            Writing::CreateDatabase { name, .. } => Ok((format!("create the database {name}"), None)),
            Writing::DropDatabase { name, .. } => Ok((format!("drop the database {name}"), None)),
            Writing::Vacuum { table } => Ok((self.vacuum(table, true).await?.1.text(), None)),
            Writing::Optimize(asked) => Ok((self.optimize(asked, true).await?.1.text(), None)),
        }
    }

    async fn planned_change(&self, rows: Rows<'_>) -> Result<(String, Option<Source>)> {
        let table = self.iceberg(rows.table()).await?;
        let (_, source) = self.changed(rows, &table).await?;
        Ok((rows.effect(&table), Some(source)))
    }

    fn name(&self, named: &Named) -> Result<TableName> {
        named.resolve(&self.run.options.database)
    }

    /// The Iceberg table that a statement changes.
    ///
    /// # Errors
    /// `NotFound` with its place; `Invalid` for a table of files.
    async fn iceberg(&self, named: &Named) -> Result<Table> {
        let (name, entry) = self.run.names().named(Access::Write, named).await?;
        if !entry.is_iceberg() {
            return Err(of_files(&name));
        }
        self.tables.open(Entry::clone(&entry)).await
    }

    /// Plans a query whose rows are to be written.
    async fn query(&self, state: &SessionState, query: &Query, given: &NamedTables) -> Result<Source> {
        guard::check_query(query)?;
        let mut statement = Parsed::Statement(Box::new(Statement::Query(Box::new(query.clone()))));
        functions::rewrite(&mut statement)?;
        let tables = self.run.register(state, &mut statement, given).await?;
        let plan = state.statement_to_plan(statement).await.map_err(|e| self.run.explained(e))?;
        // The types of the columns are right once the plan was analyzed.
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {});
        Ok(Source { plan: plan.map_err(|e| self.run.explained(e))?, tables })
    }

    /// The plan of [`Write::query`], or one that asks for nothing that analysis would change, as it is run.
    fn optimized(&self, state: &SessionState, plan: &LogicalPlan) -> Result<LogicalPlan> {
        state.optimizer().optimize(plan.clone(), state, |_, _| {}).map_err(|e| self.run.explained(e))
    }

    /// Starts the plan; its rows end with the statement's time, and are read within its limits.
    async fn start(&self, state: &SessionState, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
        let state = &semantics::session_for(state, plan);
        let plan = self.optimized(state, plan)?;
        let plan = state.query_planner().create_physical_plan(&plan, state).await;
        let plan = plan.map_err(|e| self.run.explained(e))?;
        if let Some(limit) = self.run.options.max_bytes_scanned {
            limit::check(plan.as_ref(), state, limit)?;
        }
        let rows = self.engine.executor.start(Arc::clone(&plan), state.task_ctx())?;
        let (meter, clock) = (Arc::clone(&self.run.meter), Arc::clone(&self.run.ports.clock));
        let progress = Progress::new(meter, None, clock, self.run.started_ms);
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
        let rows = Counted::new(rows, false, self.run.stop.deadline(), progress);
        Ok(Box::pin(rows.before_commit(&self.run.stop)))
    }

    /// What the table is to remember of the statement, if it has an idempotency key.
    ///
    /// # Errors
    /// `Invalid` for a key that can't be.
    fn token(&self) -> Result<Option<Token>> {
        let Some(key) = &self.run.options.idempotency_key else { return Ok(None) };
        let characters = key.chars().count();
        if !(1..=MAX_KEY_CHARACTERS).contains(&characters) {
            return Err(Error::invalid(format!(
                "expected an idempotency key of 1 to {MAX_KEY_CHARACTERS} characters, found {characters}"
            )));
        }
        let value = hash(&format!("{}\n{}", self.run.options.database, self.run.sql));
        Ok(Some(Token { key: format!("sql.{}", hash(key)), expected: None, value }))
    }

    /// Whether the table remembers the statement.
    ///
    /// # Errors
    /// `Invalid` for a key that can't be, `Conflict` for one that another statement had.
    fn idempotency(&self, statement: &'static str, table: &Table) -> Result<Idempotency> {
        let Some(token) = self.token()? else { return Ok(Idempotency::New(None)) };
        match table.token(&token.key) {
            None => Ok(Idempotency::New(Some(token))),
            Some(found) if found == token.value => {
                let snapshot = table.history().into_iter().find(|s| s.summary.get(&token.key) == Some(&token.value));
                let outcome = Outcome { snapshot_id: snapshot.map(|s| s.id), ..Outcome::new(statement, table.name()) };
                Ok(Idempotency::Done(outcome.noted("done before under this idempotency key")))
            }
            Some(_) => {
                Err(Error::conflict("expected the statement that this idempotency key came with first, found another"))
            }
        }
    }

    /// What a commit gave; when somebody else's was found to have done this statement's work, that.
    async fn settled(&self, statement: &'static str, table: &Table, committed: Result<Committed>) -> Result<Outcome> {
        match committed {
            Ok(committed) => Ok(Outcome::of(statement, table.name(), &committed)),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                match self.idempotency(statement, &table.reload().await?)? {
                    Idempotency::Done(outcome) => Ok(outcome),
                    Idempotency::New(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// `Invalid` when the request has an idempotency key, which nothing could remember.
    fn without_key(&self, statement: &str, instead: &str) -> Result<()> {
        match self.run.options.idempotency_key {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!("expected no idempotency key with {statement}: {instead}"))),
        }
    }
}

fn of_files(name: &TableName) -> Error {
    Error::invalid(format!(
        "`{name}` is a table of files, which a crawl registers and this only reads: expected an Iceberg table"
    ))
}

fn hash(text: &str) -> String {
    sha256_hex(text, 16)
}

#[cfg(test)]
mod tests;
