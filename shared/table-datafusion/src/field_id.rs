//! Reads data files by field id: what was renamed, moved, added, dropped or widened since a file was written is found, at any
//! depth. The rules are those of the specification's "column projection".
//!
//! A file without ids gets them from the table's name mapping; without one its columns are matched by name.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use iceberg::spec::{
    DEFAULT_SCHEMA_NAME_MAPPING, ListType, MapType, MappedField, NameMapping, NestedField, NestedFieldRef, StructType,
    TableMetadata, Type,
};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::prune;
use super::reshape::{Child, Reshape, Shape};
use shared::Error;

/// Makes adapters that match a file's columns to those of a scan.
#[derive(Debug)]
pub(super) struct FieldIdAdapterFactory {
    /// The fields of the scan's columns, by the columns' names there.
    fields: HashMap<String, NestedFieldRef>,
    mapping: Option<Arc<NameMapping>>,
}

impl FieldIdAdapterFactory {
    pub(super) fn new(fields: HashMap<String, NestedFieldRef>, mapping: Option<Arc<NameMapping>>) -> Self {
        Self { fields, mapping }
    }
}

/// The table's names for the fields of files without ids.
///
/// # Errors
/// `Invalid` when the property is no name mapping.
pub(super) fn name_mapping(metadata: &TableMetadata) -> shared::Result<Option<Arc<NameMapping>>> {
    let Some(json) = metadata.properties().get(DEFAULT_SCHEMA_NAME_MAPPING) else { return Ok(None) };
    let mapping = serde_json::from_str(json).map_err(|e| {
        let key = DEFAULT_SCHEMA_NAME_MAPPING;
        Error::invalid(format!("table property `{key}`: expected the JSON of a name mapping, found `{json}`"))
            .with_source(e)
    });
    Ok(Some(Arc::new(mapping?)))
}

impl PhysicalExprAdapterFactory for FieldIdAdapterFactory {
    fn create(&self, logical: SchemaRef, physical: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let named = !physical.fields().iter().any(|field| id_of(field).is_some());
        let identified = match &self.mapping {
            Some(mapping) if named => mapped_fields(physical.fields(), &mapping.fields().iter().collect::<Vec<_>>()),
            _ => physical.fields().clone(),
        };
        let file = File { by_name: named && self.mapping.is_none(), fields: identified };
        let found = logical.fields().iter().map(|field| {
            let sought = self.fields.get(field.name());
            let place = match sought {
                Some(sought) => file.place(&file.fields, sought),
                None => file.fields.iter().position(|own| own.name() == field.name()),
            };
            self.column(&file, &physical, field, place).map(|expr| (field.name().clone(), expr))
        });
        Ok(Arc::new(FieldIdAdapter { found: found.collect::<Result<_>>()? }))
    }
}

impl FieldIdAdapterFactory {
    /// A column of the scan, made of the file's; why it can't be if it can't, for when it is asked for.
    fn column(&self, file: &File, physical: &SchemaRef, field: &FieldRef, place: Option<usize>) -> Result<Found> {
        let sought = self.fields.get(field.name());
        let Some(place) = place else {
            let default = sought.and_then(|sought| default_of(sought, field.data_type()));
            return Ok(match default {
                None if !field.is_nullable() => Found::Missing(field.name().clone()),
                None => Found::Expr(Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?))),
                Some(value) => Found::Expr(Arc::new(Literal::new(value))),
            });
        };
        let own = physical.field(place);
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(own.name(), place));
        let shape = match sought {
            Some(sought) => file.shape(&sought.field_type, field.data_type(), file.fields[place].data_type()),
            None => Shape::Same,
        };
        Ok(Found::Expr(match shape {
            _ if own.data_type() == field.data_type() => column,
            Shape::Same => Arc::new(CastExpr::new(column, field.data_type().clone(), None)),
            shape => Arc::new(Reshape::new(column, Arc::new(shape), field.clone())),
        }))
    }
}

#[derive(Debug, Clone)]
enum Found {
    Expr(Arc<dyn PhysicalExpr>),
    /// A required column that the file lacks.
    Missing(String),
}

#[derive(Debug)]
struct FieldIdAdapter {
    /// By name of the scan's column.
    found: HashMap<String, Found>,
}

