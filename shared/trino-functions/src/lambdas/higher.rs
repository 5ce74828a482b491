//! Higher-order functions for DataFusion: which types the parameters of lambdas have, and how lambdas are computed for many elements.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, new_empty_array};
use arrow::compute::{concat, take_arrays};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, HigherOrderFunctionArgs, HigherOrderReturnFieldArgs, HigherOrderSignature, HigherOrderUDF,
    HigherOrderUDFImpl, LambdaArgument, LambdaParametersProgress, ValueOrLambda, Volatility,
};

use crate::nested::in_type;
use crate::signature::{Given, Letters, Signature};
use crate::types::type_name;
use shared::Error;

/// How many elements a lambda is computed for at once: columns that it captures are repeated for each.
const AT_ONCE: usize = 8_192;

/// Asked between the parts of a computation, with the bytes that were made so far, whether it may go on.
pub type Watch = Arc<dyn Fn(u64) -> Result<()> + Send + Sync>;

/// What computes a call.
pub(crate) type Apply = Arc<dyn Fn(&Applied<'_>) -> Result<ArrayRef> + Send + Sync>;

/// One way of calling a function.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) signature: Signature,
    pub(crate) apply: Apply,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.signature)
    }
}

/// A function that takes lambdas, known by its name.
#[derive(Clone)]
pub(crate) struct Higher {
    name: &'static str,
    ways: Vec<Way>,
    coercion: HigherOrderSignature,
    watch: Option<Watch>,
}

impl std::fmt::Debug for Higher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Higher").field("name", &self.name).field("ways", &self.ways).finish_non_exhaustive()
    }
}

impl PartialEq for Higher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Higher {}

impl Hash for Higher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The function with a watch over its computations; none if it is not one of these functions, or has one.
pub fn watched(function: &HigherOrderUDF, watch: &Watch) -> Option<Arc<HigherOrderUDF>> {
    let inner: &dyn std::any::Any = function.inner().as_ref();
    let higher = inner.downcast_ref::<Higher>().filter(|higher| higher.watch.is_none())?;
    let watched = Higher { watch: Some(Arc::clone(watch)), ..higher.clone() };
    Some(Arc::new(HigherOrderUDF::new_from_impl(watched)))
}

impl Higher {
    pub(crate) fn new(name: &'static str, ways: Vec<Way>) -> Self {
        Self { name, ways, coercion: HigherOrderSignature::user_defined(Volatility::Immutable), watch: None }
    }

    /// The way for these arguments, and what its letters stand for.
    ///
    /// # Errors
    /// `Invalid` where none takes them.
    fn way(&self, given: &[Given]) -> Result<(&Way, Letters)> {
        let mut fitting = self.ways.iter().filter_map(|way| Some((way, way.signature.letters(given)?)));
        fitting.next().ok_or_else(|| {
            let found = given.iter().map(|given| match given {
                Given::Value(ty) => type_name(ty),
                Given::Lambda(Some(ty)) => format!("lambda giving {}", type_name(ty)),
                Given::Lambda(None) => "lambda".to_owned(),
            });
            self.unexpected(&found.collect::<Vec<_>>())
        })
    }

    fn unexpected(&self, found: &[String]) -> DataFusionError {
        let expected: Vec<String> = self.ways.iter().map(|way| format!("`{}`", way.signature)).collect();
        DataFusionError::from(Error::invalid(format!(
            "unexpected parameters ({}) for function `{}`; expected {}",
            found.join(", "),
            self.name,
            expected.join(" or ")
        )))
    }
}

/// A field that lambdas take or give. All may be null, as what was planned and what is computed must not differ in it.
fn field(ty: DataType) -> FieldRef {
    Arc::new(Field::new("", ty, true))
}

fn all_known<T>(types: Vec<Option<T>>) -> Result<Vec<T>> {
    types.into_iter().collect::<Option<Vec<T>>>().ok_or_else(|| {
        DataFusionError::from(Error::bug("expected a signature that tells all types, found a letter alone"))
    })
}

impl HigherOrderUDFImpl for Higher {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &HigherOrderSignature {
        &self.coercion
    }

