//! `sum` and `avg` of whole numbers and decimals that never wrap.
//!
//! DataFusion's own add with wrapping. These hold the total in 128 bits, so that a sum of whole numbers depends on no order, and
//! refuse the result that its type can't hold. All other types are left to DataFusion's functions.

use std::collections::HashSet;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, ListArray, PrimitiveArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::functions_aggregate::{average::avg_udaf, sum::sum_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

use super::frames;
use shared::Error;

/// Puts both functions in the place of DataFusion's.
///
/// # Errors
/// Whatever the registry says.
pub(super) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for (kind, inner) in [(Kind::Sum, sum_udaf()), (Kind::Average, avg_udaf())] {
        registry.register_udaf(Arc::new(AggregateUDF::from(Total { kind, inner })))?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Average,
}

/// `sum` or `avg`; `inner` is DataFusion's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Total {
    kind: Kind,
    inner: Arc<AggregateUDF>,
}

impl Total {
    /// Whether the total of such values is held here.
    fn holds(&self, ty: &DataType) -> bool {
        match self.kind {
            Kind::Sum => matches!(ty, DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..)),
            Kind::Average => matches!(ty, DataType::Decimal128(..)),
        }
    }

    fn finish(&self, args: &AccumulatorArgs<'_>) -> Result<Option<Finish>> {
        let from = args.expr_fields[0].data_type();
        let finish = Finish { kind: self.kind, from: from.clone(), to: args.return_field.data_type().clone() };
        Ok(self.holds(from).then_some(finish))
    }
}

