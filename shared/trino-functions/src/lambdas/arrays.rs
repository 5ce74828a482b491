//! Lambdas of the elements of arrays.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, NullBufferBuilder};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{filter as filtered, take};
use datafusion::common::Result;

use super::{Applied, Function, scalar};
use crate::arrays::{Aligned, SECTION, aligned};
use crate::nested::{Lists, Ranges, list_array, offset};

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "transform", "what the lambda gives for each element")
            .lambda("transform(array(T), function(T, U)) -> array(U)", transform)
            .example("transform(ARRAY[5, NULL, 6], x -> coalesce(x, 0) + 1)", "[6, 1, 7]")
            .example(
                "transform(ARRAY[ARRAY[1, NULL, 2], ARRAY[3, NULL]], a -> filter(a, x -> x IS NOT NULL))",
                "[[1, 2], [3]]",
            ),
        scalar(SECTION, "filter", "the elements for which the lambda gives true")
            .lambda("filter(array(T), function(T, boolean)) -> array(T)", filter)
            .example("filter(ARRAY[5, -6, NULL, 7], x -> x > 0)", "[5, 7]"),
        scalar(
            SECTION,
            "all_match",
            "whether the lambda gives true for all elements; null where it gives null for some and true for the others",
        )
        .lambda("all_match(array(T), function(T, boolean)) -> boolean", |call| matched(call, false, false))
        .example("all_match(ARRAY[1, 2], x -> x > 0)", "true"),
        scalar(
            SECTION,
            "any_match",
            "whether the lambda gives true for an element; null where it gives null for some and false for the others",
        )
        .lambda("any_match(array(T), function(T, boolean)) -> boolean", |call| matched(call, true, true))
        .example("any_match(ARRAY[1, 2], x -> x > 1)", "true"),
        scalar(
            SECTION,
            "none_match",
            "whether the lambda gives true for no element; null where it gives null for some and false for the others",
        )
        .lambda("none_match(array(T), function(T, boolean)) -> boolean", |call| matched(call, true, false))
        .example("none_match(ARRAY[1, 2], x -> x > 2)", "true"),
        scalar(
            SECTION,
            "zip_with",
            "what the lambda gives for the elements at the same places; a shorter array is filled with nulls",
        )
        .lambda("zip_with(array(T), array(U), function(T, U, R)) -> array(R)", zip_with)
        .example("zip_with(ARRAY[1, 2], ARRAY[10, 20, 30], (x, y) -> coalesce(x, 0) + y)", "[11, 22, 30]"),
    ]
}

/// The elements of all rows, one after the other.
pub(super) struct Flat {
    places: Places,
    /// The row of each.
    pub(super) rows: Vec<u32>,
    /// Where the elements of each row end, from 0 on.
    pub(super) offsets: Vec<i32>,
    pub(super) nulls: Option<NullBuffer>,
}

enum Places {
    Slice(usize),
    Each(Vec<u32>),
}

