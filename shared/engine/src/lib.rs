//! The SQL engine: one DataFusion session builder for every function, with the catalog's tables, limits and accounting.
//!
//! A query goes through [`guard`] (one statement, only reading), [`names`] (the tables it names, looked up once), DataFusion's
//! planner and optimizer, the scan limit, an [`Executor`], and [`stats`] (figures, deadline). All of it runs on threads of its own ([`slots`]), a
//! bounded number of statements at once ([`queue`]), and ends when it must ([`stop`], [`watch`]). Memory, spill space and caches of file footers are
//! shared by all queries of an [`Engine`]; stores, and the bytes counted in them, belong to one query. Statements that write
//! are parsed by [`statement`] and run by [`write`].
//!
//! Errors are the statement's (`Invalid`, `NotFound`, `Denied`), those of limits that it met (`Limit`, `Retry`), or defects (`Bug`). What SHOW,
//! DESCRIBE and `information_schema` list: [`information`]; SUMMARIZE: [`summary`].
//!
//! The dialect is DataFusion's generic one: identifiers in double quotes, names lowercase unless quoted, `TRY_CAST`, `::`,
//! `->` on JSON text.

mod bounds;
mod date_bin;
mod date_format;
mod date_trunc;
mod dates;
mod dialect;
mod errors;
mod executor;
mod explain;
mod fields;
mod forms;
mod function_list;
mod functions;
mod guard;
mod information;
mod lambdas;
mod limit;
mod memory;
mod meter;
mod names;
mod quartiles;
mod queries;
mod queue;
mod reading;
mod semantics;
mod session;
mod single;
mod size;
mod slots;
mod sources;
mod split;
mod statement;
mod stats;
mod stop;
mod summary;
mod tables;
mod top;
mod watch;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{EmptyRecordBatchStream, ExecutionPlan};
use datafusion::sql::parser::Statement;
use futures::TryStreamExt;
use tokio::sync::oneshot;
use url::Url;

pub use self::executor::{Executor, LocalExecutor};
use self::meter::Meter;
use self::names::{NamedTables, Names, Resolved, StatementTables};
use self::session::Sessions;
use self::slots::Slots;
use self::statement::Statement as EngineStatement;
use self::stats::Counted;
pub use self::stats::Progress;
use self::stop::Stop;
use self::tables::ScanLog;
pub use self::write::Outcome;
use shared::catalog::declared::Declared;
use shared::config::Settings;
use shared::model::TableName;
use shared::ports::Ports;
use shared::{Error, Principal, Result};
use table::{Read, Tables};
use table_datafusion::with_memory;

/// Runs SQL over the catalog's tables. Cheap to clone; caches are shared between clones and outlive a query.
#[derive(Debug, Clone)]
pub struct Engine {
    ports: Ports,
    /// What is known of tables' metadata outlasts a query.
    tables: Tables,
    sessions: Arc<Sessions>,
    slots: Arc<Slots>,
    executor: Arc<dyn Executor>,
}

/// Share of the memory that metadata of tables may take beside what queries have.
const METADATA_SHARE: u64 = 8;

/// What a query may read and how much.
#[derive(Debug, Clone)]
pub struct QueryOptions {
    /// Who may read and write what the query does.
    pub principal: Principal,
    /// Database of tables that are named without one.
    pub database: String,
    /// The databases that there are for the query; `None`: all of the catalog.
    pub databases: Option<BTreeSet<String>>,
    /// Tables that are read otherwise than whole and current.
    pub inputs: BTreeMap<TableName, Input>,
    /// Refuse a query that would scan more bytes than this; stop one that turns out to.
    pub max_bytes_scanned: Option<u64>,
    /// Stop a query that takes longer.
    pub timeout: Option<Duration>,
    /// Under one key a statement changes a table once, however often it is sent.
    pub idempotency_key: Option<String>,
    /// The program that asks: callers take turns when there is more to do than can run at once.
    pub caller: String,
    /// Text and binary may come as views, and dictionaries as such: nothing is copied for a reader that takes them.
    pub views: bool,
}

impl QueryOptions {
    /// A query of `principal`, without limits.
    pub fn new(principal: Principal) -> Self {
        Self {
            principal,
            database: String::new(),
            databases: None,
            inputs: BTreeMap::new(),
            max_bytes_scanned: None,
            timeout: None,
            idempotency_key: None,
            caller: String::new(),
            views: false,
        }
    }
}

