//! What a proposal changes in the catalog: pure, so that it can be decided again when somebody else changed the table first.

use std::collections::BTreeMap;

use format::folders::below_folder;
use format::{Encoding, declared_columns, listing};
use shared::catalog::{Partition, StorageDescriptor, Table, TableInput};
use shared::model::{Column, ColumnType, TableName};
use shared::project::OnSchemaChange;
use url::Url;

use crate::group::{Group, Proposal, fit_untyped};
use crate::partitions::key_type;

/// Marks tables and partitions whose files are gone; its value is the time in milliseconds since the epoch.
pub const DEPRECATED: &str = "DEPRECATED_BY_CRAWLER";
/// Names the location whose crawl wrote the table last.
pub const UPDATED: &str = "UPDATED_BY_CRAWLER";

/// Parameters that a crawl sets anew each time; all others are the user's.
const OWN: [&str; 15] = [
    "classification",
    "compressionType",
    "typeOfData",
    "areColumnsQuoted",
    "columnsOrdered",
    "delimiter",
    "skip.header.line.count",
    listing::EXCLUSIONS,
    "tarn.athena",
    "tarn.columns",
    "tarn.json",
    "tarn.null",
    "tarn.newlines",
    listing::PATH,
    "tarn.quote",
];

/// What is the same for all tables of a crawl.
#[derive(Debug, Clone)]
pub struct Terms {
    pub location: String,
    pub description: Option<String>,
    pub exclude: Vec<String>,
    pub policy: OnSchemaChange,
}

/// What is to be done with a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Create(Box<TableInput>),
    /// With the version that the table must still have.
    Update(Box<TableInput>, String),
    Keep,
}

/// A decision and what it means in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub decision: Decision,
    pub details: Vec<String>,
}

/// Decides for one table that lies at `url`.
///
/// # Errors
/// Why the files can't be `existing`'s, in words.
pub fn plan(
    existing: Option<&Table>,
    name: &TableName,
    url: &Url,
    proposal: &Proposal,
    terms: &Terms,
) -> Result<Plan, String> {
    let Some(table) = existing else {
        let input = new_table(name, url, proposal, terms);
        return Ok(Plan { decision: Decision::Create(Box::new(input)), details: Vec::new() });
    };
    let known = Group::of_table(&table.input).map_err(|error| error.to_string())?;
    let merged = known.clone().join(proposal.group.clone())?;
    let changes = changes(&table.input.storage.columns, &merged);
    let mut details: Vec<String> = changes.into_iter().map(|change| told(change, terms.policy)).collect();
    let group = match terms.policy {
        OnSchemaChange::Update => merged,
        OnSchemaChange::MergeNewColumns => only_new_columns(known, merged),
        OnSchemaChange::Log => known,
    };
    let input = updated(&table.input, group, proposal, terms);
    details.extend(key_changes(&table.input, &input));
    let decision =
        if input == table.input { Decision::Keep } else { Decision::Update(Box::new(input), table.version.clone()) };
    Ok(Plan { decision, details })
}

fn new_table(name: &TableName, url: &Url, proposal: &Proposal, terms: &Terms) -> TableInput {
    let bare = TableInput {
        name: name.clone(),
        description: terms.description.clone(),
        table_type: "EXTERNAL_TABLE".into(),
        parameters: BTreeMap::from([("EXTERNAL".into(), "TRUE".into())]),
        storage: StorageDescriptor { location: url.to_string(), ..StorageDescriptor::default() },
        partition_keys: proposal.layout.keys.clone(),
    };
    updated(&bare, proposal.group.clone(), proposal, terms)
}

/// The table's definition with another format and other columns; what else stands in it stays.
fn updated(before: &TableInput, group: Group, proposal: &Proposal, terms: &Terms) -> TableInput {
    let names: Vec<&str> = group.columns.iter().map(|column| column.name.as_str()).collect();
    let declaration = group.format.declaration(&names);
    let mut storage = declaration.storage(&before.storage.location);
    storage.columns = columns(&before.storage.columns, &group);
    storage.parameters = kept(&before.storage.parameters);
    storage.parameters.extend(declaration.parameters.clone());
    if !matches!(group.format.encoding, Encoding::Csv(_)) {
        let renamed = group.columns.iter().filter(|column| column.source != column.name);
        storage.serde_parameters.extend(renamed.map(|c| (format!("mapping.{}", c.name), c.source.clone())));
    }
    let mut parameters = kept(&before.parameters);
    parameters.extend(declaration.parameters);
    parameters.insert(UPDATED.into(), terms.location.clone());
    parameters.extend(fit_untyped(&group));
    parameters.extend(exclusions(&terms.exclude).map(|patterns| (listing::EXCLUSIONS.to_owned(), patterns)));
    if !proposal.path.is_empty() {
        parameters.insert(listing::PATH.into(), proposal.path.clone());
    }
    let partition_keys = keys(&before.partition_keys, proposal);
    TableInput { parameters, storage, partition_keys, ..before.clone() }
}

