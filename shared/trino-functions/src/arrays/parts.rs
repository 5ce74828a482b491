//! Parts of arrays, and arrays put together.

use std::ops::Range;

use arrow::array::NullBufferBuilder;
use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::DataType;
use datafusion::common::Result;

use super::{Function, SECTION, compute, scalar};
use crate::call::{Bigint, Call, invalid};
use crate::nested::{Gather, Lists, Single, list_array, offset};
use shared::Error;

/// The longest combinations, and how many elements all combinations of an array may have, as in Trino.
const MAX_COMBINED: usize = 5;
const MAX_COMBINATIONS: usize = 100_000;

/// How many elements the combinations of a batch may have: what is made of few elements is kept within memory.
const MAX_IN_BATCH: usize = 16_000_000;

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "array_concat", "the elements of all arrays, as `||` gives them; null where one is null")
            .way("array_concat(array(T), array(T)...) -> array(T)", compute(concat))
            .way("array_concat(array(T), T) -> array(T)", compute(append))
            .way("array_concat(T, array(T)) -> array(T)", compute(prepend))
            .example("array_concat(ARRAY[1], ARRAY[2], ARRAY[3])", "[1, 2, 3]")
            .example("concat(ARRAY[1], ARRAY[2], ARRAY[3])", "[1, 2, 3]")
            .example("ARRAY[1] || 2", "[1, 2]")
            .example("ARRAY[1] || NULL", "NULL"),
        scalar(SECTION, "flatten", "the elements of the arrays within")
            .way("flatten(array(array(T))) -> array(T)", compute(flatten))
            .example("flatten(ARRAY[ARRAY[1, 2], NULL, ARRAY[3]])", "[1, 2, 3]"),
        scalar(SECTION, "slice", "so many elements from an index on, counted from 1, or from the end if negative")
            .way("slice(array(T), bigint, bigint) -> array(T)", compute(slice))
            .example("slice(ARRAY[1, 2, 3, 4], 2, 2)", "[2, 3]")
            .example("slice(ARRAY[1, 2, 3, 4], -2, 5)", "[3, 4]"),
        scalar(SECTION, "trim_array", "the elements without so many at the end")
            .way("trim_array(array(T), bigint) -> array(T)", compute(trim))
            .example("trim_array(ARRAY[1, 2, 3, 4], 1)", "[1, 2, 3]"),
        scalar(SECTION, "ngrams", "all parts of so many elements that stand side by side")
            .way("ngrams(array(T), bigint) -> array(array(T))", compute(ngrams))
            .example("ngrams(ARRAY[1, 2, 3, 4], 2)", "[[1, 2], [2, 3], [3, 4]]"),
        scalar(SECTION, "combinations", "all ways to take so many elements, at most 5, in their order")
            .way("combinations(array(T), bigint) -> array(array(T))", compute(combinations))
            .example("combinations(ARRAY[1, 2, 3], 2)", "[[1, 2], [1, 3], [2, 3]]"),
        scalar(SECTION, "zip", "rows of the elements at the same places; a shorter array is filled with nulls")
            .way("zip(array(A), array(B)) -> array(row(A, B))", compute(zip))
            .way("zip(array(A), array(B), array(C)) -> array(row(A, B, C))", compute(zip))
            .way("zip(array(A), array(B), array(C), array(D)) -> array(row(A, B, C, D))", compute(zip))
            .way("zip(array(A), array(B), array(C), array(D), array(E)) -> array(row(A, B, C, D, E))", compute(zip))
            .example("zip(ARRAY[1, 2], ARRAY['a', NULL])[1][2]", "a")
            .example("cardinality(zip(ARRAY[1, 2], ARRAY['a']))", "2"),
    ]
}

fn concat(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = (0..call.arguments.len()).map(|at| Lists::of(call, at)).collect::<Result<Vec<_>>>()?;
    let mut all = Gather::new(call.rows);
    for row in 0..call.rows {
        let ranges: Option<Vec<Range<usize>>> = lists.iter().map(|lists| lists.get(row)).collect();
        let Some(ranges) = ranges else {
            all.null();
            continue;
        };
        ranges.into_iter().enumerate().for_each(|(array, range)| all.extend(array, range));
        all.end()?;
    }
    all.lists(&lists.iter().map(|lists| &lists.values).collect::<Vec<_>>(), call.gives)
}

fn append(call: &Call<'_>) -> Result<ArrayRef> {
    with_element(call, 0, 1)
}

fn prepend(call: &Call<'_>) -> Result<ArrayRef> {
    with_element(call, 1, 0)
}

