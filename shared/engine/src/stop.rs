//! When a statement must end: by its deadline or because nobody waits for it, unless what it wrote may be committed already.
//!
//! Several things see to it, as no single one reaches everywhere. The caller stops waiting. The plan's joins yield
//! ([`CooperativeExec`]), so that their tasks can be ended. Joins that look at many pairs of rows without giving any ask [`Stop`] as
//! they do, through the condition that they evaluate, and windows through the functions that they call ([`super::watch`]).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use tokio::time::Instant;

use super::stats::timed_out;

const RUNNING: u8 = 0;
/// All rows that the statement writes were read: what follows is its commit.
const COMMITTING: u8 = 1;
const STOPPED: u8 = 2;

/// Whether a statement is to stop. Shared by all that work on it.
#[derive(Debug)]
pub(super) struct Stop {
    deadline: Option<(Instant, Duration)>,
    state: AtomicU8,
}

impl Stop {
    /// Of a statement that begins now and may take so long.
    pub(super) fn after(timeout: Option<Duration>) -> Arc<Self> {
        let deadline = timeout.map(|timeout| (Instant::now() + timeout, timeout));
        Arc::new(Self { deadline, state: AtomicU8::new(RUNNING) })
    }

    /// When it must end, and how long it was given.
    pub(super) fn deadline(&self) -> Option<(Instant, Duration)> {
        self.deadline
    }

    /// As [`Stop::deadline`], while it still counts: the answer of what was committed is given however late it is.
    pub(super) fn deadline_of_answer(&self) -> Option<(Instant, Duration)> {
        self.deadline.filter(|_| self.state.load(Ordering::Acquire) != COMMITTING)
    }

    /// Stops the statement; false when it is past stopping.
    pub(super) fn stop(&self) -> bool {
        self.go_to(STOPPED)
    }

    /// Goes on to the commit; false when it was stopped before.
    pub(super) fn commit(&self) -> bool {
        self.go_to(COMMITTING)
    }

    fn go_to(&self, state: u8) -> bool {
        match self.state.compare_exchange(RUNNING, state, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(now) => now == state,
        }
    }

    /// # Errors
    /// `Limit` when the statement is to stop.
    pub(super) fn check(&self) -> shared::Result<()> {
        let overdue = self.deadline.filter(|(at, _)| *at <= Instant::now());
        match overdue {
            Some((_, timeout)) => Err(timed_out(timeout)),
            None if self.state.load(Ordering::Acquire) == STOPPED => {
                Err(shared::Error::limit("the query was stopped: nobody waits for its answer"))
            }
            None => Ok(()),
        }
    }
}

/// Makes the joins of a plan heed a [`Stop`].
#[derive(Debug)]
pub(super) struct StopJoins {
    pub(super) stop: Arc<Stop>,
}

impl PhysicalOptimizerRule for StopJoins {
    fn name(&self) -> &str {
        "stop_joins"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match self.heeding(&node)? {
            Some(join) => Ok(Transformed::yes(Arc::new(CooperativeExec::new(join)))),
            None => Ok(Transformed::no(node)),
        })
        .map(|transformed| transformed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl StopJoins {
    /// The node, if it is a join, asking as it evaluates its condition.
    fn heeding(&self, node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            let filter = join.filter().map(|filter| self.asking(filter));
            return Ok(Some(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?)));
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>()
            && let Some(filter) = join.filter()
        {
            return join.builder().with_filter(Some(self.asking(filter))).build_exec().map(Some);
        }
        let is_join = node.is::<HashJoinExec>() || node.is::<CrossJoinExec>() || node.is::<SortMergeJoinExec>();
        Ok(is_join.then(|| Arc::clone(node)))
    }

    fn asking(&self, filter: &JoinFilter) -> JoinFilter {
        let inner = Arc::clone(filter.expression());
        let expression = Arc::new(Asking { inner, stop: Arc::clone(&self.stop) });
        JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
    }
}

/// A condition that fails once its statement is to stop.
#[derive(Debug, Clone)]
struct Asking {
    inner: Arc<dyn PhysicalExpr>,
    stop: Arc<Stop>,
}

impl PartialEq for Asking {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Asking {}

impl Hash for Asking {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Asking {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.stop.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(Self { inner, stop: Arc::clone(&self.stop) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commits_is_not_stopped_and_what_is_stopped_does_not_commit() {
        let stop = Stop::after(None);
        assert!(stop.check().is_ok() && stop.commit() && !stop.stop());
        assert!(stop.commit(), "again");
        let late = Stop::after(Some(Duration::ZERO));
        assert!(late.deadline_of_answer().is_some() && late.commit() && late.deadline_of_answer().is_none());
        let stop = Stop::after(None);
        assert!(stop.stop() && !stop.commit());
        assert_eq!(stop.check().unwrap_err().kind(), shared::ErrorKind::Limit);
    }

    #[test]
    fn a_deadline_passes_by_itself() {
        assert!(Stop::after(Some(Duration::ZERO)).check().unwrap_err().to_string().contains("0 s"));
        assert!(Stop::after(Some(Duration::from_secs(3600))).check().is_ok());
    }
}
