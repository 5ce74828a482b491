//! Whether the SQL of a lakehouse file can be planned: `POST /check`, and `tarn validate` without any table.
//!
//! Jobs, in the order in which they feed each other, then maintenance and insights are planned over tables of which only the columns
//! are known: those that streams declare, that earlier jobs give, and that the catalog has. No file is listed and no row is read. A
//! statement over a table whose columns nobody knows is not checked, which is told, and so are those that read what it makes.
//!
//! A column that is there today stays: tables keep columns that are declared no longer, so what is known of a table only grows.

mod job;
mod known;

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use engine::{Engine, Input, QueryOptions};
use serde::Serialize;
use shared::project::changes::{Change, Effect};
use shared::project::problem::{located, no_column};
use shared::project::sql::Select;
use shared::project::{FieldPath, Insight, Maintenance, Problem, Project};
use shared::{ErrorKind, Principal, Result};
use table::Tables;

use self::known::KnownTables;
use crate::Transform;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What can't be planned: where in the lakehouse file, and why.
    pub problems: Vec<(FieldPath, String)>,
    /// What was not checked, and why.
    pub unchecked: Vec<Unchecked>,
}

/// A part of a lakehouse file that was not checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    pub path: FieldPath,
    pub why: String,
}

/// The answer of `POST /check`.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// What could be planned by the file in force and no longer can: each needs to be allowed.
    pub changes: Vec<Change>,
    /// All that can't be planned, in the order of the text.
    pub problems: Vec<Problem>,
    pub unchecked: Vec<Unchecked>,
}

/// Plans all SQL of a lakehouse file over the tables of a catalog, or over none.
///
/// # Errors
/// `Bug` for a file that was not validated. What catalog and storage answer about a table is told of what reads it.
pub async fn check(project: &Project, engine: &Engine, tables: Option<&Tables>) -> Result<Findings> {
    let known = KnownTables::of(project, tables).await?;
    let mut check = Check { project, engine, known, findings: Findings::default() };
    check.jobs().await?;
    let top = FieldPath::default();
    for (workflow, declared) in &project.file().workflows {
        for (name, maintenance) in &declared.maintenance {
            let path = top.key("workflows").key(workflow).key("maintenance").key(name);
            check.maintenance(&path, maintenance).await?;
        }
    }
    for (name, insight) in &project.file().insights {
        check.insight(&top.key("insights").key(name), insight).await?;
    }
    Ok(check.findings)
}

/// A check under way.
struct Check<'a> {
    project: &'a Project,
    engine: &'a Engine,
    known: KnownTables<'a>,
    findings: Findings,
}

/// A query whose tables are known, as far as they are tables.
struct Checkable {
    options: QueryOptions,
    /// Why a name in it is no table that is known.
    absent: Option<String>,
}

