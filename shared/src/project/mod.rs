//! The lakehouse file `lakehouse.yaml`: what the user declares, and what it means once validated as a whole.
//!
//! [`file`] holds the raw shape (serde, JSON Schema); [`units`] the small texts in it (sizes, durations, schedules,
//! partition fields); [`Project`] is the validated result that every function reads; [`lineage`] says what feeds what.
//!
//! A text becomes a tree that knows its lines (`tree`), the tree is held against the JSON Schema of the types (`shape`), then
//! against what must hold between its parts (`rules`): each step reports all that it finds.

pub mod changes;
pub mod file;
pub mod lineage;
pub mod maintenance;
pub mod parameters;
pub mod problem;
mod rules;
mod shape;
pub mod sql;
pub mod switch;
mod tree;
pub mod units;

pub use file::{
    Buffering, Format, Insight, InsightKind, Job, LakehouseFile, Location, Mode, OnDelete, OnSchemaChange,
    OnSourceDelete, QualityAction, QualityRule, RuleCheck, StreamDeclaration, Workflow, Write,
};
pub use lineage::{Lineage, job_needs};
pub use maintenance::{Compaction, DEFAULT_WORKFLOW, Expiry, Maintenance, MaintenancePolicy, OrphanRemoval};
pub use problem::Problem;
pub use switch::{Switch, Switched};
pub use tree::Path as FieldPath;
pub use units::{ByteSize, Schedule, Seconds};

use std::collections::BTreeSet;
use std::path::Path;

use url::Url;

use self::rules::Rules;
use self::shape::Shape;
use self::tree::Node;
use crate::model::{Keys, TableName};
use crate::{Error, Result};

/// A lakehouse file that was validated as a whole: names are identifiers, every reference leads somewhere, units are in range.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    file: LakehouseFile,
    databases: BTreeSet<String>,
}

impl Project {
    /// Parses and validates `text`; `origin` names it in errors.
    ///
    /// # Errors
    /// `Invalid`, with every problem found: line, path, what was expected and what was found.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let root = Node::parse(text).map_err(|e| e.context(format!("`{origin}`")))?;
        let problems = Shape::check(&json_schema(), &root);
        if !problems.is_empty() {
            return Err(refusal(origin, problems));
        }
        // The shape fits; what could still be refused here, the deserializer knows the place of.
        let mut file: LakehouseFile =
            serde_saphyr::from_str(text).map_err(|e| Error::invalid(format!("`{origin}`: {e}")))?;
        let problems = Rules::check(&file, &root);
        if !problems.is_empty() {
            return Err(refusal(origin, problems));
        }
        if let Some(policy) = file.maintenance.on()
            && let Some(workflow) = policy.workflow(&file).map_err(|e| e.context(format!("`{origin}`")))?
        {
            file.workflows.insert(DEFAULT_WORKFLOW.into(), workflow);
        }
        let databases = lineage::databases(&file).map_err(|e| e.context(format!("`{origin}`")))?;
        Ok(Self { file, databases })
    }

    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// `NotFound` without the file, otherwise as [`Project::parse`].
    pub fn load(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::from(e).context(format!("reading the lakehouse file `{origin}`")))?;
        Self::parse(&text, &origin)
    }

    /// The declaration as it was written, defaults filled in: also the workflow [`DEFAULT_WORKFLOW`].
    pub fn file(&self) -> &LakehouseFile {
        &self.file
    }

    /// Database of every table that is named without one.
    pub fn database(&self) -> &str {
        &self.file.database
    }

    /// The table of the workflows' runs.
    ///
    /// # Errors
    /// None: the name was validated.
    pub fn runs_table(&self) -> Result<TableName> {
        TableName::new(&self.file.system_database, "runs")
    }

    /// Databases of all tables that the lakehouse writes or reads: its own, the one about itself, and those that it names.
    pub fn databases(&self) -> &BTreeSet<String> {
        &self.databases
    }

    /// # Errors
    /// `NotFound`, with the names that there are.
    pub fn stream(&self, name: &str) -> Result<&StreamDeclaration> {
        self.file.streams.get(name).ok_or_else(|| unknown("stream", name, self.file.streams.keys()))
    }

    /// The table that a stream ends in.
    ///
    /// # Errors
    /// `NotFound` for an unknown stream.
    pub fn stream_table(&self, name: &str) -> Result<TableName> {
        let stream = self.stream(name)?;
        self.table_name(stream.table.as_deref().unwrap_or(name))
    }

    /// # Errors
    /// `NotFound`, with the names that there are.
    pub fn location(&self, name: &str) -> Result<&Location> {
        self.file.locations.get(name).ok_or_else(|| unknown("location", name, self.file.locations.keys()))
    }

    /// The folder that a location crawls, with a final slash.
    ///
    /// # Errors
    /// `NotFound` for an unknown location; `Invalid` when its path is no URL.
    pub fn location_url(&self, name: &str, keys: &Keys) -> Result<Url> {
        let Some(path) = &self.location(name)?.path else { return Ok(keys.raw(name)) };
        let mut url = keys.root().join(path).map_err(|e| {
            Error::invalid(format!("location `{name}`: expected a URL or a path in the warehouse, found `{path}`"))
                .with_source(e)
        })?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(url)
    }

    /// # Errors
    /// `NotFound`, with the names that there are.
    pub fn workflow(&self, name: &str) -> Result<&Workflow> {
        self.file.workflows.get(name).ok_or_else(|| unknown("workflow", name, self.file.workflows.keys()))
    }

    /// Whether a workflow is the one that keeps tables by default, not one that the file declares.
    pub fn keeps_by_default(&self, workflow: &str) -> bool {
        workflow == DEFAULT_WORKFLOW && self.file.maintenance.on().is_some()
    }

    /// # Errors
    /// `NotFound`, with the names that there are.
    pub fn insight(&self, name: &str) -> Result<&Insight> {
        self.file.insights.get(name).ok_or_else(|| unknown("insight", name, self.file.insights.keys()))
    }

    /// `table` or `database.table` in the words of this lakehouse.
    ///
    /// # Errors
    /// `Invalid` when it is neither.
    pub fn table_name(&self, text: &str) -> Result<TableName> {
        TableName::parse(text, &self.file.database)
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Error {
    let known: Vec<_> = known.map(|n| format!("`{n}`")).collect();
    let known =
        if known.is_empty() { "none is declared".into() } else { format!("expected one of {}", known.join(", ")) };
    Error::not_found(format!("no {what} `{name}` in the lakehouse file: {known}"))
}

/// All problems in one error, in the order of the text.
fn refusal(origin: &str, mut problems: Vec<Problem>) -> Error {
    problems.sort_by_key(|problem| problem.place);
    problem::refusal(origin, &problems)
}

/// The JSON Schema of the lakehouse file, for editors.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(LakehouseFile).to_value()
}

#[cfg(test)]
mod tests;
