//! Columns ↔ Iceberg schemas with field ids ↔ Arrow schemas; how a table's schema grows.
//!
//! Widening follows the Iceberg specification: int → bigint, float → double, decimals to more digits of the same scale,
//! new columns and struct fields, required → optional. Nothing is dropped or narrowed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use iceberg::spec::{
    FormatVersion, ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type,
};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::io::IcebergContext;
use shared::model::{Column, ColumnType};
use shared::{Error, Result};

/// Hands out field ids.
pub struct Ids(pub i32);

impl Ids {
    pub fn allot(&mut self) -> i32 {
        self.0 += 1;
        self.0
    }
}

/// The Iceberg schema of a new table.
///
/// # Errors
/// `Invalid` for no columns, a name that is no identifier, or a name used twice.
pub fn new_schema(columns: &[Column]) -> Result<Schema> {
    check_columns(columns)?;
    let mut ids = Ids(columns.len().try_into().unwrap_or(i32::MAX));
    let fields = columns.iter().zip(1..).map(|(column, id)| Arc::new(new_field(column, id, &mut ids)));
    Schema::builder().with_fields(fields.collect::<Vec<_>>()).build().doing(|| "making the table's schema".into())
}

fn check_columns(columns: &[Column]) -> Result<()> {
    if columns.is_empty() {
        return Err(Error::invalid("expected at least one column, found none"));
    }
    for (i, column) in columns.iter().enumerate() {
        shared::model::name::check_identifier("column", &column.name)?;
        if columns[..i].iter().any(|c| c.name == column.name) {
            return Err(Error::invalid(format!("expected every column once, found `{}` a second time", column.name)));
        }
    }
    Ok(())
}

pub fn new_field(column: &Column, id: i32, ids: &mut Ids) -> NestedField {
    let mut field = NestedField::new(id, &column.name, new_type(&column.ty, ids), column.required);
    field.doc.clone_from(&column.comment);
    field
}

fn new_type(ty: &ColumnType, ids: &mut Ids) -> Type {
    Type::Primitive(match ty {
        ColumnType::Boolean => PrimitiveType::Boolean,
        ColumnType::TinyInt | ColumnType::SmallInt | ColumnType::Int => PrimitiveType::Int,
        ColumnType::BigInt => PrimitiveType::Long,
        ColumnType::Float => PrimitiveType::Float,
        ColumnType::Double => PrimitiveType::Double,
        ColumnType::Decimal(precision, scale) => {
            PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(scale.unsigned_abs()) }
        }
        ColumnType::String => PrimitiveType::String,
        ColumnType::Binary => PrimitiveType::Binary,
        ColumnType::Date => PrimitiveType::Date,
        ColumnType::Timestamp => PrimitiveType::Timestamp,
        ColumnType::TimestampTz => PrimitiveType::Timestamptz,
        ColumnType::TimestampNs => PrimitiveType::TimestampNs,
        ColumnType::TimestampTzNs => PrimitiveType::TimestamptzNs,
        ColumnType::Time => PrimitiveType::Time,
        ColumnType::Uuid => PrimitiveType::Uuid,
        ColumnType::Array(item) => {
            let id = ids.allot();
            let element = NestedField::list_element(id, new_type(item, ids), false);
            return Type::List(ListType::new(Arc::new(element)));
        }
        ColumnType::Map(key, value) => {
            let (key_id, value_id) = (ids.allot(), ids.allot());
            return Type::Map(MapType::optional(key_id, new_type(key, ids), value_id, new_type(value, ids)));
        }
        ColumnType::Struct(fields) => {
            let fields = fields.iter().map(|(name, ty)| {
                let id = ids.allot();
                Arc::new(NestedField::optional(id, name, new_type(ty, ids)))
            });
            return Type::Struct(StructType::new(fields.collect()));
        }
    })
}

