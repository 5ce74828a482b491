//! Functions that make much of little, kept within the engine's memory: what a call would make is told from its arguments before
//! it is made.
//!
//! DataFusion accounts for what operators hold, not for what a function makes of one batch: `repeat('x', 2000000000)` takes
//! gigabytes at any limit.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Schema,
    TimeUnit,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as PhysicalBinaryExpr, Column};

use super::memory::check_heap;
use super::semantics::under_its_name;
use shared::{Error, Result as OurResult};

/// Share of the memory that one call may make for a batch, and for a single value: plans hold values several times.
const BATCH_SHARE: u64 = 4;
const VALUE_SHARE: u64 = 32;

/// How much a function makes of its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// The first argument as often as the second says.
    Times,
    /// As long as the second argument says.
    Padded,
    /// All arguments together.
    Sum,
    /// The first argument with the third for each of the second.
    Replaced,
    /// As [`Growth::Replaced`], where the second is a pattern.
    Matched,
    /// From the first argument to the second in steps of the third.
    Series,
    /// As many elements as the second argument says.
    Resized,
}

const GROWING: &[(&str, Growth)] = &[
    ("repeat", Growth::Times),
    ("array_repeat", Growth::Times),
    ("lpad", Growth::Padded),
    ("rpad", Growth::Padded),
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Sum),
    ("array_concat", Growth::Sum),
    ("array_append", Growth::Sum),
    ("array_prepend", Growth::Sum),
    ("make_array", Growth::Sum),
    ("overlay", Growth::Sum),
    ("replace", Growth::Replaced),
    ("regexp_replace", Growth::Matched),
    ("range", Growth::Series),
    ("generate_series", Growth::Series),
    ("sequence", Growth::Series),
    ("ngrams", Growth::Times),
    ("array_resize", Growth::Resized),
];

/// Bounds the functions that the session has by what `memory` bytes allow.
///
/// # Errors
/// What the registry answers.
pub(super) fn register(state: &mut SessionState, memory: u64) -> Result<()> {
    let mut functions = HashMap::new();
    for (name, growth) in GROWING {
        let Ok(function) = state.udf(name) else { continue };
        let bounded = Arc::new(ScalarUDF::new_from_impl(Bounded { inner: function, growth: *growth, memory }));
        state.register_udf(Arc::clone(&bounded))?;
        functions.insert(*name, bounded);
    }
    let inner = Arc::new(ScalarUDF::from(Joined { signature: Signature::any(2, Volatility::Immutable) }));
    let joined = Arc::new(ScalarUDF::new_from_impl(Bounded { inner, growth: Growth::Sum, memory }));
    state.add_analyzer_rule(Arc::new(WithinBounds { joined, functions }));
    Ok(())
}

/// Puts bounded functions where the planner of SQL put others: `||`, and the functions that brackets stand for.
#[derive(Debug)]
struct WithinBounds {
    joined: Arc<ScalarUDF>,
    functions: HashMap<&'static str, Arc<ScalarUDF>>,
}

impl AnalyzerRule for WithinBounds {
    fn name(&self) -> &str {
        "within_bounds"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|plan| {
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| under_its_name(expr, &names, &|expr| Ok(self.bounded(expr))))
        });
        Ok(plan?.data)
    }
}

impl WithinBounds {
    fn bounded(&self, expr: Expr) -> Transformed<Expr> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                let args = vec![*left, *right];
                Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&self.joined), args)))
            }
            Expr::ScalarFunction(mut call) => match self.functions.get(call.func.name()) {
                Some(bounded) if !call.func.inner().is::<Bounded>() => {
                    call.func = Arc::clone(bounded);
                    Transformed::yes(Expr::ScalarFunction(call))
                }
                _ => Transformed::no(Expr::ScalarFunction(call)),
            },
            other => Transformed::no(other),
        }
    }
}

/// `||` as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Joined {
    signature: Signature,
}

