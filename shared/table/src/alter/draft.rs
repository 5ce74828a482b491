//! Table metadata while changes are made to it, one after the other.

use iceberg::spec::{TableMetadata, TableMetadataBuilder};

use super::columns::Columns;
use super::{Alter, mapping};
use crate::{Table, schema};
use shared::{Error, Result};

pub(super) struct Draft<'a> {
    base: &'a Table,
    /// Everything so far except the columns.
    pub(super) metadata: TableMetadata,
    /// The columns, if they have changed since they were last put into `metadata`.
    columns: Option<Columns>,
    changed: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(base: &'a Table) -> Self {
        Self { base, metadata: base.metadata.as_ref().clone(), columns: None, changed: false }
    }

    pub(super) fn apply(&mut self, change: &Alter) -> Result<()> {
        match change {
            Alter::AddColumn { column, after } => self.columns().add(column, after),
            Alter::DropColumn(name) => self.drop_column(name),
            Alter::RenameColumn { from, to } => self.rename_column(from, to),
            Alter::WidenColumn { name, ty } => self.columns().widen(name, ty),
            Alter::MoveColumn { name, to } => self.columns().shift(name, to),
            Alter::DropNotNull(name) => self.columns().drop_not_null(name),
            Alter::Comment { column, comment } => self.columns().comment(column, comment.as_deref()),
            Alter::AddPartitionField(field) => self.add_partition_field(field),
            Alter::DropPartitionField(field) => self.drop_partition_field(field),
            Alter::ReplacePartitionFields(fields) => self.replace_partition_fields(fields),
            Alter::SetSortOrder(fields) => self.set_sort_order(fields),
            Alter::NameSortOrder(fields) => self.name_sort_order(fields),
            Alter::SetProperties(properties) => self.set_properties(properties),
            Alter::RemoveProperties(keys) => self.remove_properties(keys),
            Alter::CreateTag { name, snapshot, keep, replace } => self.create_tag(name, *snapshot, keep, *replace),
            Alter::CreateBranch { name, snapshot, keep, replace } => {
                self.create_branch(name, *snapshot, keep, *replace)
            }
            Alter::DropRef(name) => self.drop_ref(name),
            Alter::RollbackTo { snapshot, replay } => self.roll_back_to(*snapshot, *replay),
            Alter::RollbackToTime { before_ms, replay } => self.roll_back_to_time(*before_ms, *replay),
            Alter::SetCurrentSnapshot(id) => self.set_current(*id, false),
            Alter::FastForward { branch, to } => self.fast_forward(branch, to),
        }
    }

    /// The metadata to write; `None` when nothing has changed.
    pub(super) fn finish(mut self) -> Result<Option<TableMetadata>> {
        self.settle_columns()?;
        if !self.changed {
            return Ok(None);
        }
        // Only now, so that the log of metadata files gets one entry.
        let builder = self.metadata.into_builder(Some(self.base.location.clone()));
        let built = builder.build().map_err(refused)?;
        Ok(Some(built.metadata))
    }

    pub(super) fn columns(&mut self) -> &mut Columns {
        self.columns.get_or_insert_with(|| Columns::of(&self.metadata))
    }

    /// Puts the columns into the metadata: what comes next looks them up there.
    pub(super) fn settle_columns(&mut self) -> Result<()> {
        let Some(columns) = self.columns.take() else { return Ok(()) };
        if !columns.has_changed(&self.metadata) {
            return Ok(());
        }
        let schema = columns.into_schema();
        schema::check_version(&schema, self.metadata.format_version())?;
        self.edit(|builder| builder.add_current_schema(schema))?;
        if let Some(mapping) = mapping::after(&self.metadata)? {
            self.edit(|builder| builder.set_properties([mapping].into()))?;
        }
        Ok(())
    }

    /// Makes a change with Iceberg's own builder.
    pub(super) fn edit(
        &mut self,
        change: impl FnOnce(TableMetadataBuilder) -> iceberg::Result<TableMetadataBuilder>,
    ) -> Result<()> {
        let builder = self.metadata.clone().into_builder(None);
        let built = change(builder).and_then(TableMetadataBuilder::build).map_err(refused)?;
        self.metadata = built.metadata;
        self.changed = true;
        Ok(())
    }
}

fn refused(error: iceberg::Error) -> Error {
    Error::invalid("expected a change that Iceberg accepts").with_source(error)
}