/// What `schema` becomes so that rows of `columns` fit; `None` when they already do. `last_id` is the highest field id that
/// the table ever used. Columns that come anew may be null unless the table `is_empty`.
///
/// # Errors
/// `Invalid`, naming the column, when its type can't become the one asked for.
pub fn evolve(schema: &Schema, columns: &[Column], last_id: i32, is_empty: bool) -> Result<Option<Schema>> {
    check_columns(columns)?;
    let mut ids = Ids(last_id);
    let mut fields: Vec<NestedFieldRef> = schema.as_struct().fields().to_vec();
    for column in columns {
        match fields.iter_mut().find(|f| f.name == column.name) {
            Some(field) => *field = evolve_field(field, column, &mut ids)?,
            None => {
                let id = ids.allot();
                let mut field = new_field(column, id, &mut ids);
                field.required &= is_empty;
                fields.push(Arc::new(field));
            }
        }
    }
    if fields == schema.as_struct().fields() {
        return Ok(None);
    }
    let identifiers: Vec<_> = schema.identifier_field_ids().collect();
    let builder = Schema::builder().with_fields(fields).with_identifier_field_ids(identifiers);
    builder.build().map(Some).doing(|| "evolving the table's schema".into())
}

fn evolve_field(field: &NestedFieldRef, column: &Column, ids: &mut Ids) -> Result<NestedFieldRef> {
    let ty = evolve_type(&field.field_type, &column.ty, ids).ok_or_else(|| {
        let found = column_type(&field.field_type).map_or_else(|_| field.field_type.to_string(), |ty| ty.to_string());
        Error::invalid(format!(
            "column `{}`: expected a type that `{found}` can become, found `{}`",
            column.name, column.ty
        ))
    })?;
    let required = field.required && column.required;
    if ty == *field.field_type && required == field.required {
        return Ok(field.clone());
    }
    let mut evolved = field.as_ref().clone();
    evolved.field_type = Box::new(ty);
    evolved.required = required;
    Ok(Arc::new(evolved))
}

/// The narrowest type that holds both; `None` when there is none.
fn evolve_type(have: &Type, want: &ColumnType, ids: &mut Ids) -> Option<Type> {
    use ColumnType as C;
    use PrimitiveType as P;
    let wide = match (have, want) {
        (Type::Primitive(P::Int | P::Long), C::BigInt) => P::Long,
        (Type::Primitive(have @ (P::Int | P::Long)), C::TinyInt | C::SmallInt | C::Int) => have.clone(),
        (Type::Primitive(P::Float | P::Double), C::Double) => P::Double,
        (Type::Primitive(have @ (P::Float | P::Double)), C::Float) => have.clone(),
        (Type::Primitive(P::Decimal { precision, scale }), C::Decimal(wanted, s))
            if *scale == u32::from(s.unsigned_abs()) =>
        {
            P::Decimal { precision: (*precision).max(u32::from(*wanted)), scale: *scale }
        }
        // Bytes as wide as a uuid may be one, or not.
        (Type::Primitive(have @ (P::Fixed(16) | P::Uuid)), C::Uuid | C::Binary) => have.clone(),
        (Type::List(list), C::Array(item)) => {
            let element = evolve_nested(&list.element_field, item, ids)?;
            return Some(Type::List(ListType::new(element)));
        }
        (Type::Map(map), C::Map(key, value)) => {
            let key = evolve_nested(&map.key_field, key, ids)?;
            return Some(Type::Map(MapType::new(key, evolve_nested(&map.value_field, value, ids)?)));
        }
        (Type::Struct(have), C::Struct(want)) => return evolve_struct(have, want, ids),
        (Type::Primitive(have), want) => {
            let same = column_type(&Type::Primitive(have.clone())).is_ok_and(|ty| ty == *want);
            return same.then(|| Type::Primitive(have.clone()));
        }
        _ => return None,
    };
    Some(Type::Primitive(wide))
}

