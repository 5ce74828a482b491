//! What changed between two snapshots, row by row.
//!
//! Each snapshot is compared with its parent by the files that came and went and by the deletes that came, not row by row.
//! Where a snapshot both adds and removes, rows that are on both sides cancel out: a rewrite carries most rows over. That is a
//! grouping by all columns, which spills like any other. The changes are a view: a query's filters reach the files.

mod lists;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::functions::expr_fn::abs;
use datafusion::functions_aggregate::expr_fn::{first_value, sum};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_nested::expr_fn::range;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, ExprFunctionExt, JoinType, LogicalPlanBuilder, cast, ident, lit, when};
use iceberg::spec::{Operation, SnapshotRef};

use super::address::{FILE, POS};
use super::scan;
use shared::{Error, Result};
use table::live::{LiveFile, added_files, live_files};
use table::{Table, ancestors};

const CHANGE_TYPE: &str = "_change_type";
const ORDINAL: &str = "_change_ordinal";
const SNAPSHOT: &str = "_commit_snapshot_id";
/// How often a row came (or, below zero, went), and the numbers of its copies.
const COUNT: &str = "_change_count";
const COPY: &str = "_change_copy";

pub(super) async fn provider(
    table: &Table,
    after: Option<i64>,
    to: Option<i64>,
    key: Option<Vec<String>>,
) -> Result<Arc<dyn TableProvider>> {
    check(table, key.as_deref())?;
    let mut all: Option<LogicalPlanBuilder> = None;
    for (ordinal, snapshot) in between(table, after, to)?.into_iter().zip(0_i32..).map(|(s, n)| (n, s)) {
        let Some(changes) = of_snapshot(table, snapshot, key.as_deref()).await? else { continue };
        let tagged = tagged(table, changes, ordinal, snapshot.snapshot_id())?;
        all = Some(match all {
            None => tagged,
            Some(all) => all.union(tagged.build()?)?,
        });
    }
    let plan = match all {
        Some(all) => all,
        None => tagged(table, signed(files(table, Vec::new())?, table, 1)?, 0, 0)?.filter(lit(false))?,
    };
    Ok(Arc::new(ViewTable::new(plan.build()?, None)))
}

/// Which rows of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Came,
    Left,
}

/// The rows that one of two snapshots has and the other has not, whichever came first; rows that went and came back, or came and
/// went, are none.
pub(super) async fn difference(table: &Table, after: i64, to: i64, side: Side) -> Result<Arc<dyn TableProvider>> {
    check(table, None)?;
    let empty = || signed(files(table, Vec::new())?, table, 1);
    let metadata = table.metadata();
    let is_line = ancestors(metadata, Some(to)).any(|snapshot| snapshot.snapshot_id() == after);
    let parts = match is_line {
        true => {
            let mut parts = Vec::new();
            for snapshot in between(table, Some(after), Some(to))? {
                parts.extend(of_snapshot(table, snapshot, None).await?);
            }
            parts
        }
        false => {
            let before = live_files(table.io(), metadata, scan::find(metadata, after)?).await?;
            let now = live_files(table.io(), metadata, scan::find(metadata, to)?).await?;
            let Sides { came, went } = sides(table, before, now)?;
            came.into_iter().chain(went).collect()
        }
    };
    let all = united(parts)?.map_or_else(empty, Ok)?;
    let wanted = match side {
        Side::Came => ident(COUNT).gt(lit(0_i64)),
        Side::Left => ident(COUNT).lt(lit(0_i64)),
    };
    let columns = names(table).into_iter().map(ident).collect::<Vec<_>>();
    let rows = net(all, table, None)?.filter(wanted)?.project(columns)?;
    Ok(Arc::new(ViewTable::new(rows.build()?, None)))
}

/// # Errors
/// `Invalid` for a key that is no columns of the table, or a column with one of the names that changes take.
fn check(table: &Table, key: Option<&[String]>) -> Result<()> {
    let known = || table.arrow_schema().fields().iter().map(|f| f.name());
    let taken = [CHANGE_TYPE, ORDINAL, SNAPSHOT, COUNT, COPY];
    if let Some(name) = known().find(|name| taken.contains(&name.as_str())) {
        return Err(Error::invalid(format!(
            "expected no column of the table under a name that changes take, found `{name}`"
        )));
    }
    if key.is_some_and(<[_]>::is_empty) {
        return Err(Error::invalid("expected at least one key column, found none"));
    }
    let unknown = key.unwrap_or_default().iter().find(|name| !known().any(|own| own == *name));
    match unknown {
        None => Ok(()),
        Some(name) => {
            let known: Vec<_> = known().map(|name| format!("`{name}`")).collect();
            Err(Error::invalid(format!("expected a key column out of {}, found `{name}`", known.join(", "))))
        }
    }
}

