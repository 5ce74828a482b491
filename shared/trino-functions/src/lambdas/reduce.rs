//! One value made of all elements of an array.

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::kernels::interleave::interleave;
use arrow::compute::take;
use datafusion::common::Result;

use super::{Applied, Function, scalar};
use crate::arrays::SECTION;
use crate::nested::Lists;

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(
            SECTION,
            "reduce",
            "the state after the first lambda had each element in its turn, as the second lambda gives it",
        )
        .lambda("reduce(array(T), S, function(S, T, S), function(S, R)) -> R", reduce)
        .example("reduce(ARRAY[5, 20, 50], 0, (s, x) -> s + x, s -> s)", "75")
        .example("reduce(ARRAY[5, 20, NULL, 50], 0, (s, x) -> s + coalesce(x, 0), s -> s)", "75"),
    ]
}

/// The first elements of all arrays go to the lambda together, then the second ones, and so on.
fn reduce(call: &Applied<'_>) -> Result<ArrayRef> {
    let lists = Lists::new(&call.values[0], false)?;
    let start = &call.values[1];
    let index = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
    let first = |row: u32| lists.get(usize::try_from(row).unwrap_or(usize::MAX)).unwrap_or(0..0);
    // Of each row its state, in one of the arrays of ended ones; a null array's is never looked at.
    let mut ended: Vec<ArrayRef> = vec![new_null_array(start.data_type(), 1)];
    let mut states = vec![(0, 0); call.rows];
    let mut going: Vec<u32> = (0..call.rows).filter(|row| lists.get(*row).is_some()).map(index).collect();
    let rows: Vec<u32> = going.clone();
    let mut state = take(start, &UInt32Array::from(going.clone()), None)?;
    let mut step = 0;
    while !going.is_empty() {
        let (more, done): (Vec<u32>, Vec<u32>) =
            (0..index(going.len())).partition(|at| step < first(going[*at as usize]).len());
        if !done.is_empty() {
            for (i, at) in done.iter().enumerate() {
                states[going[*at as usize] as usize] = (ended.len(), i);
            }
            ended.push(take(&state, &UInt32Array::from(done), None)?);
            going = more.iter().map(|at| going[*at as usize]).collect();
            state = take(&state, &UInt32Array::from(more), None)?;
        }
        if going.is_empty() {
            break;
        }
        let elements: UInt32Array = going.iter().map(|row| index(first(*row).start + step)).collect::<Vec<_>>().into();
        let elements = take(&lists.values, &elements, None)?;
        state = call.lambda(0, &[state, elements], &going)?;
        step += 1;
    }
    let ended: Vec<&dyn Array> = ended.iter().map(AsRef::as_ref).collect();
    let of_rows: Vec<(usize, usize)> = rows.iter().map(|row| states[*row as usize]).collect();
    let last: ArrayRef = match of_rows.is_empty() {
        true => arrow::array::new_empty_array(start.data_type()),
        false => interleave(&ended, &of_rows)?,
    };
    let made = call.lambda(1, &[last], &rows)?;
    // Null where the array is.
    let mut places = vec![None; call.rows];
    rows.iter().zip(0_u32..).for_each(|(row, at)| places[*row as usize] = Some(at));
    Ok(take(&made, &UInt32Array::from(places), None)?)
}