impl PhysicalExprAdapter for FieldIdAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let adapt = |expr: Arc<dyn PhysicalExpr>| {
            let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
            match self.found.get(column.name()) {
                Some(Found::Expr(found)) => Ok(Transformed::yes(found.clone())),
                Some(Found::Missing(name)) => {
                    exec_err!("expected the required column `{name}` in the file, found none")
                }
                None => exec_err!("expected a column of the scan, found `{}`", column.name()),
            }
        };
        expr.transform(adapt).data()
    }
}

/// The fields of a file, with ids where there are some.
struct File {
    by_name: bool,
    fields: Fields,
}

impl File {
    fn place(&self, fields: &Fields, sought: &NestedField) -> Option<usize> {
        match self.by_name {
            true => fields.iter().position(|field| *field.name() == sought.name),
            false => fields.iter().position(|field| id_of(field) == Some(sought.id)),
        }
    }

    /// How values of the file become those of the table.
    fn shape(&self, sought: &Type, target: &DataType, own: &DataType) -> Shape {
        match (sought, target, own) {
            (Type::Struct(sought), DataType::Struct(target), DataType::Struct(own)) => {
                self.fields_shape(sought, target, own)
            }
            (
                Type::List(ListType { element_field }),
                DataType::List(target),
                DataType::List(own) | DataType::LargeList(own),
            ) => {
                let element = self.shape(&element_field.field_type, target.data_type(), own.data_type());
                Shape::List(Box::new(element))
            }
            (Type::Map(map), DataType::Map(target, _), DataType::Map(own, _)) => self.map_shape(map, target, own),
            _ => Shape::Same,
        }
    }

    fn fields_shape(&self, sought: &StructType, target: &Fields, own: &Fields) -> Shape {
        let children = sought.fields().iter().zip(target).map(|(sought, target)| match self.place(own, sought) {
            Some(place) => Child::At(place, self.shape(&sought.field_type, target.data_type(), own[place].data_type())),
            None => Child::Default(default_of(sought, target.data_type())),
        });
        Shape::Struct(children.collect())
    }

    fn map_shape(&self, map: &MapType, target: &FieldRef, own: &FieldRef) -> Shape {
        let (DataType::Struct(target), DataType::Struct(own)) = (target.data_type(), own.data_type()) else {
            return Shape::Same;
        };
        let ([key, value], [own_key, own_value]) = (target.as_ref(), own.as_ref()) else { return Shape::Same };
        let key = self.shape(&map.key_field.field_type, key.data_type(), own_key.data_type());
        let value = self.shape(&map.value_field.field_type, value.data_type(), own_value.data_type());
        Shape::Map(Box::new(key), Box::new(value))
    }
}

fn id_of(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// What a field holds in rows that were written before it came.
fn default_of(field: &NestedField, ty: &DataType) -> Option<ScalarValue> {
    let (Type::Primitive(primitive), Some(literal)) = (field.field_type.as_ref(), &field.initial_default) else {
        return None;
    };
    let value = prune::value(primitive, &literal.as_primitive_literal()?)?;
    if value.data_type() == *ty { Some(value) } else { value.cast_to(ty).ok() }
}

/// Fields with the ids that a mapping gives their names.
fn mapped_fields(fields: &Fields, mapping: &[&MappedField]) -> Fields {
    let mapped = fields.iter().map(|field| {
        let found = mapping.iter().find(|mapped| mapped.names().iter().any(|name| name == field.name()));
        match found {
            Some(found) => Arc::new(mapped_field(field, found)),
            None => field.clone(),
        }
    });
    mapped.collect()
}

fn mapped_field(field: &Field, mapping: &MappedField) -> Field {
    let inner: Vec<&MappedField> = mapping.fields().iter().map(AsRef::as_ref).collect();
    let only = |name: &str| inner.iter().find(|mapped| mapped.names().iter().any(|own| own == name)).copied();
    let under = |child: &FieldRef, name: &str| match only(name) {
        Some(mapped) => Arc::new(mapped_field(child, mapped)),
        None => child.clone(),
    };
    let ty = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(mapped_fields(fields, &inner)),
        DataType::List(item) => DataType::List(under(item, "element")),
        DataType::LargeList(item) => DataType::LargeList(under(item, "element")),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                let pair: Fields = vec![under(&pair[0], "key"), under(&pair[1], "value")].into();
                let entries = Field::clone(entries).with_data_type(DataType::Struct(pair));
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => field.data_type().clone(),
        },
        other => other.clone(),
    };
    let mut metadata = field.metadata().clone();
    if let Some(id) = mapping.field_id() {
        metadata.insert(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string());
    }
    field.clone().with_data_type(ty).with_metadata(metadata)
}
