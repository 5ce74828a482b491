//! Arrays that are made of single values, and whole arrays in another order.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray, new_empty_array};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::Volatility;

use super::{Function, SECTION, compute, scalar};
use crate::call::{Bigint, Call, invalid};
use crate::nested::{Gather, Lists, Single, in_type};
use crate::signature::{element_of, row_of};

/// How often `repeat` repeats at most, as in Trino.
const MAX_REPEATED: i64 = 10_000;

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "make_array", "the array of the values, as `ARRAY[…]` gives it")
            .way("make_array(T...) -> array(T)", compute(make))
            .example("ARRAY[1, 1.2, 4]", "[1.0, 1.2, 4.0]")
            .example("make_array('a', NULL)", "[a, NULL]"),
        scalar(SECTION, "row", "the row of the values, whose fields are `field0`, `field1` and so on")
            .alias(&["struct"])
            .typed("row(any...) -> any", row_type, compute(row))
            .example("ROW(1, 'a')[2]", "a")
            .example("ROW(1, 'a').field0", "1"),
        scalar(SECTION, "repeat", "the value so often, at most 10000 times")
            .way("repeat(T, bigint) -> array(T)", compute(repeat))
            .example("repeat('a', 3)", "[a, a, a]"),
        Function {
            volatility: Volatility::Volatile,
            ..scalar(SECTION, "shuffle", "the elements in another order in each row")
                .way("shuffle(array(T)) -> array(T)", compute(shuffle))
                .example("array_sort(shuffle(ARRAY[1, 2, 3]))", "[1, 2, 3]")
        },
    ]
}

fn make(call: &Call<'_>) -> Result<ArrayRef> {
    let ty = element_of(call.gives).cloned().unwrap_or(DataType::Null);
    let values = (0..call.arguments.len()).map(|at| Single::of(call, at, &ty)).collect::<Result<Vec<_>>>()?;
    let mut all = Gather::new(call.rows);
    for row in 0..call.rows {
        values.iter().enumerate().for_each(|(array, values)| all.push(array, values.place(row)));
        all.end()?;
    }
    let none = new_empty_array(&ty);
    let arrays: Vec<&ArrayRef> = values.iter().map(|values| &values.values).collect();
    match arrays.is_empty() {
        true => all.lists(&[&none], call.gives),
        false => all.lists(&arrays, call.gives),
    }
}

fn row_type(types: &[DataType]) -> Result<DataType> {
    Ok(row_of(types.iter().enumerate().map(|(i, ty)| (format!("field{i}"), ty.clone()))))
}

fn row(call: &Call<'_>) -> Result<ArrayRef> {
    let DataType::Struct(fields) = call.gives else { return Err(invalid("expected a row, found another type")) };
    let columns = call.arrays()?;
    let columns = columns.iter().zip(fields).map(|(column, field)| in_type(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, None, call.rows)?))
}

fn repeat(call: &Call<'_>) -> Result<ArrayRef> {
    let ty = element_of(call.gives).cloned().unwrap_or(DataType::Null);
    let (values, times) = (Single::of(call, 0, &ty)?, call.column::<Bigint>(1)?);
    let mut all = Gather::new(call.rows);
    for row in 0..call.rows {
        match times.get(row) {
            Some(times @ 0..=MAX_REPEATED) => {
                (0..times).for_each(|_| all.push(0, values.place(row)));
                all.end()?;
            }
            Some(times) => {
                return Err(invalid(format!("expected to repeat from 0 to {MAX_REPEATED} times, found {times}")));
            }
            None => all.null(),
        }
    }
    all.lists(&[&values.values], call.gives)
}

fn shuffle(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    let mut all = Gather::new(call.rows);
    let random = RandomState::new();
    let mut drawn = 0_u64;
    for row in 0..call.rows {
        let Some(range) = lists.get(row) else {
            all.null();
            continue;
        };
        let mut places: Vec<usize> = range.collect();
        // Fisher and Yates.
        for last in (1..places.len()).rev() {
            drawn += 1;
            let other = usize::try_from(random.hash_one(drawn) % (last as u64 + 1)).unwrap_or(last);
            places.swap(last, other);
        }
        places.into_iter().for_each(|at| all.push(0, at));
        all.end()?;
    }
    all.lists(&[&lists.values], call.gives)
}