fn evolve_struct(have: &StructType, want: &[(String, ColumnType)], ids: &mut Ids) -> Option<Type> {
    let mut fields = have.fields().to_vec();
    for (name, ty) in want {
        match fields.iter_mut().find(|f| f.name == *name) {
            Some(field) => *field = evolve_nested(field, ty, ids)?,
            None => {
                let id = ids.allot();
                fields.push(Arc::new(NestedField::optional(id, name, new_type(ty, ids))));
            }
        }
    }
    Some(Type::Struct(StructType::new(fields)))
}

fn evolve_nested(field: &NestedFieldRef, want: &ColumnType, ids: &mut Ids) -> Option<NestedFieldRef> {
    let mut evolved = field.as_ref().clone();
    evolved.field_type = Box::new(evolve_type(&field.field_type, want, ids)?);
    Some(Arc::new(evolved))
}

/// # Errors
/// `Invalid`, naming the column, for a type that tables of the format don't have.
pub fn check_version(schema: &Schema, version: FormatVersion) -> Result<()> {
    let nanoseconds =
        |ty: &Type| matches!(ty, Type::Primitive(PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs));
    let found = schema.field_id_to_name_map().keys().find_map(|id| {
        schema.field_by_id(*id).filter(|field| version < FormatVersion::V3 && nanoseconds(&field.field_type))
    });
    let Some(field) = found else { return Ok(()) };
    let (name, ty) = (schema.name_by_field_id(field.id).unwrap_or(&field.name), &field.field_type);
    Err(Error::invalid(format!(
        "column `{name}`: expected a table of Iceberg's format v3 for `{ty}`, found `{version}`: set the table property `format-version` to `3`, or take microseconds"
    )))
}

/// The columns of an Iceberg schema.
///
/// # Errors
/// `Invalid` for a type that no column type stands for.
pub fn columns(schema: &Schema) -> Result<Vec<Column>> {
    let column = |field: &NestedFieldRef| {
        let ty = column_type(&field.field_type).map_err(|e| e.context(format!("column `{}`", field.name)))?;
        Ok(Column { name: field.name.clone(), ty, required: field.required, comment: field.doc.clone() })
    };
    schema.as_struct().fields().iter().map(column).collect()
}

pub fn column_type(ty: &Type) -> Result<ColumnType> {
    Ok(match ty {
        Type::Primitive(primitive) => match primitive {
            PrimitiveType::Boolean => ColumnType::Boolean,
            PrimitiveType::Int => ColumnType::Int,
            PrimitiveType::Long => ColumnType::BigInt,
            PrimitiveType::Float => ColumnType::Float,
            PrimitiveType::Double => ColumnType::Double,
            PrimitiveType::Decimal { precision, scale } => decimal(*precision, *scale)?,
            PrimitiveType::String => ColumnType::String,
            PrimitiveType::Binary | PrimitiveType::Fixed(_) => ColumnType::Binary,
            PrimitiveType::Uuid => ColumnType::Uuid,
            PrimitiveType::Date => ColumnType::Date,
            PrimitiveType::Timestamp => ColumnType::Timestamp,
            PrimitiveType::Timestamptz => ColumnType::TimestampTz,
            PrimitiveType::TimestampNs => ColumnType::TimestampNs,
            PrimitiveType::TimestamptzNs => ColumnType::TimestampTzNs,
            PrimitiveType::Time => ColumnType::Time,
        },
        Type::List(list) => ColumnType::Array(Box::new(column_type(&list.element_field.field_type)?)),
        Type::Map(map) => ColumnType::Map(
            Box::new(column_type(&map.key_field.field_type)?),
            Box::new(column_type(&map.value_field.field_type)?),
        ),
        Type::Struct(fields) => {
            let field = |f: &NestedFieldRef| Ok((f.name.clone(), column_type(&f.field_type)?));
            ColumnType::Struct(fields.fields().iter().map(field).collect::<Result<_>>()?)
        }
    })
}

