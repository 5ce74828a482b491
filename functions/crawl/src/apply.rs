//! Carries decisions out in the catalog.

use std::collections::{BTreeMap, BTreeSet};

use format::folders::below_folder;
use format::listing::{self, RefusedFile, refused_parameter};
use shared::catalog::{Catalog, MAX_PARTITIONS_PER_CALL, Partition, Table, TableInput, ensure_database};
use shared::model::TableName;
use shared::pause::{self, TRIES};
use shared::ports::Ports;
use shared::project::OnDelete;
use shared::{Error, ErrorKind, Result};
use url::Url;

use crate::group::{Known, Proposal};
use crate::plan::{DEPRECATED, Decision, Terms, UPDATED, exclusions, partitions, plan};
use crate::report::{Change, TableReport};

/// What became of a proposal.
#[derive(Debug)]
pub enum Outcome {
    Done(TableName, TableReport),
    /// In words; nothing was changed.
    Refused(String),
}

/// Registers or extends the table of a proposal and its partitions.
///
/// # Errors
/// What the catalog answers; `Conflict` when others never stop changing the table.
pub async fn apply(ports: &Ports, database: &str, base: &Url, proposal: &Proposal, terms: &Terms) -> Result<Outcome> {
    let catalog = ports.catalog.as_ref();
    let url = below_folder(base, &proposal.path);
    for tries in 0..TRIES {
        let (name, existing) = match find(catalog, database, &url, proposal).await? {
            Ok(found) => found,
            Err(refused) => return Ok(Outcome::Refused(refused)),
        };
        let plan = match plan(existing.as_ref(), &name, &url, proposal, terms) {
            Ok(plan) => plan,
            Err(refused) => return Ok(Outcome::Refused(refused)),
        };
        let (change, input) = match carry_out(catalog, existing, plan.decision).await {
            Ok(done) => done,
            Err(error) if matches!(error.kind(), ErrorKind::Conflict) => {
                pause::give_way(&*ports.random, tries).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let (added, elsewhere) = add_partitions(catalog, &input, &url, proposal).await?;
        let report = TableReport {
            table: name.to_string(),
            change,
            format: input.parameters.get("classification").cloned().unwrap_or_default(),
            files: proposal.files.len(),
            partitions_added: added,
            partitions_gone: 0,
            details: plan.details.into_iter().chain(elsewhere).collect(),
        };
        return Ok(Outcome::Done(name, report));
    }
    Err(Error::conflict(format!("others kept changing the table at `{url}` for {TRIES} tries")))
}

/// The first of the names that is free or that of the table at `url`; in words when every one is another table's.
async fn find(
    catalog: &dyn Catalog,
    database: &str,
    url: &Url,
    proposal: &Proposal,
) -> Result<std::result::Result<(TableName, Option<Table>), String>> {
    let same_place = |location: &str| location.trim_end_matches('/') == url.as_str().trim_end_matches('/');
    for name in &proposal.names {
        let name = TableName::new(database, name)?;
        match catalog.get_table(&name).await {
            Ok(table) if !table.is_iceberg() && same_place(&table.input.storage.location) => {
                return Ok(Ok((name, Some(table))));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ok((name, None))),
            Err(error) => return Err(error),
        }
    }
    Ok(Err(format!("the names `{}` are other tables' in the database `{database}`", proposal.names.join("`, `"))))
}

async fn carry_out(catalog: &dyn Catalog, existing: Option<Table>, decision: Decision) -> Result<(Change, TableInput)> {
    match (decision, existing) {
        (Decision::Create(input), _) => {
            ensure_database(catalog, &input.name.database).await?;
            catalog.create_table(&input).await?;
            Ok((Change::Created, *input))
        }
        (Decision::Update(input, version), _) => {
            catalog.update_table(&input, &version).await?;
            Ok((Change::Updated, *input))
        }
        (Decision::Keep, Some(table)) => Ok((Change::Unchanged, table.input)),
        (Decision::Keep, None) => Err(Error::bug("expected a table to keep, found none")),
    }
}

/// Adds the partitions that are not there, revives those that were marked, and gives the table's columns to all that have others:
/// a crawl that changed the table may have ended before it came to them. How many were added, and in words which folders are not
/// read as the partition of their values lies elsewhere.
async fn add_partitions(
    catalog: &dyn Catalog,
    table: &TableInput,
    url: &Url,
    proposal: &Proposal,
) -> Result<(usize, Vec<String>)> {
    let wanted = partitions(table, url, proposal);
    if wanted.is_empty() {
        return Ok((0, Vec::new()));
    }
    let known = catalog.list_partitions(&table.name, &[]).await?;
    let elsewhere = elsewhere(&known, &wanted);
    let mut there: BTreeSet<Vec<String>> = known.iter().map(|partition| partition.values.clone()).collect();
    let stale = stale(known, table, &wanted);
    if !stale.is_empty() {
        tracing::info!(table = %table.name, partitions = stale.len(), "partitions get the table's columns");
        // Somebody removed them since they were listed.
        for absent in catalog.update_partitions(&table.name, &stale).await? {
            there.remove(&absent);
        }
    }
    let new: Vec<Partition> = wanted.into_iter().filter(|partition| !there.contains(&partition.values)).collect();
    let mut added = new.len();
    for batch in new.chunks(MAX_PARTITIONS_PER_CALL) {
        added -= catalog.create_partitions(&table.name, batch).await?.len();
    }
    Ok((added, elsewhere))
}

/// In words, the wanted folders whose values are those of a known partition at another place. Somebody may have moved it there.
fn elsewhere(known: &[Partition], wanted: &[Partition]) -> Vec<String> {
    let plain = |partition: &Partition| partition.storage.location.trim_end_matches('/').to_owned();
    let places: BTreeMap<&Vec<String>, String> = known.iter().map(|known| (&known.values, plain(known))).collect();
    let other = |wanted: &Partition| match places.get(&wanted.values) {
        Some(place) if *place != plain(wanted) => Some(format!(
            "the files in `{}` are not read: the partition `{}` lies in `{place}`",
            plain(wanted),
            wanted.values.join("/")
        )),
        _ => None,
    };
    wanted.iter().filter_map(other).collect()
}

/// Those of the known partitions that are not as they should be, as they should be.
fn stale(known: Vec<Partition>, table: &TableInput, wanted: &[Partition]) -> Vec<Partition> {
    let wanted: BTreeSet<&Vec<String>> = wanted.iter().map(|partition| &partition.values).collect();
    let mut stale = Vec::new();
    for mut partition in known {
        let revived = wanted.contains(&partition.values) && partition.parameters.remove(DEPRECATED).is_some();
        if revived || partition.storage.columns != table.storage.columns {
            stale.push(inheriting(partition, table));
        }
    }
    stale
}

/// The partition with the table's schema and format, at its own location.
fn inheriting(mut partition: Partition, table: &TableInput) -> Partition {
    let location = std::mem::take(&mut partition.storage.location);
    partition.storage = table.storage.clone();
    partition.storage.location = location;
    partition
}

/// Writes the location's patterns and the files that were left out into the table's definition, if they are others there. Whether
/// they were.
///
/// # Errors
/// What the catalog answers.
pub async fn remember(
    ports: &Ports,
    known: &Known,
    exclude: &[String],
    refused: &BTreeMap<String, RefusedFile>,
) -> Result<bool> {
    let catalog = ports.catalog.as_ref();
    let mut table = known.table.clone();
    let mut wanted = vec![(listing::REFUSED, refused_parameter(refused))];
    // The patterns of a definition that no crawl wrote are its owner's.
    if table.input.parameters.contains_key(UPDATED) {
        wanted.push((listing::EXCLUSIONS, exclusions(exclude)));
        wanted.push((listing::PATH, Some(known.path.clone()).filter(|path| !path.is_empty())));
    }
    for tries in 0..TRIES {
        let same = |(name, text): &(&str, Option<String>)| table.input.parameters.get(*name) == text.as_ref();
        if table.fault.is_some() || wanted.iter().all(same) {
            return Ok(false);
        }
        for (name, text) in &wanted {
            match text {
                Some(text) => drop(table.input.parameters.insert((*name).to_owned(), text.clone())),
                None => drop(table.input.parameters.remove(*name)),
            }
        }
        match catalog.update_table(&table.input, &table.version).await {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Conflict => pause::give_way(&*ports.random, tries).await,
            Err(error) => return Err(error),
        }
        table = match catalog.get_table(&table.input.name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            table => table?,
        };
    }
    Err(Error::conflict(format!("others kept changing the table `{}` for {TRIES} tries", known.table.input.name)))
}

/// Treats a table whose files are all gone as the policy says.
///
/// # Errors
/// What the catalog answers.
pub async fn retire_table(ports: &Ports, name: &TableName, policy: OnDelete, now_ms: i64) -> Result<Change> {
    let catalog = ports.catalog.as_ref();
    if policy == OnDelete::Log {
        return Ok(Change::Orphaned);
    }
    for tries in 0..TRIES {
        let outcome = match (catalog.get_table(name).await, policy) {
            (Err(error), _) if error.kind() == ErrorKind::NotFound => return Ok(Change::Deleted),
            (Err(error), _) => return Err(error),
            (Ok(_), OnDelete::Delete) => catalog.delete_table(name).await.map(|()| Change::Deleted),
            // It would be written back without what can't be read.
            (Ok(table), _) if table.fault.is_some() => return Ok(Change::Orphaned),
            (Ok(mut table), _) => {
                if table.input.parameters.contains_key(DEPRECATED) {
                    return Ok(Change::Deprecated);
                }
                table.input.parameters.insert(DEPRECATED.into(), now_ms.to_string());
                catalog.update_table(&table.input, &table.version).await.map(|_| Change::Deprecated)
            }
        };
        match outcome {
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                pause::give_way(&*ports.random, tries).await
            }
            done => return done,
        }
    }
    Err(Error::conflict(format!("others kept changing the table `{name}` for {TRIES} tries")))
}

/// Treats partitions whose files are all gone as the policy says; gives how many there were.
///
/// # Errors
/// What the catalog answers.
pub async fn retire_partitions(
    catalog: &dyn Catalog,
    name: &TableName,
    gone: &[Vec<String>],
    policy: OnDelete,
    now_ms: i64,
) -> Result<usize> {
    match policy {
        OnDelete::Log => {}
        OnDelete::Delete => catalog.delete_partitions(name, gone).await?,
        OnDelete::Deprecate => {
            let mut marked = catalog.list_partitions(name, &[]).await?;
            marked.retain(|known| gone.contains(&known.values) && !known.parameters.contains_key(DEPRECATED));
            for partition in &mut marked {
                partition.parameters.insert(DEPRECATED.into(), now_ms.to_string());
            }
            if !marked.is_empty() {
                // What is not there any more needs no mark.
                catalog.update_partitions(name, &marked).await?;
            }
        }
    }
    Ok(gone.len())
}