/// The array of one argument with the element of the other, in the order of the arguments.
fn with_element(call: &Call<'_>, array: usize, element: usize) -> Result<ArrayRef> {
    let lists = Lists::of(call, array)?;
    let elements = Single::of(call, element, lists.ty())?;
    let mut all = Gather::new(call.rows);
    for row in 0..call.rows {
        let (Some(range), Some(at)) = (lists.get(row), elements.get(row)) else {
            all.null();
            continue;
        };
        if element < array {
            all.push(1, at);
        }
        all.extend(0, range);
        if array < element {
            all.push(1, at);
        }
        all.end()?;
    }
    all.lists(&[&lists.values, &elements.values], call.gives)
}

fn flatten(call: &Call<'_>) -> Result<ArrayRef> {
    let outer = Lists::of(call, 0)?;
    let inner = Lists::new(&outer.values, false)?;
    let mut all = Gather::new(call.rows);
    for row in 0..call.rows {
        let Some(range) = outer.get(row) else {
            all.null();
            continue;
        };
        range.filter_map(|at| inner.get(at)).for_each(|range| all.extend(0, range));
        all.end()?;
    }
    all.lists(&[&inner.values], call.gives)
}

fn slice(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, from, length) = (Lists::of(call, 0)?, call.column::<Bigint>(1)?, call.column::<Bigint>(2)?);
    let mut parts = Gather::new(call.rows);
    for row in 0..call.rows {
        let (Some(range), Some(from), Some(length)) = (lists.get(row), from.get(row), length.get(row)) else {
            parts.null();
            continue;
        };
        let length =
            usize::try_from(length).map_err(|_| invalid(format!("expected a length from 0 on, found {length}")))?;
        let far = usize::try_from(from.unsigned_abs()).unwrap_or(usize::MAX);
        let skipped = match from {
            0 => return Err(invalid("expected an index from 1 on, or below 0 from the end, found 0")),
            1.. => Some(far - 1).filter(|skipped| *skipped < range.len()),
            _ => range.len().checked_sub(far),
        };
        if let Some(skipped) = skipped {
            let first = range.start + skipped;
            parts.extend(0, first..first.saturating_add(length).min(range.end));
        }
        parts.end()?;
    }
    parts.lists(&[&lists.values], call.gives)
}

fn trim(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, by) = (Lists::of(call, 0)?, call.column::<Bigint>(1)?);
    let mut parts = Gather::new(call.rows);
    for row in 0..call.rows {
        let (Some(range), Some(by)) = (lists.get(row), by.get(row)) else {
            parts.null();
            continue;
        };
        let kept = usize::try_from(by).ok().and_then(|by| range.len().checked_sub(by));
        let kept = kept
            .ok_or_else(|| invalid(format!("expected to take from 0 to {} elements off, found {by}", range.len())))?;
        parts.extend(0, range.start..range.start + kept);
        parts.end()?;
    }
    parts.lists(&[&lists.values], call.gives)
}

/// Arrays of arrays: `each` puts the inner ones of a row together.
fn nested(
    call: &Call<'_>,
    lists: &Lists,
    mut each: impl FnMut(&mut Gather, Range<usize>, i64) -> Result<usize>,
) -> Result<ArrayRef> {
    let number = call.column::<Bigint>(1)?;
    let mut inner = Gather::new(call.rows);
    let mut offsets = Vec::with_capacity(call.rows + 1);
    offsets.push(0);
    let mut nulls = NullBufferBuilder::new(call.rows);
    let mut made = 0;
    for row in 0..call.rows {
        match (lists.get(row), number.get(row)) {
            (Some(range), Some(number)) => {
                made += each(&mut inner, range, number)?;
                nulls.append_non_null();
            }
            _ => nulls.append_null(),
        }
        offsets.push(offset(made)?);
    }
    let DataType::List(field) = call.gives else {
        return Err(invalid("expected an array of arrays, found another type"));
    };
    let inner = inner.lists(&[&lists.values], field.data_type())?;
    list_array(offsets, nulls.finish(), inner, call.gives)
}

fn ngrams(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    nested(call, &lists, |inner, range, n| {
        let n = usize::try_from(n).ok().filter(|n| *n > 0);
        let n = n.ok_or_else(|| invalid("expected parts of at least 1 element, found less"))?.min(range.len());
        let parts = range.len() - n + 1;
        // An array without elements has one part, which has none.
        for first in (range.start..range.start + parts).take(if n == 0 { 1 } else { parts }) {
            inner.extend(0, first..first + n);
            inner.end()?;
        }
        Ok(if n == 0 { 1 } else { parts })
    })
}

