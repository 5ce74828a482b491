//! Arrays in an order.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Int64Type;
use datafusion::common::Result;

use super::arrays::Flat;
use super::{Applied, Function, scalar};
use crate::arrays::SECTION;
use crate::call::invalid;
use crate::nested::{Lists, list_array, order};

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "array_sort", "the elements in their order, nulls last; or as a lambda has it, that gives -1, 0 or 1 for a first element that is less, equal or greater than a second")
            .lambda("array_sort(array(T)) -> array(T)", sort)
            .lambda("array_sort(array(T), function(T, T, bigint)) -> array(T)", sort_by)
            .example("array_sort(ARRAY[3, NULL, 1])", "[1, 3, NULL]")
            .example("array_sort(ARRAY[3, 2, 5, 1, 2], (x, y) -> IF(x < y, 1, IF(x = y, 0, -1)))", "[5, 3, 2, 2, 1]"),
    ]
}

fn sort(call: &Applied<'_>) -> Result<ArrayRef> {
    let lists = Lists::new(&call.values[0], false)?;
    let flat = Flat::of(&lists.ranges, call.rows)?;
    let elements = flat.elements(&lists.values)?;
    let compare = order(&elements, &elements)?;
    let mut places: Vec<u32> = (0..).take(elements.len()).collect();
    for ends in flat.offsets.windows(2) {
        places[place(ends[0])..place(ends[1])].sort_by(|l, r| compare(*l as usize, *r as usize));
    }
    list_array(flat.offsets, flat.nulls, take(&elements, &UInt32Array::from(places), None)?, call.gives)
}

fn place(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

/// Two sorted runs side by side that become one.
struct Merge {
    /// The next element of the left run, and where it ends.
    left: usize,
    left_end: usize,
    right: usize,
    right_end: usize,
    /// Where the next element goes.
    to: usize,
    row: u32,
}

/// Merges runs of one element, of two, of four and so on. All merges of a length go on together, so that the lambda compares for all
/// at once.
fn sort_by(call: &Applied<'_>) -> Result<ArrayRef> {
    let lists = Lists::new(&call.values[0], false)?;
    let flat = Flat::of(&lists.ranges, call.rows)?;
    let elements = flat.elements(&lists.values)?;
    let mut places: Vec<u32> = (0..).take(elements.len()).collect();
    let longest = flat.offsets.windows(2).map(|ends| place(ends[1]) - place(ends[0])).max().unwrap_or(0);
    let mut length = 1;
    while length < longest {
        let mut merged = places.clone();
        let mut going = merges(&flat.offsets, length);
        while !going.is_empty() {
            let side = |of: fn(&Merge) -> usize| {
                let side: UInt32Array = going.iter().map(|merge| places[of(merge)]).collect::<Vec<_>>().into();
                take(&elements, &side, None)
            };
            let sides = [side(|merge| merge.left)?, side(|merge| merge.right)?];
            let rows: Vec<u32> = going.iter().map(|merge| merge.row).collect();
            let compared = call.lambda(0, &sides, &rows)?;
            let compared = compared.as_primitive::<Int64Type>();
            for (at, merge) in going.iter_mut().enumerate() {
                let takes_right = match compared.is_valid(at).then(|| compared.value(at)) {
                    Some(-1 | 0) => false,
                    Some(1) => true,
                    Some(other) => {
                        return Err(invalid(format!("expected a comparison to give -1, 0 or 1, found {other}")));
                    }
                    None => return Err(invalid("expected a comparison to give -1, 0 or 1, found NULL")),
                };
                let next = if takes_right { &mut merge.right } else { &mut merge.left };
                merged[merge.to] = places[*next];
                *next += 1;
                merge.to += 1;
                if merge.left == merge.left_end || merge.right == merge.right_end {
                    let rest = places[merge.left..merge.left_end].iter().chain(&places[merge.right..merge.right_end]);
                    rest.zip(&mut merged[merge.to..]).for_each(|(place, to)| *to = *place);
                }
            }
            going.retain(|merge| merge.left < merge.left_end && merge.right < merge.right_end);
        }
        places = merged;
        length *= 2;
    }
    list_array(flat.offsets, flat.nulls, take(&elements, &UInt32Array::from(places), None)?, call.gives)
}

/// The merges of runs of this length in all rows.
fn merges(offsets: &[i32], length: usize) -> Vec<Merge> {
    let mut merges = Vec::new();
    for (ends, row) in offsets.windows(2).zip(0..) {
        let (from, end) = (place(ends[0]), place(ends[1]));
        for left in (from..end).step_by(length * 2) {
            let right = left + length;
            if right < end {
                merges.push(Merge {
                    left,
                    left_end: right,
                    right,
                    right_end: (right + length).min(end),
                    to: left,
                    row,
                });
            }
        }
    }
    merges
}
