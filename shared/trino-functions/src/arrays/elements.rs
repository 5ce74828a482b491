//! Single elements of arrays, and of maps where a function takes both.

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute::take;
use datafusion::common::Result;

use super::{Function, SECTION, compute, scalar};
use crate::call::{Bigint, Call, collect, invalid};
use crate::maps;
use crate::nested::{Equality, Gather, Lists, Single, is_valid, order};

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "element_at", "an array's element, counted from 1, or from the end if negative, null past the last; a map's value, null for a key that it lacks")
            .way("element_at(array(T), bigint) -> T", compute(element_at))
            .way("element_at(map(K, V), K) -> V", compute(maps::value))
            .example("element_at(ARRAY['a', 'b'], -1)", "b")
            .example("element_at(ARRAY[1, 2], 3)", "NULL")
            .example("element_at(MAP(ARRAY[1, 2], ARRAY['a', 'b']), 2)", "b"),
        scalar(SECTION, "cardinality", "how many elements or entries there are")
            .way("cardinality(array(T)) -> bigint", compute(cardinality))
            .way("cardinality(map(K, V)) -> bigint", compute(maps::cardinality))
            .example("cardinality(ARRAY[ARRAY[1, 2], ARRAY[3]])", "2"),
        scalar(SECTION, "contains", "whether an element equals the value; null where none does and one is null")
            .way("contains(array(T), T) -> boolean", compute(contains))
            .example("contains(ARRAY[1, 2], 2)", "true")
            .example("contains(ARRAY[1, NULL], 2)", "NULL"),
        scalar(SECTION, "array_position", "the place of the first element that equals the value, counted from 1; 0 if none does")
            .way("array_position(array(T), T) -> bigint", compute(position))
            .example("array_position(ARRAY['a', 'b'], 'b')", "2")
            .example("array_position(ARRAY['a'], 'x')", "0"),
        scalar(SECTION, "array_remove", "the elements that do not equal the value; nulls are kept")
            .way("array_remove(array(T), T) -> array(T)", compute(remove))
            .example("array_remove(ARRAY[1, 1, 2], 1)", "[2]"),
        scalar(SECTION, "array_max", "the greatest element; null where an element is null and where there is none")
            .way("array_max(array(T)) -> T", compute(|call| extreme(call, std::cmp::Ordering::Greater)))
            .example("array_max(ARRAY[1, 3, 2])", "3")
            .example("array_max(ARRAY[1, NULL])", "NULL"),
        scalar(SECTION, "array_min", "the least element; null where an element is null and where there is none")
            .way("array_min(array(T)) -> T", compute(|call| extreme(call, std::cmp::Ordering::Less)))
            .example("array_min(ARRAY[2, 1, 3])", "1"),
    ]
}

/// The elements at these places, in the type that the call gives.
fn taken(call: &Call<'_>, values: &ArrayRef, places: Vec<Option<u64>>) -> Result<ArrayRef> {
    crate::nested::in_type(&take(values, &UInt64Array::from(places), None)?, call.gives)
}

fn place(range: &std::ops::Range<usize>, at: usize) -> u64 {
    (range.start + at) as u64
}

/// `array[index]`, which fails where there is no such element.
pub(crate) fn subscript(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, index) = (Lists::of(call, 0)?, call.column::<Bigint>(1)?);
    let of = |row| {
        let (Some(range), Some(index)) = (lists.get(row), index.get(row)) else { return Ok(None) };
        let at = usize::try_from(index).ok().and_then(|index| index.checked_sub(1)).filter(|at| *at < range.len());
        match at {
            Some(at) => Ok(Some(place(&range, at))),
            None => Err(invalid(format!(
                "expected the index of one of {} elements, counted from 1, found {index}",
                range.len()
            ))),
        }
    };
    taken(call, &lists.values, (0..call.rows).map(of).collect::<Result<_>>()?)
}

fn element_at(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, index) = (Lists::of(call, 0)?, call.column::<Bigint>(1)?);
    let of = |row| {
        let (Some(range), Some(index)) = (lists.get(row), index.get(row)) else { return Ok(None) };
        let far = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
        match index {
            0 => Err(invalid("expected an index from 1 on, or below 0 from the end, found 0")),
            1.. => Ok((far <= range.len()).then(|| place(&range, far - 1))),
            _ => Ok(range.len().checked_sub(far).map(|at| place(&range, at))),
        }
    };
    taken(call, &lists.values, (0..call.rows).map(of).collect::<Result<_>>()?)
}

fn cardinality(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    collect(call, |row| Ok(lists.get(row).map(|range| i64::try_from(range.len()).unwrap_or(i64::MAX))))
}

fn contains(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    let sought = Single::of(call, 1, lists.ty())?;
    let equality = Equality::new(&lists.values, &sought.values)?;
    collect(call, |row| {
        let (Some(mut range), Some(at)) = (lists.get(row), sought.get(row)) else { return Ok(None) };
        let mut known = Some(false);
        let found = range.any(|element| match equality.equal(element, at) {
            Some(found) => found,
            None => {
                known = None;
                false
            }
        });
        Ok(if found { Some(true) } else { known })
    })
}

fn position(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    let sought = Single::of(call, 1, lists.ty())?;
    let equality = Equality::new(&lists.values, &sought.values)?;
    collect(call, |row| {
        let (Some(range), Some(at)) = (lists.get(row), sought.get(row)) else { return Ok(None) };
        let found = range.clone().position(|element| equality.equal(element, at) == Some(true));
        Ok(Some(found.map_or(0, |found| i64::try_from(found + 1).unwrap_or(i64::MAX))))
    })
}

fn remove(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    let removed = Single::of(call, 1, lists.ty())?;
    let equality = Equality::new(&lists.values, &removed.values)?;
    let mut kept = Gather::new(call.rows);
    for row in 0..call.rows {
        let (Some(range), Some(at)) = (lists.get(row), removed.get(row)) else {
            kept.null();
            continue;
        };
        for element in range {
            match equality.equal(element, at) {
                Some(true) => {}
                None if is_valid(&lists.values, element) => {
                    return Err(invalid("expected elements and a value to remove without nulls in them, found one"));
                }
                _ => kept.push(0, element),
            }
        }
        kept.end()?;
    }
    kept.lists(&[&lists.values], call.gives)
}

/// The element that is to all others as `wanted` says.
fn extreme(call: &Call<'_>, wanted: std::cmp::Ordering) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    let compare = order(&lists.values, &lists.values)?;
    let nulls = lists.values.nulls().cloned();
    let of = |row| {
        let mut range = lists.get(row)?;
        let (start, len) = (range.start, range.len());
        let has_null = nulls.as_ref().is_some_and(|nulls| nulls.slice(start, len).null_count() > 0);
        let first = range.next().filter(|_| !has_null)?;
        Some(range.fold(first, |best, at| if compare(at, best) == wanted { at } else { best }) as u64)
    };
    taken(call, &lists.values, (0..call.rows).map(of).collect())
}