fn combinations(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    let mut made = 0;
    nested(call, &lists, |inner, range, n| {
        let n = usize::try_from(n).ok().filter(|n| *n <= MAX_COMBINED);
        let n = n.ok_or_else(|| {
            invalid(format!("expected to combine from 0 to {MAX_COMBINED} elements, found another number"))
        })?;
        let count = ways(range.len(), n);
        if count.saturating_mul(n) > MAX_COMBINATIONS {
            return Err(invalid(format!(
                "expected combinations of at most {MAX_COMBINATIONS} elements, found {count} of {n} elements each"
            )));
        }
        made += count * n;
        if made > MAX_IN_BATCH {
            return Err(Error::limit(format!(
                "expected combinations of at most {MAX_IN_BATCH} elements in a batch of rows, found more"
            ))
            .into());
        }
        let mut chosen: Vec<usize> = (0..n).collect();
        for _ in 0..count {
            chosen.iter().for_each(|at| inner.push(0, range.start + at));
            inner.end()?;
            // The last place that can move on moves on, and those after it follow.
            let Some(moved) = (0..n).rev().find(|i| chosen[*i] < range.len() - n + i) else { break };
            chosen[moved] += 1;
            (moved + 1..n).for_each(|i| chosen[i] = chosen[i - 1] + 1);
        }
        Ok(count)
    })
}

/// In how many ways `n` of `len` elements can be taken.
fn ways(len: usize, n: usize) -> usize {
    match len.checked_sub(n) {
        None => 0,
        Some(_) => (0..n).fold(1_usize, |ways, i| ways.saturating_mul(len - i) / (i + 1)),
    }
}

fn zip(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = (0..call.arguments.len()).map(|at| Lists::of(call, at)).collect::<Result<Vec<_>>>()?;
    zipped(&lists, call.rows, call.gives)
}

/// Rows of the elements at the same places.
fn zipped(lists: &[Lists], rows: usize, gives: &DataType) -> Result<ArrayRef> {
    let Aligned { columns, offsets, nulls } = aligned(lists, rows)?;
    let fields = match gives {
        DataType::List(field) => field.data_type(),
        other => other,
    };
    let DataType::Struct(fields) = fields else { return Err(invalid("expected an array of rows, found another type")) };
    let columns: Vec<ArrayRef> = columns
        .iter()
        .zip(fields)
        .map(|(column, field)| crate::nested::in_type(column, field.data_type()))
        .collect::<Result<_>>()?;
    let elements = columns.first().map_or(0, |column| column.len());
    let rows: ArrayRef =
        std::sync::Arc::new(StructArray::try_new_with_length(fields.clone(), columns, None, elements)?);
    list_array(offsets, nulls, rows, gives)
}

/// Arrays whose elements stand side by side.
pub(crate) struct Aligned {
    /// Of each array, its elements and the nulls after them.
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) offsets: Vec<i32>,
    pub(crate) nulls: Option<arrow::buffer::NullBuffer>,
}

/// The arrays of a row, the shorter ones filled with nulls; none of them where one is null.
///
/// # Errors
/// What Arrow says.
pub(crate) fn aligned(lists: &[Lists], rows: usize) -> Result<Aligned> {
    let mut columns: Vec<Gather> = lists.iter().map(|_| Gather::new(rows)).collect();
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    let mut nulls = NullBufferBuilder::new(rows);
    let mut elements = 0;
    for row in 0..rows {
        let ranges: Option<Vec<Range<usize>>> = lists.iter().map(|lists| lists.get(row)).collect();
        nulls.append(ranges.is_some());
        let longest = ranges.iter().flatten().map(Range::len).max().unwrap_or(0);
        elements += longest;
        for (column, range) in columns.iter_mut().zip(ranges.into_iter().flatten()) {
            column.extend(0, range.clone());
            (range.len()..longest).for_each(|_| column.push(1, 0));
        }
        offsets.push(offset(elements)?);
    }
    let filled = |(column, lists): (Gather, &Lists)| {
        let null = arrow::array::new_null_array(lists.ty(), 1);
        let gives = crate::signature::array_of(lists.ty().clone());
        let mut column = column;
        column.end()?;
        let list = column.lists(&[&lists.values, &null], &gives)?;
        Ok(std::sync::Arc::clone(list.as_list::<i32>().values()))
    };
    let columns = columns.into_iter().zip(lists).map(filled).collect::<Result<_>>()?;
    Ok(Aligned { columns, offsets, nulls: nulls.finish() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_counted_before_they_are_made() {
        for (len, n, expected) in [(3, 2, 3), (5, 0, 1), (2, 3, 0), (10, 5, 252), (1000, 1, 1000)] {
            assert_eq!(ways(len, n), expected, "{n} of {len}");
        }
        assert!(ways(usize::MAX, 5) > MAX_COMBINATIONS);
    }
}
