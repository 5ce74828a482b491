//! Merge by key, copy on write: data files that hold a key of the new rows are written anew without those rows.
//!
//! The keys of the new rows are held in memory; files are read one at a time, first the key columns only. What was found out
//! about a file stays true as long as the file is live with the same deletes, because files never change: after a conflict
//! only what came since is read. Keys compare as SQL's `IS NOT DISTINCT FROM`: null equals null, NaN equals NaN, 0.0 equals -0.0.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use iceberg::spec::DataFile;

use super::floats::comparable;
use super::prune::bounds;
use super::scan;
use shared::{Error, Result};
use table::Table;
use table::conform::Conform;
use table::snapshot::{AddedFile, DeleteFile, LiveFile};
use table::write::Writer;

/// Bytes that a key takes besides its values.
const KEY_BYTES: usize = 48;

/// The keys of a merge's new rows, and what is known of the files that may hold them.
pub(super) struct Merge {
    schema_id: i32,
    columns: Vec<KeyColumn>,
    converter: RowConverter,
    keys: HashSet<Box<[u8]>>,
    /// The memory of the keys.
    memory: MemoryReservation,
    /// Files that were examined, and what replaces them (`None`: they hold no key).
    examined: HashMap<State, Option<Replacement>>,
}

/// What tells the rows of a data file: its location, the id of its first row, its deletes.
type State = (String, Option<u64>, BTreeSet<DeleteFile>);

fn state(file: &LiveFile) -> State {
    (file.data().file_path().to_owned(), file.first_row_id(), file.delete_files())
}

struct KeyColumn {
    name: String,
    index: usize,
    range: Option<(ScalarValue, ScalarValue)>,
    has_null: bool,
}

/// A file's other rows.
struct Replacement {
    files: Vec<AddedFile>,
    rows_removed: u64,
}

/// What changes in the live files.
#[derive(Default)]
pub(super) struct Replaced {
    pub(super) removed: HashSet<String>,
    pub(super) added: Vec<AddedFile>,
    pub(super) rows_removed: u64,
}

