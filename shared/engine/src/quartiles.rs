//! The quartiles of a column of doubles: exact of up to [`SAMPLE`] values, and of a uniform sample of that many where there are more,
//! so that a share is off by some tenths of a percent.
//!
//! DataFusion's `approx_percentile_cont` is off by half of the range for a handful of values, which is what people look at first.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray, PrimitiveArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, FieldRef, Float64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};

use shared::random::mix;

/// Values that are held.
const SAMPLE: usize = 16_384;

const SHARES: [f64; 3] = [0.25, 0.5, 0.75];

/// A call that gives the three quartiles as a list; null where there is no value. NaN is left out: it has no place among numbers.
pub(super) fn quartiles(value: Expr) -> Expr {
    let signature = Signature::exact(vec![DataType::Float64], Volatility::Immutable);
    AggregateUDF::from(Quartiles { signature }).call(vec![value])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quartiles {
    signature: Signature,
}

fn list_of(ty: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(ty, true)))
}

impl AggregateUDFImpl for Quartiles {
    fn name(&self) -> &str {
        "$quartiles"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Float64))
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sample::default()))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |name, ty| Arc::new(Field::new(format_state_name(args.name, name), list_of(ty), true));
        Ok(vec![field("ranks", DataType::UInt64), field("values", DataType::Float64)])
    }
}

/// The values of least rank, where ranks are spread at random over the places of values.
#[derive(Debug, Default)]
struct Sample {
    kept: Vec<(u64, f64)>,
    /// Values that were seen.
    seen: u64,
    /// Values of this rank and above are not kept.
    bound: Option<u64>,
}

impl Sample {
    fn add(&mut self, rank: u64, value: f64) {
        if value.is_nan() || self.bound.is_some_and(|bound| rank >= bound) {
            return;
        }
        self.kept.push((rank, value));
        if self.kept.len() > 2 * SAMPLE {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > SAMPLE {
            let (_, (bound, _), _) = self.kept.select_nth_unstable_by_key(SAMPLE, |(rank, _)| *rank);
            self.bound = Some(*bound);
            self.kept.truncate(SAMPLE);
        }
    }
}

impl Accumulator for Sample {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.seen += 1;
            self.add(mix(self.seen), value);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (ranks, values) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for (ranks, values) in ranks.iter().zip(values.iter()) {
            let (Some(ranks), Some(values)) = (ranks, values) else { continue };
            let ranks = ranks.as_primitive::<UInt64Type>().values().iter();
            ranks.zip(values.as_primitive::<Float64Type>().values()).for_each(|(rank, value)| self.add(*rank, *value));
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.cut();
        let (ranks, values): (Vec<u64>, Vec<f64>) = self.kept.iter().copied().unzip();
        Ok(vec![list::<UInt64Type>(ranks), list::<Float64Type>(values)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.cut();
        let mut values: Vec<f64> = self.kept.iter().map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        match values.is_empty() {
            true => ScalarValue::try_from(&list_of(DataType::Float64)),
            false => Ok(list::<Float64Type>(SHARES.map(|share| below(&values, share)).to_vec())),
        }
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.kept.capacity() * size_of::<(u64, f64)>()
    }
}

fn list<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> ScalarValue {
    let values = PrimitiveArray::<T>::from_iter_values(values);
    let field = Arc::new(Field::new_list_field(T::DATA_TYPE, true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    ScalarValue::List(Arc::new(ListArray::new(field, offsets, Arc::new(values), None)))
}

/// The value below which that share of the ordered values lies, between two of them by their distance (SQL's `PERCENTILE_CONT`).
fn below(values: &[f64], share: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a sample has few values")]
    let place = share * (values.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place of the sample")]
    let at = place as usize;
    match (values[at], values.get(at + 1)) {
        (low, Some(high)) if (high - low).is_finite() => low + (high - low) * place.fract(),
        // Between infinities is nothing.
        (_, Some(high)) if place.fract() >= 0.5 => *high,
        (low, _) => low,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Float64Array};

    use super::*;

    fn of(parts: &[Vec<f64>]) -> Vec<f64> {
        let mut whole = Sample::default();
        for part in parts {
            let mut sample = Sample::default();
            sample.update_batch(&[Arc::new(Float64Array::from(part.clone()))]).unwrap();
            let state: Vec<ArrayRef> = sample.state().unwrap().iter().map(|s| s.to_array().unwrap()).collect();
            whole.merge_batch(&state).unwrap();
        }
        match whole.evaluate().unwrap() {
            ScalarValue::List(list) if list.is_valid(0) => {
                list.value(0).as_primitive::<Float64Type>().values().to_vec()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn few_values_have_exact_quartiles() {
        assert_eq!(of(&[vec![24.5, 89.0], vec![24.5, f64::NAN, 39.9]]), [24.5, 32.2, 52.175]);
        assert_eq!(of(&[vec![5.0]]), [5.0, 5.0, 5.0]);
        assert_eq!(of(&[vec![f64::NEG_INFINITY, f64::INFINITY]])[1], f64::INFINITY);
        assert!(of(&[Vec::new(), vec![f64::NAN]]).is_empty());
    }

    #[test]
    fn many_values_have_quartiles_within_a_percent_in_any_order() {
        let up: Vec<f64> = (0..300_000).map(f64::from).collect();
        let down: Vec<f64> = up.iter().rev().copied().collect();
        for parts in [vec![up.clone()], vec![down.clone()], vec![up, down]] {
            let found = of(&parts);
            for (found, share) in found.iter().zip(SHARES) {
                assert!((found / 300_000.0 - share).abs() < 0.01, "{found} at {share}");
            }
        }
    }
}