/// The parameter's text for the location's patterns, if it has any.
pub fn exclusions(patterns: &[String]) -> Option<String> {
    (!patterns.is_empty()).then(|| serde_json::Value::from(patterns.to_vec()).to_string())
}

fn kept(parameters: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = |name: &str| OWN.contains(&name) || name == DEPRECATED || name == crate::group::UNTYPED;
    parameters.iter().filter(|(name, _)| !own(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The group's columns, with the comments of those before.
fn columns(before: &[Column], group: &Group) -> Vec<Column> {
    let mut columns = declared_columns(&group.columns);
    for column in &mut columns {
        if let Some(known) = before.iter().find(|known| known.name == column.name) {
            column.comment.clone_from(&known.comment);
            column.required = known.required;
        }
    }
    columns
}

/// The keys, as wide as the new values need.
fn keys(before: &[Column], proposal: &Proposal) -> Vec<Column> {
    let mut keys = before.to_vec();
    for (position, key) in keys.iter_mut().enumerate() {
        let values = proposal.layout.folders.iter().filter_map(|(_, values)| values.get(position).map(String::as_str));
        let found = key_type(&key.name, values);
        let fits = found == key.ty || key.ty == ColumnType::String || proposal.layout.folders.is_empty();
        let both_numbers = found == ColumnType::Int && key.ty == ColumnType::BigInt;
        if !fits && !both_numbers {
            key.ty = ColumnType::String;
        }
    }
    keys
}

/// The known columns as they are and, behind them, those that only the merged ones have.
fn only_new_columns(known: Group, merged: Group) -> Group {
    let new = merged.columns.into_iter().filter(|c| !known.columns.iter().any(|k| k.name == c.name));
    let columns = known.columns.iter().cloned().chain(new).collect();
    known.with(columns, merged.format)
}

/// A change in words, with the policy if that keeps it out.
fn told(change: ColumnChange, policy: OnSchemaChange) -> String {
    let kept_out_by = match (policy, change.adds) {
        (OnSchemaChange::Update, _) | (OnSchemaChange::MergeNewColumns, true) => return change.text,
        (OnSchemaChange::MergeNewColumns, false) => "merge_new_columns",
        (OnSchemaChange::Log, _) => "log",
    };
    format!("{} (not applied: `on_schema_change` is `{kept_out_by}`)", change.text)
}

/// Partition keys that become text, in words.
fn key_changes(before: &TableInput, now: &TableInput) -> Vec<String> {
    let keys = before.partition_keys.iter().zip(&now.partition_keys).filter(|(before, now)| before.ty != now.ty);
    keys.map(|(before, now)| format!("partition key `{}` changed from {} to {}", now.name, before.ty, now.ty)).collect()
}

/// A column that is added or becomes wider.
struct ColumnChange {
    adds: bool,
    text: String,
}

fn changes(before: &[Column], merged: &Group) -> Vec<ColumnChange> {
    let mut changes = Vec::new();
    for column in declared_columns(&merged.columns) {
        match before.iter().find(|known| known.name == column.name) {
            None => {
                let text = format!("column `{}` added as {}", column.name, column.ty);
                changes.push(ColumnChange { adds: true, text });
            }
            Some(known) if known.ty != column.ty => {
                let text = format!("column `{}` changed from {} to {}", column.name, known.ty, column.ty);
                changes.push(ColumnChange { adds: false, text });
            }
            Some(_) => {}
        }
    }
    changes
}

/// The partitions of a proposal under a table; they inherit its schema and format.
pub fn partitions(table: &TableInput, table_url: &Url, proposal: &Proposal) -> Vec<Partition> {
    let of_folder = |(folder, values): &(String, Vec<String>)| {
        let mut storage = table.storage.clone();
        storage.location = below_folder(table_url, &format!("{folder}/")).to_string();
        Partition { values: values.clone(), storage, parameters: BTreeMap::new() }
    };
    if table.partition_keys.is_empty() { Vec::new() } else { proposal.layout.folders.iter().map(of_folder).collect() }
}