impl Merge {
    /// # Errors
    /// `Invalid` for an empty key, or a column that the table lacks or that can't be compared.
    pub(super) fn new(key: &[String], schema: &SchemaRef, schema_id: i32, memory: MemoryReservation) -> Result<Self> {
        if key.is_empty() {
            return Err(Error::invalid("expected at least one key column to merge by, found none"));
        }
        let mut columns = Vec::with_capacity(key.len());
        for name in key {
            let index = schema.index_of(name).map_err(|_| {
                let known: Vec<_> = schema.fields().iter().map(|f| format!("`{}`", f.name())).collect();
                Error::invalid(format!("expected a key column out of {}, found `{name}`", known.join(", ")))
            })?;
            columns.push(KeyColumn { name: name.clone(), index, range: None, has_null: false });
        }
        let fields = columns.iter().map(|c| SortField::new(schema.field(c.index).data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        Ok(Self { schema_id, columns, converter, keys: HashSet::new(), memory, examined: HashMap::new() })
    }

    /// Remembers the keys of new rows.
    ///
    /// # Errors
    /// `Invalid`, naming the key, when it came before; `Limit` when there is no memory for the keys.
    pub(super) fn observe(&mut self, batch: &RecordBatch) -> Result<()> {
        let values: Vec<ArrayRef> = self.columns.iter().map(|c| comparable(batch.column(c.index))).collect();
        let rows = self.converter.convert_columns(&values)?;
        self.memory.try_grow(rows.size() + rows.num_rows() * KEY_BYTES)?;
        for (i, row) in rows.iter().enumerate() {
            if !self.keys.insert(Box::from(row.as_ref())) {
                return Err(Error::invalid(format!(
                    "expected every key once in the rows to merge, found {} twice",
                    self.shown(&values, i)?
                )));
            }
        }
        for (column, values) in self.columns.iter_mut().zip(&values) {
            column.has_null |= values.null_count() > 0;
            if values.null_count() < values.len() {
                let (mut least, mut greatest) =
                    (MinAccumulator::try_new(values.data_type())?, MaxAccumulator::try_new(values.data_type())?);
                least.update_batch(std::slice::from_ref(values))?;
                greatest.update_batch(std::slice::from_ref(values))?;
                column.include(least.evaluate()?, greatest.evaluate()?);
            }
        }
        Ok(())
    }

    fn shown(&self, values: &[ArrayRef], row: usize) -> Result<String> {
        let options = FormatOptions::default().with_null("null");
        let parts = self.columns.iter().zip(values).map(|(column, values)| {
            Ok(format!("`{}={}`", column.name, ArrayFormatter::try_new(values.as_ref(), &options)?.value(row)))
        });
        Ok(parts.collect::<Result<Vec<_>>>()?.join(", "))
    }

    /// Examines the live files that were not examined before and says what is to be replaced by what.
    ///
    /// # Errors
    /// What reading and writing answer; `Conflict` when the table got another schema meanwhile. `created` lists every file that was begun.
    pub(super) async fn replace(
        &mut self,
        base: &Table,
        live: &[LiveFile],
        prefix: &str,
        created: &mut Vec<String>,
    ) -> Result<Replaced> {
        if base.metadata().current_schema_id() != self.schema_id {
            return Err(Error::conflict(
                "expected the table's schema to stay while rows were merged, found it changed",
            ));
        }
        let mut writer = Writer::new(base.io(), base.metadata(), prefix.to_owned())?.with_lineage(base.metadata());
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        if let Some(file) = live.first() {
            scan::register_store(&session, base, file)?;
        }
        for file in live {
            let state = state(file);
            if self.knows_file(base, file, &state) {
                continue;
            }
            let begun = writer.created().len();
            let outcome = self.examine(&session, base, file, &mut writer).await;
            if outcome.is_err() {
                writer.settle().await;
            }
            created.extend_from_slice(&writer.created()[begun..]);
            self.examined.insert(state, outcome?);
        }
        let mut replaced = Replaced::default();
        for file in live {
            let state = state(file);
            if let Some(Some(replacement)) = self.examined.get(&state) {
                replaced.removed.insert(state.0);
                replaced.added.extend(replacement.files.iter().cloned());
                replaced.rows_removed += replacement.rows_removed;
            }
        }
        Ok(replaced)
    }

    /// Whether none of the live files is left to examine.
    pub(super) fn knows(&self, base: &Table, live: &[LiveFile]) -> bool {
        live.iter().all(|file| self.knows_file(base, file, &state(file)))
    }

    fn knows_file(&self, base: &Table, file: &LiveFile, state: &State) -> bool {
        self.examined.contains_key(state) || !self.may_hold_keys(file.data(), base)
    }

    /// Whether a file's bounds leave room for a key.
    fn may_hold_keys(&self, file: &DataFile, base: &Table) -> bool {
        self.columns.iter().all(|column| {
            let Some(field) = base.metadata().current_schema().field_by_name(&column.name) else { return true };
            if column.has_null && file.null_value_counts().get(&field.id) != Some(&0) {
                return true;
            }
            let Some((least, greatest)) = &column.range else { return false };
            let Some((lower, upper)) = bounds(file, field.id, &least.data_type()) else { return true };
            *least <= upper && lower <= *greatest
        })
    }

    /// What replaces a file; `None` when it holds no key.
    async fn examine(
        &self,
        session: &SessionContext,
        base: &Table,
        file: &LiveFile,
        writer: &mut Writer,
    ) -> Result<Option<Replacement>> {
        let names: Vec<_> = self.columns.iter().map(|c| c.name.as_str()).collect();
        let keys = session.read_table(scan::files(base, vec![file.clone()])?)?;
        let mut keys = keys.select_columns(&names)?.execute_stream().await?;
        let mut found = false;
        while let Some(batch) = keys.try_next().await? {
            if self.unmatched(batch.columns())?.false_count() > 0 {
                found = true;
                break;
            }
        }
        if !found {
            return Ok(None);
        }
        let mut rows = scan::moving(session, base, vec![file.clone()])?.execute_stream().await?;
        let conform = Conform::new(&rows.schema(), writer.arrow_schema())?;
        let mut rows_removed = 0;
        while let Some(batch) = rows.try_next().await? {
            let keys: Vec<ArrayRef> = self.columns.iter().map(|c| Arc::clone(batch.column(c.index))).collect();
            let kept = filter_record_batch(&batch, &self.unmatched(&keys)?)?;
            rows_removed += (batch.num_rows() - kept.num_rows()) as u64;
            writer.write(conform.apply(&kept)?).await?;
        }
        let spec_id = base.metadata().default_partition_spec_id();
        let files = writer.finish().await?.into_iter().map(|file| AddedFile::new(file, spec_id)).collect();
        Ok(Some(Replacement { files, rows_removed }))
    }

    /// True for rows whose key none of the new rows has.
    fn unmatched(&self, keys: &[ArrayRef]) -> Result<BooleanArray> {
        let keys: Vec<ArrayRef> = keys.iter().map(comparable).collect();
        let rows = self.converter.convert_columns(&keys)?;
        Ok(rows.iter().map(|row| Some(!self.keys.contains(row.as_ref()))).collect())
    }
}

impl KeyColumn {
    fn include(&mut self, lower: ScalarValue, upper: ScalarValue) {
        let (least, greatest) = self.range.get_or_insert_with(|| (lower.clone(), upper.clone()));
        if lower < *least {
            *least = lower;
        }
        if upper > *greatest {
            *greatest = upper;
        }
    }
}
