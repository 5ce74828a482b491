//! One call of a scalar function for the rows of a batch, and the adaptors that make a call of a closure over values.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryViewBuilder, BooleanBuilder, PrimitiveArray, PrimitiveBuilder,
    StringViewBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;

use shared::Error;

/// The arguments of a call, in the types that the signature asks for.
pub(crate) struct Call<'a> {
    pub(crate) arguments: &'a [ArrayRef],
    /// Of the arguments, which are one value for all rows; these arrays have one row.
    pub(crate) constant: &'a [bool],
    pub(crate) rows: usize,
    /// The type of the result.
    pub(crate) gives: &'a DataType,
}

/// What computes a call: an array of as many values as the call has rows.
pub(crate) type Compute = Arc<dyn Fn(&Call<'_>) -> Result<ArrayRef> + Send + Sync>;

impl<'a> Call<'a> {
    /// The argument as a column of values.
    ///
    /// # Errors
    /// `Bug` for an argument of another type.
    pub(crate) fn column<A: Argument>(&self, at: usize) -> Result<Column<'a, A>> {
        let array = &self.arguments[at];
        let constant = self.constant[at];
        Ok(Column { values: A::of(array.as_ref()).ok_or_else(|| unexpected::<A>(array.data_type()))?, constant })
    }

    /// The arguments as arrays of as many rows as the call has.
    ///
    /// # Errors
    /// What Arrow answers.
    pub(crate) fn arrays(&self) -> Result<Vec<ArrayRef>> {
        let whole = |(array, constant): (&ArrayRef, &bool)| {
            if *constant && self.rows != 1 {
                ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(array, 0)?).into_array(self.rows)
            } else {
                Ok(Arc::clone(array))
            }
        };
        self.arguments.iter().zip(self.constant).map(whole).collect()
    }
}

fn unexpected<A>(found: &DataType) -> DataFusionError {
    let expected = std::any::type_name::<A>();
    DataFusionError::from(Error::bug(format!("expected an array of `{expected}`, found one of `{found}`")))
}

/// An error that names what was expected and what was found.
pub(crate) fn invalid(message: impl Into<String>) -> DataFusionError {
    DataFusionError::from(Error::invalid(message.into()))
}

/// The values of one argument.
pub(crate) struct Column<'a, A: Argument> {
    values: A::Values<'a>,
    constant: bool,
}

impl<'a, A: Argument> Column<'a, A> {
    /// The value of a row; none where it is null.
    pub(crate) fn get(&self, row: usize) -> Option<Of<'a, A>> {
        self.values.get(if self.constant { 0 } else { row })
    }
}

/// A type of arguments.
pub(crate) trait Argument: 'static {
    type Values<'a>: Values;
    fn of(array: &dyn Array) -> Option<Self::Values<'_>>;
}

/// The value of an argument.
pub(crate) type Of<'a, A> = <<A as Argument>::Values<'a> as Values>::Value;

/// The values of an argument, row by row.
pub(crate) trait Values {
    type Value;
    /// None where it is null.
    fn get(&self, row: usize) -> Option<Self::Value>;
}

/// Values of an Arrow type of fixed width.
pub(crate) struct Fixed<T>(std::marker::PhantomData<T>);

impl<T: ArrowPrimitiveType> Argument for Fixed<T> {
    type Values<'a> = &'a PrimitiveArray<T>;

    fn of(array: &dyn Array) -> Option<&PrimitiveArray<T>> {
        array.as_primitive_opt::<T>()
    }
}

impl<T: ArrowPrimitiveType> Values for &PrimitiveArray<T> {
    type Value = T::Native;

    fn get(&self, row: usize) -> Option<T::Native> {
        self.is_valid(row).then(|| self.value(row))
    }
}

pub(crate) type Tinyint = Fixed<Int8Type>;
pub(crate) type Smallint = Fixed<Int16Type>;
pub(crate) type Integer = Fixed<Int32Type>;
pub(crate) type Bigint = Fixed<Int64Type>;
pub(crate) type Real = Fixed<Float32Type>;
pub(crate) type Double = Fixed<Float64Type>;
/// Unscaled digits.
pub(crate) type Decimal = Fixed<Decimal128Type>;
/// Days since 1970.
pub(crate) type Date = Fixed<Date32Type>;
/// Microseconds since 1970, with or without a zone.
pub(crate) type Timestamp = Fixed<TimestampMicrosecondType>;

/// Texts, however they are stored.
pub(crate) struct Text;