/// What is read in place of a whole table.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Some rows of an Iceberg table.
    Rows(Read),
    /// Only these files of a file table.
    Files(Vec<Url>),
    /// These rows, whatever the catalog has.
    Batches(SchemaRef, Vec<RecordBatch>),
}

/// A running query. Dropping its rows stops it.
pub struct Answer {
    pub schema: SchemaRef,
    /// Text, binary and dictionaries in their plain Arrow types, unless [`QueryOptions::views`] were asked for.
    pub rows: SendableRecordBatchStream,
    /// What was changed, if the statement wrote.
    pub outcome: Option<Outcome>,
    progress: Progress,
}

/// What a statement would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Its command, e.g. `SELECT`, `SHOW`, `INSERT`, `CREATE TABLE AS`.
    pub statement: &'static str,
    /// That of its answer.
    pub schema: SchemaRef,
    /// The tables of the catalog that its rows come from, each once.
    pub reads: Vec<TableName>,
    /// The table that it changes, makes or drops.
    pub writes: Option<TableName>,
}

/// A query that can run.
struct Planned {
    state: SessionState,
    plan: Arc<dyn ExecutionPlan>,
    tables: Vec<Resolved>,
    /// The query that EXPLAIN explains.
    explained: Option<Statement>,
}

/// What a query took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    pub rows: u64,
    /// Bytes asked of storage, of metadata and data; a local file that is read from its start counts whole.
    pub bytes_scanned: u64,
    /// Data files that the plan reads, after pruning.
    pub files_scanned: u64,
    pub spilled_bytes: u64,
    pub elapsed_ms: u64,
}

/// One query under way: what it was asked, its own ports and meter, and when it must end.
struct Run<'a> {
    ports: Ports,
    tables: Tables,
    sql: &'a str,
    options: &'a QueryOptions,
    meter: Arc<Meter>,
    started_ms: i64,
    stop: Arc<Stop>,
    log: ScanLog,
}

/// What statements a call takes.
#[derive(Debug, Clone, Copy)]
enum Admits {
    Reading,
    Everything,
}

/// How far a statement is planned that is described.
#[derive(Debug, Clone, Copy)]
enum Depth {
    /// Until it could run: metadata of tables is read, files are listed.
    Scans,
    /// Until the columns of its answer are known.
    Columns,
}

impl Engine {
    /// # Errors
    /// `Invalid` or `Limit` when memory or spill space can't be set up as asked.
    pub fn open(settings: &Settings, ports: &Ports) -> Result<Self> {
        let room = usize::try_from(settings.memory / METADATA_SHARE).unwrap_or(usize::MAX);
        let sessions = Sessions::open(settings)?;
        let tables = with_memory(Tables::new(ports.clone()).within(room), sessions.memory_pool());
        let slots = Slots::new(sessions.partitions());
        Ok(Self {
            ports: ports.clone(),
            tables,
            sessions: Arc::new(sessions),
            slots,
            executor: Arc::new(LocalExecutor),
        })
    }

    /// The same engine, whose plans run elsewhere.
    #[must_use]
    pub fn with_executor(self, executor: Arc<dyn Executor>) -> Self {
        Self { executor, ..self }
    }

    /// What all queries take their memory out of, for work beside them.
    pub fn memory_pool(&self) -> Arc<dyn MemoryPool> {
        self.sessions.memory_pool()
    }

    /// Plans and starts one statement that reads (SELECT, EXPLAIN, SHOW, DESCRIBE).
    ///
    /// # Errors
    /// `Invalid` with line and column for SQL that does not parse or plan; `NotFound` for an unknown table; `Denied` for a
    /// statement that this call does not run; `Limit` for one that would scan too much, takes too long or unfolds to too much;
    /// `Retry` when too many wait for their turn.
    pub async fn query(&self, sql: &str, options: &QueryOptions) -> Result<Answer> {
        self.start(Admits::Reading, sql, options).await
    }

    /// Runs one statement of any kind. One that writes has run to its end when this returns; its answer is one row that says
    /// what was changed.
    ///
    /// The time that the options give bounds the rows that a statement writes, not the commit that follows: what was
    /// committed is never reported as stopped.
    ///
    /// # Errors
    /// As [`Engine::query`]; `Invalid` for rows that don't fit the table; `Conflict` for a table that exists, or that others
    /// changed in ways that the statement's isolation forbids; `Denied` for statements that nobody may run.
    pub async fn execute(&self, sql: &str, options: &QueryOptions) -> Result<Answer> {
        self.start(Admits::Everything, sql, options).await
    }

