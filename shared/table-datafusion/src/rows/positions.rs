//! The addresses of rows that leave a table: for each data file a bitmap of places.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use roaring::RoaringTreemap;

use crate::address::{FILE, POS};
use shared::{Error, Result};
use table::snapshot::Rows;

/// The column that says whether a row's values come in.
const INSERT: &str = "_insert";

/// Rows that leave, and what becomes of the rows seen so far.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pub(super) files: BTreeMap<String, RoaringTreemap>,
    pub(super) rows: Rows,
}

/// The places of the columns that hold values.
///
/// # Errors
/// `Bug` when a column of the address is missing.
pub(super) fn values(schema: &SchemaRef) -> Result<Vec<usize>> {
    for name in [FILE, POS, INSERT] {
        if schema.index_of(name).is_err() {
            return Err(Error::bug(format!("expected the column `{name}` in the rows of a change, found none")));
        }
    }
    let is_value =
        |(_, field): &(usize, &arrow::datatypes::FieldRef)| ![FILE, POS, INSERT].contains(&field.name().as_str());
    Ok(schema.fields().iter().enumerate().filter(is_value).map(|(i, _)| i).collect())
}

impl Addresses {
    /// Takes the addresses of a batch's rows. True for the rows whose values come in.
    ///
    /// # Errors
    /// `Invalid` for a row that leaves twice.
    pub(super) fn take(&mut self, batch: &RecordBatch) -> Result<BooleanArray> {
        let column = |name: &str, ty: &DataType| {
            let column = batch.column_by_name(name);
            let column = column.ok_or_else(|| Error::bug(format!("expected the column `{name}`, found none")))?;
            Ok::<_, Error>(cast(column, ty)?)
        };
        let (files, places) = (column(FILE, &DataType::Utf8)?, column(POS, &DataType::Int64)?);
        let inserts = column(INSERT, &DataType::Boolean)?;
        let inserts: BooleanArray = inserts.as_boolean().iter().map(|insert| Some(insert.unwrap_or(false))).collect();
        let leave = self.add(files.as_string::<i32>(), places.as_primitive::<Int64Type>())?;
        let updated = leave.iter().zip(inserts.values()).filter(|(leaves, comes)| **leaves && *comes).count() as u64;
        self.rows.updated += updated;
        self.rows.added += inserts.true_count() as u64 - updated;
        self.rows.deleted += leave.iter().filter(|leaves| **leaves).count() as u64 - updated;
        Ok(inserts)
    }

    /// Takes addresses; a null file is none. True for the rows that have one.
    ///
    /// # Errors
    /// `Invalid` for an address that came before.
    pub(super) fn add(&mut self, files: &StringArray, places: &Int64Array) -> Result<Vec<bool>> {
        let mut current: Option<(&str, &mut RoaringTreemap)> = None;
        let mut leave = Vec::with_capacity(files.len());
        for (file, place) in files.iter().zip(places) {
            let (Some(file), Some(place)) = (file, place) else {
                leave.push(false);
                continue;
            };
            if current.as_ref().is_none_or(|(open, _)| *open != file) {
                if !self.files.contains_key(file) {
                    self.files.insert(file.to_owned(), RoaringTreemap::new());
                }
                current = self.files.get_mut(file).map(|places| (file, places));
            }
            let added = current.as_mut().is_some_and(|(_, places)| places.insert(place.unsigned_abs()));
            if !added {
                return Err(Error::invalid(format!(
                    "expected each row of the table to match one row of the source at most, found the row at `{file}` position {place} to match more than one row of the source"
                )));
            }
            leave.push(true);
        }
        Ok(leave)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use shared::ErrorKind;

    fn batch(rows: &[(Option<&str>, i64, bool)]) -> RecordBatch {
        RecordBatch::try_from_iter(vec![
            (FILE, Arc::new(rows.iter().map(|r| r.0).collect::<StringArray>()) as arrow::array::ArrayRef),
            (POS, Arc::new(rows.iter().map(|r| r.0.map(|_| r.1)).collect::<Int64Array>())),
            (INSERT, Arc::new(rows.iter().map(|r| Some(r.2)).collect::<BooleanArray>())),
        ])
        .unwrap()
    }

    #[test]
    fn rows_are_counted_by_what_becomes_of_them() {
        let mut addresses = Addresses::default();
        let rows =
            [(Some("a"), 1, false), (Some("b"), 1, true), (None, 0, true), (None, 0, false), (Some("a"), 7, true)];
        let comes = addresses.take(&batch(&rows)).unwrap();
        assert_eq!(comes.iter().flatten().collect::<Vec<_>>(), [false, true, true, false, true]);
        assert_eq!(addresses.rows, Rows { added: 1, updated: 2, deleted: 1 });
        assert_eq!(addresses.files["a"].iter().collect::<Vec<_>>(), [1, 7]);
    }

    #[test]
    fn a_row_that_leaves_twice_is_refused() {
        let mut addresses = Addresses::default();
        addresses.take(&batch(&[(Some("a"), 1, true)])).unwrap();
        let error = addresses.take(&batch(&[(Some("b"), 1, true), (Some("a"), 1, false)])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("more than one row of the source"), "{error}");
    }
}
