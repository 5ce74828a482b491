//! Columns and the fields inside them: added, dropped, renamed, widened, moved. Ids are never used twice.

use std::collections::HashSet;
use std::sync::Arc;

use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, TableMetadata, Type,
};

use super::Position;
use super::draft::Draft;
use crate::io::IcebergContext;
use crate::schema::{Ids, column_type, new_field};
use shared::model::name::check_identifier;
use shared::model::{Column, ColumnType};
use shared::{Error, Result};

/// A schema under change.
pub(super) struct Columns {
    schema: Schema,
    /// The highest field id that the table ever used.
    ids: Ids,
    /// Whether the table never had rows.
    is_empty: bool,
}

/// Fields that lie beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Columns,
    /// The fields of the struct with this field id.
    Struct(i32),
    /// The one field of a list, the two of a map: none comes or goes.
    Fixed,
}

impl Draft<'_> {
    pub(super) fn drop_column(&mut self, name: &str) -> Result<()> {
        let dropped = ids_below(self.columns().find(name)?);
        let specs = self.metadata.partition_specs_iter();
        let source = specs
            .flat_map(|spec| spec.fields().iter().map(|field| (spec.spec_id(), field)))
            .find(|(_, field)| dropped.contains(&field.source_id) && field.transform != iceberg::spec::Transform::Void);
        if let Some((spec, field)) = source {
            let why = if spec == self.metadata.default_partition_spec_id() {
                "drop the partition field first"
            } else {
                "rewrite the files that have it, then expire their snapshots"
            };
            return Err(Error::invalid(format!(
                "expected a column that no partition field reads, found `{name}`, read by `{}` of the partition spec {spec}: {why}",
                field.name
            )));
        }
        if self.metadata.default_sort_order().fields.iter().any(|field| dropped.contains(&field.source_id)) {
            return Err(Error::invalid(format!(
                "expected a column that the sort order does not read, found `{name}`: set another order first"
            )));
        }
        self.columns().remove(name)
    }

    pub(super) fn rename_column(&mut self, from: &str, to: &str) -> Result<()> {
        let columns = self.columns();
        let id = columns.find(from)?.id;
        columns.rename(from, to)?;
        let name = columns.full_name(id)?;
        self.rename_in_properties(from, &name)
    }
}

impl Columns {
    pub(super) fn of(metadata: &TableMetadata) -> Self {
        Self {
            schema: metadata.current_schema().as_ref().clone(),
            ids: Ids(metadata.last_column_id()),
            is_empty: metadata.snapshots().len() == 0,
        }
    }

    pub(super) fn has_changed(&self, metadata: &TableMetadata) -> bool {
        self.schema.as_struct() != metadata.current_schema().as_struct()
    }

    pub(super) fn into_schema(self) -> Schema {
        self.schema
    }

    pub(super) fn find(&self, name: &str) -> Result<&NestedFieldRef> {
        self.schema.field_by_name(name).ok_or_else(|| {
            let known: Vec<_> = self.schema.as_struct().fields().iter().map(|f| format!("`{}`", f.name)).collect();
            Error::invalid(format!("expected one of the columns {}, found `{name}`", known.join(", ")))
        })
    }

    fn full_name(&self, id: i32) -> Result<String> {
        let name = self.schema.name_by_field_id(id).map(str::to_owned);
        name.ok_or_else(|| Error::bug(format!("expected the field {id} in the schema, found none")))
    }

    pub(super) fn add(&mut self, column: &Column, place: &Position) -> Result<()> {
        let (parent, name) = match column.name.rsplit_once('.') {
            Some((parent, name)) => (Some(parent), name),
            None => (None, column.name.as_str()),
        };
        check_identifier("column", name)?;
        if column.required && !self.is_empty {
            return Err(Error::invalid(format!(
                "expected a column that may be null, because the table has had rows, found `{}` as required",
                column.name
            )));
        }
        let target = match parent {
            Some(parent) => self.struct_of(parent)?,
            None => Group::Columns,
        };
        let id = self.ids.allot();
        let field = Arc::new(new_field(&Column { name: name.to_owned(), ..column.clone() }, id, &mut self.ids));
        self.edit(|group, mut fields| {
            if group != target {
                return Ok(fields);
            }
            check_free(&fields, name)?;
            let at = position(&fields, place)?;
            fields.insert(at, field.clone());
            Ok(fields)
        })
    }