    fn coerce_value_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let fitting = self.ways.iter().find_map(|way| way.signature.fits_values(types));
        fitting.ok_or_else(|| self.unexpected(&types.iter().map(type_name).collect::<Vec<_>>()))
    }

    /// Where a lambda takes what it gives, as the state of `reduce`, the type is found in steps: what the lambda gives for a state of
    /// the first type may be of a wider one.
    fn lambda_parameters(
        &self,
        step: usize,
        fields: &[ValueOrLambda<FieldRef, Option<FieldRef>>],
    ) -> Result<LambdaParametersProgress> {
        let given: Vec<Given> = fields
            .iter()
            .map(|field| match field {
                ValueOrLambda::Value(field) => Given::Value(field.data_type().clone()),
                ValueOrLambda::Lambda(field) => Given::Lambda(field.as_ref().map(|field| field.data_type().clone())),
            })
            .collect();
        let (way, letters) = self.way(&given)?;
        let parameters = way.signature.parameters(&letters);
        let is_planned = given.iter().all(|given| !matches!(given, Given::Lambda(None)));
        let fields = |types: Vec<DataType>| types.into_iter().map(field).collect::<Vec<_>>();
        if way.signature.is_recursive() && ((step == 0 && !is_planned) || step == 1) {
            return Ok(LambdaParametersProgress::Partial(
                parameters.into_iter().map(|types| types.map(fields)).collect(),
            ));
        }
        Ok(LambdaParametersProgress::Complete(all_known(parameters)?.into_iter().map(fields).collect()))
    }

    fn coerce_values_for_lambdas(&self, types: &[ValueOrLambda<DataType, DataType>]) -> Result<Option<Vec<DataType>>> {
        let given: Vec<Given> = types
            .iter()
            .map(|ty| match ty {
                ValueOrLambda::Value(ty) => Given::Value(ty.clone()),
                ValueOrLambda::Lambda(ty) => Given::Lambda(Some(ty.clone())),
            })
            .collect();
        let (way, letters) = self.way(&given)?;
        Ok(way.signature.values(&letters))
    }

    fn return_field_from_args(&self, args: HigherOrderReturnFieldArgs<'_>) -> Result<FieldRef> {
        let (way, letters) = self.way(&given(args.arg_fields))?;
        Ok(field(all_known(vec![way.signature.result(&letters)])?.remove(0)))
    }

    fn invoke_with_args(&self, args: HigherOrderFunctionArgs) -> Result<ColumnarValue> {
        let (way, letters) = self.way(&given(&args.arg_fields))?;
        let results = all_known(way.signature.results(&letters))?;
        let parameters = all_known(way.signature.parameters(&letters))?;
        let types = way.signature.values(&letters).unwrap_or_default();
        let (mut values, mut lambdas) = (Vec::new(), Vec::new());
        for arg in &args.args {
            match arg {
                ValueOrLambda::Value(value) => values.push(value.to_array(args.number_rows)?),
                ValueOrLambda::Lambda(lambda) => lambdas.push(lambda),
            }
        }
        let values = values.iter().zip(&types).map(|(value, ty)| in_type(value, ty)).collect::<Result<Vec<_>>>()?;
        let applied = Applied {
            values: &values,
            rows: args.number_rows,
            gives: args.return_field.data_type(),
            lambdas: &lambdas,
            parameters: &parameters,
            results: &results,
            watch: self.watch.as_ref(),
        };
        Ok(ColumnarValue::Array((way.apply)(&applied)?))
    }
}

fn given(fields: &[ValueOrLambda<FieldRef, FieldRef>]) -> Vec<Given> {
    let given = |field: &ValueOrLambda<FieldRef, FieldRef>| match field {
        ValueOrLambda::Value(field) => Given::Value(field.data_type().clone()),
        ValueOrLambda::Lambda(field) => Given::Lambda(Some(field.data_type().clone())),
    };
    fields.iter().map(given).collect()
}

/// A call for the rows of a batch.
pub(crate) struct Applied<'a> {
    /// The arguments that are no lambdas, in the types that the signature asks for.
    pub(crate) values: &'a [ArrayRef],
    pub(crate) rows: usize,
    pub(crate) gives: &'a DataType,
    lambdas: &'a [&'a LambdaArgument],
    parameters: &'a [Vec<DataType>],
    results: &'a [DataType],
    watch: Option<&'a Watch>,
}

