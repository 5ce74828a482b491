//! Where plans run.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};

use shared::Result;

/// Runs the plans of statements. They read through the object stores of their context, which count bytes; dropping the rows stops them.
pub trait Executor: Debug + Send + Sync {
    /// Starts the plan; gives the rows of all its partitions.
    ///
    /// # Errors
    /// What keeps the plan from beginning; what goes wrong later is among the rows.
    fn start(&self, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream>;
}

/// Runs plans in this process.
#[derive(Debug)]
pub struct LocalExecutor;

impl Executor for LocalExecutor {
    fn start(&self, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(execute_stream(plan, context)?)
    }
}
