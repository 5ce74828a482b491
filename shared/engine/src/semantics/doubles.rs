//! What two floating point numbers are to each other: both zeros are one number, NaN is above all others and equal to itself.
//!
//! DataFusion orders the bits: `-0.0` before `0.0`, and a NaN with a sign (which `0e0 / 0e0` gives on some processors) before all
//! numbers. [`EqualNumbers`] has everything that compares, sorts, joins or numbers rows look at numbers as
//! [`comparable`](table_datafusion::floats::comparable) gives them, and puts a `min` and `max` in place that agree with it.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{cast, nullif};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Float64Type, Int64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::expr::{
    Exists, InList, InSubquery, NullTreatment, ScalarFunction, Sort as SortKey, WindowFunction,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name, merge_schema};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Between, BinaryExpr, Case, ColumnarValue, Distinct, EmitTo, Expr,
    ExprSchemable, GroupsAccumulator, LogicalPlan, LogicalPlanBuilder, Operator, ReversedUDAF, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Sort, Volatility, WindowFunctionDefinition, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::frames::framed;
use super::numbers::compares;
use super::{lists, named_value, under_its_name, whole_subqueries, without_values};
use shared::Error;
use table_datafusion::floats;

/// Has numbers compared as equal where they are. Runs after the coercion of types, and after subqueries became joins.
#[derive(Debug)]
pub(super) struct EqualNumbers;

impl AnalyzerRule for EqualNumbers {
    fn name(&self) -> &str {
        "equal_numbers"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        whole_subqueries(plan, |plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let plan = keyed(plan, &schema)?.map_expressions(|expr| {
                if matches!(expr, Expr::GroupingSet(_)) {
                    return under_its_name(expr, &names, &|expr| compared(expr, &schema));
                }
                let name = names.save(&expr);
                let told = under_its_name(lists::told_apart(expr)?, &names, &|expr| compared(expr, &schema))?;
                Ok(told.update_data(|expr| name.restore(expr)))
            })?;
            plan.map_data(LogicalPlan::recompute_schema)
        })
    }
}

/// The node with its keys comparable.
fn keyed(plan: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Join(mut join) => {
            let on = std::mem::take(&mut join.on).into_iter();
            let (left, right) = (Arc::clone(join.left.schema()), Arc::clone(join.right.schema()));
            join.on = on.map(|(l, r)| (comparable(l, &left), comparable(r, &right))).collect();
            LogicalPlan::Join(join)
        }
        LogicalPlan::Sort(mut sort) => {
            sort.expr = sort_keys(sort.expr, schema);
            by_columns(sort)?
        }
        LogicalPlan::Aggregate(mut aggregate) => {
            aggregate.group_expr =
                aggregate.group_expr.into_iter().map(|key| grouped(key, schema)).collect::<Result<_>>()?;
            LogicalPlan::Aggregate(aggregate)
        }
        LogicalPlan::Distinct(Distinct::All(input))
            if input.schema().fields().iter().any(|f| f.data_type().is_floating()) =>
        {
            let columns =
                input.schema().columns().into_iter().map(|column| grouped(Expr::Column(column), input.schema()));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let input = LogicalPlanBuilder::from(input).project(columns)?.build()?;
            LogicalPlan::Distinct(Distinct::All(Arc::new(input)))
        }
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            on.on_expr = keys(on.on_expr, schema);
            on.sort_expr = on.sort_expr.map(|keys| sort_keys(keys, schema));
            LogicalPlan::Distinct(Distinct::On(on))
        }
        other => other,
    })
}

/// The sort, by columns of their own for keys that compare what functions give: DataFusion can't tell the range of those, and takes
/// rows that it sorted for unsorted.
fn by_columns(mut sort: Sort) -> Result<LogicalPlan> {
    let compares_calls = |key: &Expr| -> Result<bool> {
        let orders = |op: Operator| compares(op) && !matches!(op, Operator::Eq | Operator::NotEq);
        let compares = key.exists(|part| match part {
            Expr::BinaryExpr(part) => Ok(orders(part.op)),
            part => Ok(matches!(part, Expr::Between(_))),
        });
        Ok(compares? && key.exists(|part| Ok(matches!(part, Expr::ScalarFunction(_))))?)
    };
    let (columns, mut inner) = (sort.input.schema().columns(), Vec::new());
    for (i, key) in sort.expr.iter_mut().enumerate() {
        if compares_calls(&key.expr)? {
            let name = format!("$key{i}");
            let column = Expr::Column(Column::new_unqualified(&name));
            inner.push(std::mem::replace(&mut key.expr, column).alias(name));
        }
    }
    if inner.is_empty() {
        return Ok(LogicalPlan::Sort(sort));
    }
    let all = || columns.iter().cloned().map(Expr::Column);
    let input = LogicalPlanBuilder::from(sort.input).project(all().chain(inner))?.build()?;
    let sorted = LogicalPlan::Sort(Sort { input: Arc::new(input), ..sort });
    LogicalPlanBuilder::from(sorted).project(all())?.build()
}

