//! The table's name mapping (`schema.name-mapping.default`), by which files without field ids are read: it follows the schema.

use std::borrow::Borrow;
use std::sync::Arc;

use iceberg::spec::{DEFAULT_SCHEMA_NAME_MAPPING, MappedField, NameMapping, NestedFieldRef, TableMetadata, Type};

use shared::{Error, Result};

/// The property's new value once the current schema has changed; `None` without a mapping or a change.
///
/// # Errors
/// `Invalid` when the property holds no mapping.
pub(super) fn after(metadata: &TableMetadata) -> Result<Option<(String, String)>> {
    let Some(text) = metadata.properties().get(DEFAULT_SCHEMA_NAME_MAPPING) else { return Ok(None) };
    let mapping: NameMapping = serde_json::from_str(text).map_err(|e| {
        Error::invalid(format!(
            "expected a name mapping in the property `{DEFAULT_SCHEMA_NAME_MAPPING}`, found `{text}`"
        ))
        .with_source(e)
    })?;
    let fields = follow(mapping.fields(), metadata.current_schema().as_struct().fields());
    let followed = NameMapping::new(fields);
    if followed == mapping {
        return Ok(None);
    }
    let text = serde_json::to_string(&followed).map_err(|e| Error::bug("a name mapping has no JSON").with_source(e))?;
    Ok(Some((DEFAULT_SCHEMA_NAME_MAPPING.to_owned(), text)))
}

/// Every field has an entry with its present name, beside the names that it had before. A name stands for one field.
fn follow<M: Borrow<MappedField>>(have: &[M], fields: &[NestedFieldRef]) -> Vec<MappedField> {
    let taken = |name: &str, id: Option<i32>| fields.iter().any(|f| f.name == name && Some(f.id) != id);
    let mut mapped: Vec<MappedField> = Vec::new();
    for entry in have.iter().map(Borrow::borrow) {
        let mut names: Vec<_> = entry.names().iter().filter(|n| !taken(n, entry.field_id())).cloned().collect();
        let field = fields.iter().find(|field| Some(field.id) == entry.field_id());
        let inner = match field {
            Some(field) => {
                if !names.contains(&field.name) {
                    names.push(field.name.clone());
                }
                follow(entry.fields(), &inner_fields(field))
            }
            None => entry.fields().iter().map(|f| f.as_ref().clone()).collect(),
        };
        mapped.push(MappedField::new(entry.field_id(), names, inner));
    }
    for field in fields {
        if !mapped.iter().any(|entry| entry.field_id() == Some(field.id)) {
            let inner = follow::<Arc<MappedField>>(&[], &inner_fields(field));
            mapped.push(MappedField::new(Some(field.id), vec![field.name.clone()], inner));
        }
    }
    mapped
}

fn inner_fields(field: &NestedFieldRef) -> Vec<NestedFieldRef> {
    match field.field_type.as_ref() {
        Type::Primitive(_) => Vec::new(),
        Type::Struct(fields) => fields.fields().to_vec(),
        Type::List(list) => vec![list.element_field.clone()],
        Type::Map(map) => vec![map.key_field.clone(), map.value_field.clone()],
    }
}