impl Flat {
    /// # Errors
    /// `Limit` for more elements than an array of Arrow can have.
    pub(super) fn of(ranges: &Ranges, rows: usize) -> Result<Self> {
        let (mut places, mut of, mut offsets) = (Vec::new(), Vec::new(), Vec::with_capacity(rows + 1));
        let mut nulls = NullBufferBuilder::new(rows);
        offsets.push(0);
        for row in 0..rows {
            let range = ranges.get(row);
            nulls.append(range.is_some());
            for at in range.into_iter().flatten() {
                places.push(u32::try_from(at).unwrap_or(u32::MAX));
                of.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
            offsets.push(offset(places.len())?);
        }
        let is_slice = places.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
        let first = places.first().map_or(0, |first| usize::try_from(*first).unwrap_or(0));
        let places = if is_slice { Places::Slice(first) } else { Places::Each(places) };
        Ok(Self { places, rows: of, offsets, nulls: nulls.finish() })
    }

    /// The elements among `values`.
    ///
    /// # Errors
    /// What Arrow says.
    pub(super) fn elements(&self, values: &ArrayRef) -> Result<ArrayRef> {
        match &self.places {
            Places::Slice(first) => Ok(values.slice(*first, self.rows.len())),
            Places::Each(places) => Ok(take(values, &arrow::array::UInt32Array::from(places.clone()), None)?),
        }
    }

    /// Where the elements of each row end, when only those of the mask are kept.
    ///
    /// # Errors
    /// `Limit` for more elements than an array of Arrow can have.
    pub(super) fn kept(&self, mask: &BooleanArray) -> Result<Vec<i32>> {
        let mut kept = vec![0];
        let mut sum = 0;
        for ends in self.offsets.windows(2) {
            let range = place(ends[0])..place(ends[1]);
            sum += range.filter(|at| mask.value(*at)).count();
            kept.push(offset(sum)?);
        }
        Ok(kept)
    }
}

fn place(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

/// The mask with false in the place of nulls.
pub(super) fn mask(given: &ArrayRef) -> BooleanArray {
    let given = given.as_boolean();
    let values = match given.nulls() {
        Some(nulls) => given.values() & nulls.inner(),
        None => given.values().clone(),
    };
    BooleanArray::new(values, None)
}

fn transform(call: &Applied<'_>) -> Result<ArrayRef> {
    let lists = Lists::new(&call.values[0], false)?;
    let flat = Flat::of(&lists.ranges, call.rows)?;
    let made = call.lambda(0, &[flat.elements(&lists.values)?], &flat.rows)?;
    list_array(flat.offsets, flat.nulls, made, call.gives)
}

fn filter(call: &Applied<'_>) -> Result<ArrayRef> {
    let lists = Lists::new(&call.values[0], false)?;
    let flat = Flat::of(&lists.ranges, call.rows)?;
    let elements = flat.elements(&lists.values)?;
    let mask = mask(&call.lambda(0, &[Arc::clone(&elements)], &flat.rows)?);
    let offsets = flat.kept(&mask)?;
    list_array(offsets, flat.nulls, filtered(&elements, &mask)?, call.gives)
}

/// `found` where the lambda gives `sought` for an element, null where it gives null for one, and not `found` otherwise.
fn matched(call: &Applied<'_>, sought: bool, found: bool) -> Result<ArrayRef> {
    let lists = Lists::new(&call.values[0], false)?;
    let flat = Flat::of(&lists.ranges, call.rows)?;
    let given = call.lambda(0, &[flat.elements(&lists.values)?], &flat.rows)?;
    let given = given.as_boolean();
    let of = |row: usize| {
        if flat.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        let mut range = place(flat.offsets[row])..place(flat.offsets[row + 1]);
        let has_null = range.clone().any(|at| given.is_null(at));
        match range.any(|at| given.is_valid(at) && given.value(at) == sought) {
            true => Some(found),
            false if has_null => None,
            false => Some(!found),
        }
    };
    let known: Vec<Option<bool>> = (0..call.rows).map(of).collect();
    let nulls = NullBuffer::from_iter(known.iter().map(Option::is_some));
    let values = BooleanBuffer::from_iter(known.into_iter().map(Option::unwrap_or_default));
    Ok(Arc::new(BooleanArray::new(values, Some(nulls))))
}

fn zip_with(call: &Applied<'_>) -> Result<ArrayRef> {
    let lists = [Lists::new(&call.values[0], false)?, Lists::new(&call.values[1], false)?];
    let Aligned { columns, offsets, nulls } = aligned(&lists, call.rows)?;
    let rows = offsets.windows(2).zip(0..).flat_map(|(ends, row)| (ends[0]..ends[1]).map(move |_| row));
    let made = call.lambda(0, &columns, &rows.collect::<Vec<u32>>())?;
    list_array(offsets, nulls, made, call.gives)
}
