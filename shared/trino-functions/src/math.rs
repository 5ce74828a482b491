//! Numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion::common::Result;
use statrs::distribution::{Beta, ContinuousCDF, Normal};

use super::call::{Bigint, Call, Compute, Decimal, Double, Real, Text, collect, invalid, one, three, two, whole};
use super::{Function, scalar};

const SECTION: &str = "Mathematical";

pub(super) fn functions() -> Vec<Function> {
    let mut functions = vec![
        scalar(SECTION, "abs", "the number without its sign")
            .way(
                "abs(I) -> I",
                integers(|x| {
                    x.checked_abs().ok_or_else(|| {
                        invalid(format!("expected a number whose absolute value fits into bigint, found {x}"))
                    })
                }),
            )
            .way("abs(real) -> real", one::<Real, f32, _>(f32::abs))
            .way("abs(double) -> double", one::<Double, f64, _>(f64::abs))
            .typed("abs(decimal) -> decimal", |types| Ok(types[0].clone()), one::<Decimal, i128, _>(i128::abs))
            .example("abs(-17.5)", "17.5"),
        scalar(SECTION, "ceiling", "the number rounded up to an integer")
            .alias(&["ceil"])
            .way("ceiling(I) -> I", integers(Ok))
            .way("ceiling(real) -> real", one::<Real, f32, _>(f32::ceil))
            .way("ceiling(double) -> double", one::<Double, f64, _>(f64::ceil))
            .typed(
                "ceiling(decimal) -> decimal",
                integer_part,
                decimals(|x, unit| x.div_euclid(unit) + i128::from(x.rem_euclid(unit) > 0)),
            )
            .example("ceiling(-1.5)", "-1")
            .example("ceil(2.1e0)", "3.0"),
        scalar(SECTION, "floor", "the number rounded down to an integer")
            .way("floor(I) -> I", integers(Ok))
            .way("floor(real) -> real", one::<Real, f32, _>(f32::floor))
            .way("floor(double) -> double", one::<Double, f64, _>(f64::floor))
            .typed("floor(decimal) -> decimal", integer_part, decimals(i128::div_euclid))
            .example("floor(-1.5)", "-2"),
        scalar(
            SECTION,
            "round",
            "the number rounded to an integer or to `digits` after the point, halves away from zero",
        )
        .way("round(I) -> I", integers(Ok))
        .way("round(real) -> real", one::<Real, f32, _>(f32::round))
        .way("round(double) -> double", one::<Double, f64, _>(f64::round))
        .typed("round(decimal) -> decimal", integer_part, decimals(half_up))
        .way("round(I, bigint) -> I", whole(round_integers))
        .way(
            "round(real, bigint) -> real",
            two::<Real, Bigint, f32, _>(|x, digits| {
                #[expect(clippy::cast_possible_truncation, reason = "a real comes back to a real")]
                let rounded = to_digits(f64::from(x), digits, f64::round) as f32;
                rounded
            }),
        )
        .way(
            "round(double, bigint) -> double",
            two::<Double, Bigint, f64, _>(|x, digits| to_digits(x, digits, f64::round)),
        )
        .typed("round(decimal, bigint) -> decimal", one_digit_more, whole(|call| round_decimals(call, half_up)))
        .example("round(2.5)", "3")
        .example("round(-1.235, 2)", "-1.240")
        .example("round(1250, -2)", "1300"),
        scalar(SECTION, "truncate", "the number without its digits after the point, or after `digits` of them")
            .way("truncate(real) -> real", one::<Real, f32, _>(f32::trunc))
            .way("truncate(double) -> double", one::<Double, f64, _>(f64::trunc))
            .typed("truncate(decimal) -> decimal", cut_integer_part, decimals(|x, unit| x / unit))
            .way(
                "truncate(double, bigint) -> double",
                two::<Double, Bigint, f64, _>(|x, digits| to_digits(x, digits, f64::trunc)),
            )
            .typed(
                "truncate(decimal, bigint) -> decimal",
                |types| Ok(types[0].clone()),
                whole(|call| round_decimals(call, |x, unit| x / unit)),
            )
            .example("truncate(-2.7e0)", "-2.0")
            .example("truncate(12.345, 1)", "12.300"),
        scalar(SECTION, "sign", "-1, 0 or 1 as the number is below, at or above zero")
            .way("sign(I) -> I", integers(|x| Ok(x.signum())))
            .way("sign(real) -> real", one::<Real, f32, _>(|x| if x == 0.0 || x.is_nan() { x } else { x.signum() }))
            .way(
                "sign(double) -> double",
                one::<Double, f64, _>(|x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
            )
            .typed(
                "sign(decimal) -> decimal",
                |_| Ok(DataType::Decimal128(1, 0)),
                one::<Decimal, i128, _>(i128::signum),
            )
            .example("sign(-7)", "-1"),
        scalar(SECTION, "mod", "the remainder of `n` divided by `m`, with the sign of `n`")
            .stands_for("mod(N, N) -> N", "$1 % $2")
            .example("mod(-7, 3)", "-1"),
        scalar(SECTION, "power", "`x` to the power of `p`")
            .alias(&["pow"])
            .way("power(double, double) -> double", two::<Double, Double, f64, _>(power))
            .example("power(2, 10)", "1024.0")
            .example("pow(0, -1)", "Infinity"),
        scalar(SECTION, "log", "the logarithm of `x` to the base `b`")
            .way("log(double, double) -> double", two::<Double, Double, f64, _>(|b, x| x.ln() / b.ln()))
            .example("log(2, 8)", "3.0"),
        scalar(SECTION, "e", "Euler's number")
            .way("e() -> double", constant(std::f64::consts::E))
            .example("e()", "2.718281828459045"),
        scalar(SECTION, "pi", "π")
            .way("pi() -> double", constant(std::f64::consts::PI))
            .example("pi()", "3.141592653589793"),
        scalar(SECTION, "infinity", "the double above all numbers")
            .way("infinity() -> double", constant(f64::INFINITY))
            .example("infinity()", "Infinity"),
        scalar(SECTION, "nan", "the double that is no number")
            .way("nan() -> double", constant(f64::NAN))
            .example("nan()", "NaN"),
        scalar(SECTION, "is_nan", "whether it is no number")
            .way("is_nan(real) -> boolean", one::<Real, bool, _>(f32::is_nan))
            .way("is_nan(double) -> boolean", one::<Double, bool, _>(f64::is_nan))
            .example("is_nan(nan())", "true"),
        scalar(SECTION, "is_finite", "whether it is a number that is not infinite")
            .way("is_finite(double) -> boolean", one::<Double, bool, _>(f64::is_finite))
            .example("is_finite(infinity())", "false"),
        scalar(SECTION, "is_infinite", "whether it is infinite")
            .way("is_infinite(double) -> boolean", one::<Double, bool, _>(f64::is_infinite))
            .example("is_infinite(1e0 / 0e0)", "true"),
        scalar(SECTION, "from_base", "the number that a text to the base `radix` is")
            .way("from_base(varchar, bigint) -> bigint", two::<Text, Bigint, i64, _>(from_base))
            .example("from_base('ff', 16)", "255"),
        scalar(SECTION, "to_base", "the number as text to the base `radix`")
            .way("to_base(bigint, bigint) -> varchar", two::<Bigint, Bigint, String, _>(to_base))
            .example("to_base(-255, 16)", "-ff"),
        scalar(
            SECTION,
            "width_bucket",
            "the number of the bucket among `n` of equal width between two bounds, or between bounds in an array",
        )
        .way("width_bucket(double, double, double, bigint) -> bigint", whole(width_bucket))
        .way("width_bucket(double, array(double)) -> bigint", whole(width_bucket_of_bounds))
        .example("width_bucket(5.3, 0.2, 10.6, 5)", "3")
        .example("width_bucket(5, ARRAY[1, 4, 9])", "2"),
        scalar(
            SECTION,
            "random",
            "a number from 0 to below 1, or to below `n`, or from `m` to below `n`; another in each row",
        )
        .stands_for("random() -> double", "random()")
        .stands_for("random(I) -> I", "CAST(floor(random() * $1) AS bigint)")
        .stands_for("random(I, I) -> I", "$1 + CAST(floor(random() * ($2 - $1)) AS bigint)")
        .example("random(1) = 0", "true"),
        scalar(SECTION, "rand", "as `random`")
            .stands_for("rand() -> double", "random()")
            .stands_for("rand(I) -> I", "CAST(floor(random() * $1) AS bigint)")
            .stands_for("rand(I, I) -> I", "$1 + CAST(floor(random() * ($2 - $1)) AS bigint)")
            .example("rand() < 1", "true"),
    ];
    functions.extend(of_doubles());
    functions.extend(statistical());
    functions
}

/// Name, signature, what it does, what computes it, an example and its result.
type OfDouble = (&'static str, &'static str, &'static str, fn(f64) -> f64, &'static str, &'static str);

/// Functions of one double.
fn of_doubles() -> Vec<Function> {
    let list: [OfDouble; 18] = [
        ("cbrt", "cbrt(double) -> double", "the cube root", f64::cbrt, "cbrt(27)", "3.0"),
        ("sqrt", "sqrt(double) -> double", "the square root", f64::sqrt, "sqrt(6.25)", "2.5"),
        ("exp", "exp(double) -> double", "Euler's number to the power of `x`", f64::exp, "exp(0)", "1.0"),
        ("ln", "ln(double) -> double", "the natural logarithm", f64::ln, "ln(1)", "0.0"),
        ("log2", "log2(double) -> double", "the logarithm to the base 2", f64::log2, "log2(8)", "3.0"),
        ("log10", "log10(double) -> double", "the logarithm to the base 10", f64::log10, "log10(1000)", "3.0"),
        ("degrees", "degrees(double) -> double", "an angle in degrees, of radians", degrees, "degrees(pi())", "180.0"),
        (
            "radians",
            "radians(double) -> double",
            "an angle in radians, of degrees",
            radians,
            "radians(180) = pi()",
            "true",
        ),
        ("acos", "acos(double) -> double", "the arc cosine", f64::acos, "acos(1)", "0.0"),
        ("asin", "asin(double) -> double", "the arc sine", f64::asin, "asin(0)", "0.0"),
        ("atan", "atan(double) -> double", "the arc tangent", f64::atan, "atan(0)", "0.0"),
        ("cos", "cos(double) -> double", "the cosine of an angle in radians", f64::cos, "cos(0)", "1.0"),
        ("cosh", "cosh(double) -> double", "the hyperbolic cosine", f64::cosh, "cosh(0)", "1.0"),
        ("sin", "sin(double) -> double", "the sine of an angle in radians", f64::sin, "sin(0)", "0.0"),
        ("sinh", "sinh(double) -> double", "the hyperbolic sine", f64::sinh, "sinh(0)", "0.0"),
        ("tan", "tan(double) -> double", "the tangent of an angle in radians", f64::tan, "tan(0)", "0.0"),
        ("tanh", "tanh(double) -> double", "the hyperbolic tangent", f64::tanh, "tanh(0)", "0.0"),
        (
            "cot",
            "cot(double) -> double",
            "the cotangent of an angle in radians",
            |x| 1.0 / x.tan(),
            "cot(pi() / 4) BETWEEN 0.999 AND 1.001",
            "true",
        ),
    ];
    let mut functions: Vec<Function> = list
        .into_iter()
        .map(|(name, signature, does, of, call, gives)| {
            scalar(SECTION, name, does).way(signature, one::<Double, f64, _>(of)).example(call, gives)
        })
        .collect();
    functions.push(
        scalar(SECTION, "atan2", "the arc tangent of `y / x`")
            .way("atan2(double, double) -> double", two::<Double, Double, f64, _>(f64::atan2))
            .example("atan2(0, 1)", "0.0"),
    );
    functions
}

fn statistical() -> Vec<Function> {
    vec![
        scalar(
            SECTION,
            "normal_cdf",
            "the share of a normal distribution of this mean and standard deviation that lies below `v`",
        )
        .way(
            "normal_cdf(double, double, double) -> double",
            three::<Double, Double, Double, f64, _>(|mean, sd, v| Ok(normal(mean, sd)?.cdf(v))),
        )
        .example("normal_cdf(0, 1, 0)", "0.5"),
        scalar(SECTION, "inverse_normal_cdf", "the value below which the share `p` of a normal distribution lies")
            .way(
                "inverse_normal_cdf(double, double, double) -> double",
                three::<Double, Double, Double, f64, _>(|mean, sd, p| {
                    share(p, p > 0.0 && p < 1.0)?;
                    Ok(normal(mean, sd)?.inverse_cdf(p))
                }),
            )
            .example("inverse_normal_cdf(10, 1, 0.5)", "10.0"),
        scalar(
            SECTION,
            "beta_cdf",
            "the share of a beta distribution with the parameters `a` and `b` that lies below `v`",
        )
        .way(
            "beta_cdf(double, double, double) -> double",
            three::<Double, Double, Double, f64, _>(|a, b, v| {
                share(v, (0.0..=1.0).contains(&v))?;
                Ok(beta(a, b)?.cdf(v))
            }),
        )
        .example("beta_cdf(1, 1, 0.25)", "0.25"),
        scalar(SECTION, "inverse_beta_cdf", "the value below which the share `p` of a beta distribution lies")
            .way(
                "inverse_beta_cdf(double, double, double) -> double",
                three::<Double, Double, Double, f64, _>(|a, b, p| {
                    share(p, (0.0..=1.0).contains(&p))?;
                    Ok(below(&beta(a, b)?, p))
                }),
            )
            .example("round(inverse_beta_cdf(1, 1, 0.25), 6)", "0.25"),
        scalar(
            SECTION,
            "wilson_interval_lower",
            "the lower bound of the Wilson score interval of a share, at the z-score `z`",
        )
        .way(
            "wilson_interval_lower(bigint, bigint, double) -> double",
            three::<Bigint, Bigint, Double, f64, _>(|successes, trials, z| wilson(successes, trials, z, -1.0)),
        )
        .example("round(wilson_interval_lower(1250, 1310, 1.96), 6)", "0.941488"),
        scalar(
            SECTION,
            "wilson_interval_upper",
            "the upper bound of the Wilson score interval of a share, at the z-score `z`",
        )
        .way(
            "wilson_interval_upper(bigint, bigint, double) -> double",
            three::<Bigint, Bigint, Double, f64, _>(|successes, trials, z| wilson(successes, trials, z, 1.0)),
        )
        .example("round(wilson_interval_upper(1250, 1310, 1.96), 6)", "0.964252"),
    ]
}

fn degrees(x: f64) -> f64 {
    x.to_degrees()
}

fn radians(x: f64) -> f64 {
    x.to_radians()
}

/// As Java's `Math.pow`: one to the power of NaN is NaN.
fn power(x: f64, p: f64) -> f64 {
    if (p.is_nan() && x == 1.0) || (x.abs() == 1.0 && p.is_infinite()) { f64::NAN } else { x.powf(p) }
}

fn constant(value: f64) -> Compute {
    whole(move |call| collect(call, |_| Ok(Some(value))))
}

/// A function of integers of any width, computed as bigint.
fn integers(of: fn(i64) -> Result<i64>) -> Compute {
    whole(move |call| {
        let values = cast(&call.arguments[0], &DataType::Int64)?;
        let made: ArrayRef = Arc::new(values.as_primitive::<Int64Type>().try_unary::<_, Int64Type, _>(of)?);
        narrowed(&made, call.gives)
    })
}

/// # Errors
/// `Invalid` for a value that the type does not hold.
fn narrowed(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(values, to, &options).map_err(|e| {
        invalid(format!("expected a result that fits into {}, found a larger one", super::type_name(to)))
            .context(e.to_string())
    })
}

fn round_integers(call: &Call<'_>) -> Result<ArrayRef> {
    let values = cast(&call.arrays()?[0], &DataType::Int64)?;
    let values = values.as_primitive::<Int64Type>();
    let digits = call.column::<Bigint>(1)?;
    let of = |x: i64, digits: i64| -> Result<i64> {
        if digits >= 0 {
            return Ok(x);
        }
        let Some(unit) = u32::try_from(digits.unsigned_abs()).ok().and_then(|digits| 10_i128.checked_pow(digits))
        else {
            return Ok(0);
        };
        i64::try_from(half_up(i128::from(x), unit) * unit).map_err(|_| {
            invalid(format!("expected a result that fits into bigint, found that of round({x}, {digits})"))
        })
    };
    let rounded = call_rows(call, |row| match (values.is_valid(row), digits.get(row)) {
        (true, Some(digits)) => of(values.value(row), digits).map(Some),
        _ => Ok(None),
    })?;
    narrowed(&rounded, call.gives)
}

/// Bigints, whatever the call gives.
fn call_rows(call: &Call<'_>, row: impl FnMut(usize) -> Result<Option<i64>>) -> Result<ArrayRef> {
    collect(&Call { gives: &DataType::Int64, ..*call }, row)
}

/// Rounded to digits after the point, or before it where they are negative.
fn to_digits(x: f64, digits: i64, round: fn(f64) -> f64) -> f64 {
    let power = i32::try_from(digits).unwrap_or(if digits < 0 { i32::MIN } else { i32::MAX });
    let factor = 10_f64.powi(power);
    let scaled = x * factor;
    match () {
        () if !x.is_finite() || !scaled.is_finite() => x,
        () if factor == 0.0 => 0.0,
        () => round(scaled) / factor,
    }
}

/// `x / unit` to the nearest integer, halves away from zero.
fn half_up(x: i128, unit: i128) -> i128 {
    let (quotient, rest) = (x / unit, x % unit);
    if rest.unsigned_abs() >= unit.unsigned_abs() - rest.unsigned_abs() { quotient + x.signum() } else { quotient }
}

fn decimal_of(types: &[DataType]) -> Result<(u8, i8)> {
    match types.first() {
        Some(DataType::Decimal128(precision, scale)) => Ok((*precision, *scale)),
        other => Err(invalid(format!("expected a decimal, found {other:?}"))),
    }
}

/// The decimal of the integers that a rounded decimal may be.
fn integer_part(types: &[DataType]) -> Result<DataType> {
    let (precision, scale) = decimal_of(types)?;
    let digits = i16::from(precision) - i16::from(scale) + i16::from(scale.min(1));
    Ok(DataType::Decimal128(u8::try_from(digits).unwrap_or(1).clamp(1, DECIMAL128_MAX_PRECISION), 0))
}

fn cut_integer_part(types: &[DataType]) -> Result<DataType> {
    let (precision, scale) = decimal_of(types)?;
    let digits = i16::from(precision) - i16::from(scale);
    Ok(DataType::Decimal128(u8::try_from(digits).unwrap_or(1).clamp(1, DECIMAL128_MAX_PRECISION), 0))
}

fn one_digit_more(types: &[DataType]) -> Result<DataType> {
    let (precision, scale) = decimal_of(types)?;
    Ok(DataType::Decimal128((precision + 1).min(DECIMAL128_MAX_PRECISION), scale))
}

/// Decimals to integers; the closure gets the unscaled digits and what one is of them.
fn decimals(of: fn(i128, i128) -> i128) -> Compute {
    whole(move |call| {
        let values = call.column::<Decimal>(0)?;
        let (_, scale) = decimal_of(&[call.arguments[0].data_type().clone()])?;
        let unit = 10_i128.pow(u32::try_from(scale).unwrap_or(0));
        collect(call, |row| Ok(values.get(row).map(|x| of(x, unit))))
    })
}

fn round_decimals(call: &Call<'_>, of: fn(i128, i128) -> i128) -> Result<ArrayRef> {
    let (values, digits) = (call.column::<Decimal>(0)?, call.column::<Bigint>(1)?);
    let (_, scale) = decimal_of(&[call.arguments[0].data_type().clone()])?;
    let made = collect::<i128>(call, |row| {
        let (Some(x), Some(digits)) = (values.get(row), digits.get(row)) else { return Ok(None) };
        let cut = i64::from(scale).saturating_sub(digits);
        if cut <= 0 {
            return Ok(Some(x));
        }
        let unit = u32::try_from(cut).ok().and_then(|cut| 10_i128.checked_pow(cut));
        Ok(Some(unit.map_or(0, |unit| of(x, unit) * unit)))
    })?;
    let values = made.as_primitive::<Decimal128Type>();
    if let DataType::Decimal128(precision, scale) = call.gives {
        values.validate_decimal_precision(*precision).map_err(|_| {
            invalid(format!("expected a result that fits into decimal({precision},{scale}), found one of more digits"))
        })?;
    }
    Ok(made)
}

fn radix(radix: i64) -> Result<u32> {
    let valid = u32::try_from(radix).ok().filter(|radix| (2..=36).contains(radix));
    valid.ok_or_else(|| invalid(format!("expected a radix between 2 and 36, found {radix}")))
}

fn from_base(text: &str, base: i64) -> Result<i64> {
    i64::from_str_radix(text, radix(base)?)
        .map_err(|_| invalid(format!("expected a bigint to the base {base}, found `{text}`")))
}

fn to_base(x: i64, base: i64) -> Result<String> {
    let base = u64::from(radix(base)?);
    let (mut rest, mut digits) = (x.unsigned_abs(), Vec::new());
    loop {
        digits.extend(u32::try_from(rest % base).ok().and_then(|digit| char::from_digit(digit, 36)));
        rest /= base;
        if rest == 0 {
            break;
        }
    }
    digits.extend((x < 0).then_some('-'));
    Ok(digits.into_iter().rev().collect())
}

fn width_bucket(call: &Call<'_>) -> Result<ArrayRef> {
    let (x, from, to) = (call.column::<Double>(0)?, call.column::<Double>(1)?, call.column::<Double>(2)?);
    let buckets = call.column::<Bigint>(3)?;
    collect(call, |row| match (x.get(row), from.get(row), to.get(row), buckets.get(row)) {
        (Some(x), Some(from), Some(to), Some(buckets)) => bucket(x, from, to, buckets).map(Some),
        _ => Ok(None),
    })
}

fn bucket(x: f64, from: f64, to: f64, buckets: i64) -> Result<i64> {
    if buckets <= 0 || buckets >= i64::from(i32::MAX) {
        return Err(invalid(format!("expected 1 to {} buckets, found {buckets}", i32::MAX - 1)));
    }
    if x.is_nan() || !from.is_finite() || !to.is_finite() || from == to {
        return Err(invalid(format!("expected a number and two bounds that differ, found {x}, {from} and {to}")));
    }
    let (low, high) = (from.min(to), from.max(to));
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "fewer buckets than 2^31")]
    let number = match x {
        x if x < low => 0,
        x if x >= high => buckets + 1,
        x => (buckets as f64 * (x - low) / (high - low) + 1.0) as i64,
    };
    Ok(if from > to { buckets - number + 1 } else { number })
}

