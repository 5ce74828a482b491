//! Arithmetic on whole numbers and decimals that never wraps.
//!
//! DataFusion computes `+`, `-`, `*` and the negative with kernels that wrap around, lets decimals outgrow their 38 digits, and
//! cuts the digits of a decimal quotient off. [`CheckedArithmetic`] puts functions in their place, after the types of the
//! operands were made equal: the same type and name of the result, an error where it can't hold the value, quotients rounded
//! half away from zero.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Datum, Decimal128Array, Scalar};
use arrow::compute::CastOptions;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float64Type, i256};
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::{under_its_name, whole_subqueries};
use shared::Error;

/// Replaces arithmetic that could wrap. Runs after the coercion of types.
#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        whole_subqueries(plan, |plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let plan = plan.map_expressions(|expr| under_its_name(expr, &names, &|expr| checked(expr, &schema)))?;
            plan.map_data(LogicalPlan::recompute_schema)
        })
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus, right })
            if has_hours(&left, &right, schema) || has_hours(&right, &left, schema) =>
        {
            Err(DataFusionError::from(Error::invalid(
                "expected days, months or years beside a date, found an interval of hours or less: cast the date to a timestamp",
            )))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let Some(function) = function_of(op) else {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            };
            let (l, r) = (type_of(&left, schema)?, type_of(&right, schema)?);
            let checks = match (&l, &r) {
                (DataType::Decimal128(..), DataType::Decimal128(..)) => true,
                (l, r) => l.is_integer() && l == r && op != Operator::Divide,
            };
            Ok(match checks {
                true => Transformed::yes(call(function, vec![*left, *right])),
                false => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            })
        }
        Expr::Negative(value) => {
            let ty = value.get_type(schema)?;
            match ty.is_signed_integer() {
                true => {
                    let zero = Expr::Literal(ScalarValue::new_zero(&ty)?, None);
                    Ok(Transformed::yes(call(&MINUS, vec![zero, *value])))
                }
                false => Ok(Transformed::no(Expr::Negative(value))),
            }
        }
        Expr::Cast(Cast { expr, field }) if cuts_digits(&expr, field.data_type(), schema) => {
            Ok(Transformed::yes(Cut::call(*expr, field.data_type(), false)))
        }
        Expr::TryCast(TryCast { expr, field }) if cuts_digits(&expr, field.data_type(), schema) => {
            Ok(Transformed::yes(Cut::call(*expr, field.data_type(), true)))
        }
        Expr::Cast(Cast { expr, field }) => {
            let rounded = rounded(&expr, field.data_type(), schema)?;
            let was = rounded.is_some();
            let cast = Expr::Cast(Cast { expr: rounded.map_or(expr, Box::new), field });
            Ok(Transformed::new_transformed(cast, was))
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let rounded = rounded(&expr, field.data_type(), schema)?;
            let was = rounded.is_some();
            let cast = Expr::TryCast(TryCast { expr: rounded.map_or(expr, Box::new), field });
            Ok(Transformed::new_transformed(cast, was))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether an interval beside a date has hours or less, which DataFusion passes over.
fn has_hours(date: &Expr, interval: &Expr, schema: &DFSchema) -> bool {
    let hours = |value: &ScalarValue| match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => interval.nanoseconds != 0,
        ScalarValue::IntervalDayTime(Some(interval)) => interval.milliseconds != 0,
        _ => false,
    };
    matches!(interval, Expr::Literal(value, _) if hours(value))
        && date.get_type(schema).is_ok_and(|ty| matches!(ty, DataType::Date32 | DataType::Date64))
}

/// Whether a cast leaves digits after the point out. Compared with a literal, DataFusion would compare what it casts.
fn cuts_digits(value: &Expr, to: &DataType, schema: &DFSchema) -> bool {
    match (value.get_type(schema), to) {
        (Ok(DataType::Decimal128(_, from)), DataType::Decimal128(_, to)) => *to < from,
        _ => false,
    }
}

/// A cast to a decimal of fewer digits after the point, as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Cut {
    to: DataType,
    /// Whether what does not fit is null.
    is_try: bool,
    signature: Signature,
}

impl Cut {
    fn call(value: Expr, to: &DataType, is_try: bool) -> Expr {
        let signature = Signature::any(1, Volatility::Immutable);
        let function = ScalarUDF::from(Self { to: to.clone(), is_try, signature });
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![value]))
    }
}

impl ScalarUDFImpl for Cut {
    fn name(&self) -> &str {
        "$cast"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(ToString::to_string).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let options = CastOptions { safe: self.is_try, ..CastOptions::default() };
        let [value] = args.args.as_slice() else {
            return Err(DataFusionError::from(Error::bug(format!("expected 1 argument, found {}", args.args.len()))));
        };
        value.cast_to(&self.to, Some(&options))
    }
}

