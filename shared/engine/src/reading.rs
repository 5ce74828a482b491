//! Statements that read: their answers, and what is said of them before they run.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Ast;

use super::guard::Reading;
use super::statement::{self, Statement as EngineStatement};
use super::summary::{self, Summary};
use super::{
    Answer, Description, Engine, Planned, Run, explain, function_list, guard, information, names_of, semantics, stats,
    write,
};
use shared::{Error, Result};

impl Run<'_> {
    pub(super) async fn read(&self, engine: &Engine, reading: Reading) -> Result<Answer> {
        match reading {
            Reading::Catalog(statement) => self.told(self.shown(engine, &statement).await?),
            Reading::Columns(statement) => {
                let planned = self.planned(engine, statement).await?;
                let schema = stats::answer_schema(&planned.plan.schema(), self.options.views);
                self.told(information::of_schema(&schema)?)
            }
            Reading::Summary(statement) => {
                let (Planned { state, plan, .. }, summary) = self.summed_up(engine, statement).await?;
                let figures = engine.executor.start(Arc::clone(&plan), state.task_ctx())?;
                self.answer(summary.rows(figures), Some(plan))
            }
            Reading::Query(statement) => self.execute(engine, self.planned(engine, statement).await?).await,
        }
    }

    pub(super) async fn described(&self, engine: &Engine) -> Result<Description> {
        let explained = |statement: &Statement| explain::inner(statement).is_some();
        match statement::parse(self.sql)? {
            EngineStatement::Reading(Reading::Catalog(statement)) => {
                let schema = self.shown(engine, &statement).await?.schema();
                let command = if matches!(*statement, Ast::ExplainTable { .. }) { "DESCRIBE" } else { "SHOW" };
                Ok(Description { statement: command, schema, reads: Vec::new(), writes: None })
            }
            EngineStatement::Reading(Reading::Query(statement)) => {
                let command = if explained(&statement) { "EXPLAIN" } else { "SELECT" };
                let planned = self.planned(engine, statement).await?;
                let schema = stats::answer_schema(&planned.plan.schema(), self.options.views);
                Ok(Description { statement: command, schema, reads: names_of(&planned.tables), writes: None })
            }
            EngineStatement::Reading(Reading::Columns(statement)) => {
                let planned = self.planned(engine, statement).await?;
                let schema = information::of_schema(&planned.plan.schema())?.schema();
                Ok(Description { statement: "DESCRIBE", schema, reads: Vec::new(), writes: None })
            }
            EngineStatement::Reading(Reading::Summary(statement)) => {
                let (planned, _) = self.summed_up(engine, statement).await?;
                let (schema, reads) = (summary::schema(), names_of(&planned.tables));
                Ok(Description { statement: "SUMMARIZE", schema, reads, writes: None })
            }
            EngineStatement::Writing(writing) => write::describe(self, engine, &writing).await,
            EngineStatement::Explain { statement, .. } => {
                let description = write::describe(self, engine, &statement).await?;
                Ok(Description { statement: "EXPLAIN", schema: explain::schema(), writes: None, ..description })
            }
        }
    }

    /// What a query would answer, without a plan of its scans.
    pub(super) async fn outlined(&self, engine: &Engine) -> Result<Description> {
        let Reading::Query(mut statement) = guard::parse(self.sql)? else {
            return Err(Error::invalid("expected a query, found another statement that reads"));
        };
        let (state, tables) = self.resolved(engine, &mut statement).await?;
        let logical = self.logical(&state, statement).await?;
        let state = semantics::session_for(&state, &logical);
        let logical = state.optimize(&logical).map_err(|e| self.explained(e))?;
        let schema = stats::answer_schema(logical.schema().inner(), self.options.views);
        Ok(Description { statement: "SELECT", schema, reads: names_of(&tables), writes: None })
    }

    /// The answer of SHOW or DESCRIBE.
    async fn shown(&self, engine: &Engine, statement: &Ast) -> Result<RecordBatch> {
        match statement {
            Ast::ShowFunctions { filter } => function_list::show(engine.sessions.functions(), filter.as_ref()),
            statement => information::answer(&self.names(), statement).await,
        }
    }

    /// The plan that finds a query's figures.
    async fn summed_up(&self, engine: &Engine, mut statement: Statement) -> Result<(Planned, Summary)> {
        let (state, tables) = self.resolved(engine, &mut statement).await?;
        let query = self.logical(&state, statement).await?;
        let (summary, logical) = Summary::of(&state, query).map_err(|e| self.explained(e))?;
        let plan = self.physical(&state, &logical).await?;
        self.check_scan(&state, plan.as_ref())?;
        Ok((Planned { state, plan, tables, explained: None }, summary))
    }

    /// The answer that a batch is.
    fn told(&self, batch: RecordBatch) -> Result<Answer> {
        let schema = batch.schema();
        self.answer(Box::pin(MemoryStream::try_new(vec![batch], schema, None)?), None)
    }
}