    /// What a statement of any kind would do and answer. It is planned, or its table looked up; no row is read and nothing is changed.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub async fn describe(&self, sql: &str, options: &QueryOptions) -> Result<Description> {
        self.look(Depth::Scans, sql, options).await
    }

    /// The columns of a query's answer, as its text and the columns of its tables tell: neither files nor rows are looked at.
    ///
    /// # Errors
    /// As [`Engine::query`]; `Invalid` for a statement that is no query.
    pub async fn columns(&self, sql: &str, options: &QueryOptions) -> Result<SchemaRef> {
        self.look(Depth::Columns, sql, options).await.map(|description| description.schema)
    }

    async fn look(&self, depth: Depth, sql: &str, options: &QueryOptions) -> Result<Description> {
        guard::check_length(sql)?;
        let stop = Stop::after(options.timeout);
        let (engine, sql, options, own) = (self.clone(), sql.to_owned(), options.clone(), Arc::clone(&stop));
        let caller = options.caller.clone();
        let (tell, told) = oneshot::channel();
        let work = async move {
            let run = engine.prepare(&sql, &options, own);
            let described = async {
                match depth {
                    Depth::Scans => run.described(&engine).await,
                    Depth::Columns => run.outlined(&engine).await,
                }
            };
            let description = Box::pin(run.in_time(described)).await?;
            let rows = EmptyRecordBatchStream::new(Arc::clone(&description.schema));
            // An error means that nobody waits any more.
            let _ = tell.send(description);
            run.answer(Box::pin(rows), None)
        };
        self.slots.run(&caller, &stop, work).await?;
        told.await.map_err(|e| Error::bug("the description of a statement got lost").with_source(e))
    }

    /// Runs the statement in a slot. All that goes deep, from its text to the end of its plan, lives and ends there.
    async fn start(&self, admits: Admits, sql: &str, options: &QueryOptions) -> Result<Answer> {
        guard::check_length(sql)?;
        let stop = Stop::after(options.timeout);
        let (engine, sql, options, own) = (self.clone(), sql.to_owned(), options.clone(), Arc::clone(&stop));
        let caller = options.caller.clone();
        let work = async move {
            let run = engine.prepare(&sql, &options, own);
            // The work is deep: on the heap it leaves the stack to the plans.
            Box::pin(run.answered(&engine, admits)).await
        };
        self.slots.run(&caller, &stop, work).await
    }

    fn prepare<'a>(&self, sql: &'a str, options: &'a QueryOptions, stop: Arc<Stop>) -> Run<'a> {
        let meter = Arc::new(Meter::new(options.max_bytes_scanned));
        let storage = meter::metered(&self.ports.storage, &meter);
        let mut ports = Ports { storage, ..self.ports.clone() };
        if let Some(seen) = &options.databases {
            ports.catalog = Arc::new(Declared::new(ports.catalog, seen.clone()));
        }
        Run {
            tables: self.tables.through(ports.clone()),
            ports,
            sql,
            options,
            started_ms: self.ports.clock.now_ms(),
            stop,
            log: ScanLog::default(),
            meter,
        }
    }
}

