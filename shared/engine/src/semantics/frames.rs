//! Aggregates over window frames that leave rows behind.
//!
//! DataFusion takes what leaves a frame out of the aggregate again: NaN and infinity never leave a sum of doubles, a large number takes
//! the digits of small ones with it, and some functions can't. Here nothing is taken out. The rows of a frame are two stacks: new
//! rows come onto the back one; when the front one is empty, the back one is turned over onto it, each row together with the
//! aggregate of all that follow it. A frame's result is that of the front's top and that of the back.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Schema};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion::physical_expr::PhysicalExpr;

use shared::Error;

/// What the names of functions begin with that take doubles out by subtraction.
const SUBTRACT: [&str; 5] = ["var", "stddev", "covar", "corr", "regr_"];

/// Functions of small states that can't take anything out.
const REFUSING: [&str; 5] = ["bool_and", "bool_or", "bit_and", "bit_or", "bit_xor"];

fn subtracts(function: &str) -> bool {
    SUBTRACT.iter().any(|family| function.starts_with(family))
}

/// The function for a window: one of ours for those that take doubles out by subtraction, or nothing at all.
pub(super) fn framed(function: &Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    let name = function.name();
    let takes_out_well = !subtracts(name) && !REFUSING.contains(&name);
    match takes_out_well || function.inner().is::<Framed>() {
        true => Arc::clone(function),
        false => Arc::new(AggregateUDF::from(Framed { inner: Arc::clone(function) })),
    }
}

/// The sum or average of doubles over a frame that leaves rows behind.
pub(super) fn sliding_total(average: bool) -> Box<dyn Accumulator> {
    Box::new(SlidingTotal { average, front: Vec::new(), back: Vec::new(), total: Sum::default() })
}

/// A number of values and their sum.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    count: u64,
    sum: f64,
}

impl Sum {
    fn and(self, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.plus(Self { count: 1, sum: value }),
            None => self,
        }
    }

    fn plus(self, other: Self) -> Self {
        match (self.count, other.count) {
            (0, _) => other,
            (_, 0) => self,
            _ => Self { count: self.count + other.count, sum: self.sum + other.sum },
        }
    }
}

#[derive(Debug)]
struct SlidingTotal {
    average: bool,
    /// The oldest row last, each with the total of itself and of those after it.
    front: Vec<Sum>,
    back: Vec<Option<f64>>,
    /// Of the back.
    total: Sum,
}