pub(crate) enum Texts<'a> {
    Small(&'a arrow::array::StringArray),
    Large(&'a arrow::array::LargeStringArray),
    View(&'a arrow::array::StringViewArray),
}

impl Argument for Text {
    type Values<'a> = Texts<'a>;

    fn of(array: &dyn Array) -> Option<Texts<'_>> {
        match array.data_type() {
            DataType::Utf8 => array.as_string_opt().map(Texts::Small),
            DataType::LargeUtf8 => array.as_string_opt().map(Texts::Large),
            DataType::Utf8View => array.as_string_view_opt().map(Texts::View),
            _ => None,
        }
    }
}

impl<'a> Values for Texts<'a> {
    type Value = &'a str;

    fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Texts::Small(values) => values.is_valid(row).then(|| values.value(row)),
            Texts::Large(values) => values.is_valid(row).then(|| values.value(row)),
            Texts::View(values) => values.is_valid(row).then(|| values.value(row)),
        }
    }
}

/// Bytes, however they are stored.
pub(crate) struct Binary;

pub(crate) enum Binaries<'a> {
    Small(&'a arrow::array::BinaryArray),
    Large(&'a arrow::array::LargeBinaryArray),
    View(&'a arrow::array::BinaryViewArray),
}

impl Argument for Binary {
    type Values<'a> = Binaries<'a>;

    fn of(array: &dyn Array) -> Option<Binaries<'_>> {
        match array.data_type() {
            DataType::Binary => array.as_binary_opt().map(Binaries::Small),
            DataType::LargeBinary => array.as_binary_opt().map(Binaries::Large),
            DataType::BinaryView => array.as_binary_view_opt().map(Binaries::View),
            _ => None,
        }
    }
}

impl<'a> Values for Binaries<'a> {
    type Value = &'a [u8];

    fn get(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Binaries::Small(values) => values.is_valid(row).then(|| values.value(row)),
            Binaries::Large(values) => values.is_valid(row).then(|| values.value(row)),
            Binaries::View(values) => values.is_valid(row).then(|| values.value(row)),
        }
    }
}

/// A type of results: their builder, and how a value is added.
pub(crate) trait Given: Sized {
    type Builder;
    fn builder(rows: usize, gives: &DataType) -> Self::Builder;
    fn add(builder: &mut Self::Builder, value: Option<Self>);
    fn finish(builder: Self::Builder) -> ArrayRef;
}

macro_rules! fixed {
    ($($native:ty: $arrow:ty),*) => {$(
        impl Given for $native {
            type Builder = PrimitiveBuilder<$arrow>;

            fn builder(rows: usize, gives: &DataType) -> Self::Builder {
                PrimitiveBuilder::with_capacity(rows).with_data_type(gives.clone())
            }

            fn add(builder: &mut Self::Builder, value: Option<Self>) {
                builder.append_option(value);
            }

            fn finish(mut builder: Self::Builder) -> ArrayRef {
                Arc::new(builder.finish())
            }
        }
    )*};
}

fixed!(i8: Int8Type, i16: Int16Type, i32: Int32Type, i64: Int64Type, f32: Float32Type, f64: Float64Type, i128: Decimal128Type);

/// Days since 1970.
pub(crate) struct Day(pub(crate) i32);
/// Microseconds since 1970.
pub(crate) struct Instant(pub(crate) i64);

/// Days and nanoseconds, or months.
pub(crate) struct Interval(pub(crate) IntervalMonthDayNano);

impl Given for Interval {
    type Builder = PrimitiveBuilder<IntervalMonthDayNanoType>;

    fn builder(rows: usize, _: &DataType) -> Self::Builder {
        PrimitiveBuilder::with_capacity(rows)
    }

    fn add(builder: &mut Self::Builder, value: Option<Self>) {
        builder.append_option(value.map(|interval| interval.0));
    }

