//! Overwrites of a part of a table: the rows that filters let pass, or the partitions that new rows fall into.

use std::collections::HashSet;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Operator, binary_expr};
use datafusion::prelude::{SessionContext, col};
use futures::TryStreamExt;
use iceberg::spec::{DataFile, Literal, PartitionField, Struct, Type};

use super::RowChangeKind;
use super::count::live_rows;
use super::positions::Addresses;
use super::work::{self, Isolation, Settings, Work, live, may_match};
use crate::address::{FILE, POS};
use crate::prune::bounds;
use crate::scan;
use crate::span::span;
use shared::{Error, Result};
use table::Table;
use table::live::live_deletes;
use table::schema::arrow_type;
use table::snapshot::{AddedFile, DeleteFile, Delta, LiveFile};
use table::write::Writer;

/// Rows that all filters let pass leave.
pub(crate) struct OverwriteWhere {
    filters: Vec<Expr>,
    work: Option<Work>,
}

impl OverwriteWhere {
    pub(crate) fn new(filters: Vec<Expr>) -> Self {
        Self { filters: datafusion::logical_expr::expr_rewriter::unnormalize_cols(filters), work: None }
    }

    /// What leaves `base`, and what is written in its place. `created` lists every file that was begun.
    pub(crate) async fn delta(&mut self, base: &Table, prefix: String, created: &mut Vec<String>) -> Result<Delta> {
        if let Some(work) = &self.work
            && work.holds(base).await?
        {
            return Ok(work.delta());
        }
        let mut writer = work::begin(base, prefix)?;
        let worked_out = self.work_out(base, &mut writer).await;
        Ok(self.work.insert(work::end(worked_out, writer, created).await?).delta())
    }

    /// Whether what was worked out before serves for `base`.
    pub(crate) async fn holds(&self, base: &Table) -> Result<bool> {
        match &self.work {
            Some(work) => work.holds(base).await,
            None => Ok(false),
        }
    }

    async fn work_out(&self, base: &Table, writer: &mut Writer) -> Result<Work> {
        let candidates = may_match(base, live(base).await?, &self.filters)?;
        let (whole, parts) = self.whole(base, candidates)?;
        let mut work = Work::new(base, self.filters.clone(), Isolation::Serializable);
        work.drop_files(&whole);
        let addresses = self.matching(base, parts).await?;
        let partial: u64 = addresses.files.values().map(roaring::RoaringTreemap::len).sum();
        let mode = Settings::of(base, RowChangeKind::Delete)?.mode;
        work.remove(base, addresses, mode, writer).await?;
        work.rows.deleted = partial + live_rows(base, &whole).await?;
        Ok(work)
    }

    /// Tells files all of whose rows leave, as their metrics say, from the others.
    fn whole(&self, base: &Table, candidates: Vec<LiveFile>) -> Result<(Vec<LiveFile>, Vec<LiveFile>)> {
        let Some(filter) = conjunction(self.filters.iter().cloned()) else { return Ok((candidates, Vec::new())) };
        let Some(negation) = negated(&filter) else { return Ok((Vec::new(), candidates)) };
        let others = may_match(base, candidates.clone(), &[negation])?;
        let others: HashSet<&str> = others.iter().map(|file| file.data().file_path()).collect();
        let columns: Vec<i32> = filter
            .column_refs()
            .iter()
            .filter_map(|column| base.metadata().current_schema().field_by_name(&column.name))
            .map(|field| field.id)
            .collect();
        let without_nulls = |file: &DataFile| columns.iter().all(|id| file.null_value_counts().get(id) == Some(&0));
        Ok(candidates
            .into_iter()
            .partition(|file| !others.contains(file.data().file_path()) && without_nulls(file.data())))
    }

    /// The addresses of the rows that the filters let pass.
    async fn matching(&self, base: &Table, files: Vec<LiveFile>) -> Result<Addresses> {
        let mut addresses = Addresses::default();
        let Some(first) = files.first() else { return Ok(addresses) };
        let session = SessionContext::new();
        scan::register_store(&session, base, first)?;
        let mut frame = session.read_table(scan::addressed_files(base, files)?)?;
        for filter in &self.filters {
            frame = frame.filter(filter.clone())?;
        }
        let mut rows = frame.select(vec![col(FILE), col(POS)])?.execute_stream().await?;
        while let Some(batch) = rows.try_next().await? {
            let (files, places) = (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Int64)?);
            addresses.add(files.as_string::<i32>(), places.as_primitive::<Int64Type>())?;
        }
        Ok(addresses)
    }
}