/// What rows are grouped by, under its name.
fn grouped(key: Expr, schema: &DFSchema) -> Result<Expr> {
    match key {
        Expr::GroupingSet(_) => Ok(key.map_children(|inner| Ok(Transformed::yes(grouped(inner, schema)?)))?.data),
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(comparable(*alias.expr, schema));
            Ok(Expr::Alias(alias))
        }
        key if is_double(&key, schema) => {
            let (relation, name) = key.qualified_name();
            Ok(comparable(key, schema).alias_qualified(relation, name))
        }
        key => Ok(key),
    }
}

/// What compares numbers, with both sides comparable. The children are so already.
fn compared(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let boxed = |expr: Box<Expr>| Box::new(comparable(*expr, schema));
    Ok(Transformed::yes(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            Expr::BinaryExpr(BinaryExpr { left: boxed(left), op, right: boxed(right) })
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            Expr::Between(Between { expr: boxed(expr), negated, low: boxed(low), high: boxed(high) })
        }
        Expr::InList(InList { expr, list, negated }) => {
            lists::compared(InList { expr: boxed(expr), list: keys(list, schema), negated })
        }
        Expr::InSubquery(found) if is_double(&found.expr, schema) => Expr::InSubquery(member(found, schema)?),
        Expr::InSubquery(found) if !found.subquery.outer_ref_columns.is_empty() => {
            Expr::InSubquery(named_value(found, &|value, _| value)?)
        }
        Expr::Exists(Exists { subquery, negated }) if !subquery.outer_ref_columns.is_empty() => {
            Expr::Exists(Exists { subquery: without_values(subquery)?, negated })
        }
        Expr::Case(case) if case.expr.is_some() => {
            let whens = case.when_then_expr.into_iter().map(|(when, then)| (boxed(when), then)).collect();
            Expr::Case(Case { expr: case.expr.map(boxed), when_then_expr: whens, else_expr: case.else_expr })
        }
        Expr::ScalarFunction(call) if call.func.name() == "nullif" => unlike(call, schema),
        Expr::ScalarFunction(mut call) if ["greatest", "least"].contains(&call.func.name()) => {
            call.args = call.args.into_iter().map(|arg| with_one_nan(arg, schema)).collect();
            Expr::ScalarFunction(call)
        }
        Expr::AggregateFunction(mut call) => {
            let params = &mut call.params;
            if let Some(extreme) = params.args.first().and_then(|arg| extreme_of(&call.func, arg, schema)) {
                call.func = extreme;
            }
            if params.distinct {
                params.args = distinct(call.func.name(), std::mem::take(&mut params.args), schema);
            }
            // What is sorted within a group is itself the argument.
            if !call.func.supports_within_group_clause() {
                params.order_by = sort_keys(std::mem::take(&mut params.order_by), schema);
            }
            Expr::AggregateFunction(call)
        }
        Expr::WindowFunction(call) if skips_nulls_ahead(&call) => {
            return Err(DataFusionError::from(Error::invalid(
                "not supported: `lead` by more than one row with IGNORE NULLS",
            )));
        }
        Expr::WindowFunction(mut call) => {
            let params = &mut call.params;
            if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun {
                let extreme = params.args.first().and_then(|arg| extreme_of(function, arg, schema));
                let function = extreme.unwrap_or_else(|| framed(function));
                call.fun = WindowFunctionDefinition::AggregateUDF(function);
            }
            if params.distinct {
                params.args = distinct(call.fun.name(), std::mem::take(&mut params.args), schema);
            }
            params.partition_by = keys(std::mem::take(&mut params.partition_by), schema);
            params.order_by = sort_keys(std::mem::take(&mut params.order_by), schema);
            Expr::WindowFunction(call)
        }
        other => return Ok(Transformed::no(other)),
    }))
}

/// Whether a call is of `lead` over nulls and by several rows, which DataFusion computes wrongly.
fn skips_nulls_ahead(call: &WindowFunction) -> bool {
    let one = |offset: &Expr| matches!(offset, Expr::Literal(ScalarValue::Int64(Some(0 | 1)), _));
    call.fun.name() == "lead"
        && call.params.null_treatment == Some(NullTreatment::IgnoreNulls)
        && call.params.args.get(1).is_some_and(|offset| !one(offset))
}

/// A number among those of a subquery.
fn member(mut found: InSubquery, schema: &DFSchema) -> Result<InSubquery> {
    found.expr = Box::new(comparable(*found.expr, schema));
    named_value(found, &|value, schema| comparable(value, schema))
}