    /// The fields that `name`, a struct or a list or map of structs, holds.
    fn struct_of(&self, name: &str) -> Result<Group> {
        let field = self.find(name)?;
        let inner = match field.field_type.as_ref() {
            Type::List(list) => &list.element_field,
            Type::Map(map) => &map.value_field,
            _ => field,
        };
        match inner.field_type.as_ref() {
            Type::Struct(_) => Ok(Group::Struct(inner.id)),
            other => {
                Err(Error::invalid(format!("expected a struct to add a field to, found `{name}` of type `{other}`")))
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<()> {
        let field = self.find(name)?;
        let (id, below) = (field.id, ids_below(field));
        if self.schema.identifier_field_ids().any(|id| below.contains(&id)) {
            return Err(Error::invalid(format!(
                "expected a column that is no part of the rows' identifier, found `{name}`"
            )));
        }
        self.edit_beside(id, |group, mut fields| {
            check_not_fixed(group, name)?;
            fields.retain(|field| field.id != id);
            if fields.is_empty() {
                return Err(Error::invalid(format!(
                    "expected a column that leaves others, found `{name}`, the last one"
                )));
            }
            Ok(fields)
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        check_identifier("column", to)?;
        let id = self.find(from)?.id;
        self.edit_beside(id, |group, fields| {
            check_not_fixed(group, from)?;
            let others: Vec<_> = fields.iter().filter(|field| field.id != id).cloned().collect();
            check_free(&others, to)?;
            Ok(change(fields, id, |field| field.name = to.to_owned()))
        })
    }

    pub(super) fn widen(&mut self, name: &str, want: &ColumnType) -> Result<()> {
        let field = self.find(name)?;
        let id = field.id;
        let wide = match field.field_type.as_ref() {
            Type::Primitive(have) => widened(have, want),
            _ => None,
        };
        let wide = wide.ok_or_else(|| {
            let found =
                column_type(&field.field_type).map_or_else(|_| field.field_type.to_string(), |ty| ty.to_string());
            Error::invalid(format!("column `{name}`: expected a type that `{found}` widens to, found `{want}`"))
        })?;
        self.edit_beside(id, |_, fields| Ok(change(fields, id, |f| *f.field_type = Type::Primitive(wide.clone()))))
    }

    pub(super) fn shift(&mut self, name: &str, place: &Position) -> Result<()> {
        let id = self.find(name)?.id;
        self.edit_beside(id, |group, mut fields| {
            check_not_fixed(group, name)?;
            let moved = fields.iter().position(|field| field.id == id).map(|at| fields.remove(at));
            let at = position(&fields, place)?;
            fields.splice(at..at, moved);
            Ok(fields)
        })
    }

    pub(super) fn drop_not_null(&mut self, name: &str) -> Result<()> {
        let field = self.find(name)?;
        let (id, key) = (field.id, name.ends_with(".key") && field.required);
        if self.schema.identifier_field_ids().any(|identifier| identifier == id) {
            return Err(Error::invalid(format!(
                "expected a column that is no part of the rows' identifier, found `{name}`"
            )));
        }
        self.edit_beside(id, |group, fields| {
            if key && group == Group::Fixed {
                return Err(Error::invalid(format!(
                    "expected a column that may become null, found `{name}`, a map's key"
                )));
            }
            Ok(change(fields, id, |field| field.required = false))
        })
    }

    pub(super) fn comment(&mut self, name: &str, comment: Option<&str>) -> Result<()> {
        let id = self.find(name)?.id;
        self.edit_beside(id, |_, fields| Ok(change(fields, id, |field| field.doc = comment.map(str::to_owned))))
    }

    /// Changes the fields that lie beside the one with this id.
    fn edit_beside(
        &mut self,
        id: i32,
        edit: impl Fn(Group, Vec<NestedFieldRef>) -> Result<Vec<NestedFieldRef>>,
    ) -> Result<()> {
        self.edit(|group, fields| {
            let here = fields.iter().any(|field| field.id == id);
            if here { edit(group, fields) } else { Ok(fields) }
        })
    }

    fn edit(&mut self, edit: impl Fn(Group, Vec<NestedFieldRef>) -> Result<Vec<NestedFieldRef>>) -> Result<()> {
        let fields = walk(Group::Columns, self.schema.as_struct().fields(), &edit)?;
        let identifiers: Vec<_> = self.schema.identifier_field_ids().collect();
        let builder = Schema::builder().with_fields(fields).with_identifier_field_ids(identifiers);
        self.schema = builder.build().doing(|| "changing the table's schema".into())?;
        Ok(())
    }
}

type Edit<'a> = &'a dyn Fn(Group, Vec<NestedFieldRef>) -> Result<Vec<NestedFieldRef>>;

/// Changes every group of fields, the inner ones first.
fn walk(group: Group, fields: &[NestedFieldRef], edit: Edit<'_>) -> Result<Vec<NestedFieldRef>> {
    let inner = |field: &NestedFieldRef| {
        let ty = match field.field_type.as_ref() {
            Type::Primitive(_) => return Ok(field.clone()),
            Type::Struct(fields) => {
                Type::Struct(StructType::new(walk(Group::Struct(field.id), fields.fields(), edit)?))
            }
            Type::List(list) => match walk(Group::Fixed, std::slice::from_ref(&list.element_field), edit)?.as_slice() {
                [element] => Type::List(ListType::new(element.clone())),
                _ => return Err(Error::bug("a list has one element")),
            },
            Type::Map(map) => {
                match walk(Group::Fixed, &[map.key_field.clone(), map.value_field.clone()], edit)?.as_slice() {
                    [key, value] => Type::Map(MapType::new(key.clone(), value.clone())),
                    _ => return Err(Error::bug("a map has a key and a value")),
                }
            }
        };
        let mut changed = field.as_ref().clone();
        *changed.field_type = ty;
        Ok(Arc::new(changed))
    };
    edit(group, fields.iter().map(inner).collect::<Result<_>>()?)
}

fn change(fields: Vec<NestedFieldRef>, id: i32, edit: impl Fn(&mut NestedField)) -> Vec<NestedFieldRef> {
    let edited = |field: NestedFieldRef| {
        if field.id != id {
            return field;
        }
        let mut field = field.as_ref().clone();
        edit(&mut field);
        Arc::new(field)
    };
    fields.into_iter().map(edited).collect()
}

/// The column's own id and those of the fields inside it.
fn ids_below(field: &NestedFieldRef) -> HashSet<i32> {
    let mut ids = HashSet::from([field.id]);
    let inner: Vec<&NestedFieldRef> = match field.field_type.as_ref() {
        Type::Primitive(_) => Vec::new(),
        Type::Struct(fields) => fields.fields().iter().collect(),
        Type::List(list) => vec![&list.element_field],
        Type::Map(map) => vec![&map.key_field, &map.value_field],
    };
    ids.extend(inner.into_iter().flat_map(ids_below));
    ids
}

/// Names that differ in case alone are one to Athena.
fn check_free(fields: &[NestedFieldRef], name: &str) -> Result<()> {
    match fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)) {
        Some(field) => {
            Err(Error::invalid(format!("expected a name that is free, found `{}`, which exists", field.name)))
        }
        None => Ok(()),
    }
}

fn check_not_fixed(group: Group, name: &str) -> Result<()> {
    if group == Group::Fixed {
        return Err(Error::invalid(format!(
            "expected a column or a struct's field, found `{name}`, a part of a list or map"
        )));
    }
    Ok(())
}

fn position(fields: &[NestedFieldRef], place: &Position) -> Result<usize> {
    let find = |name: &str| {
        fields.iter().position(|field| field.name == name).ok_or_else(|| {
            let known: Vec<_> = fields.iter().map(|f| format!("`{}`", f.name)).collect();
            Error::invalid(format!("expected one of {} to go beside, found `{name}`", known.join(", ")))
        })
    };
    match place {
        Position::Last => Ok(fields.len()),
        Position::First => Ok(0),
        Position::After(name) => Ok(find(name)? + 1),
        Position::Before(name) => find(name),
    }
}

/// What a type becomes, where the Iceberg specification allows it.
fn widened(have: &PrimitiveType, want: &ColumnType) -> Option<PrimitiveType> {
    use PrimitiveType as P;
    match (have, want) {
        (P::Int, ColumnType::BigInt) => Some(P::Long),
        (P::Float, ColumnType::Double) => Some(P::Double),
        (P::Decimal { precision, scale }, ColumnType::Decimal(wanted, s))
            if *scale == u32::from(s.unsigned_abs()) && *precision <= u32::from(*wanted) =>
        {
            Some(P::Decimal { precision: u32::from(*wanted), scale: *scale })
        }
        (have, want) => {
            let same = column_type(&Type::Primitive(have.clone())).is_ok_and(|ty| ty == *want);
            same.then(|| have.clone())
        }
    }
}
