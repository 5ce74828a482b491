//! Filters that a physical plan hands down to its sources.
//!
//! DataFusion finds the column of a filter in an input by its name. Two columns of one name, as those of a table that is joined with
//! itself, are then one to it: a filter of the second is applied to the first. [`ByPlace`] leaves the parts of a plan alone that have
//! such columns, and has filters handed down below them.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};

use super::projections::Unfolded;

/// DataFusion's rules of physical plans, those that hand filters down only where names tell columns apart, those that hand
/// projections down never through a filter that projects.
pub(super) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let rules = PhysicalOptimizer::new().rules.into_iter();
    rules
        .map(|rule| match rule.name() {
            "ProjectionPushdown" => Arc::new(Unfolded(rule)) as _,
            name if name.starts_with("FilterPushdown") => Arc::new(ByPlace(rule)) as _,
            _ => rule,
        })
        .collect()
}

#[derive(Debug)]
struct ByPlace(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for ByPlace {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let (plan, is_told_apart) = self.below(plan, config)?;
        if is_told_apart { self.0.optimize(plan, config) } else { Ok(plan) }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

impl ByPlace {
    /// The plan with filters handed down where names tell columns apart below a node where they do not; whether they do in all of it,
    /// which is then as it was.
    fn below(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<(Arc<dyn ExecutionPlan>, bool)> {
        let inputs = plan.children().into_iter().map(|input| self.below(Arc::clone(input), config));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let mut names = HashSet::new();
        let schema = plan.schema();
        if inputs.iter().all(|(_, told)| *told) && schema.fields().iter().all(|field| names.insert(field.name())) {
            return Ok((plan, true));
        }
        if inputs.is_empty() {
            return Ok((plan, false));
        }
        let inputs =
            inputs.into_iter().map(|(input, told)| if told { self.0.optimize(input, config) } else { Ok(input) });
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok((plan.replace_children(inputs.collect::<Result<_>>()?, options)?, false))
    }
}
