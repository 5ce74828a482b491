//! The jobs of a lakehouse file, each after those that make what it reads.

use std::collections::BTreeMap;

use shared::Result;
use shared::model::TableName;
use shared::project::sql::Select;
use shared::project::{FieldPath, Job, RuleCheck, Workflow};

use super::{Check, Checkable};
use crate::job::columns;
use crate::{parameters, quality};

/// A date that any may be.
const SOME_DATE: &str = "2026-01-31";

/// A job that is yet to be checked.
struct Waiting<'a> {
    path: FieldPath,
    workflow: &'a Workflow,
    job: &'a Job,
    reads: Vec<TableName>,
    into: TableName,
}

impl Check<'_> {
    pub(super) async fn jobs(&mut self) -> Result<()> {
        let project = self.project;
        let mut waiting = Vec::new();
        for (name, workflow) in &project.file().workflows {
            let path = FieldPath::default().key("workflows").key(name).key("jobs");
            for (job_name, job) in &workflow.jobs {
                let reads = Select::parse(&job.sql, project.database())?.reads.into_iter().collect();
                let into = project.table_name(&job.into)?;
                waiting.push(Waiting { path: path.key(job_name), workflow, job, reads, into });
            }
        }
        while !waiting.is_empty() {
            // What a job reads of its own table is what it wrote before.
            let is_ready = |(at, one): (usize, &Waiting<'_>)| {
                let mut others = waiting.iter().enumerate().filter(|(other, _)| *other != at);
                let is_ready = others.all(|(_, other)| other.into == one.into || !one.reads.contains(&other.into));
                is_ready.then_some(at)
            };
            match waiting.iter().enumerate().find_map(is_ready) {
                Some(at) => {
                    let next = waiting.swap_remove(at);
                    self.job(&next).await?;
                }
                None => {
                    for Waiting { path, into, .. } in std::mem::take(&mut waiting) {
                        let why = "it is made of what is made of it".to_owned();
                        self.known.forget(&into, why);
                        self.leave_out(&path.key("sql"), "reads what is made of its own table".into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Plans a job and its rules; its table has the columns from then on.
    async fn job(&mut self, waiting: &Waiting<'_>) -> Result<()> {
        let Waiting { path, workflow, job, into, .. } = waiting;
        let sql = path.key("sql");
        let failed = || format!("`{sql}`, which makes it, could not be planned");
        let Some(query) = self.checkable(&sql, &job.sql).await? else {
            self.known.forget(into, failed());
            return Ok(());
        };
        let texts = texts(workflow, |values| parameters::substitute(&job.sql, values))?;
        let texts = texts.into_iter().chain(parameters::without_values(&job.sql)).collect::<Vec<_>>();
        let Some(schema) = self.planned(&sql, &query, &texts).await else {
            self.known.forget(into, failed());
            return Ok(());
        };
        let key = job.key.iter().enumerate().map(|(at, name)| (path.key("key").item(at), name.as_str()));
        let partition_by = job.partition_by.iter().enumerate();
        let partition_by = partition_by.map(|(at, field)| (path.key("partition_by").item(at), field.column.as_str()));
        self.named(&schema, key.chain(partition_by));
        self.rules(waiting, &query, &schema).await?;
        let added = match columns(&schema) {
            Ok(columns) => self.known.add(into, &columns).await,
            Err(error) => Err(error),
        };
        if let Err(error) = added {
            match error.kind() {
                shared::ErrorKind::Invalid => self.problem(&sql, format!("its rows can't go into `{into}`: {error}")),
                _ => self.leave_out(&path.key("into"), error.to_string()),
            }
            self.known.forget(into, failed());
        }
        Ok(())
    }

    async fn rules(
        &mut self,
        waiting: &Waiting<'_>,
        query: &Checkable,
        schema: &arrow::datatypes::Schema,
    ) -> Result<()> {
        let Waiting { path, workflow, job, .. } = waiting;
        for (at, rule) in job.quality.iter().enumerate() {
            let check = path.key("quality").item(at).key("check");
            match &rule.check {
                RuleCheck::Row(condition) => {
                    let flagged = |sql: String, condition: String| {
                        let mut rule = rule.clone();
                        rule.check = RuleCheck::Row(condition);
                        quality::with_flags(&sql, std::slice::from_ref(&rule))
                    };
                    let mut all = texts(workflow, |values| {
                        let condition = parameters::substitute(condition, values)?;
                        Ok(flagged(parameters::substitute(&job.sql, values)?, condition))
                    })?;
                    let (sql, plain) = (parameters::without_values(&job.sql), parameters::without_values(condition));
                    if sql.is_some() || plain.is_some() {
                        let sql = sql.unwrap_or_else(|| job.sql.clone());
                        all.push(flagged(sql, plain.unwrap_or_else(|| condition.clone())));
                    }
                    self.planned(&check.key("row"), query, &all).await;
                }
                RuleCheck::Completeness { column, .. } => {
                    self.named(schema, std::iter::once((check.key("completeness").key("column"), column.as_str())));
                }
                RuleCheck::Unique(unique) => {
                    let path = check.key("unique");
                    self.named(schema, unique.iter().enumerate().map(|(at, name)| (path.item(at), name.as_str())));
                }
                RuleCheck::RowCount { .. } => {}
            }
        }
        Ok(())
    }
}

/// A text with the values that the workflow declares.
fn texts(workflow: &Workflow, text: impl Fn(&BTreeMap<String, String>) -> Result<String>) -> Result<Vec<String>> {
    let values = parameters::resolve(&workflow.parameters, &BTreeMap::new(), "run", SOME_DATE)?;
    Ok(vec![text(&values)?])
}