impl Applied<'_> {
    /// What the lambda of this number gives for parameters, each an array of one value for each of `rows`.
    ///
    /// # Errors
    /// What the lambda's body says; what the watch says.
    pub(crate) fn lambda(&self, number: usize, parameters: &[ArrayRef], rows: &[u32]) -> Result<ArrayRef> {
        let (Some(lambda), Some(result)) = (self.lambdas.get(number), self.results.get(number)) else {
            return Err(DataFusionError::from(Error::bug(format!("expected a lambda at {number}, found none"))));
        };
        let types = &self.parameters[number];
        let parameters =
            parameters.iter().zip(types).map(|(values, ty)| in_type(values, ty)).collect::<Result<Vec<_>>>()?;
        let (mut made, mut bytes) = (Vec::new(), 0_usize);
        for from in (0..rows.len()).step_by(AT_ONCE) {
            let rows = &rows[from..rows.len().min(from + AT_ONCE)];
            let part: Vec<ArrayRef> = parameters.iter().map(|values| values.slice(from, rows.len())).collect();
            let part: Vec<_> = part.into_iter().map(|values| move || Ok(Arc::clone(&values))).collect();
            let part: Vec<&dyn Fn() -> Result<ArrayRef>> =
                part.iter().map(|f| f as &dyn Fn() -> Result<ArrayRef>).collect();
            let given = lambda
                .evaluate(&part, |captured| Ok(take_arrays(captured, &UInt32Array::from(rows.to_vec()), None)?))?;
            if let ColumnarValue::Scalar(value) = &given {
                self.watch(bytes.saturating_add(value.size().saturating_mul(rows.len())), result)?;
            }
            let given = in_type(&given.into_array(rows.len())?, result)?;
            bytes = bytes.saturating_add(given.get_array_memory_size());
            self.watch(bytes, result)?;
            made.push(given);
        }
        match made.as_slice() {
            [] => Ok(new_empty_array(result)),
            [one] => Ok(Arc::clone(one)),
            parts => Ok(concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>())?),
        }
    }

    /// Whether the computation may go on with so many bytes of a type.
    ///
    /// # Errors
    /// `Limit` for more bytes than Arrow's offsets reach; what the watch says.
    fn watch(&self, bytes: usize, ty: &DataType) -> Result<()> {
        let most = usize::try_from(i32::MAX).unwrap_or(usize::MAX);
        if bytes > most && !ty.is_primitive() {
            return Err(DataFusionError::from(Error::limit(format!(
                "expected a lambda to make at most {most} bytes for a batch of rows, found one that would make {bytes}"
            ))));
        }
        self.watch.map_or(Ok(()), |watch| watch(u64::try_from(bytes).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(name: &str, fields: &[ValueOrLambda<FieldRef, Option<FieldRef>>], step: usize) -> String {
        let function = crate::functions().into_iter().find(|function| function.name == name).unwrap();
        let types = |fields: Vec<FieldRef>| {
            fields.iter().map(|field| type_name(field.data_type())).collect::<Vec<_>>().join(", ")
        };
        match function.higher().unwrap().lambda_parameters(step, fields) {
            Ok(LambdaParametersProgress::Complete(all)) => all.into_iter().map(types).collect::<Vec<_>>().join("; "),
            Ok(LambdaParametersProgress::Partial(all)) => {
                let all = all.into_iter().map(|fields| fields.map_or("?".to_owned(), types));
                format!("so far {}", all.collect::<Vec<_>>().join("; "))
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_state_of_reduce_becomes_what_the_lambda_gives() {
        let list = ValueOrLambda::Value(field(crate::signature::array_of(DataType::Float64)));
        let start = ValueOrLambda::Value(field(DataType::Int64));
        let lambda = |ty: Option<DataType>| ValueOrLambda::Lambda(ty.map(field));
        let first = [list.clone(), start.clone(), lambda(None), lambda(None)];
        assert_eq!(parameters("reduce", &first, 0), "so far bigint, double; bigint");
        let next = [list, start, lambda(Some(DataType::Float64)), lambda(Some(DataType::Int64))];
        assert_eq!(parameters("reduce", &next, 1), "so far double, double; double");
        assert_eq!(parameters("reduce", &next, 2), "double, double; double");
    }

    #[test]
    fn a_condition_gives_a_truth_value() {
        let list = ValueOrLambda::Value(field(crate::signature::array_of(DataType::Int64)));
        let given = [list.clone(), ValueOrLambda::Lambda(Some(field(DataType::Int64)))];
        assert!(parameters("filter", &given, 0).contains("lambda giving bigint"));
        assert_eq!(parameters("filter", &[list, ValueOrLambda::Lambda(None)], 0), "bigint");
    }
}