/// The snapshots after `after` up to `to`, oldest first.
fn between(table: &Table, after: Option<i64>, to: Option<i64>) -> Result<Vec<&SnapshotRef>> {
    let metadata = table.metadata();
    let to = to.or(metadata.current_snapshot_id());
    for id in [after, to].into_iter().flatten() {
        scan::find(metadata, id)?;
    }
    let ids = ancestors(metadata, to).map(|snapshot| snapshot.snapshot_id());
    let mut snapshots = Vec::new();
    let mut reached = after.is_none();
    for id in ids {
        if Some(id) == after {
            reached = true;
            break;
        }
        snapshots.push(scan::find(metadata, id)?);
    }
    if !reached {
        let (to, after) = (to.unwrap_or_default(), after.unwrap_or_default());
        return Err(Error::invalid(format!("expected an ancestor of the snapshot `{to}`, found `{after}`")));
    }
    snapshots.reverse();
    Ok(snapshots)
}

/// Rows of one snapshot with [`CHANGE_TYPE`] or, before that is known, [`COUNT`]; `None` when nothing changed.
async fn of_snapshot(
    table: &Table,
    snapshot: &SnapshotRef,
    key: Option<&[String]>,
) -> Result<Option<LogicalPlanBuilder>> {
    let (io, metadata) = (table.io(), table.metadata());
    let parent = snapshot.parent_snapshot_id().and_then(|id| metadata.snapshot_by_id(id));
    match (&snapshot.summary().operation, parent) {
        (Operation::Replace, Some(_)) => return Ok(None),
        (Operation::Append, Some(_)) => {
            let added = added_files(io, metadata, snapshot).await?;
            return (!added.is_empty()).then(|| signed(files(table, added)?, table, 1)).transpose();
        }
        _ => {}
    }
    let now = live_files(io, metadata, snapshot).await?;
    let before = match parent {
        Some(parent) => live_files(io, metadata, parent).await?,
        None => Vec::new(),
    };
    let sides = sides(table, before, now)?;
    let both = sides.came.is_some() && sides.went.is_some();
    let union = match (sides.came, sides.went) {
        (Some(came), Some(went)) => Some(came.union(went.build()?)?),
        (came, went) => came.or(went),
    };
    union.map(|union| if both { net(union, table, key) } else { Ok(union) }).transpose()
}

/// Rows that came and rows that went, each with its [`COUNT`].
struct Sides {
    came: Option<LogicalPlanBuilder>,
    went: Option<LogicalPlanBuilder>,
}

fn sides(table: &Table, before: Vec<LiveFile>, now: Vec<LiveFile>) -> Result<Sides> {
    let path = |file: &LiveFile| file.data().file_path().to_owned();
    let old: HashMap<String, LiveFile> = before.into_iter().map(|file| (path(&file), file)).collect();
    let kept: HashSet<String> = now.iter().map(path).collect();
    let (mut came, mut was, mut is) = (Vec::new(), Vec::new(), Vec::new());
    for file in now {
        match old.get(file.data().file_path()) {
            None => came.push(file),
            Some(old) if !old.same_deletes(&file) => {
                was.push(old.clone());
                is.push(file);
            }
            Some(_) => {}
        }
    }
    let gone: Vec<_> = old.into_iter().filter(|(path, _)| !kept.contains(path)).map(|(_, file)| file).collect();
    let restores = was.iter().any(|file| file.deletes().is_some());
    let mut added = Vec::new();
    let mut removed = Vec::new();
    if !came.is_empty() {
        added.push(signed(files(table, came)?, table, 1)?);
    }
    if !gone.is_empty() {
        removed.push(signed(files(table, gone)?, table, -1)?);
    }
    if !was.is_empty() {
        removed.push(signed(without(table, was.clone(), is.clone())?, table, -1)?);
    }
    // Deletes that are taken back bring rows back.
    if restores {
        added.push(signed(without(table, is, was)?, table, 1)?);
    }
    Ok(Sides { came: united(added)?, went: united(removed)? })
}

fn united(plans: Vec<LogicalPlanBuilder>) -> Result<Option<LogicalPlanBuilder>> {
    let mut plans = plans.into_iter();
    let Some(first) = plans.next() else { return Ok(None) };
    let all = plans.try_fold(first, |all, plan| all.union(plan.build()?))?;
    Ok(Some(all))
}

fn files(table: &Table, files: Vec<LiveFile>) -> Result<LogicalPlanBuilder> {
    Ok(LogicalPlanBuilder::scan("changes", provider_as_source(scan::files(table, files)?), None)?)
}

