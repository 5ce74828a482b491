//! TABLESAMPLE BERNOULLI: each row by chance.

use datafusion::common::Result;
use datafusion::functions::math::expr_fn::random;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::sql::sqlparser::ast::{
    Expr, TableFactor, TableSample, TableSampleKind, TableSampleMethod, TableSampleQuantity, Value,
};

use shared::Error;

/// The share of the rows that a sample has, 0 to 1.
///
/// # Errors
/// `Invalid` for another sample than BERNOULLI of a percentage.
pub(crate) fn sampled(sample: &TableSampleKind) -> shared::Result<f64> {
    let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) = sample;
    let TableSample {
        name: Some(TableSampleMethod::Bernoulli), quantity, seed: None, bucket: None, offset: None, ..
    } = sample.as_ref()
    else {
        let message =
            format!("not supported: `{}`; expected TABLESAMPLE BERNOULLI (percentage)", sample.to_string().trim());
        return Err(Error::invalid(message));
    };
    let percentage = match quantity {
        Some(TableSampleQuantity { value: Expr::Value(value), unit: None, .. }) => match &value.value {
            Value::Number(digits, _) => digits.to_string().parse::<f64>().ok(),
            _ => None,
        },
        _ => None,
    };
    match percentage.filter(|percentage| (0.0..=100.0).contains(percentage)) {
        Some(percentage) => Ok(percentage / 100.0),
        None => {
            Err(Error::invalid(format!("expected a percentage from 0 to 100, found `{}`", sample.to_string().trim())))
        }
    }
}

/// Takes the sample off a relation.
pub(super) fn take(relation: &mut TableFactor) -> Option<TableSampleKind> {
    match relation {
        TableFactor::Table { sample, .. } | TableFactor::Derived { sample, .. } => sample.take(),
        _ => None,
    }
}

/// Each row of the plan with this probability.
pub(super) fn by_chance(plan: LogicalPlan, share: f64) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(plan).filter(random().lt(lit(share)))?.build()
}
