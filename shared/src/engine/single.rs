//! Subqueries that stand for a value.
//!
//! DataFusion plans one that names columns of the query around it only if it aggregates. What a subquery selects plainly goes
//! through an aggregate of ours, whose result is the one value that there is, null where there is none, and an error where there
//! are several: what SQL says of such a subquery.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Visit, Visitor};

use super::functions::filled;
use crate::Error;

const NAME: &str = "$single";

static AGGREGATES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let functions = all_default_aggregate_functions();
    functions.iter().flat_map(|f| f.aliases().iter().cloned().chain([f.name().to_owned()])).collect()
});

/// Makes the aggregate known.
pub(super) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    let signature = Signature::any(1, Volatility::Immutable);
    registry.register_udaf(Arc::new(AggregateUDF::from(Single { signature }))).map(|_| ())
}

/// Lets the subquery aggregate if it selects one plain value.
pub(super) fn rewrite(query: &mut Query) -> crate::Result<()> {
    let cut = query.limit_clause.is_some() || query.fetch.is_some();
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    if cut || !is_plain(select) {
        return Ok(());
    }
    if let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_mut_slice()
        && !aggregates(value)
    {
        *value = filled(&format!("\"{NAME}\"($1)"), std::slice::from_ref(value))?;
        query.order_by = None;
    }
    Ok(())
}

fn is_plain(select: &Select) -> bool {
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    ungrouped && select.having.is_none() && select.distinct.is_none() && !select.from.is_empty()
}

/// Whether an aggregate or window function is called, here or in a subquery of its own.
fn aggregates(value: &Expr) -> bool {
    struct Calls;
    impl Visitor for Calls {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(call) if call.over.is_some() => ControlFlow::Break(()),
                Expr::Function(call) => {
                    let name = call.name.to_string().replace('"', "").to_ascii_lowercase();
                    if name == NAME || AGGREGATES.contains(&name) {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    value.visit(&mut Calls).is_break()
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
        Ok(Box::new(One { value: ScalarValue::try_from(args.return_field.data_type())?, rows: 0 }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let value = Field::new(format_state_name(args.name, "value"), args.return_type().clone(), true);
        let rows = Field::new(format_state_name(args.name, "rows"), DataType::UInt64, false);
        Ok(vec![Arc::new(value), Arc::new(rows)])
    }
}

/// The value of the rows so far, of which there may be one.
#[derive(Debug)]
struct One {
    value: ScalarValue,
    rows: u64,
}

impl One {
    fn take(&mut self, values: &ArrayRef, at: usize, rows: u64) -> Result<()> {
        self.rows += rows;
        if self.rows > 1 {
            let message = "expected a subquery that gives one row at most where a value stands, found several";
            return Err(DataFusionError::External(Box::new(Error::invalid(message))));
        }
        if rows == 1 {
            self.value = ScalarValue::try_from_array(values, at)?;
        }
        Ok(())
    }
}

impl Accumulator for One {
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