impl ScalarUDFImpl for Joined {
    fn name(&self) -> &str {
        "||"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(ToString::to_string).collect::<Vec<_>>().join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] => BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type(),
            other => Err(DataFusionError::from(Error::bug(format!("expected 2 arguments, found {}", other.len())))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let column = |i: usize| Arc::new(Column::new("", i)) as Arc<dyn PhysicalExpr>;
        let fields = arrays.iter().map(|array| Field::new("", array.data_type().clone(), true)).collect::<Vec<_>>();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
        let joined = PhysicalBinaryExpr::new(column(0), Operator::StringConcat, column(1)).evaluate(&rows)?;
        match (joined, is_scalar) {
            (ColumnarValue::Array(array), true) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)),
            (joined, _) => Ok(joined),
        }
    }
}

/// A function that refuses to make too much.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    memory: u64,
}

/// As the function within, but for [`ScalarUDFImpl::simplify`], which would put that in this one's place.
impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&args)?;
        self.inner.invoke_with_args(args)
    }
}

impl Bounded {
    /// # Errors
    /// `Limit` when the call would make more than its share of the memory.
    fn check(&self, args: &ScalarFunctionArgs) -> OurResult<()> {
        let one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if one { 1 } else { args.number_rows };
        let share = self.memory / if one { VALUE_SHARE } else { BATCH_SHARE };
        let bytes = self.growth.bytes(&args.args, rows, share);
        if bytes <= share {
            return check_heap(self.memory, bytes);
        }
        Err(Error::limit(format!(
            "expected `{}` to make at most {share} bytes at once, found a call that would make {bytes}",
            self.inner.name()
        )))
    }
}

impl Growth {
    /// Bytes that a call makes for all rows, at most; counted more closely only when a rough bound is over `share`.
    fn bytes(self, args: &[ColumnarValue], rows: usize, share: u64) -> u64 {
        let arg = |at: usize| args.get(at);
        let sizes = |at: usize| Sizes::of(arg(at));
        let numbers = |at: usize| Numbers::of(arg(at));
        let total = |each: &dyn Fn(usize) -> u64| (0..rows).map(each).fold(0, u64::saturating_add);
        match self {
            Self::Times => {
                let (values, times) = (sizes(0), numbers(1));
                total(&|row| values.at(row).max(1).saturating_mul(times.at(row)))
            }
            Self::Padded => {
                let (values, lengths, fill) = (sizes(0), numbers(1), sizes(2));
                let widest = if (0..rows).all(|row| fill.at(row) <= 1) { 1 } else { 4 };
                total(&|row| values.at(row).saturating_add(lengths.at(row).saturating_mul(widest)))
            }
            Self::Sum => {
                let all: Vec<_> = args.iter().map(|arg| Sizes::of(Some(arg))).collect();
                total(&|row| all.iter().map(|sizes| sizes.at(row)).fold(0, u64::saturating_add))
            }
            Self::Replaced | Self::Matched => {
                let (texts, sought, new) = (sizes(0), sizes(1), sizes(2));
                let shortest = |row| if self == Self::Matched { 1 } else { sought.at(row).max(1) };
                let most =
                    |row| texts.at(row).saturating_add((texts.at(row) / shortest(row) + 1).saturating_mul(new.at(row)));
                match total(&most) {
                    bytes if bytes <= share => bytes,
                    _ => {
                        let found = Found::new(self, arg(0), arg(1));
                        total(&|row| texts.at(row).saturating_add(found.at(row).saturating_mul(new.at(row))))
                    }
                }
            }
            Self::Series => {
                let (from, to) = (Steps::of(arg(0)), Steps::of(arg(1)));
                let of_days = arg(0).is_some_and(|from| matches!(from.data_type(), DataType::Date32));
                let step = match arg(2) {
                    None if of_days => Steps { values: vec![DAY_NANOS], is_scalar: true },
                    step => Steps::of(step),
                };
                let one_argument = args.len() == 1;
                total(&|row| {
                    let (from, to) = if one_argument { (0, from.at(row)) } else { (from.at(row), to.at(row)) };
                    let step = step.at(row).unsigned_abs().max(1);
                    let elements = u64::try_from(to.abs_diff(from) / step).unwrap_or(u64::MAX);
                    elements.saturating_add(1).saturating_mul(8)
                })
            }
            Self::Resized => {
                let (values, lengths) = (sizes(0), numbers(1));
                let element = sizes(2);
                total(&|row| values.at(row).saturating_add(lengths.at(row).saturating_mul(element.at(row).max(8))))
            }
        }
    }
}