    fn finish(mut builder: Self::Builder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

impl Given for Day {
    type Builder = PrimitiveBuilder<Date32Type>;

    fn builder(rows: usize, _: &DataType) -> Self::Builder {
        PrimitiveBuilder::with_capacity(rows)
    }

    fn add(builder: &mut Self::Builder, value: Option<Self>) {
        builder.append_option(value.map(|day| day.0));
    }

    fn finish(mut builder: Self::Builder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

impl Given for Instant {
    type Builder = PrimitiveBuilder<TimestampMicrosecondType>;

    fn builder(rows: usize, gives: &DataType) -> Self::Builder {
        PrimitiveBuilder::with_capacity(rows).with_data_type(gives.clone())
    }

    fn add(builder: &mut Self::Builder, value: Option<Self>) {
        builder.append_option(value.map(|instant| instant.0));
    }

    fn finish(mut builder: Self::Builder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

impl Given for bool {
    type Builder = BooleanBuilder;

    fn builder(rows: usize, _: &DataType) -> BooleanBuilder {
        BooleanBuilder::with_capacity(rows)
    }

    fn add(builder: &mut BooleanBuilder, value: Option<Self>) {
        builder.append_option(value);
    }

    fn finish(mut builder: BooleanBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

macro_rules! viewed {
    ($($owned:ty: $builder:ty),*) => {$(
        impl Given for $owned {
            type Builder = $builder;

            fn builder(rows: usize, _: &DataType) -> Self::Builder {
                <$builder>::with_capacity(rows)
            }

            fn add(builder: &mut Self::Builder, value: Option<Self>) {
                builder.append_option(value);
            }

            fn finish(mut builder: Self::Builder) -> ArrayRef {
                Arc::new(builder.finish())
            }
        }
    )*};
}

viewed!(String: StringViewBuilder, &str: StringViewBuilder, Vec<u8>: BinaryViewBuilder, &[u8]: BinaryViewBuilder);

/// The values that `row` gives, row by row.
///
/// # Errors
/// The first that `row` gives.
pub(crate) fn collect<R: Given>(call: &Call<'_>, mut row: impl FnMut(usize) -> Result<Option<R>>) -> Result<ArrayRef> {
    let mut builder = R::builder(call.rows, call.gives);
    for at in 0..call.rows {
        R::add(&mut builder, row(at)?);
    }
    Ok(R::finish(builder))
}

/// What a closure may give for a row: a value, or one that may be null, or an error.
pub(crate) trait Outcome<R> {
    fn outcome(self) -> Result<Option<R>>;
}

impl<R: Given> Outcome<R> for R {
    fn outcome(self) -> Result<Option<R>> {
        Ok(Some(self))
    }
}

impl<R: Given> Outcome<R> for Option<R> {
    fn outcome(self) -> Result<Option<R>> {
        Ok(self)
    }
}

impl<R: Given> Outcome<R> for Result<R> {
    fn outcome(self) -> Result<Option<R>> {
        self.map(Some)
    }
}

impl<R: Given> Outcome<R> for Result<Option<R>> {
    fn outcome(self) -> Result<Option<R>> {
        self
    }
}

/// A function of one value, null for null.
pub(crate) fn one<A, R, O>(of: impl for<'a> Fn(Of<'a, A>) -> O + Send + Sync + 'static) -> Compute
where
    A: Argument,
    R: Given + 'static,
    O: Outcome<R>,
{
    Arc::new(move |call| {
        let a = call.column::<A>(0)?;
        collect(call, |row| a.get(row).map_or(Ok(None), |a| of(a).outcome()))
    })
}

/// A function of two values, null where one is.
pub(crate) fn two<A, B, R, O>(of: impl for<'a> Fn(Of<'a, A>, Of<'a, B>) -> O + Send + Sync + 'static) -> Compute
where
    A: Argument,
    B: Argument,
    R: Given + 'static,
    O: Outcome<R>,
{
    Arc::new(move |call| {
        let (a, b) = (call.column::<A>(0)?, call.column::<B>(1)?);
        collect(call, |row| match (a.get(row), b.get(row)) {
            (Some(a), Some(b)) => of(a, b).outcome(),
            _ => Ok(None),
        })
    })
}

/// A function of three values, null where one is.
pub(crate) fn three<A, B, C, R, O>(
    of: impl for<'a> Fn(Of<'a, A>, Of<'a, B>, Of<'a, C>) -> O + Send + Sync + 'static,
) -> Compute
where
    A: Argument,
    B: Argument,
    C: Argument,
    R: Given + 'static,
    O: Outcome<R>,
{
    Arc::new(move |call| {
        let (a, b, c) = (call.column::<A>(0)?, call.column::<B>(1)?, call.column::<C>(2)?);
        collect(call, |row| match (a.get(row), b.get(row), c.get(row)) {
            (Some(a), Some(b), Some(c)) => of(a, b, c).outcome(),
            _ => Ok(None),
        })
    })
}

/// The function's calls with each value of the first argument as `A` and the rest whole.
pub(crate) fn whole(of: impl Fn(&Call<'_>) -> Result<ArrayRef> + Send + Sync + 'static) -> Compute {
    Arc::new(of)
}