impl Accumulator for SlidingTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>() {
            self.back.push(value);
            self.total = self.total.and(value);
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for _ in 0..values[0].len() {
            if self.front.is_empty() {
                let mut total = Sum::default();
                for value in std::mem::take(&mut self.back).into_iter().rev() {
                    total = Sum::default().and(value).plus(total);
                    self.front.push(total);
                }
                self.total = Sum::default();
            }
            self.front.pop().ok_or_else(nothing_left)?;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let found = self.front.last().copied().unwrap_or_default().plus(self.total);
        #[expect(clippy::cast_precision_loss, reason = "the average of so many rows is not exact")]
        let result = if self.average { found.sum / found.count as f64 } else { found.sum };
        Ok(ScalarValue::Float64((found.count > 0).then_some(result)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.front.capacity() * size_of::<Sum>() + self.back.capacity() * size_of::<Option<f64>>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(not_merged())
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        Err(not_merged())
    }
}

fn nothing_left() -> DataFusionError {
    DataFusionError::from(Error::bug("expected a row that entered the frame before it left, found none"))
}

fn not_merged() -> DataFusionError {
    DataFusionError::from(Error::bug("expected a window's frame, found an aggregate in parts"))
}

/// A function whose frames may leave rows behind; `inner` is DataFusion's or ours.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Framed {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Framed {
    fn name(&self) -> &str {
        self.inner.name()
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

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn default_value(&self, ty: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(ty)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct || !args.order_bys.is_empty() {
            return self.inner.create_sliding_accumulator(args);
        }
        let maker = Maker::new(&self.inner, &args);
        Ok(Box::new(Sliding { maker, front: Vec::new(), back: Vec::new(), total: None }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }
}

/// Makes accumulators of one call.
#[derive(Debug)]
struct Maker {
    function: Arc<AggregateUDF>,
    name: String,
    schema: Schema,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    fields: Vec<FieldRef>,
    returned: FieldRef,
    ignore_nulls: bool,
}

impl Maker {
    fn new(function: &Arc<AggregateUDF>, args: &AccumulatorArgs<'_>) -> Self {
        Self {
            function: Arc::clone(function),
            name: args.name.to_owned(),
            schema: args.schema.clone(),
            exprs: args.exprs.to_vec(),
            fields: args.expr_fields.to_vec(),
            returned: Arc::clone(&args.return_field),
            ignore_nulls: args.ignore_nulls,
        }
    }

    /// An accumulator of states, each that of the rows after those before it.
    fn of(&self, states: [Option<&State>; 2]) -> Result<Box<dyn Accumulator>> {
        let mut accumulator = self.function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.returned),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &[],
            is_reversed: false,
            name: &self.name,
            is_distinct: false,
            exprs: &self.exprs,
            expr_fields: &self.fields,
        })?;
        for state in states.into_iter().flatten() {
            let state = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
            accumulator.merge_batch(&state)?;
        }
        Ok(accumulator)
    }
}

type State = Vec<ScalarValue>;

/// An aggregate over a frame, as states of the function's accumulators.
#[derive(Debug)]
struct Sliding {
    maker: Maker,
    /// The oldest row last, each with the state of itself and of those after it.
    front: Vec<State>,
    /// Arguments of a row each.
    back: Vec<Vec<ArrayRef>>,
    /// Of the back; none where it is empty.
    total: Option<State>,
}

impl Accumulator for Sliding {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |values| values.len());
        if rows == 0 {
            return Ok(());
        }
        self.back.extend((0..rows).map(|row| values.iter().map(|values| values.slice(row, 1)).collect()));
        let mut total = self.maker.of([self.total.as_ref(), None])?;
        total.update_batch(values)?;
        self.total = Some(total.state()?);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for _ in 0..values.first().map_or(0, |values| values.len()) {
            if self.front.is_empty() {
                for row in std::mem::take(&mut self.back).into_iter().rev() {
                    let mut alone = self.maker.of([None, None])?;
                    alone.update_batch(&row)?;
                    let state = self.maker.of([Some(&alone.state()?), self.front.last()])?.state()?;
                    self.front.push(state);
                }
                self.total = None;
            }
            self.front.pop().ok_or_else(nothing_left)?;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.maker.of([self.front.last(), self.total.as_ref()])?.evaluate()
    }

    fn size(&self) -> usize {
        let front: usize = self.front.iter().flatten().map(ScalarValue::size).sum();
        let back: usize =
            self.back.iter().flatten().map(|values| values.to_data().get_slice_memory_size().unwrap_or(0)).sum();
        size_of_val(self) + front + back
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(not_merged())
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        Err(not_merged())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;

    use super::*;

    #[test]
    fn what_leaves_a_frame_leaves_no_trace() {
        let array = |values: &[f64]| -> [ArrayRef; 1] { [Arc::new(Float64Array::from(values.to_vec()))] };
        let mut total = sliding_total(false);
        total.update_batch(&array(&[f64::NAN, 1e300, 1.0])).unwrap();
        assert!(matches!(total.evaluate().unwrap(), ScalarValue::Float64(Some(v)) if v.is_nan()));
        total.retract_batch(&array(&[f64::NAN])).unwrap();
        total.update_batch(&array(&[2.0])).unwrap();
        total.retract_batch(&array(&[1e300])).unwrap();
        assert_eq!(total.evaluate().unwrap(), ScalarValue::Float64(Some(3.0)));
        total.retract_batch(&array(&[1.0, 2.0])).unwrap();
        assert_eq!(total.evaluate().unwrap(), ScalarValue::Float64(None));
    }
}