impl AggregateUDFImpl for Total {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match (self.finish(&args)?, args.is_distinct) {
            (Some(finish), true) => Ok(Box::new(Distinct { finish, values: HashSet::new() })),
            (Some(finish), false) => Ok(Box::new(RunningTotal { finish, total: 0, count: 0 })),
            (None, _) => self.inner.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match (self.finish(&args)?, args.is_distinct) {
            (Some(finish), false) => Ok(Box::new(RunningTotal { finish, total: 0, count: 0 })),
            (Some(_), true) => Err(DataFusionError::from(Error::invalid(format!(
                "not supported: `{}(DISTINCT …)` over a window whose frame leaves rows behind",
                self.name()
            )))),
            (None, false) if *args.expr_fields[0].data_type() == DataType::Float64 => {
                Ok(frames::sliding_total(self.kind == Kind::Average))
            }
            _ => self.inner.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let ty = args.input_fields[0].data_type();
        if !self.holds(ty) {
            return self.inner.state_fields(args);
        }
        let total = state_type(ty);
        if args.is_distinct {
            let item = Arc::new(Field::new_list_field(total, true));
            return Ok(vec![Arc::new(Field::new(format_state_name(args.name, "values"), DataType::List(item), false))]);
        }
        let total = Field::new(format_state_name(args.name, "total"), total, true);
        let count = Field::new(format_state_name(args.name, "count"), DataType::Int64, true);
        Ok(vec![Arc::new(total), Arc::new(count)])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        match self.holds(args.expr_fields[0].data_type()) {
            true => !args.is_distinct,
            false => self.inner.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match self.finish(&args)? {
            Some(finish) => Ok(Box::new(Groups { finish, totals: Vec::new(), counts: Vec::new() })),
            None => self.inner.create_groups_accumulator(args),
        }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// Totals on their way from one accumulator to another: whole numbers as decimals without digits after the point.
fn state_type(ty: &DataType) -> DataType {
    match ty {
        DataType::Decimal128(_, scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
        _ => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
    }
}

/// From a total and a count to the result.
#[derive(Debug, Clone)]
struct Finish {
    kind: Kind,
    from: DataType,
    to: DataType,
}

impl Finish {
    fn overflown(&self) -> DataFusionError {
        let function = if self.kind == Kind::Sum { "sum" } else { "avg" };
        DataFusionError::from(Error::invalid(format!(
            "expected a `{function}` that fits into `{}`, found a larger one",
            self.to
        )))
    }

    /// The totals and counts as results; no result where nothing was counted.
    fn results(&self, totals: &[i128], counts: &[i64]) -> Result<ArrayRef> {
        let of = |(total, count): (&i128, &i64)| match count {
            0 => Ok(None),
            count => self.result(*total, *count).map(Some),
        };
        let found = totals.iter().zip(counts).map(of);
        Ok(match &self.to {
            DataType::Int64 => {
                let narrow = |v: i128| i64::try_from(v).map_err(|_| self.overflown());
                Arc::new(found.map(|v| v?.map(narrow).transpose()).collect::<Result<Int64Array>>()?)
            }
            DataType::UInt64 => {
                let narrow = |v: i128| u64::try_from(v).map_err(|_| self.overflown());
                Arc::new(found.map(|v| v?.map(narrow).transpose()).collect::<Result<UInt64Array>>()?)
            }
            DataType::Decimal128(precision, scale) => {
                let decimals = found.collect::<Result<Decimal128Array>>()?;
                let decimals = decimals.with_precision_and_scale(*precision, *scale)?;
                decimals.validate_decimal_precision(*precision).map_err(|_| self.overflown())?;
                Arc::new(decimals)
            }
            other => {
                return Err(DataFusionError::from(Error::bug(format!("expected a type of totals, found `{other}`"))));
            }
        })
    }

    fn result(&self, total: i128, count: i64) -> Result<i128> {
        let (DataType::Decimal128(_, from), DataType::Decimal128(_, to), Kind::Average) =
            (&self.from, &self.to, self.kind)
        else {
            return Ok(total);
        };
        let factor = u32::try_from(to - from).ok().and_then(|digits| 10_i128.checked_pow(digits));
        let count = i128::from(count);
        // The quotient first: the total times the factor need not fit.
        let (whole, rest) = (total / count, total % count);
        let of = |part: i128| factor.and_then(|factor| part.checked_mul(factor));
        let (Some(whole), Some(rest)) = (of(whole), of(rest)) else { return Err(self.overflown()) };
        let (digits, left) = (rest / count, rest % count);
        let half = if left.abs() * 2 >= count { left.signum() } else { 0 };
        whole.checked_add(digits + half).ok_or_else(|| self.overflown())
    }
}

/// Calls `take` with the row and value of each that is there.
fn each(values: &ArrayRef, mut take: impl FnMut(usize, i128) -> Result<()>) -> Result<()> {
    fn go<T: arrow::datatypes::ArrowPrimitiveType>(
        values: &PrimitiveArray<T>,
        take: &mut impl FnMut(usize, i128) -> Result<()>,
    ) -> Result<()>
    where
        T::Native: Into<i128>,
    {
        match values.null_count() {
            0 => values.values().iter().enumerate().try_for_each(|(row, value)| take(row, (*value).into())),
            _ => values.iter().enumerate().try_for_each(|(row, v)| v.map_or(Ok(()), |v| take(row, v.into()))),
        }
    }
    match values.data_type() {
        DataType::Int64 => go(values.as_primitive::<Int64Type>(), &mut take),
        DataType::UInt64 => go(values.as_primitive::<UInt64Type>(), &mut take),
        DataType::Decimal128(..) => go(values.as_primitive::<Decimal128Type>(), &mut take),
        other => Err(DataFusionError::from(Error::bug(format!("expected numbers to add, found `{other}`")))),
    }
}

fn state_array(totals: Vec<i128>, finish: &Finish) -> Result<ArrayRef> {
    let totals = Decimal128Array::from(totals).with_data_type(state_type(&finish.from));
    Ok(Arc::new(totals))
}

/// RunningTotal total.
#[derive(Debug)]
struct RunningTotal {
    finish: Finish,
    total: i128,
    count: i64,
}

impl Accumulator for RunningTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |_, value| {
            self.total = self.total.checked_add(value).ok_or_else(|| self.finish.overflown())?;
            self.count += 1;
            Ok(())
        })
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |_, value| {
            self.total = self.total.checked_sub(value).ok_or_else(|| self.finish.overflown())?;
            self.count -= 1;
            Ok(())
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.finish.results(&[self.total], &[self.count])?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let total = ScalarValue::try_from_array(&state_array(vec![self.total], &self.finish)?, 0)?;
        Ok(vec![total, ScalarValue::Int64(Some(self.count))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states[1].as_primitive::<Int64Type>();
        each(&states[0], |row, total| {
            self.total = self.total.checked_add(total).ok_or_else(|| self.finish.overflown())?;
            self.count += counts.value(row);
            Ok(())
        })
    }
}

/// The total of distinct values.
#[derive(Debug)]
struct Distinct {
    finish: Finish,
    values: HashSet<i128>,
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |_, value| {
            self.values.insert(value);
            Ok(())
        })
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let total = self.values.iter().try_fold(0_i128, |total, value| total.checked_add(*value));
        let total = total.ok_or_else(|| self.finish.overflown())?;
        let count = i64::try_from(self.values.len()).unwrap_or(i64::MAX);
        ScalarValue::try_from_array(&self.finish.results(&[total], &[count])?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * (size_of::<i128>() + 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = state_array(self.values.iter().copied().collect(), &self.finish)?;
        let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let list = ListArray::new(item, OffsetBuffer::from_lengths([values.len()]), values, None);
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }
}

/// A total for each group.
#[derive(Debug)]
struct Groups {
    finish: Finish,
    totals: Vec<i128>,
    counts: Vec<i64>,
}

impl Groups {
    fn resize(&mut self, groups: usize) {
        self.totals.resize(groups, 0);
        self.counts.resize(groups, 0);
    }

    fn add(&mut self, group: usize, total: i128, count: i64) -> Result<()> {
        self.totals[group] = self.totals[group].checked_add(total).ok_or_else(|| self.finish.overflown())?;
        self.counts[group] += count;
        Ok(())
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.resize(total);
        each(&values[0], |row, value| match filter {
            Some(filter) if filter.is_null(row) || !filter.value(row) => Ok(()),
            _ => self.add(groups[row], value, 1),
        })
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (totals, counts) = (emit_to.take_needed(&mut self.totals), emit_to.take_needed(&mut self.counts));
        self.finish.results(&totals, &counts)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (totals, counts) = (emit_to.take_needed(&mut self.totals), emit_to.take_needed(&mut self.counts));
        Ok(vec![state_array(totals, &self.finish)?, Arc::new(Int64Array::from(counts))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.resize(total);
        let counts = states[1].as_primitive::<Int64Type>();
        each(&states[0], |row, total| self.add(groups[row], total, counts.value(row)))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let (mut totals, mut counts) = (vec![0; rows], vec![0; rows]);
        each(&values[0], |row, value| {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                totals[row] = value;
                counts[row] = 1;
            }
            Ok(())
        })?;
        Ok(vec![state_array(totals, &self.finish)?, Arc::new(Int64Array::from(counts))])
    }

    fn size(&self) -> usize {
        self.totals.capacity() * size_of::<i128>() + self.counts.capacity() * size_of::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(kind: Kind, from: DataType, to: DataType) -> Finish {
        Finish { kind, from, to }
    }

    #[test]
    fn a_sum_that_leaves_its_type_and_comes_back_is_right() {
        let mut one = RunningTotal { finish: finish(Kind::Sum, DataType::Int64, DataType::Int64), total: 0, count: 0 };
        one.update_batch(&[Arc::new(Int64Array::from(vec![i64::MAX, 1]))]).unwrap();
        assert!(one.evaluate().is_err());
        one.update_batch(&[Arc::new(Int64Array::from(vec![-1]))]).unwrap();
        assert_eq!(one.evaluate().unwrap(), ScalarValue::Int64(Some(i64::MAX)));
    }

    #[test]
    fn an_average_of_decimals_is_exact_and_rounded_half_away_from_zero() {
        let average = finish(Kind::Average, DataType::Decimal128(38, 0), DataType::Decimal128(38, 4));
        assert_eq!(average.result(2, 3).unwrap(), 6667);
        assert_eq!(average.result(-2, 3).unwrap(), -6667);
        assert_eq!(average.result(100, 8).unwrap(), 125_000);
    }

    #[test]
    fn nothing_counted_is_no_result() {
        let sum = finish(Kind::Sum, DataType::Int64, DataType::Int64);
        assert!(sum.results(&[0], &[0]).unwrap().is_null(0));
    }
}
