//! Nested values of a file as the table has them: fields found by id, missing ones filled, leaves cast.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue, exec_err, internal_datafusion_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

/// How a value of a file becomes one of the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// As it is, or cast.
    Same,
    Struct(Vec<Child>),
    List(Box<Shape>),
    /// Keys and values.
    Map(Box<Shape>, Box<Shape>),
}

/// Where a field of a struct comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Child {
    /// The place in the file's struct.
    At(usize, Shape),
    /// The file does not have it.
    Default(Option<ScalarValue>),
}

impl Shape {
    fn apply(&self, values: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
        match (self, target) {
            (Self::Same, target) if values.data_type() == target => Ok(values.clone()),
            (Self::Same, target) => Ok(cast(values, target)?),
            (Self::Struct(children), DataType::Struct(fields)) => {
                let Some(values) = values.as_struct_opt() else { return unexpected(values, target) };
                let columns = children.iter().zip(fields).map(|(child, field)| match child {
                    Child::At(place, shape) => shape.apply(values.column(*place), field.data_type()),
                    Child::Default(Some(value)) => value.to_array_of_size(values.len()),
                    Child::Default(None) => Ok(new_null_array(field.data_type(), values.len())),
                });
                let columns = columns.collect::<Result<Vec<_>>>()?;
                let nulls = values.nulls().cloned();
                Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, values.len())?))
            }
            (Self::List(element), DataType::List(field)) => {
                let short = match values.data_type() {
                    DataType::LargeList(item) => cast(values, &DataType::List(item.clone()))?,
                    _ => values.clone(),
                };
                let Some(list) = short.as_list_opt::<i32>() else { return unexpected(values, target) };
                let elements = element.apply(list.values(), field.data_type())?;
                let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
                Ok(Arc::new(ListArray::try_new(field.clone(), offsets, elements, nulls)?))
            }
            (Self::Map(key, value), DataType::Map(entries, sorted)) => {
                let Some(map) = values.as_map_opt() else { return unexpected(values, target) };
                let DataType::Struct(pair) = entries.data_type() else { return unexpected(values, target) };
                let keys = key.apply(map.keys(), pair[0].data_type())?;
                let found = value.apply(map.values(), pair[1].data_type())?;
                let both = StructArray::try_new(pair.clone(), vec![keys, found], None)?;
                let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
                Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, both, nulls, *sorted)?))
            }
            _ => unexpected(values, target),
        }
    }
}

fn unexpected(values: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    exec_err!("expected values that become `{target}`, found `{}`", values.data_type())
}

/// A column of a file in the shape of the table's.
#[derive(Debug, Clone, Eq)]
pub(super) struct Reshape {
    column: Arc<dyn PhysicalExpr>,
    shape: Arc<Shape>,
    target: FieldRef,
}

impl Reshape {
    pub(super) fn new(column: Arc<dyn PhysicalExpr>, shape: Arc<Shape>, target: FieldRef) -> Self {
        Self { column, shape, target }
    }
}

impl PartialEq for Reshape {
    fn eq(&self, other: &Self) -> bool {
        self.column.eq(&other.column) && self.shape == other.shape && self.target == other.target
    }
}

impl Hash for Reshape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.shape.hash(state);
        self.target.hash(state);
    }
}

impl fmt::Display for Reshape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reshape({})", self.column)
    }
}

impl PhysicalExpr for Reshape {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.target.data_type().clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(self.target.is_nullable())
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(self.target.clone())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let values = self.column.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(ColumnarValue::Array(self.shape.apply(&values, self.target.data_type())?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.column]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let column = children.pop().ok_or_else(|| internal_datafusion_err!("expected a column, found none"))?;
        Ok(Arc::new(Self { column, ..self.as_ref().clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column.fmt_sql(f)
    }
}
