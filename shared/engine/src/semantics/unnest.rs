//! UNNEST in FROM: a row for each element of arrays and maps, beside the row that has them.
//!
//! DataFusion plans an UNNEST that names columns to its left as a subquery of theirs, which nothing can run. Here it is planned over
//! those rows: a projection gives each array, each field of an array of rows, and the keys and values of each map as an array of its
//! own; these are unnested at once, which pads the shorter ones with nulls; and a projection above gives all columns their names.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, make_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{
    Column, DFSchema, DataFusionError, Diagnostic, NullHandling, Result, Span, TableReference, UnnestOptions, exec_err,
};
use datafusion::logical_expr::logical_plan::Unnest;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, cast,
};
use datafusion::sql::sqlparser::ast::{
    self, Join, JoinConstraint, JoinOperator, Spanned, TableAlias, TableFactor, TableWithJoins, Value,
};
use trino_functions::type_name;

use super::names::unnamed;
use super::unlinked::unlinked;
use shared::Error;

/// Puts all items of a FROM that has an UNNEST beside other relations into one, in brackets: what stands there sees what is left of it.
pub(super) fn gather(from: &mut Vec<TableWithJoins>) {
    let beside = from.iter().skip(1).any(|item| is_unnest(&item.relation));
    if !beside && !from.iter().any(joins_unnest) {
        return;
    }
    let mut items = std::mem::take(from).into_iter();
    let Some(mut all) = items.next() else { return };
    for item in items {
        let cross = JoinOperator::CrossJoin(JoinConstraint::None);
        let flat = item.joins.is_empty() || ((is_unnest(&item.relation) || joins_unnest(&item)) && keeps_order(&item));
        let (relation, joins) = match flat {
            true => (item.relation, item.joins),
            false => (TableFactor::NestedJoin { table_with_joins: Box::new(item), alias: None }, Vec::new()),
        };
        all.joins.push(Join { relation, global: false, join_operator: cross });
        all.joins.extend(joins);
    }
    from.push(TableWithJoins {
        relation: TableFactor::NestedJoin { table_with_joins: Box::new(all), alias: None },
        joins: Vec::new(),
    });
}

pub(super) fn is_unnest(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::UNNEST { .. })
}

/// Whether one of the joins is with an UNNEST.
pub(super) fn joins_unnest(item: &TableWithJoins) -> bool {
    item.joins.iter().any(|join| is_unnest(&join.relation))
}

/// Whether the joins mean the same when more rows stand to their left.
fn keeps_order(item: &TableWithJoins) -> bool {
    let plain = |constraint: &JoinConstraint| matches!(constraint, JoinConstraint::On(_) | JoinConstraint::None);
    item.joins.iter().all(|join| match &join.join_operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::CrossJoin(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c) => plain(c),
        _ => false,
    })
}