/// The type of an expression. That of these functions' calls is told without the names of their arguments, which make the time for a
/// long chain cubic.
fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    match expr {
        Expr::ScalarFunction(call) if ARITHMETIC.iter().any(|own| own.name() == call.func.name()) => {
            let types = call.args.iter().map(|arg| type_of(arg, schema)).collect::<Result<Vec<_>>>()?;
            call.func.return_type(&types)
        }
        other => other.get_type(schema),
    }
}

/// What a cast to a whole number casts: the nearest whole one, half away from zero.
fn rounded(value: &Expr, to: &DataType, schema: &DFSchema) -> Result<Option<Expr>> {
    let from = value.get_type(schema)?;
    let rounds = matches!(&from, DataType::Decimal128(_, scale) if *scale > 0) || from.is_floating();
    if !to.is_integer() || !rounds {
        return Ok(None);
    }
    // A value that was rounded is cast again when the plan is analyzed once more.
    if matches!(value, Expr::ScalarFunction(call) if call.func.name() == ROUND.name()) {
        return Ok(None);
    }
    Ok(Some(call(&ROUND, vec![value.clone()])))
}

fn call(function: &Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
}

fn function_of(op: Operator) -> Option<&'static Arc<ScalarUDF>> {
    match op {
        Operator::Plus => Some(&PLUS),
        Operator::Minus => Some(&MINUS),
        Operator::Multiply => Some(&MULTIPLY),
        Operator::Divide => Some(&DIVIDE),
        _ => None,
    }
}

static PLUS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arithmetic::function("$plus", Operator::Plus));
static MINUS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arithmetic::function("$minus", Operator::Minus));
static MULTIPLY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arithmetic::function("$times", Operator::Multiply));
static DIVIDE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arithmetic::function("$divided", Operator::Divide));
static ARITHMETIC: LazyLock<[Arc<ScalarUDF>; 4]> =
    LazyLock::new(|| [&PLUS, &MINUS, &MULTIPLY, &DIVIDE].map(|function| Arc::clone(function)));
static ROUND: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Round { signature: Signature::any(1, Volatility::Immutable) })));

#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    name: &'static str,
    op: Operator,
    signature: Signature,
}

impl Arithmetic {
    fn function(name: &'static str, op: Operator) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Self { name, op, signature: Signature::any(2, Volatility::Immutable) }))
    }

    fn apply(&self, left: &dyn Datum, right: &dyn Datum, to: &DataType) -> Result<ArrayRef> {
        let result = match self.op {
            Operator::Plus => numeric::add(left, right)?,
            Operator::Minus => numeric::sub(left, right)?,
            Operator::Multiply => numeric::mul(left, right)?,
            _ => quotient(left, right, to)?,
        };
        match to {
            DataType::Decimal128(precision, scale) => {
                let decimals = result.as_primitive::<Decimal128Type>();
                let decimals = decimals.clone().with_precision_and_scale(*precision, *scale)?;
                within_precision(&decimals, self.op)?;
                Ok(Arc::new(decimals))
            }
            _ => Ok(result),
        }
    }
}

/// # Errors
/// `Invalid` for a value of more digits than its type has.
fn within_precision(decimals: &Decimal128Array, op: Operator) -> Result<()> {
    decimals.validate_decimal_precision(decimals.precision()).map_err(|_| {
        let ty = format!("decimal({},{})", decimals.precision(), decimals.scale());
        DataFusionError::from(Error::invalid(format!(
            "expected the result of `{op}` to fit into `{ty}`, found one of more digits"
        )))
    })
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.name
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => format!("{left} {} {right}", self.op),
            _ => self.name.to_owned(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] => BinaryTypeCoercer::new(left, &self.op, right).get_result_type(),
            other => Err(DataFusionError::from(Error::bug(format!("expected 2 arguments, found {}", other.len())))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let to = args.return_type().clone();
        match args.args.as_slice() {
            [ColumnarValue::Array(l), ColumnarValue::Array(r)] => self.apply(l, r, &to).map(ColumnarValue::Array),
            [ColumnarValue::Array(l), ColumnarValue::Scalar(r)] => {
                self.apply(l, &Scalar::new(r.to_array()?), &to).map(ColumnarValue::Array)
            }
            [ColumnarValue::Scalar(l), ColumnarValue::Array(r)] => {
                self.apply(&Scalar::new(l.to_array()?), r, &to).map(ColumnarValue::Array)
            }
            [ColumnarValue::Scalar(l), ColumnarValue::Scalar(r)] => {
                let result = self.apply(&l.to_array()?, &r.to_array()?, &to)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
            }
            other => Err(DataFusionError::from(Error::bug(format!("expected 2 arguments, found {}", other.len())))),
        }
    }
}

