//! Row lineage of Iceberg v3: each row's id, and the sequence number of the commit that gave it its values.
//!
//! A data file may hold both as columns. Where they are missing or null, rows inherit them: the id of the file's first row plus
//! their place, and the file's sequence number. Whoever moves a row to another file writes both there; an updated row keeps its
//! id and goes without a sequence number, so that it inherits that of the commit; a new row has neither.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use iceberg::spec::{
    DataContentType, FormatVersion, ManifestEntry, ManifestStatus, NestedField, NestedFieldRef, PrimitiveType,
    TableMetadata, Type,
};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use shared::{Error, Result};

/// The column with the row's id.
pub const ROW_ID: &str = "_row_id";
/// The column with the sequence number of the commit that gave the row its values.
pub const UPDATED: &str = "_last_updated_sequence_number";

/// Field ids that the specification reserves for these columns.
const COLUMNS: [(&str, i32); 2] = [(ROW_ID, 2_147_483_540), (UPDATED, 2_147_483_539)];

/// Whether the table's rows have a lineage.
pub fn is_kept(metadata: &TableMetadata) -> bool {
    metadata.format_version() >= FormatVersion::V3
}

/// The columns as data files have them: [`ROW_ID`], [`UPDATED`].
pub fn fields() -> [NestedFieldRef; 2] {
    COLUMNS.map(|(name, id)| Arc::new(NestedField::optional(id, name, Type::Primitive(PrimitiveType::Long))))
}

/// The columns of a data file, with those of the lineage at the end.
pub fn with_columns(schema: &Schema) -> SchemaRef {
    let fields = COLUMNS.map(|(name, id)| {
        let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
        Arc::new(Field::new(name, DataType::Int64, true).with_metadata(id))
    });
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(fields).collect::<Fields>()))
}

/// The id of the first row of a data file: its own, or the next of those that its manifest's entries inherit, which `next`
/// counts from the manifest's on. `None` for a file that is older than the table's lineage.
pub fn first_row_id(entry: &ManifestEntry, next: &mut Option<u64>) -> Option<u64> {
    let file = entry.data_file();
    if file.content_type() != DataContentType::Data {
        return None;
    }
    if let Some(own) = file.first_row_id() {
        return u64::try_from(own).ok();
    }
    let id = next.filter(|_| entry.status() != ManifestStatus::Deleted)?;
    *next = Some(id + file.record_count());
    Some(id)
}

/// # Errors
/// `Invalid` when a column of the table has a name that the lineage takes.
pub fn check_names(schema: &Schema) -> Result<()> {
    match schema.fields().iter().find(|field| COLUMNS.iter().any(|(name, _)| field.name() == name)) {
        None => Ok(()),
        Some(field) => Err(Error::invalid(format!(
            "expected no column of the table under a name that stands for a row's lineage (`{ROW_ID}`, `{UPDATED}`), found `{}`",
            field.name()
        ))),
    }
}