/// Whether the join keeps rows whose arrays have no elements.
///
/// # Errors
/// For other joins than CROSS, INNER and LEFT, and conditions other than `true`.
pub(super) fn keeps_rows(operator: &JoinOperator) -> Result<bool> {
    let (keeps, constraint) = match operator {
        JoinOperator::CrossJoin(constraint) => return without(constraint).map(|()| false),
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (false, constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (true, constraint),
        _ => return Err(invalid("not supported: RIGHT or FULL JOIN with UNNEST; expected CROSS, INNER or LEFT JOIN")),
    };
    let is_true = |expr: &ast::Expr| matches!(expr, ast::Expr::Value(v) if v.value == Value::Boolean(true));
    match constraint {
        JoinConstraint::On(condition) if is_true(condition) => Ok(keeps),
        JoinConstraint::On(condition) => {
            let message = format!("expected a join with UNNEST to have the condition ON TRUE, found `{condition}`");
            Err(at(&message, condition))
        }
        _ => Err(invalid("expected a join with UNNEST to have the condition ON TRUE")),
    }
}

fn without(constraint: &JoinConstraint) -> Result<()> {
    match constraint {
        JoinConstraint::None => Ok(()),
        _ => Err(invalid("expected a CROSS JOIN without a condition")),
    }
}

/// The rows of `left`, each with the elements of the arrays and maps in `factor` beside it. Names of its own columns are told apart by
/// `number`, which no other UNNEST of the statement has.
///
/// # Errors
/// For what is neither an array nor a map, for other columns than the alias names, and where columns are not found.
pub(super) fn plan(
    left: Option<LogicalPlan>,
    factor: TableFactor,
    keeps_rows: bool,
    number: usize,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_offset_alias: None, with_ordinality } =
        factor
    else {
        return Err(invalid("not supported: UNNEST with OFFSET; expected WITH ORDINALITY"));
    };
    let left = left.map_or_else(|| LogicalPlanBuilder::empty(true).build(), Ok)?;
    let schema = Arc::clone(left.schema());
    let mut elements = Vec::new();
    let mut arrays = Vec::new();
    for expr in array_exprs {
        let place = expr.clone();
        let planned = context.sql_to_expr(expr, &schema)?;
        arrays.push(columns_of(planned, &place, &schema, &mut elements)?);
    }
    if arrays.is_empty() {
        return Err(invalid("expected an array or a map in UNNEST, found nothing"));
    }
    if with_ordinality {
        let ordinals = ScalarUDF::new_from_impl(Ordinals::new()).call(arrays);
        elements.push(Elements { lists: ordinals, name: None });
    }
    let of_row = |i: usize| format!("$unnest_{number}_row_{i}");
    let of_element = |i: usize| format!("$unnest_{number}_{i}");
    let names = names(alias.as_ref(), &elements, schema.fields().len(), context)?;
    let relation = alias.map(|alias| TableReference::bare(context.normalize_ident(alias.name)));
    // Names that no two columns have: what stands above tells the columns of an unnest apart by them.
    let rows = schema.columns().into_iter().enumerate().map(|(i, column)| Expr::Column(column).alias(of_row(i)));
    let lists = elements.into_iter().enumerate().map(|(i, elements)| elements.lists.alias(of_element(i)));
    let below = LogicalPlanBuilder::from(left).project(rows.chain(lists).collect::<Vec<_>>())?.build()?;
    let null_handling = if keeps_rows { NullHandling::PreserveAndExpandEmpty } else { NullHandling::Drop };
    let unnested = (0..names.len()).map(|i| Column::from_name(of_element(i))).collect();
    let options = UnnestOptions { null_handling, recursions: Vec::new() };
    let unnest = LogicalPlan::Unnest(Unnest::try_new(Arc::new(unlinked(below)?), unnested, options)?);
    let rows =
        schema.columns().into_iter().enumerate().map(|(i, column)| {
            Expr::Column(Column::from_name(of_row(i))).alias_qualified(column.relation, column.name)
        });
    let elements = names
        .into_iter()
        .enumerate()
        .map(|(i, name)| Expr::Column(Column::from_name(of_element(i))).alias_qualified(relation.clone(), name));
    LogicalPlanBuilder::from(unnest).project(rows.chain(elements).collect::<Vec<_>>())?.build()
}

/// Arrays whose elements are a column.
struct Elements {
    lists: Expr,
    /// The name that the column has without an alias.
    name: Option<String>,
}

/// Adds the columns that an argument gives, and gives back an array of as many elements.
fn columns_of(expr: Expr, place: &ast::Expr, schema: &DFSchema, elements: &mut Vec<Elements>) -> Result<Expr> {
    let ty = expr.get_type(schema)?;
    let (expr, entries) = match &ty {
        DataType::List(element) | DataType::Map(element, _) => (expr, Arc::clone(element)),
        DataType::LargeList(element)
        | DataType::FixedSizeList(element, _)
        | DataType::ListView(element)
        | DataType::LargeListView(element) => (cast(expr, DataType::List(Arc::clone(element))), Arc::clone(element)),
        other => {
            let message = format!("expected an array or a map in UNNEST, found `{place}` of type {}", type_name(other));
            return Err(at(&message, place));
        }
    };
    match entries.data_type() {
        DataType::Struct(fields) => {
            let is_map = matches!(ty, DataType::Map(..));
            for (i, field) in fields.iter().enumerate() {
                let lists = ScalarUDF::new_from_impl(Part::new(i)).call(vec![expr.clone()]);
                let name = Some(field.name().clone()).filter(|_| !is_map);
                elements.push(Elements { lists, name });
            }
            match fields.is_empty() {
                true => Err(at("expected rows with fields in UNNEST, found rows without", place)),
                false => Ok(ScalarUDF::new_from_impl(Part::new(0)).call(vec![expr])),
            }
        }
        _ => {
            elements.push(Elements { lists: expr.clone(), name: None });
            Ok(expr)
        }
    }
}

