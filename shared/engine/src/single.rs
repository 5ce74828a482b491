//! Subqueries that stand for a value.
//!
//! What a subquery selects plainly goes through an aggregate of ours, whose result is the one value that there is, null where there
//! is none, and an error where there are several: what SQL says of such a subquery.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use shared::Error;

const NAME: &str = "$single";

/// Makes the aggregate known.
pub(super) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    registry.register_udaf(function()).map(|_| ())
}

/// The aggregate.
pub(super) fn function() -> Arc<AggregateUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(AggregateUDF::from(Single { signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Single {
    signature: Signature,
}

impl AggregateUDFImpl for Single {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(AtMostOne { value: ScalarValue::try_from(args.return_field.data_type())?, rows: 0 }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let value = Field::new(format_state_name(args.name, "value"), args.return_type().clone(), true);
        let rows = Field::new(format_state_name(args.name, "rows"), DataType::UInt64, false);
        Ok(vec![Arc::new(value), Arc::new(rows)])
    }
}

/// The value of the rows so far, of which there may be one.
#[derive(Debug)]
struct AtMostOne {
    value: ScalarValue,
    rows: u64,
}

impl AtMostOne {
    fn take(&mut self, values: &ArrayRef, at: usize, rows: u64) -> Result<()> {
        self.rows += rows;
        if self.rows > 1 {
            let message = "expected a subquery that gives one row at most where a value stands, found several";
            return Err(DataFusionError::from(Error::invalid(message)));
        }
        if rows == 1 {
            self.value = ScalarValue::try_from_array(values, at)?;
        }
        Ok(())
    }
}

impl Accumulator for AtMostOne {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        (0..values[0].len()).try_for_each(|at| self.take(&values[0], at, 1))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::UInt64(Some(self.rows))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states[1].as_primitive::<UInt64Type>();
        rows.values().iter().enumerate().try_for_each(|(at, rows)| self.take(&states[0], at, *rows))
    }
}