/// `nullif` of numbers as they are compared.
fn unlike(call: ScalarFunction, schema: &DFSchema) -> Expr {
    match call.args.as_slice() {
        [value, _] if is_double(value, schema) => of(&UNLIKE, call.args),
        _ => Expr::ScalarFunction(call),
    }
}

/// What an aggregate of distinct values tells apart. All but `count` give the values, so that spans of time stay what they are.
fn distinct(function: &str, args: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let told = |arg: Expr| if function == "count" || is_double(&arg, schema) { comparable(arg, schema) } else { arg };
    args.into_iter().map(told).collect()
}

fn keys(keys: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    keys.into_iter().map(|key| comparable(key, schema)).collect()
}

fn sort_keys(keys: Vec<SortKey>, schema: &DFSchema) -> Vec<SortKey> {
    keys.into_iter().map(|key| SortKey { expr: comparable(key.expr, schema), ..key }).collect()
}

/// The value under a mark, so that it looks like another one; see [`super::lists`].
pub(super) fn marked(value: Expr, mark: i64) -> Expr {
    of(&COMPARABLE, vec![value, lit(mark)])
}

pub(super) fn is_marked(value: &Expr) -> bool {
    matches!(value, Expr::ScalarFunction(call) if call.func.name() == floats::COMPARABLE && call.args.len() > 1)
}

/// A floating point number, or a span of time, as others are compared with it; anything else as it is.
fn comparable(expr: Expr, schema: &DFSchema) -> Expr {
    if matches!(expr.get_type(schema), Ok(DataType::Interval(_) | DataType::Duration(_))) {
        return of(&SPAN, vec![expr]);
    }
    match &expr {
        Expr::Literal(value, metadata) => Expr::Literal(one_of_the_equal(value.clone()), metadata.clone()),
        known if is_call(known, floats::COMPARABLE) => expr,
        _ if is_double(&expr, schema) => of(&COMPARABLE, vec![expr]),
        _ => expr,
    }
}

/// The number as it is, one NaN for all: what [`comparable`] does to zeros would change the result.
fn with_one_nan(expr: Expr, schema: &DFSchema) -> Expr {
    match is_double(&expr, schema) && !is_call(&expr, ONE_NAN.name()) {
        true => of(&ONE_NAN, vec![expr]),
        false => expr,
    }
}

fn of(function: &Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
}

fn is_call(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == name)
}

fn is_double(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|ty| matches!(ty, DataType::Float32 | DataType::Float64))
}

fn one_of_the_equal(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(v)) => ScalarValue::Float64(Some(if v.is_nan() { f64::NAN } else { v + 0.0 })),
        ScalarValue::Float32(Some(v)) => ScalarValue::Float32(Some(if v.is_nan() { f32::NAN } else { v + 0.0 })),
        other => other,
    }
}

static COMPARABLE: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| OfNumbers::function(floats::COMPARABLE, Kind::Comparable));
static SPAN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| OfNumbers::function("$span", Kind::Span));
static ONE_NAN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| OfNumbers::function("$one_nan", Kind::OneNan));
static UNLIKE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| OfNumbers::function("$nullif", Kind::Unlike));

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// [`floats::comparable`]
    Comparable,
    /// The number, one NaN for all.
    OneNan,
    /// Nanoseconds of a span of time; a month has 30 days.
    Span,
    /// The first number, null where it equals the second.
    Unlike,
}

/// Functions of numbers that no statement can name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfNumbers {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl OfNumbers {
    fn function(name: &'static str, kind: Kind) -> Arc<ScalarUDF> {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Self { name, kind, signature }))
    }
}

impl ScalarUDFImpl for OfNumbers {
    fn name(&self) -> &str {
        self.name
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match (self.kind, args) {
            (Kind::Unlike, [value, other]) => format!("nullif({value},{other})"),
            (_, args) => args.first().map(ToString::to_string).unwrap_or_default(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Span => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
            _ => types.first().cloned().unwrap_or(DataType::Null),
        })
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        if self.kind == Kind::Span {
            return Interval::make_unbounded(&DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0));
        }
        inputs.first().map_or_else(|| Interval::make_unbounded(&DataType::Null), |input| Ok((*input).clone()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let found = match (self.kind, arrays.as_slice()) {
            (Kind::Comparable, [values, ..]) => floats::comparable(values),
            (Kind::Span, [spans]) => nanos(spans)?,
            (Kind::OneNan, [values]) => floats::with_one_nan(values),
            (Kind::Unlike, [values, others]) => {
                nullif(values, &eq(&floats::comparable(values), &floats::comparable(others))?)?
            }
            (_, other) => {
                return Err(DataFusionError::from(Error::bug(format!(
                    "expected other arguments, found {}",
                    other.len()
                ))));
            }
        };
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?)),
            false => Ok(ColumnarValue::Array(found)),
        }
    }
}

