//! `date_bin(interval, time)`: DataFusion's, which gives null for a time that nanoseconds can't tell.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::functions::datetime;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use shared::Error;

/// Puts the function in the place of DataFusion's.
///
/// # Errors
/// Whatever the registry says.
pub(super) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    registry.register_udf(Arc::new(ScalarUDF::from(DateBin { inner: datetime::date_bin() })))?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let asked = args.args.clone();
        let found = self.inner.invoke_with_args(args)?;
        let is_null_at = |value: &ColumnarValue, row: usize| match value {
            ColumnarValue::Array(array) => array.is_null(row),
            ColumnarValue::Scalar(value) => value.is_null(),
        };
        let rows = match &found {
            ColumnarValue::Array(found) if found.null_count() == 0 => 0,
            ColumnarValue::Array(found) => found.len(),
            ColumnarValue::Scalar(_) => 1,
        };
        if (0..rows).any(|row| is_null_at(&found, row) && !asked.iter().any(|arg| is_null_at(arg, row))) {
            return Err(DataFusionError::from(Error::invalid(
                "expected times from 1677 to 2262 for `date_bin`, found another: `date_trunc` takes all times",
            )));
        }
        Ok(found)
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(input)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