/// Bytes of an argument in each row.
enum Sizes {
    Same(u64),
    Each(Vec<u64>),
}

impl Sizes {
    fn of(arg: Option<&ColumnarValue>) -> Self {
        match arg {
            None => Self::Same(0),
            Some(ColumnarValue::Scalar(value)) => Self::Same(scalar_bytes(value)),
            Some(ColumnarValue::Array(array)) => array_bytes(array),
        }
    }

    fn at(&self, row: usize) -> u64 {
        match self {
            Self::Same(bytes) => *bytes,
            Self::Each(bytes) => bytes.get(row).copied().unwrap_or(0),
        }
    }
}

fn scalar_bytes(value: &ScalarValue) -> u64 {
    match value.try_as_str() {
        Some(text) => text.map_or(0, str::len) as u64,
        None => value.size() as u64,
    }
}

fn array_bytes(array: &ArrayRef) -> Sizes {
    fn lengths<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Sizes {
        Sizes::Each(texts.map(|text| text.map_or(0, str::len) as u64).collect())
    }
    match array.data_type() {
        DataType::Utf8 => lengths(array.as_string::<i32>().iter()),
        DataType::LargeUtf8 => lengths(array.as_string::<i64>().iter()),
        DataType::Utf8View => lengths(array.as_string_view().iter()),
        _ => {
            let whole = array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size());
            Sizes::Same((whole / array.len().max(1)) as u64)
        }
    }
}

/// A whole number in each row; negative ones are nothing to these functions.
struct Numbers(Steps);

impl Numbers {
    fn of(arg: Option<&ColumnarValue>) -> Self {
        Self(Steps::of(arg))
    }

    fn at(&self, row: usize) -> u64 {
        u64::try_from(self.0.at(row)).unwrap_or(0)
    }
}

/// A bound of a series, or its step, in each row: whole numbers as they are, points and spans of time in nanoseconds.
struct Steps {
    values: Vec<i128>,
    /// Whether all rows have the same.
    is_scalar: bool,
}

impl Steps {
    fn of(arg: Option<&ColumnarValue>) -> Self {
        let (array, is_scalar) = match arg {
            None => return Self { values: vec![1], is_scalar: true },
            Some(ColumnarValue::Scalar(value)) => (value.to_array().ok(), true),
            Some(ColumnarValue::Array(array)) => (Some(Arc::clone(array)), false),
        };
        Self { values: array.map_or_else(|| vec![0], |array| steps(&array)), is_scalar }
    }

    fn at(&self, row: usize) -> i128 {
        let row = if self.is_scalar { 0 } else { row };
        self.values.get(row).copied().unwrap_or(0)
    }
}

const DAY_NANOS: i128 = 86_400_000_000_000;

fn steps(array: &ArrayRef) -> Vec<i128> {
    let times = |numbers: Vec<i128>, nanos: i128| numbers.into_iter().map(|number| number * nanos).collect();
    match array.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
            let nanos = |i: &IntervalMonthDayNano| {
                (i128::from(i.months) * 28 + i128::from(i.days)) * DAY_NANOS + i128::from(i.nanoseconds)
            };
            intervals.values().iter().map(nanos).collect()
        }
        DataType::Date32 | DataType::Date64 => {
            let days = cast(array, &DataType::Date32).and_then(|days| cast(&days, &DataType::Int32));
            times(whole(days.and_then(|days| cast(&days, &DataType::Int64))), DAY_NANOS)
        }
        DataType::Timestamp(unit, _) => {
            let nanos = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            times(whole(cast(array, &DataType::Int64)), nanos)
        }
        _ => whole(cast(array, &DataType::Int64)),
    }
}