/// The names of the columns, `before` of which stand to their left.
fn names(
    alias: Option<&TableAlias>,
    elements: &[Elements],
    before: usize,
    context: &dyn RelationPlannerContext,
) -> Result<Vec<String>> {
    let own = |(i, element): (usize, &Elements)| element.name.clone().unwrap_or_else(|| unnamed(before + i));
    let Some(alias) = alias.filter(|alias| !alias.columns.is_empty()) else {
        return Ok(elements.iter().enumerate().map(own).collect());
    };
    let names: Vec<String> = alias.columns.iter().map(|column| context.normalize_ident(column.name.clone())).collect();
    if names.len() == elements.len() {
        return Ok(names);
    }
    let message =
        format!("expected {} names of columns in alias `{}`, found {}", elements.len(), alias.name, names.len());
    Err(pointed(&message, alias.name.span))
}

fn at(message: &str, expr: &ast::Expr) -> DataFusionError {
    pointed(message, expr.span())
}

fn pointed(message: &str, span: datafusion::sql::sqlparser::tokenizer::Span) -> DataFusionError {
    invalid(message).with_diagnostic(Diagnostic::new_error(message, Span::try_from_sqlparser_span(span)))
}

fn invalid(message: &str) -> DataFusionError {
    DataFusionError::from(Error::invalid(message))
}

/// One field of an array of rows, or the keys or values of a map, as an array.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Part {
    signature: Signature,
    field: usize,
}

impl Part {
    fn new(field: usize) -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable), field }
    }
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        "$unnest_part"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let ty = match types {
            [DataType::List(rows) | DataType::Map(rows, _)] => match rows.data_type() {
                DataType::Struct(fields) => fields.get(self.field).map(|field| list_of(field.data_type())),
                _ => None,
            },
            _ => None,
        };
        ty.map_or_else(|| exec_err!("expected arrays of rows, found {types:?}"), Ok)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let array = args.args.into_iter().next().map(|arg| arg.into_array(args.number_rows)).transpose()?;
        let Some(array) = array else { return exec_err!("expected an array") };
        let (offsets, rows, nulls) = match array.data_type() {
            DataType::Map(..) => {
                let map = array.as_map();
                (map.offsets().clone(), Arc::new(map.entries().clone()) as ArrayRef, map.nulls().cloned())
            }
            _ => {
                let list = array.as_list::<i32>();
                (list.offsets().clone(), Arc::clone(list.values()), list.nulls().cloned())
            }
        };
        let rows = rows.as_struct();
        let part = hidden(rows.column(self.field), rows.nulls())?;
        let field = Arc::new(Field::new_list_field(part.data_type().clone(), true));
        Ok(ColumnarValue::Array(Arc::new(ListArray::try_new(field, offsets, part, nulls)?)))
    }
}

fn list_of(ty: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(ty.clone(), true)))
}

/// The values, null where their rows are.
fn hidden(values: &ArrayRef, of_rows: Option<&NullBuffer>) -> Result<ArrayRef> {
    if of_rows.is_none() {
        return Ok(Arc::clone(values));
    }
    let nulls = NullBuffer::union(of_rows, values.logical_nulls().as_ref());
    match values.data_type() {
        DataType::Null | DataType::Union(..) | DataType::RunEndEncoded(..) => Ok(Arc::clone(values)),
        _ => Ok(make_array(values.to_data().into_builder().nulls(nulls).build()?)),
    }
}

/// The numbers from one up to the length of the longest array.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Ordinals {
    signature: Signature,
}

impl Ordinals {
    fn new() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Ordinals {
    fn name(&self) -> &str {
        "$unnest_ordinals"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(list_of(&DataType::Int64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut lengths = vec![0_usize; args.number_rows];
        for arg in args.args {
            let list = arg.into_array(args.number_rows)?;
            let list = list.as_list::<i32>();
            for (row, length) in lengths.iter_mut().enumerate() {
                if list.is_valid(row) {
                    *length = (*length).max(usize::try_from(list.value_length(row)).unwrap_or(0));
                }
            }
        }
        let all: usize = lengths.iter().sum();
        if i32::try_from(all).is_err() {
            return exec_err!("expected arrays of at most {} elements in a batch of rows, found {all}", i32::MAX);
        }
        let mut numbers = Vec::with_capacity(all);
        lengths.iter().for_each(|length| numbers.extend(1..=i64::try_from(*length).unwrap_or(i64::MAX)));
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
        let field = Arc::new(Field::new_list_field(DataType::Int64, true));
        Ok(ColumnarValue::Array(Arc::new(ListArray::try_new(
            field,
            offsets,
            Arc::new(Int64Array::from(numbers)),
            None,
        )?)))
    }
}