/// Rows that the files show as they are in `with` and no longer as they are in `without`.
fn without(table: &Table, with: Vec<LiveFile>, without: Vec<LiveFile>) -> Result<LogicalPlanBuilder> {
    let addressed = |name: &str, files| -> Result<LogicalPlanBuilder> {
        let provider = scan::addressed_files(table, files)?;
        Ok(LogicalPlanBuilder::scan(name, provider_as_source(provider), None)?)
    };
    let keys = |name: &str| [FILE, POS].map(|column| Column::new(Some(name), column)).to_vec();
    let right = addressed("without", without)?.project(keys("without").into_iter().map(Expr::Column))?.build()?;
    let rows = addressed("changes", with)?;
    Ok(rows.join(right, JoinType::LeftAnti, (keys("changes"), keys("without")), None)?)
}

fn names(table: &Table) -> Vec<&str> {
    table.arrow_schema().fields().iter().map(|field| field.name().as_str()).collect()
}

/// The table's columns and how often the row came.
fn signed(rows: LogicalPlanBuilder, table: &Table, count: i64) -> Result<LogicalPlanBuilder> {
    let columns = names(table).into_iter().map(ident).chain([lit(count).alias(COUNT)]);
    // An alias of its own keeps the columns of several scans apart from the tables that they came from.
    Ok(rows.project(columns.collect::<Vec<_>>())?.alias("changes")?)
}

/// Rows that came more often than they went, or less; with a key, which of them are updates.
fn net(rows: LogicalPlanBuilder, table: &Table, key: Option<&[String]>) -> Result<LogicalPlanBuilder> {
    let mapped = |name: &str| table.arrow_schema().field_with_name(name).is_ok_and(|f| lists::has_map(f.data_type()));
    let grouped = names(table).into_iter().map(|name| match mapped(name) {
        true => lists::as_lists(ident(name)).alias(format!("{name} as lists")),
        false => ident(name),
    });
    let carried = names(table).into_iter().filter(|name| mapped(name));
    let carried = carried.map(|name| first_value(ident(name), Vec::new()).alias(name));
    let totals: Vec<Expr> = carried.chain([sum(ident(COUNT)).alias(COUNT)]).collect();
    let netted = rows.aggregate(grouped.collect::<Vec<_>>(), totals)?.filter(ident(COUNT).not_eq(lit(0_i64)))?;
    let mut columns: Vec<Expr> = names(table).into_iter().map(ident).collect();
    columns.extend([ident(COUNT), range(lit(0_i64), abs(ident(COUNT)), lit(1_i64)).alias(COPY)]);
    let copies = netted.project(columns)?.unnest_column(COPY)?;
    let mut columns: Vec<Expr> = names(table).into_iter().map(ident).collect();
    let Some(key) = key else {
        // Each copy stands for itself, wherever it is counted again.
        let once = when(ident(COUNT).gt(lit(0_i64)), lit(1_i64)).otherwise(lit(-1_i64))?;
        columns.push(once.alias(COUNT));
        return Ok(copies.project(columns)?.alias("changes")?);
    };
    let over = |function| {
        let window = Expr::from(WindowFunction::new(function, vec![ident(COUNT)]));
        window.partition_by(key.iter().map(ident).collect()).build()
    };
    let windows = [over(max_udaf())?.alias("most"), over(min_udaf())?.alias("least")];
    let sides = copies.window(windows)?;
    let updates = ident("most").gt(lit(0_i64)).and(ident("least").lt(lit(0_i64)));
    let came = ident(COUNT).gt(lit(0_i64));
    let kind = when(updates.clone().and(came.clone()), lit("update_postimage"))
        .when(updates, lit("update_preimage"))
        .when(came, lit("insert"))
        .otherwise(lit("delete"))?;
    columns.push(kind.alias(CHANGE_TYPE));
    Ok(sides.project(columns)?.alias("changes")?)
}

/// The columns that changes have.
fn tagged(table: &Table, rows: LogicalPlanBuilder, ordinal: i32, snapshot: i64) -> Result<LogicalPlanBuilder> {
    let known = rows.schema().fields().iter().any(|field| field.name() == CHANGE_TYPE);
    let kind = match known {
        true => ident(CHANGE_TYPE),
        false => when(ident(COUNT).gt(lit(0_i64)), lit("insert")).otherwise(lit("delete"))?.alias(CHANGE_TYPE),
    };
    let mut columns: Vec<Expr> = names(table).into_iter().map(ident).collect();
    let kind = cast(kind.unalias(), DataType::Utf8).alias(CHANGE_TYPE);
    let ordinal = lit(ScalarValue::Int32(Some(ordinal))).alias(ORDINAL);
    columns.extend([kind, ordinal, lit(snapshot).alias(SNAPSHOT)]);
    Ok(rows.project(columns)?)
}