fn whole(array: std::result::Result<ArrayRef, ArrowError>) -> Vec<i128> {
    array.map_or_else(
        |_| Vec::new(),
        |array| array.as_primitive::<Int64Type>().iter().map(|n| n.unwrap_or(0).into()).collect(),
    )
}

/// How often what is sought stands in each text.
struct Found {
    growth: Growth,
    texts: Option<ArrayRef>,
    sought: Option<ArrayRef>,
    pattern: Option<regex::Regex>,
}

impl Found {
    fn new(growth: Growth, texts: Option<&ColumnarValue>, sought: Option<&ColumnarValue>) -> Self {
        let array =
            |value: Option<&ColumnarValue>| value?.to_array(1).ok().and_then(|a| cast(&a, &DataType::LargeUtf8).ok());
        let (texts, sought) = (array(texts), array(sought));
        let text = sought.as_ref().filter(|a| a.len() == 1 && a.is_valid(0)).map(|a| a.as_string::<i64>().value(0));
        let pattern = text.filter(|_| growth == Growth::Matched).and_then(|text| regex::Regex::new(text).ok());
        Self { growth, texts, sought, pattern }
    }

    fn at(&self, row: usize) -> u64 {
        let value = |array: &Option<ArrayRef>| -> Option<String> {
            let array = array.as_ref()?;
            let row = if array.len() == 1 { 0 } else { row };
            array.is_valid(row).then(|| array.as_string::<i64>().value(row).to_owned())
        };
        let (Some(text), Some(sought)) = (value(&self.texts), value(&self.sought)) else { return 0 };
        let count = match (&self.pattern, self.growth) {
            (Some(pattern), _) => pattern.find_iter(&text).count(),
            (None, Growth::Matched) => text.len() + 1,
            _ => text.matches(sought.as_str()).count(),
        };
        count as u64
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, StringViewArray};

    use super::*;

    const SHARE: u64 = 1_000;

    fn text(text: &str) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::from(text))
    }

    fn number(number: i64) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::from(number))
    }

    fn date(day: i32) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Date32(Some(day)))
    }

    fn texts(texts: &[&str]) -> ColumnarValue {
        ColumnarValue::Array(Arc::new(StringViewArray::from_iter_values(texts)))
    }

    #[test]
    fn what_a_call_makes_is_told_from_its_arguments() {
        let numbers = ColumnarValue::Array(Arc::new(Int64Array::from(vec![Some(2), None, Some(-1)])));
        for (growth, args, rows, bytes) in [
            (Growth::Times, vec![text("ab"), number(2_000_000_000)], 1, 4_000_000_000),
            (Growth::Times, vec![texts(&["ab", "c", "d"]), numbers], 3, 4),
            (Growth::Times, vec![text("x"), number(i64::MAX)], 3, u64::MAX),
            (Growth::Padded, vec![text("ab"), number(100)], 1, 102),
            (Growth::Sum, vec![text("ab"), texts(&["c", "de"])], 2, 7),
            (Growth::Replaced, vec![text("aXa"), text("a"), text("bcd")], 1, 15),
            (Growth::Series, vec![number(1), number(10), number(2)], 1, 40),
            (Growth::Series, vec![number(10)], 1, 88),
            (Growth::Series, vec![date(1), date(3)], 1, 24),
        ] {
            assert_eq!(growth.bytes(&args, rows, SHARE), bytes, "{growth:?} {args:?}");
        }
    }

    #[test]
    fn replacements_are_counted_before_they_are_refused() {
        let long = "x".repeat(500);
        let args = [texts(&[&long]), text("aa"), text("bcdefgh")];
        assert_eq!(Growth::Replaced.bytes(&args, 1, SHARE), 500, "nothing is found");
        assert_eq!(Growth::Matched.bytes(&args, 1, SHARE), 500);
        let array: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(500)]));
        let args = [ColumnarValue::Array(array), text("x"), text("bcdefgh")];
        assert_eq!(Growth::Replaced.bytes(&args, 1, SHARE), 500 + 500 * 7);
    }
}