impl Run<'_> {
    async fn answered(&self, engine: &Engine, admits: Admits) -> Result<Answer> {
        let statement = match admits {
            Admits::Reading => EngineStatement::Reading(guard::parse(self.sql)?),
            Admits::Everything => statement::parse(self.sql)?,
        };
        match statement {
            EngineStatement::Reading(reading) => self.in_time(self.read(engine, reading)).await,
            EngineStatement::Writing(writing) => {
                if !writing.has_rows() {
                    self.go_on_to_commit()?;
                }
                Box::pin(write::run(self, engine, *writing)).await
            }
            EngineStatement::Explain { statement, verbose } => {
                self.in_time(write::explain(self, engine, *statement, verbose)).await
            }
        }
    }

    /// From here on the statement is no longer stopped: it changes something.
    ///
    /// # Errors
    /// `Limit` when it was stopped before.
    fn go_on_to_commit(&self) -> Result<()> {
        if self.stop.commit() { Ok(()) } else { self.stop.check() }
    }

    /// What `work` gives, if it does so before the deadline.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let work = Box::pin(work);
        match self.stop.deadline() {
            None => work.await,
            Some((at, timeout)) => {
                let done = tokio::time::timeout_at(at, work).await;
                done.unwrap_or_else(|_| Err(stats::timed_out(timeout)))
            }
        }
    }

    fn session(&self, engine: &Engine) -> SessionState {
        // Stores that DataFusion reads through are counted there; the storage below them must not count again.
        engine.sessions.start(&self.options.database, &engine.ports.storage, &self.meter, &self.stop)
    }

    /// Gives `state` the tables that the statement names.
    async fn register(
        &self,
        state: &SessionState,
        statement: &mut Statement,
        given: &NamedTables,
    ) -> Result<Vec<Resolved>> {
        let sources = sources::take(statement)?;
        self.names().register(state, statement, StatementTables { sources: &sources, given }).await
    }

    /// A new resolver: it remembers nothing of earlier ones.
    fn names(&self) -> Names<'_> {
        Names::new(&self.ports, &self.tables, self.options, self.sql, &self.log)
    }

    async fn planned(&self, engine: &Engine, mut statement: Statement) -> Result<Planned> {
        let (state, tables) = self.resolved(engine, &mut statement).await?;
        let explained = explain::inner(&statement);
        let plan = self.plan(&state, statement).await?;
        self.check_scan(&state, plan.as_ref())?;
        Ok(Planned { state, plan, tables, explained })
    }

    /// A session that has the tables which the statement names.
    async fn resolved(&self, engine: &Engine, statement: &mut Statement) -> Result<(SessionState, Vec<Resolved>)> {
        functions::rewrite(statement)?;
        let state = self.session(engine);
        let tables = self.register(&state, statement, &NamedTables::new()).await?;
        Ok((state, tables))
    }

    /// # Errors
    /// `Limit` for a plan that would read more than the options allow.
    fn check_scan(&self, state: &SessionState, plan: &dyn ExecutionPlan) -> Result<()> {
        self.options.max_bytes_scanned.map_or(Ok(()), |limit| limit::check(plan, state, limit))
    }

    async fn execute(&self, engine: &Engine, planned: Planned) -> Result<Answer> {
        let Planned { state, plan, tables, explained } = planned;
        let expected_bytes = limit::estimate(plan.as_ref(), &state);
        let rows = engine.executor.start(Arc::clone(&plan), state.task_ctx())?;
        let rows = match explained {
            Some(query) => {
                let reading = self.plan(&state, query).await?;
                explain::with_pruning(rows, explain::pruning(reading.as_ref(), &tables, &self.log))
            }
            None => rows,
        };
        let answer = self.answer(rows, Some(plan))?;
        answer.progress.expect_bytes(expected_bytes);
        Ok(answer)
    }

    async fn plan(&self, state: &SessionState, statement: Statement) -> Result<Arc<dyn ExecutionPlan>> {
        let logical = self.logical(state, statement).await?;
        self.physical(state, &logical).await
    }

    async fn logical(&self, state: &SessionState, statement: Statement) -> Result<LogicalPlan> {
        state.statement_to_plan(statement).await.map_err(|e| self.explained(e))
    }

    async fn physical(&self, state: &SessionState, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let state = semantics::session_for(state, logical);
        state.create_physical_plan(logical).await.map_err(|e| self.explained(e))
    }

    /// The error with its place in the statement.
    fn explained(&self, error: DataFusionError) -> Error {
        errors::of_statement(self.meter.explain(error), self.sql)
    }

    fn answer(&self, rows: SendableRecordBatchStream, plan: Option<Arc<dyn ExecutionPlan>>) -> Result<Answer> {
        let clock = Arc::clone(&self.ports.clock);
        let progress = Progress::new(Arc::clone(&self.meter), plan, clock, self.started_ms);
        let rows = Counted::new(rows, self.options.views, self.stop.deadline_of_answer(), progress.clone());
        let rows: SendableRecordBatchStream = Box::pin(rows);
        Ok(Answer { schema: rows.schema(), rows, outcome: None, progress })
    }
}

/// Each once.
fn names_of(tables: &[Resolved]) -> Vec<TableName> {
    let names: BTreeSet<&TableName> = tables.iter().map(|table| &table.name).collect();
    names.into_iter().cloned().collect()
}

impl Answer {
    /// The figures, which can be asked while the rows run and after they ended.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Runs the query to its end.
    ///
    /// # Errors
    /// `Limit` past memory, time or scan limits; `Invalid` for values that fail at run time (division by zero, casts).
    pub async fn collect(self) -> Result<(Vec<RecordBatch>, Stats)> {
        let batches = self.rows.try_collect().await.map_err(Error::from)?;
        Ok((batches, self.progress.stats()))
    }
}

#[cfg(test)]
mod tests;
