//! Merge by key: the rows of the table leave whose key is among the new rows or among keys that are to go, and the new rows come.
//!
//! The keys are held in memory; of the files that may hold one the key columns are read. Keys compare as SQL's
//! `IS NOT DISTINCT FROM`: null equals null, NaN equals NaN, 0.0 equals -0.0.

use std::collections::{BTreeSet, HashMap, HashSet};

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{CastOptions, cast, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;
use datafusion::prelude::{SessionContext, ident};
use futures::TryStreamExt;
use iceberg::spec::DataFile;
use roaring::RoaringTreemap;

use super::RowChangeKind;
use super::positions::Addresses;
use super::work::{self, Isolation, Settings, Work, live};
use crate::address::{FILE, POS};
use crate::floats::comparable;
use crate::prune::bounds;
use crate::scan;
use shared::{Error, Result};
use table::Table;
use table::snapshot::{DeleteFile, Delta, LiveFile};
use table::write::Writer;

/// Bytes that a key takes besides its values.
const KEY_BYTES: usize = 48;

/// The keys of a merge's new rows, and what they came to against one state of the table.
pub(crate) struct KeyedMerge {
    schema_id: i32,
    columns: Vec<KeyColumn>,
    /// Of the columns.
    types: Vec<DataType>,
    converter: RowConverter,
    keys: HashSet<Box<[u8]>>,
    /// Further keys whose rows leave: batches with the key's columns alone.
    gone: Vec<RecordBatch>,
    /// The memory of the keys.
    memory: MemoryReservation,
    /// The places of keys in files that were read: they stay true as long as the file has the same rows.
    examined: HashMap<FileState, RoaringTreemap>,
    work: Option<Work>,
}

/// What tells the rows of a data file: its location, the id of its first row, its deletes.
type FileState = (String, Option<u64>, BTreeSet<DeleteFile>);

fn state(file: &LiveFile) -> FileState {
    (file.data().file_path().to_owned(), file.first_row_id(), file.delete_files())
}

struct KeyColumn {
    name: String,
    index: usize,
    range: Option<(ScalarValue, ScalarValue)>,
    has_null: bool,
}

impl KeyedMerge {
    /// # Errors
    /// `Invalid` for an empty key, or a column that the table lacks or that can't be compared.
    pub(crate) fn new(key: &[String], schema: &SchemaRef, schema_id: i32, memory: MemoryReservation) -> Result<Self> {
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
        let types: Vec<_> = columns.iter().map(|c| schema.field(c.index).data_type().clone()).collect();
        let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        let (keys, gone, examined) = (HashSet::new(), Vec::new(), HashMap::new());
        Ok(Self { schema_id, columns, types, converter, keys, gone, memory, examined, work: None })
    }

    /// Rows with these keys leave too.
    pub(crate) fn removing(self, gone: Vec<RecordBatch>) -> Self {
        Self { gone, ..self }
    }

    /// Whether no row of the table can be meant.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Remembers the keys of new rows.
    ///
    /// # Errors
    /// `Invalid`, naming the key, when it came before; `Limit` when there is no memory for the keys.
    pub(crate) fn observe(&mut self, batch: &RecordBatch) -> Result<()> {
        let values: Vec<ArrayRef> = self.columns.iter().map(|c| comparable(batch.column(c.index))).collect();
        match self.remember(&values)? {
            Some(i) => Err(Error::invalid(format!(
                "expected every key once in the rows to merge, found {} twice",
                self.shown(&values, i)?
            ))),
            None => Ok(()),
        }
    }

    /// Remembers the keys that leave, once those of all new rows are known.
    ///
    /// # Errors
    /// `Invalid` for values that the table's columns can't hold; `Limit` when there is no memory for the keys.
    pub(crate) fn observe_gone(&mut self) -> Result<()> {
        for batch in std::mem::take(&mut self.gone) {
            let typed = batch.columns().iter().zip(&self.types);
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            let typed = typed.map(|(values, ty)| Ok(comparable(&cast_with_options(values, ty, &strict)?)));
            let typed = typed.collect::<Result<Vec<_>>>()?;
            self.remember(&typed)?;
        }
        Ok(())
    }

    /// Adds keys and widens the ranges; gives the place of the last key that was known.
    fn remember(&mut self, values: &[ArrayRef]) -> Result<Option<usize>> {
        let rows = self.converter.convert_columns(values)?;
        self.memory.try_grow(rows.size() + rows.num_rows() * KEY_BYTES)?;
        let mut known = None;
        for (i, row) in rows.iter().enumerate() {
            if !self.keys.insert(Box::from(row.as_ref())) {
                known = Some(i);
            }
        }
        for (column, values) in self.columns.iter_mut().zip(values) {
            column.has_null |= values.null_count() > 0;
            if values.null_count() < values.len() {
                let (mut least, mut greatest) =
                    (MinAccumulator::try_new(values.data_type())?, MaxAccumulator::try_new(values.data_type())?);
                least.update_batch(std::slice::from_ref(values))?;
                greatest.update_batch(std::slice::from_ref(values))?;
                column.include(least.evaluate()?, greatest.evaluate()?);
            }
        }
        Ok(known)
    }

    fn shown(&self, values: &[ArrayRef], row: usize) -> Result<String> {
        let options = FormatOptions::default().with_null("null");
        let parts = self.columns.iter().zip(values).map(|(column, values)| {
            Ok(format!("`{}={}`", column.name, ArrayFormatter::try_new(values.as_ref(), &options)?.value(row)))
        });
        Ok(parts.collect::<Result<Vec<_>>>()?.join(", "))
    }

    /// What leaves `base`, and what is written in its place. `created` lists every file that was begun.
    ///
    /// # Errors
    /// What reading and writing answer; `Conflict` when the table got another schema meanwhile.
    pub(crate) async fn delta(&mut self, base: &Table, prefix: String, created: &mut Vec<String>) -> Result<Delta> {
        if base.metadata().current_schema_id() != self.schema_id {
            return Err(Error::conflict(
                "expected the table's schema to stay while rows were merged, found it changed",
            ));
        }
        if let Some(work) = &self.work
            && self.serves(work, base).await?
        {
            return Ok(work.delta());
        }
        let mut writer = work::begin(base, prefix)?;
        let worked_out = self.work_out(base, &mut writer).await;
        Ok(self.work.insert(work::end(worked_out, writer, created).await?).delta())
    }

    /// Whether what was worked out before serves for `base`.
    pub(crate) async fn holds(&self, base: &Table) -> Result<bool> {
        match &self.work {
            Some(work) => self.serves(work, base).await,
            None => Ok(false),
        }
    }

    /// Rows that came meanwhile matter whatever the table's isolation level: a key would be there twice.
    async fn serves(&self, work: &Work, base: &Table) -> Result<bool> {
        work.holds_unless(base, |came| came.iter().any(|file| self.may_hold_keys(file.data(), base))).await
    }

    async fn work_out(&mut self, base: &Table, writer: &mut Writer) -> Result<Work> {
        let mode = Settings::of(base, RowChangeKind::Merge)?.mode;
        let files: Vec<LiveFile> =
            live(base).await?.into_iter().filter(|file| self.may_hold_keys(file.data(), base)).collect();
        let unknown = files.iter().filter(|file| !self.examined.contains_key(&state(file))).cloned().collect();
        let mut found = self.matching(base, unknown).await?.files;
        let mut addresses = Addresses::default();
        for file in &files {
            let path = file.data().file_path();
            let places = self.examined.entry(state(file)).or_insert_with(|| found.remove(path).unwrap_or_default());
            if !places.is_empty() {
                addresses.files.insert(path.to_owned(), places.clone());
            }
        }
        let mut work = Work::new(base, Vec::new(), Isolation::Serializable);
        work.rows.deleted = addresses.files.values().map(RoaringTreemap::len).sum();
        work.remove(base, addresses, mode, writer).await?;
        Ok(work)
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

    /// The addresses of the rows whose key a new row has.
    async fn matching(&self, base: &Table, files: Vec<LiveFile>) -> Result<Addresses> {
        let mut addresses = Addresses::default();
        let Some(first) = files.first() else { return Ok(addresses) };
        let session = SessionContext::new();
        scan::register_store(&session, base, first)?;
        let frame = session.read_table(scan::addressed_files(base, files)?)?;
        let names = [FILE, POS].into_iter().chain(self.columns.iter().map(|column| column.name.as_str()));
        let mut rows = frame.select(names.map(ident).collect::<Vec<_>>())?.execute_stream().await?;
        while let Some(batch) = rows.try_next().await? {
            let matched = self.matched(&batch.columns()[2..])?;
            if matched.true_count() == 0 {
                continue;
            }
            let matched = filter_record_batch(&batch.project(&[0, 1])?, &matched)?;
            let (files, places) =
                (cast(matched.column(0), &DataType::Utf8)?, cast(matched.column(1), &DataType::Int64)?);
            addresses.add(files.as_string::<i32>(), places.as_primitive::<Int64Type>())?;
        }
        Ok(addresses)
    }

    /// True for rows whose key one of the new rows has.
    fn matched(&self, keys: &[ArrayRef]) -> Result<BooleanArray> {
        let keys: Vec<ArrayRef> = keys.iter().map(comparable).collect();
        let rows = self.converter.convert_columns(&keys)?;
        Ok(rows.iter().map(|row| Some(self.keys.contains(row.as_ref()))).collect())
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