fn width_bucket_of_bounds(call: &Call<'_>) -> Result<ArrayRef> {
    let arrays = call.arrays()?;
    let (x, bounds) = (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_list::<i32>());
    collect(call, |row| {
        if x.is_null(row) || bounds.is_null(row) {
            return Ok(None);
        }
        let of_row = bounds.value(row);
        let (x, of_row) = (x.value(row), of_row.as_primitive::<Float64Type>());
        if of_row.is_empty() || x.is_nan() || of_row.null_count() > 0 || of_row.values().iter().any(|b| !b.is_finite())
        {
            return Err(invalid("expected a number and an array of finite bounds, found others"));
        }
        if of_row.values().windows(2).any(|pair| pair[0] > pair[1]) {
            return Err(invalid("expected bounds in ascending order, found others"));
        }
        Ok(i64::try_from(of_row.values().partition_point(|bound| *bound <= x)).ok())
    })
}

fn normal(mean: f64, sd: f64) -> Result<Normal> {
    Normal::new(mean, sd).map_err(|_| invalid(format!("expected a standard deviation above 0, found {sd}")))
}

fn beta(a: f64, b: f64) -> Result<Beta> {
    Beta::new(a, b)
        .map_err(|_| invalid(format!("expected parameters of a beta distribution above 0, found {a} and {b}")))
}

/// The value below which the share `p` of the distribution lies, by halving: the crate's own search may have no end.
fn below(distribution: &Beta, p: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // More halves than a double has digits for.
    for _ in 0..1_100 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if distribution.cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

fn share(found: f64, fits: bool) -> Result<()> {
    if fits { Ok(()) } else { Err(invalid(format!("expected a share between 0 and 1, found {found}"))) }
}

/// <https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval>
#[expect(clippy::cast_precision_loss, reason = "a formula of doubles")]
fn wilson(successes: i64, trials: i64, z: f64, side: f64) -> Result<f64> {
    if successes < 0 || trials <= 0 || successes > trials || z.is_nan() || z < 0.0 {
        let expected = "expected at most as many successes as trials, at least one trial and a z-score from 0 on";
        return Err(invalid(format!("{expected}, found {successes}, {trials} and {z}")));
    }
    let (n, share) = (trials as f64, successes as f64 / trials as f64);
    let middle = share + z * z / (2.0 * n);
    let spread = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    Ok((middle + side * spread) / (1.0 + z * z / n))
}