impl Check<'_> {
    fn problem(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.findings.problems.push((path.clone(), message.into()));
    }

    fn leave_out(&mut self, path: &FieldPath, why: String) {
        self.findings.unchecked.push(Unchecked { path: path.clone(), why });
    }

    /// The query with its tables; none when one of them is not known, which is told.
    async fn checkable(&mut self, path: &FieldPath, sql: &str) -> Result<Option<Checkable>> {
        let mut options = QueryOptions {
            database: self.project.database().into(),
            databases: Some(self.project.databases().clone()),
            caller: "check".into(),
            ..QueryOptions::new(Principal::Owner)
        };
        let mut absent = None;
        for table in Select::parse(sql, self.project.database())?.reads {
            match self.known.find(&table).await? {
                known::Found::Columns(schema) => {
                    options.inputs.insert(table, Input::Batches(schema, Vec::new()));
                }
                known::Found::InCatalog => {}
                known::Found::Unknown(why) => {
                    self.leave_out(path, format!("reads `{table}`: {why}"));
                    return Ok(None);
                }
                known::Found::Absent(why) => absent = absent.or_else(|| Some(format!("reads `{table}`: {why}"))),
            }
        }
        Ok(Some(Checkable { options, absent }))
    }

    /// The columns of a query, of which some texts are given that mean the same: the first that can be planned counts. None when none
    /// can, which is told with what is wrong with the first.
    async fn planned(&mut self, path: &FieldPath, query: &Checkable, texts: &[String]) -> Option<SchemaRef> {
        let mut first = None;
        for text in texts {
            match self.engine.columns(text, &query.options).await {
                Ok(schema) => return Some(schema),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            Some(error) if error.kind() == ErrorKind::Invalid => self.problem(path, error.to_string()),
            Some(error) if error.kind() == ErrorKind::NotFound => {
                self.leave_out(path, query.absent.clone().unwrap_or_else(|| error.to_string()));
            }
            Some(error) => self.leave_out(path, error.to_string()),
            None => {}
        }
        None
    }

    /// Columns that are named beside a query.
    fn named<'n>(&mut self, schema: &Schema, names: impl Iterator<Item = (FieldPath, &'n str)>) {
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        for (path, name) in names {
            if !columns.contains(&name) {
                self.problem(&path, no_column(name, &columns));
            }
        }
    }

    async fn maintenance(&mut self, path: &FieldPath, maintenance: &Maintenance) -> Result<()> {
        let Some(compaction) = maintenance.compact.as_ref() else { return Ok(()) };
        let path = path.key("compact");
        let sort = compaction.sort_columns()?;
        let sort = sort.iter().enumerate().map(|(at, by)| (path.key("sort").item(at), by.column.as_str()));
        let z_order =
            compaction.z_order.iter().enumerate().map(|(at, name)| (path.key("z_order").item(at), name.as_str()));
        let names: Vec<(FieldPath, &str)> = sort.chain(z_order).collect();
        if names.is_empty() {
            return Ok(());
        }
        let table = self.project.table_name(&maintenance.table)?;
        match self.known.find(&table).await? {
            known::Found::Columns(schema) => self.named(&schema, names.into_iter()),
            known::Found::InCatalog => self.leave_out(&path, format!("`{table}` is no Iceberg table")),
            known::Found::Unknown(why) | known::Found::Absent(why) => {
                self.leave_out(&path, format!("arranges `{table}`: {why}"))
            }
        }
        Ok(())
    }

    async fn insight(&mut self, path: &FieldPath, insight: &Insight) -> Result<()> {
        let sql = path.key("sql");
        let Some(query) = self.checkable(&sql, &insight.sql).await? else { return Ok(()) };
        let Some(schema) = self.planned(&sql, &query, std::slice::from_ref(&insight.sql)).await else { return Ok(()) };
        let columns = [(path.key("date"), insight.date.as_str()), (path.key("value"), insight.value.as_str())];
        let dimensions = insight.dimensions.iter().enumerate();
        let dimensions = dimensions.map(|(at, name)| (path.key("dimensions").item(at), name.as_str()));
        self.named(&schema, columns.iter().cloned().chain(dimensions));
        let [date, value] = columns;
        let ty = |name: &str| schema.field_with_name(name).ok().map(|field| field.data_type());
        let is_date = |ty: &DataType| matches!(ty, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
        if let Some(ty) = ty(date.1).filter(|ty| !is_date(ty)) {
            self.problem(&date.0, format!("expected a date or timestamp, found `{}` of type {ty}", date.1));
        }
        if let Some(ty) = ty(value.1).filter(|ty| !ty.is_numeric()) {
            self.problem(&value.0, format!("expected a number, found `{}` of type {ty}", value.1));
        }
        Ok(())
    }
}

impl Transform {
    /// What of a lakehouse file can't be planned over the tables that there are, beside what the file in force has wrong too.
    ///
    /// # Errors
    /// As [`check`]; `Invalid` for a `text` that is no YAML.
    pub async fn check(&self, text: &str, next: &Project) -> Result<Checked> {
        let context = &self.context;
        let Findings { problems, unchecked } = check(next, &context.engine, Some(&context.tables)).await?;
        let problems = located(text, problems)?;
        let before: BTreeSet<String> = match problems.is_empty() {
            true => BTreeSet::new(),
            false => {
                let found = check(&context.project, &context.engine, Some(&context.tables)).await?;
                found.problems.iter().map(|(path, _)| path.to_string()).collect()
            }
        };
        let is_new = |problem: &&Problem| !before.contains(&problem.path.to_string());
        let changes = problems.iter().filter(is_new).map(change_of).collect();
        Ok(Checked { changes, problems, unchecked })
    }
}

/// A problem as what a new file changes: it needs to be allowed, since what is planned when it runs fails then.
fn change_of(problem: &Problem) -> Change {
    let path = problem.path.to_string();
    let parts: Vec<&str> = path.split('.').collect();
    let (subject, name, what) = match parts.as_slice() {
        ["workflows", workflow, "jobs" | "maintenance", job, field @ ..] => ("job", format!("{workflow}.{job}"), field),
        ["insights", insight, field @ ..] => ("insight", (*insight).to_owned(), field),
        all => ("file", String::new(), all),
    };
    // Further lines show the place in the SQL.
    let message = problem.message.lines().next().unwrap_or_default();
    let then = format!("it would fail: {message}");
    Change::new(Effect::NeedsAllow, subject, &name, format!("`{}` can't be planned", what.join(".")), then)
}