fn decimal(precision: u32, scale: u32) -> Result<ColumnType> {
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if precision <= 38 => Ok(ColumnType::Decimal(precision, scale)),
        _ => {
            Err(Error::invalid(format!("expected a decimal of up to 38 digits, found `decimal({precision},{scale})`")))
        }
    }
}

/// The Arrow schema of a table, every field with its Iceberg id (`PARQUET:field_id`), as the Parquet writer wants it.
///
/// # Errors
/// As [`columns`].
pub fn arrow_schema(schema: &Schema) -> Result<ArrowSchemaRef> {
    let fields = schema.as_struct().fields().iter().map(arrow_field).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ArrowSchema::new(fields)))
}

fn arrow_field(field: &NestedFieldRef) -> Result<Field> {
    let ty = arrow_type(&field.field_type).map_err(|e| e.context(format!("column `{}`", field.name)))?;
    let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), field.id.to_string())]);
    Ok(Field::new(&field.name, ty, !field.required).with_metadata(id))
}

pub fn arrow_type(ty: &Type) -> Result<DataType> {
    Ok(match ty {
        Type::Primitive(PrimitiveType::Fixed(size)) => DataType::FixedSizeBinary(
            (*size)
                .try_into()
                .map_err(|_| Error::invalid(format!("expected a short fixed type, found `{size}` bytes")))?,
        ),
        Type::Primitive(_) => column_type(ty)?.to_arrow(),
        Type::List(list) => DataType::List(Arc::new(arrow_field(&list.element_field)?)),
        Type::Map(map) => {
            let fields = vec![arrow_field(&map.key_field)?, arrow_field(&map.value_field)?];
            let entries = Field::new("key_value", DataType::Struct(fields.into()), false);
            DataType::Map(Arc::new(entries), false)
        }
        Type::Struct(fields) => {
            DataType::Struct(fields.fields().iter().map(arrow_field).collect::<Result<Vec<_>>>()?.into())
        }
    })
}

/// The same schema without field ids, as SQL sees it.
pub fn without_ids(schema: &ArrowSchema) -> ArrowSchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|f| bare_field(f)).collect();
    Arc::new(ArrowSchema::new(fields))
}

fn bare_field(field: &Field) -> Field {
    let bare = |fields: &Fields| fields.iter().map(|f| bare_field(f)).collect::<Fields>();
    let ty = match field.data_type() {
        DataType::List(item) => DataType::List(Arc::new(bare_field(item))),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(bare_field(entries)), *sorted),
        DataType::Struct(fields) => DataType::Struct(bare(fields)),
        other => other.clone(),
    };
    Field::new(field.name(), ty, field.is_nullable())
}

/// The columns as Athena wants them in the Glue table of an Iceberg table: there is one kind of `timestamp`, and text stands for
/// times of day and uuids, as pyiceberg and Iceberg's own catalog have it.
pub fn catalog_columns(schema: &Schema) -> Result<Vec<Column>> {
    let columns = columns(schema)?;
    Ok(columns.into_iter().map(|c| Column { ty: catalog_type(c.ty), required: false, ..c }).collect())
}

fn catalog_type(ty: ColumnType) -> ColumnType {
    match ty {
        ColumnType::TimestampTz | ColumnType::TimestampNs | ColumnType::TimestampTzNs => ColumnType::Timestamp,
        ColumnType::Time | ColumnType::Uuid => ColumnType::String,
        ColumnType::Array(item) => ColumnType::Array(Box::new(catalog_type(*item))),
        ColumnType::Map(key, value) => ColumnType::Map(Box::new(catalog_type(*key)), Box::new(catalog_type(*value))),
        ColumnType::Struct(fields) => {
            ColumnType::Struct(fields.into_iter().map(|(name, ty)| (name, catalog_type(ty))).collect())
        }
        other => other,
    }
}