/// The quotients, rounded half away from zero.
fn quotient(left: &dyn Datum, right: &dyn Datum, to: &DataType) -> Result<ArrayRef> {
    let ((l, l_is_scalar), (r, r_is_scalar)) = (left.get(), right.get());
    let (l, r) = (l.as_primitive::<Decimal128Type>(), r.as_primitive::<Decimal128Type>());
    let DataType::Decimal128(_, scale) = to else {
        return Err(DataFusionError::from(Error::bug(format!("expected a quotient of decimals, found `{to}`"))));
    };
    let shift = i16::from(*scale) - i16::from(l.scale()) + i16::from(r.scale());
    let factor = power_of_ten(shift.unsigned_abs())?;
    let rows = if l_is_scalar { r.len() } else { l.len() };
    let mut found = Vec::with_capacity(rows);
    for row in 0..rows {
        let (i, j) = (if l_is_scalar { 0 } else { row }, if r_is_scalar { 0 } else { row });
        if l.is_null(i) || r.is_null(j) {
            found.push(None);
            continue;
        }
        let (dividend, divisor) = (i256::from_i128(l.value(i)), i256::from_i128(r.value(j)));
        let (dividend, divisor) = match shift >= 0 {
            true => (dividend.checked_mul(factor), Some(divisor)),
            false => (Some(dividend), divisor.checked_mul(factor)),
        };
        found.push(Some(divided(dividend, divisor)?));
    }
    Ok(Arc::new(Decimal128Array::from(found)))
}

fn power_of_ten(exponent: u16) -> Result<i256> {
    i256::from_i128(10).checked_pow(u32::from(exponent)).ok_or_else(overflown)
}

fn divided(dividend: Option<i256>, divisor: Option<i256>) -> Result<i128> {
    let (Some(dividend), Some(divisor)) = (dividend, divisor) else { return Err(overflown()) };
    if divisor == i256::ZERO {
        return Err(ArrowError::DivideByZero.into());
    }
    let (quotient, rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
    let twice = rest.wrapping_abs().checked_mul(i256::from_i128(2)).ok_or_else(overflown)?;
    let away = match (dividend < i256::ZERO) == (divisor < i256::ZERO) {
        true => i256::ONE,
        false => i256::MINUS_ONE,
    };
    let rounds = twice >= divisor.wrapping_abs();
    let quotient = if rounds { quotient.wrapping_add(away) } else { quotient };
    quotient.to_i128().ok_or_else(overflown)
}

fn overflown() -> datafusion::common::DataFusionError {
    DataFusionError::from(Error::invalid("expected a decimal of at most 38 digits, found a quotient of more"))
}

/// The nearest whole number, half away from zero, as a double or a decimal without digits after its point.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Round {
    signature: Signature,
}

impl ScalarUDFImpl for Round {
    fn name(&self) -> &str {
        "$round"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(ToString::to_string).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types.first() {
            Some(DataType::Decimal128(p, s)) => {
                let before = i16::from(*p) - i16::from(*s) + 1;
                let max = i16::from(DECIMAL128_MAX_PRECISION);
                DataType::Decimal128(u8::try_from(before.clamp(1, max)).unwrap_or(DECIMAL128_MAX_PRECISION), 0)
            }
            _ => DataType::Float64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return Err(DataFusionError::from(Error::bug(format!("expected 1 argument, found {}", args.args.len()))));
        };
        let to = args.return_field.data_type();
        let round = |array: &ArrayRef| -> Result<ArrayRef> {
            // A cast to a decimal of fewer digits rounds so already.
            let cast = arrow::compute::cast(array, to)?;
            Ok(match to {
                DataType::Float64 => Arc::new(cast.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round)),
                _ => cast,
            })
        };
        match value {
            ColumnarValue::Array(array) => round(array).map(ColumnarValue::Array),
            ColumnarValue::Scalar(scalar) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&round(&scalar.to_array()?)?, 0)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
        Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
    }

    #[test]
    fn a_quotient_of_decimals_is_rounded_half_away_from_zero() {
        let to = DataType::Decimal128(20, 2);
        let (l, r) = (decimals(&[200, -200, 125, -125], 10, 2), decimals(&[300, 300, 1000, 1000], 10, 2));
        let found = quotient(&l, &r, &to).unwrap();
        assert_eq!(found.as_primitive::<Decimal128Type>().values(), &[67, -67, 13, -13]);
    }

    #[test]
    fn a_result_of_more_than_38_digits_is_refused() {
        let most = decimals(&[99_999_999_999_999_999_999_999_999_999_999_999_999], 38, 0);
        let one = decimals(&[1], 38, 0);
        let plus =
            Arithmetic { name: "$plus", op: Operator::Plus, signature: Signature::any(2, Volatility::Immutable) };
        assert!(plus.apply(&most, &one, &DataType::Decimal128(38, 0)).is_err());
        assert!(plus.apply(&one, &one, &DataType::Decimal128(38, 0)).is_ok());
    }
}
