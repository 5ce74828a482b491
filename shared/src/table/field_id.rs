//! Reads data files by field id: a column that was renamed or added since a file was written is still found, or null.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

/// Makes adapters that match a file's columns to the table's by field id. Files without ids are matched by name.
#[derive(Debug)]
pub(super) struct FieldIdAdapterFactory {
    /// The table's column names by field id.
    pub(super) names: HashMap<i32, String>,
}

/// The adapter that DataFusion makes for a file whose columns have the table's names, then back to the file's own names.
#[derive(Debug)]
struct FieldIdAdapter {
    inner: Arc<dyn PhysicalExprAdapter>,
    physical: SchemaRef,
}

impl PhysicalExprAdapterFactory for FieldIdAdapterFactory {
    fn create(&self, logical: SchemaRef, physical: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let fields: Vec<_> = physical.fields().iter().map(|field| self.as_in_table(field)).collect();
        let same = fields.iter().zip(physical.fields()).all(|(ours, theirs)| ours.name() == theirs.name());
        if same {
            return DefaultPhysicalExprAdapterFactory.create(logical, physical);
        }
        let renamed = Arc::new(Schema::new_with_metadata(fields, physical.metadata().clone()));
        let inner = DefaultPhysicalExprAdapterFactory.create(logical, renamed)?;
        Ok(Arc::new(FieldIdAdapter { inner, physical }))
    }
}

impl FieldIdAdapterFactory {
    fn as_in_table(&self, field: &Field) -> Field {
        let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY).and_then(|id| id.parse::<i32>().ok());
        match id.map(|id| (id, self.names.get(&id))) {
            None => field.clone(),
            Some((_, Some(name))) => field.clone().with_name(name),
            // A column that the table dropped; its name may belong to another one by now.
            Some((id, None)) => field.clone().with_name(format!("dropped field {id}")),
        }
    }
}

impl PhysicalExprAdapter for FieldIdAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let adapted = self.inner.rewrite(expr)?;
        let own_name = |expr: Arc<dyn PhysicalExpr>| {
            let Some(index) = expr.downcast_ref::<Column>().map(Column::index) else {
                return Ok(Transformed::no(expr));
            };
            let own = Column::new(self.physical.field(index).name(), index);
            Ok(Transformed::yes(Arc::new(own) as Arc<dyn PhysicalExpr>))
        };
        adapted.transform(own_name).data()
    }
}