/// Nanoseconds of spans of time.
fn nanos(spans: &ArrayRef) -> Result<ArrayRef> {
    const DAY: i128 = 86_400_000_000_000;
    let spans = cast(spans, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let of = |span: IntervalMonthDayNano| {
        (i128::from(span.months) * 30 + i128::from(span.days)) * DAY + i128::from(span.nanoseconds)
    };
    let nanos = spans.as_primitive::<IntervalMonthDayNanoType>().unary::<_, Decimal128Type>(of);
    Ok(Arc::new(nanos.with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?))
}

/// What takes the place of DataFusion's `max` or `min` of floating point numbers, which pass over NaN in groups.
fn extreme_of(function: &AggregateUDF, arg: &Expr, schema: &DFSchema) -> Option<Arc<AggregateUDF>> {
    match function.name() {
        "max" if is_double(arg, schema) => Some(Arc::clone(&MAX)),
        "min" if is_double(arg, schema) => Some(Arc::clone(&MIN)),
        _ => None,
    }
}

static MAX: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Extreme::of(max_udaf()));
static MIN: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Extreme::of(min_udaf()));

/// `max` or `min` of floating point numbers: DataFusion's over whole numbers of the same order.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

impl Extreme {
    fn of(inner: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
        Arc::new(AggregateUDF::from(Self { inner, signature: Signature::any(1, Volatility::Immutable) }))
    }
}

/// The arguments of the function over [`ordinals`].
fn of_ordinals(args: AccumulatorArgs<'_>) -> AccumulatorArgs<'_> {
    AccumulatorArgs { return_field: Arc::new(Field::new(args.name, DataType::Int64, true)), ..args }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "ordinal"), DataType::Int64, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let to = args.return_field.data_type().clone();
        Ok(Box::new(Ordinal { inner: self.inner.accumulator(of_ordinals(args))?, to }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let to = args.return_field.data_type().clone();
        Ok(Box::new(Ordinal { inner: self.inner.create_sliding_accumulator(of_ordinals(args))?, to }))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let to = args.return_field.data_type().clone();
        Ok(Box::new(Ordinals { inner: self.inner.create_groups_accumulator(of_ordinals(args))?, to }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// The bits of a number, so that whole numbers have the order of the numbers that they stand for; the inverse of itself.
fn ordinal(bits: i64) -> i64 {
    bits ^ ((bits >> 63) & i64::MAX)
}

/// Whole numbers in the order of the values.
fn ordinals(values: &ArrayRef) -> Result<ArrayRef> {
    let doubles = cast(&floats::comparable(values), &DataType::Float64)?;
    let of = |v: f64| ordinal(v.to_bits().cast_signed());
    Ok(Arc::new(doubles.as_primitive::<Float64Type>().unary::<_, Int64Type>(of)))
}

/// The values in whose order these whole numbers are.
fn values_of(ordinals: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let of = |v: i64| f64::from_bits(ordinal(v).cast_unsigned());
    let doubles: ArrayRef = Arc::new(ordinals.as_primitive::<Int64Type>().unary::<_, Float64Type>(of));
    Ok(cast(&doubles, to)?)
}

/// One extreme.
#[derive(Debug)]
struct Ordinal {
    inner: Box<dyn Accumulator>,
    to: DataType,
}

impl Accumulator for Ordinal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&[ordinals(&values[0])?])
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&[ordinals(&values[0])?])
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let found = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&values_of(&found, &self.to)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}

/// An extreme for each group.
struct Ordinals {
    inner: Box<dyn GroupsAccumulator>,
    to: DataType,
}

impl GroupsAccumulator for Ordinals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.inner.update_batch(&[ordinals(&values[0])?], groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        values_of(&self.inner.evaluate(emit_to)?, &self.to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&[ordinals(&values[0])?], filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn whole_numbers_stand_in_the_order_of_the_doubles() {
        let sorted = [f64::NEG_INFINITY, -1.5, -f64::MIN_POSITIVE, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN];
        let array: ArrayRef = Arc::new(arrow::array::Float64Array::from(sorted.to_vec()));
        let found = ordinals(&array).unwrap();
        let found: &Int64Array = found.as_primitive();
        assert!(found.values().is_sorted_by(|a, b| a < b));
        let back = values_of(&(Arc::new(found.clone()) as ArrayRef), &DataType::Float64).unwrap();
        let back = back.as_primitive::<Float64Type>().values();
        assert!(back.iter().zip(&sorted).all(|(found, expected)| found.total_cmp(expected).is_eq()));
    }

    #[test]
    fn both_zeros_and_every_nan_are_one_number() {
        let odd: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![-0.0, -f64::NAN, 0.0, f64::NAN]));
        let found = ordinals(&odd).unwrap();
        let found = found.as_primitive::<Int64Type>().values();
        assert_eq!((found[0], found[1]), (found[2], found[3]));
    }
}
