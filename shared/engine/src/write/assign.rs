//! Values as a column takes them: in its type, where nothing is lost by that.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryBuilder, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::common::{Column as PlanColumn, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use uuid::Uuid;

use shared::model::ColumnType;
use shared::{Error, Result};

/// Gives its one argument the type of a column; a value that the type can't hold is an error that names the column.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Assign {
    name: String,
    field: FieldRef,
    signature: Signature,
}

/// What the function that fits values to `column` is called.
pub(super) fn name_of(column: &str) -> String {
    format!("$as_{column}")
}

fn function(field: &Field) -> ScalarUDF {
    ScalarUDF::from(Assign {
        name: name_of(field.name()),
        field: Arc::new(field.clone()),
        signature: Signature::any(1, Volatility::Immutable),
    })
}

/// Makes the function of each column known to `state`.
pub(super) fn register(state: &mut SessionState, columns: &SchemaRef) -> Result<()> {
    for field in columns.fields() {
        state.register_udf(Arc::new(function(field)))?;
    }
    Ok(())
}

/// The plan's columns, in their order, as the columns of a table.
pub(super) fn project(plan: LogicalPlan, fields: &[FieldRef]) -> DfResult<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let assigned = schema.iter().zip(fields).map(|((relation, found), field)| {
        let value = Expr::Column(PlanColumn::new(relation.cloned(), found.name()));
        let call = ScalarFunction::new_udf(Arc::new(function(field)), vec![value]);
        Expr::ScalarFunction(call).alias(field.name())
    });
    LogicalPlanBuilder::from(plan).project(assigned.collect::<Vec<_>>())?.build()
}

impl Assign {
    fn assign(&self, values: &ArrayRef) -> DfResult<ArrayRef> {
        let from = values.data_type();
        let to = self.field.data_type();
        let assigned = match (from, to) {
            // A time without a zone is in UTC, as everywhere.
            (DataType::Timestamp(_, None) | DataType::Date32, DataType::Timestamp(unit, Some(_))) => {
                let plain = Field::new(self.field.name(), DataType::Timestamp(*unit, None), true);
                let plain = table::assigned(values, &plain)?;
                arrow::compute::cast(&plain, to)?
            }
            (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, DataType::FixedSizeBinary(16)) => {
                uuids(values, &self.field)?
            }
            // A literal such as 0.1 is a decimal; a double is the nearest there is.
            (DataType::Decimal128(..), DataType::Float32 | DataType::Float64) => arrow::compute::cast(values, to)?,
            _ => table::assigned(values, &self.field)?,
        };
        Ok(assigned)
    }
}

/// Texts such as `f81d4fae-7dec-11d0-a765-00a0c91e6bf6` as the bytes of uuids.
fn uuids(texts: &ArrayRef, field: &Field) -> DfResult<ArrayRef> {
    let texts = arrow::compute::cast(texts, &DataType::Utf8)?;
    let mut uuids = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
    for text in texts.as_string::<i32>() {
        let Some(text) = text else {
            uuids.append_null();
            continue;
        };
        let uuid = Uuid::parse_str(text).map_err(|e| {
            let message = format!("column `{}`: expected the text of a uuid, found `{text}`", field.name());
            DataFusionError::from(Error::invalid(message).with_source(e))
        })?;
        uuids.append_value(uuid.as_bytes())?;
    }
    Ok(Arc::new(uuids.finish()))
}

impl ScalarUDFImpl for Assign {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let found = types.first().unwrap_or(&DataType::Null);
        // No value is lost where there is none: what fails then is the type.
        if self.assign(&new_null_array(found, 0)).is_err() {
            let words = |ty: &DataType| ColumnType::from_arrow(ty).map_or_else(|_| ty.to_string(), |ty| ty.to_string());
            let (column, expected, found) = (self.field.name(), words(self.field.data_type()), words(found));
            let message = format!(
                "column `{column}`: expected a value of `{expected}`, found one of `{found}`; say what is meant with CAST"
            );
            return Err(DataFusionError::from(Error::invalid(message)));
        }
        Ok(self.field.data_type().clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(values)] => Ok(ColumnarValue::Array(self.assign(values)?)),
            [ColumnarValue::Scalar(value)] => {
                let assigned = self.assign(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&assigned, 0)?))
            }
            other => Err(DataFusionError::from(Error::bug(format!("expected 1 argument, found {}", other.len())))),
        }
    }
}
