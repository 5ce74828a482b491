//! What DataFusion plans for the syntax of arrays, maps and rows: `ARRAY[…]`, `a[i]`, `m[k]`, `r[1]`, `||`, `=`.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess, ScalarUDF, not};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::call::{Call, collect, invalid, whole};
use super::nested::{Equality, Single};
use super::{Function, arrays, functions, maps, scalar};
use shared::Error;

/// Plans operators of arrays, maps and rows as Trino has them. Goes before DataFusion's own planners.
#[derive(Debug)]
pub struct Operators {
    array: Arc<ScalarUDF>,
    concat: Arc<ScalarUDF>,
    map: Arc<ScalarUDF>,
    row: Arc<ScalarUDF>,
    subscript: Arc<ScalarUDF>,
    equal: Arc<ScalarUDF>,
}

static OPERATORS: LazyLock<Result<Operators>> = LazyLock::new(Operators::make);

impl Operators {
    /// # Errors
    /// `Bug` for signatures that can't be read.
    pub fn planner() -> Result<Arc<dyn ExprPlanner>> {
        match &*OPERATORS {
            Ok(operators) => Ok(Arc::new(operators.clone())),
            Err(error) => Err(DataFusionError::from(Error::bug(error.to_string()))),
        }
    }

    fn make() -> Result<Self> {
        let listed = |name: &str| {
            let found = functions().into_iter().find(|function| function.name == name);
            udf(found.ok_or_else(|| Error::bug(format!("expected the function `{name}`, found none")))?)
        };
        let subscript = scalar(arrays::SECTION, "$subscript", "the element at an index, the value of a key")
            .way("$subscript(array(T), bigint) -> T", whole(arrays::subscript))
            .way("$subscript(map(K, V), K) -> V", whole(maps::subscript));
        let equal = scalar(arrays::SECTION, "$equal", "whether arrays, maps or rows are equal")
            .way("$equal(T, T) -> boolean", whole(equal));
        Ok(Self {
            array: listed("make_array")?,
            concat: listed("array_concat")?,
            map: listed("map")?,
            row: listed("row")?,
            subscript: udf(subscript)?,
            equal: udf(equal)?,
        })
    }
}

impl Clone for Operators {
    fn clone(&self) -> Self {
        Self {
            array: Arc::clone(&self.array),
            concat: Arc::clone(&self.concat),
            map: Arc::clone(&self.map),
            row: Arc::clone(&self.row),
            subscript: Arc::clone(&self.subscript),
            equal: Arc::clone(&self.equal),
        }
    }
}

fn udf(function: Function) -> Result<Arc<ScalarUDF>> {
    Ok(Arc::new(ScalarUDF::from(function.implementation()?)))
}

fn call(function: &Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
}

fn is_array(ty: &DataType) -> bool {
    super::signature::element_of(ty).is_some()
}

fn is_nested(ty: &DataType) -> bool {
    is_array(ty) || matches!(ty, DataType::Struct(_) | DataType::Map(..))
}

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        // What has no type is refused by others, which know the place.
        let is = |side: &Expr, of: fn(&DataType) -> bool| side.get_type(schema).is_ok_and(|ty| of(&ty));
        let planned = match op {
            BinaryOperator::StringConcat if is(&left, is_array) || is(&right, is_array) => {
                call(&self.concat, vec![left, right])
            }
            BinaryOperator::Eq if is(&left, is_nested) && is(&right, is_nested) => call(&self.equal, vec![left, right]),
            BinaryOperator::NotEq if is(&left, is_nested) && is(&right, is_nested) => {
                not(call(&self.equal, vec![left, right]))
            }
            op => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        };
        Ok(PlannerResult::Planned(planned))
    }

    fn plan_field_access(
        &self,
        expr: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { expr, field_access } = expr;
        let ty = expr.get_type(schema).unwrap_or(DataType::Null);
        let planned = match (&ty, field_access) {
            (ty, GetFieldAccess::ListIndex { key }) if is_array(ty) || matches!(ty, DataType::Map(..)) => {
                call(&self.subscript, vec![expr, *key])
            }
            (DataType::Map(..), GetFieldAccess::NamedStructField { name }) => {
                call(&self.subscript, vec![expr, Expr::Literal(name, None)])
            }
            (DataType::Struct(fields), GetFieldAccess::ListIndex { key }) => {
                let index = match key.as_ref() {
                    Expr::Literal(ScalarValue::Int64(Some(index)), _) => usize::try_from(*index).ok(),
                    Expr::Literal(ScalarValue::Int32(Some(index)), _) => usize::try_from(*index).ok(),
                    _ => None,
                };
                let field = index.and_then(|index| fields.get(index.checked_sub(1)?));
                let field = field.ok_or_else(|| {
                    invalid(format!("expected the number of one of {} fields, found `{key}`", fields.len()))
                })?;
                get_field(expr, field.name().clone())
            }
            (_, field_access) => return Ok(PlannerResult::Original(RawFieldAccessExpr { expr, field_access })),
        };
        Ok(PlannerResult::Planned(planned))
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, _: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(call(&self.array, exprs)))
    }

    fn plan_make_map(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        if !args.len().is_multiple_of(2) {
            return Err(invalid("expected a value for each key, found a key without one"));
        }
        let (keys, values): (Vec<_>, Vec<_>) = args.into_iter().enumerate().partition(|(i, _)| i % 2 == 0);
        let array = |entries: Vec<(usize, Expr)>| call(&self.array, entries.into_iter().map(|(_, e)| e).collect());
        Ok(PlannerResult::Planned(call(&self.map, vec![array(keys), array(values)])))
    }

    fn plan_struct_literal(&self, args: Vec<Expr>, is_named_struct: bool) -> Result<PlannerResult<Vec<Expr>>> {
        match is_named_struct {
            true => Ok(PlannerResult::Original(args)),
            false => Ok(PlannerResult::Planned(call(&self.row, args))),
        }
    }
}

fn equal(call: &Call<'_>) -> Result<ArrayRef> {
    let ty = call.arguments[0].data_type();
    let (left, right) = (Single::of(call, 0, ty)?, Single::of(call, 1, ty)?);
    let equality = Equality::new(&left.values, &right.values)?;
    collect(call, |row| Ok(equality.equal(left.place(row), right.place(row))))
}
