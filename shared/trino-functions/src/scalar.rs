//! Scalar functions for DataFusion: of the ways to call one, the way whose signature is nearest to the arguments.

use std::hash::{Hash, Hasher};

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature as Coercion, Volatility};

use super::call::{Call, Compute};
use super::signature::Signature;
use super::types::type_name;
use shared::Error;

/// The type of a result, of those of the arguments.
pub(crate) type Gives = fn(&[DataType]) -> Result<DataType>;

/// One way of calling a function.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) signature: Signature,
    /// The type of the result, where the signature does not say it all.
    pub(crate) gives: Option<Gives>,
    pub(crate) compute: Compute,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.signature)
    }
}

/// A function, known by its name.
#[derive(Debug)]
pub(crate) struct Scalar {
    pub(crate) name: &'static str,
    pub(crate) aliases: Vec<String>,
    pub(crate) ways: Vec<Way>,
    pub(crate) coercion: Coercion,
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Scalar {
    pub(crate) fn new(name: &'static str, aliases: Vec<String>, ways: Vec<Way>, volatility: Volatility) -> Self {
        Self { name, aliases, ways, coercion: Coercion::user_defined(volatility) }
    }

    /// The nearest way for arguments of these types, and what they are converted to.
    ///
    /// # Errors
    /// `Invalid` when no way takes them.
    fn way(&self, types: &[DataType]) -> Result<(&Way, Vec<DataType>)> {
        let fitting =
            self.ways.iter().filter_map(|way| way.signature.fits(types).map(|(types, cost)| (cost, way, types)));
        match fitting.min_by_key(|(cost, ..)| *cost) {
            Some((_, way, types)) => Ok((way, types)),
            None => Err(self.unexpected(types)),
        }
    }

    fn unexpected(&self, types: &[DataType]) -> DataFusionError {
        let found: Vec<String> = types.iter().map(type_name).collect();
        let expected: Vec<String> = self.ways.iter().map(|way| format!("`{}`", way.signature)).collect();
        let (name, found, expected) = (self.name, found.join(", "), expected.join(" or "));
        DataFusionError::from(Error::invalid(format!(
            "unexpected parameters ({found}) for function `{name}`; expected {expected}"
        )))
    }
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Coercion {
        &self.coercion
    }

    /// Types that no way takes stay as they are: DataFusion makes text of an error here, and asks for the type of the result next.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(self.way(types).map_or_else(|_| types.to_vec(), |(_, types)| types))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let (way, types) = self.way(types)?;
        match way.gives {
            Some(gives) => gives(&types),
            None => way.signature.gives(&types).ok_or_else(|| self.unexpected(&types)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        let (way, types) = self.way(&types)?;
        let constant: Vec<bool> = args.args.iter().map(|arg| matches!(arg, ColumnarValue::Scalar(_))).collect();
        let is_scalar = !constant.is_empty() && constant.iter().all(|constant| *constant);
        let array = |(arg, ty): (&ColumnarValue, &DataType)| -> Result<ArrayRef> {
            let array = match arg {
                ColumnarValue::Array(array) => ArrayRef::clone(array),
                ColumnarValue::Scalar(value) => value.to_array()?,
            };
            Ok(if array.data_type() == ty { array } else { cast(&array, ty)? })
        };
        let arguments: Vec<ArrayRef> = args.args.iter().zip(&types).map(array).collect::<Result<_>>()?;
        let rows = if is_scalar { 1 } else { args.number_rows };
        let call = Call { arguments: &arguments, constant: &constant, rows, gives: args.return_field.data_type() };
        let made = (way.compute)(&call)?;
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }
}