/// The negation of a filter that is true or false for each row whose columns are not null: what it does not let pass, its
/// negation does. `None` for a filter that may be neither.
fn negated(filter: &Expr) -> Option<Expr> {
    let known = |expr: &Expr| match expr {
        Expr::Column(_) => true,
        Expr::Literal(value, _) => !value.is_null(),
        _ => false,
    };
    match filter {
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::And => Some(negated(&binary.left)?.or(negated(&binary.right)?)),
            Operator::Or => Some(negated(&binary.left)?.and(negated(&binary.right)?)),
            op if known(&binary.left) && known(&binary.right) => {
                let op = op.negate()?;
                Some(binary_expr(binary.left.as_ref().clone(), op, binary.right.as_ref().clone()))
            }
            _ => None,
        },
        Expr::Not(inner) => {
            negated(inner)?;
            Some(inner.as_ref().clone())
        }
        Expr::IsNull(inner) if known(inner) => Some(inner.as_ref().clone().is_not_null()),
        Expr::IsNotNull(inner) if known(inner) => Some(inner.as_ref().clone().is_null()),
        Expr::InList(list) if known(&list.expr) && list.list.iter().all(known) => {
            Some(list.expr.as_ref().clone().in_list(list.list.clone(), !list.negated))
        }
        Expr::Between(between) if known(&between.expr) && known(&between.low) && known(&between.high) => {
            let (low, high) = (between.low.as_ref().clone(), between.high.as_ref().clone());
            let outside =
                between.expr.as_ref().clone().lt(low.clone()).or(between.expr.as_ref().clone().gt(high.clone()));
            let inside = between.expr.as_ref().clone().gt_eq(low).and(between.expr.as_ref().clone().lt_eq(high));
            Some(if between.negated { inside } else { outside })
        }
        _ => None,
    }
}

/// The partitions that new rows fall into lose their old rows.
pub(crate) struct ReplacePartitions;

impl ReplacePartitions {
    /// # Errors
    /// `Invalid` when rows of those partitions may be in files of another partition spec: they would stay beside the new ones.
    pub(crate) async fn delta(base: &Table, files: &[DataFile], spec: i32) -> Result<Delta> {
        let mut delta =
            Delta { added: files.iter().map(|file| AddedFile::new(file.clone(), spec)).collect(), ..Delta::default() };
        delta.rows.added = files.iter().map(DataFile::record_count).sum();
        let partitions: HashSet<_> = files.iter().map(DataFile::partition).collect();
        if partitions.is_empty() {
            return Ok(delta);
        }
        let deletes = match base.metadata().current_snapshot() {
            Some(snapshot) => live_deletes(base.io(), base.metadata(), snapshot).await?,
            None => Vec::new(),
        };
        let concerned = |file: &LiveFile| file.spec_id() == spec && partitions.contains(file.data().partition());
        let deletes = deletes.iter().filter(|delete| concerned(delete));
        delta.removed_deletes = deletes.map(|delete| DeleteFile::of(delete.data())).collect();
        let mut replaced = Vec::new();
        for file in live(base).await? {
            let within = match file.spec_id() == spec {
                true => partitions.contains(file.data().partition()),
                false => {
                    check_apart(base, &file, &partitions)?;
                    false
                }
            };
            if within {
                delta.removed.insert(file.data().file_path().to_owned());
                replaced.push(file);
            }
        }
        delta.rows.deleted = live_rows(base, &replaced).await?;
        Ok(delta)
    }
}

/// # Errors
/// `Invalid` for a file of an earlier partition spec that may hold rows of one of the partitions.
fn check_apart(base: &Table, file: &LiveFile, partitions: &HashSet<&Struct>) -> Result<()> {
    if !partitions.iter().any(|partition| may_hold(base, file, partition)) {
        return Ok(());
    }
    let path = file.data().file_path();
    Err(Error::invalid(format!(
        "expected files of the table's present partitioning where partitions are replaced, found `{path}` of an earlier one that may \
         hold their rows: rewrite the table first"
    )))
}

/// Whether a file of another partition spec may hold rows of a partition: not if, for one of the partition's fields, the file's
/// own partition or its bounds leave no room for values of the column.
fn may_hold(base: &Table, file: &LiveFile, partition: &Struct) -> bool {
    let (metadata, data) = (base.metadata(), file.data());
    let schema = metadata.current_schema();
    let spec = metadata.default_partition_spec();
    let own_spec = file.manifest().metadata().partition_spec();
    let apart = spec.fields().iter().zip(partition.iter()).any(|(field, value)| {
        let own = own_spec.fields().iter().zip(data.partition().iter());
        let own: Vec<_> = own.filter(|(own, _)| own.source_id == field.source_id).collect();
        if own.iter().any(|(own, own_value)| own.transform == field.transform && *own_value != value) {
            return true;
        }
        let rows_without_null = data.null_value_counts().get(&field.source_id) == Some(&0);
        let Some(value) = value.and_then(Literal::as_primitive_literal) else { return rows_without_null };
        let source = schema.field_by_id(field.source_id).and_then(|column| column.field_type.as_primitive_type());
        let Some((source, ty)) =
            source.and_then(|source| Some((source, arrow_type(&Type::Primitive(source.clone())).ok()?)))
        else {
            return false;
        };
        let Some((least, greatest)) = span(field.transform, &value, source, &ty) else { return false };
        let outside = |(lower, upper): (ScalarValue, ScalarValue)| upper < least || greatest < lower;
        let in_own = |(own, value): &(&PartitionField, Option<&Literal>)| {
            span(own.transform, &(*value)?.as_primitive_literal()?, source, &ty)
        };
        own.iter().any(|own| in_own(own).is_some_and(outside))
            || bounds(data, field.source_id, &ty).is_some_and(outside)
    });
    !apart
}
