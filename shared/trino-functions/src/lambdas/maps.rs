//! Lambdas of the entries of maps.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, new_null_array};
use arrow::compute::filter as filtered;
use arrow::row::Row;
use datafusion::common::Result;

use super::arrays::{Flat, mask};
use super::{Applied, Function, scalar};
use crate::maps::{NewKeys, SECTION};
use crate::nested::{Gather, Maps, identities, map_array};
use crate::signature::array_of;

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "map_filter", "the entries for which the lambda gives true")
            .lambda("map_filter(map(K, V), function(K, V, boolean)) -> map(K, V)", map_filter)
            .example("map_filter(MAP(ARRAY['a', 'b'], ARRAY[20, 3]), (k, v) -> v > 10)", "{a: 20}"),
        scalar(SECTION, "transform_keys", "the map whose keys are what the lambda gives for each entry")
            .lambda("transform_keys(map(K, V), function(K, V, L)) -> map(L, V)", transform_keys)
            .example("transform_keys(MAP(ARRAY[1, 2], ARRAY['a', 'b']), (k, v) -> k + 1)", "{2: a, 3: b}"),
        scalar(SECTION, "transform_values", "the map whose values are what the lambda gives for each entry")
            .lambda("transform_values(map(K, V), function(K, V, W)) -> map(K, W)", transform_values)
            .example("transform_values(MAP(ARRAY[1, 2], ARRAY[10, 20]), (k, v) -> v + k)", "{1: 11, 2: 22}"),
        scalar(SECTION, "map_zip_with", "the map of the keys of both, whose values are what the lambda gives for a key and its values; null stands for one that is not there")
            .lambda("map_zip_with(map(K, V), map(K, W), function(K, V, W, X)) -> map(K, X)", map_zip_with)
            .example("map_zip_with(MAP(ARRAY['a', 'b'], ARRAY[1, 2]), MAP(ARRAY['b', 'c'], ARRAY[4, 9]), (k, v, w) -> coalesce(v, 0) + coalesce(w, 0))", "{a: 1, b: 6, c: 9}"),
    ]
}

/// The entries of all rows, one after the other.
fn entries(call: &Applied<'_>) -> Result<(Flat, ArrayRef, ArrayRef)> {
    let maps = Maps::new(&call.values[0], false)?;
    let flat = Flat::of(&maps.ranges, call.rows)?;
    let (keys, values) = (flat.elements(&maps.keys)?, flat.elements(&maps.values)?);
    Ok((flat, keys, values))
}

fn map_filter(call: &Applied<'_>) -> Result<ArrayRef> {
    let (flat, keys, values) = entries(call)?;
    let mask = mask(&call.lambda(0, &[Arc::clone(&keys), Arc::clone(&values)], &flat.rows)?);
    let offsets = flat.kept(&mask)?;
    map_array(offsets, flat.nulls, filtered(&keys, &mask)?, filtered(&values, &mask)?, call.gives)
}

fn transform_values(call: &Applied<'_>) -> Result<ArrayRef> {
    let (flat, keys, values) = entries(call)?;
    let made = call.lambda(0, &[Arc::clone(&keys), values], &flat.rows)?;
    map_array(flat.offsets, flat.nulls, keys, made, call.gives)
}

fn transform_keys(call: &Applied<'_>) -> Result<ArrayRef> {
    let (flat, keys, values) = entries(call)?;
    let made = call.lambda(0, &[keys, Arc::clone(&values)], &flat.rows)?;
    let [ids] = identities([&made])?;
    let mut new = NewKeys::new(&made, &ids);
    for ends in flat.offsets.windows(2) {
        new.start();
        (ends[0]..ends[1]).try_for_each(|at| new.add(usize::try_from(at).unwrap_or(0)))?;
    }
    map_array(flat.offsets, flat.nulls, made, values, call.gives)
}

fn map_zip_with(call: &Applied<'_>) -> Result<ArrayRef> {
    let (left, right) = (Maps::new(&call.values[0], false)?, Maps::new(&call.values[1], false)?);
    let [left_ids, right_ids] = identities([&left.keys, &right.keys])?;
    let [mut keys, mut left_values, mut right_values] = [(); 3].map(|()| Gather::new(call.rows));
    let mut rows = Vec::new();
    let mut places: HashMap<Row<'_>, usize> = HashMap::new();
    for row in 0..call.rows {
        let (Some(l), Some(r)) = (left.get(row), right.get(row)) else {
            for gather in [&mut keys, &mut left_values, &mut right_values] {
                gather.null();
            }
            continue;
        };
        places.clear();
        places.extend(r.clone().map(|at| (right_ids.row(at), at)));
        for at in l {
            keys.push(0, at);
            left_values.push(0, at);
            match places.remove(&left_ids.row(at)) {
                Some(other) => right_values.push(0, other),
                None => right_values.push(1, 0),
            }
            rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        for at in r.filter(|at| places.contains_key(&right_ids.row(*at))) {
            keys.push(1, at);
            left_values.push(1, 0);
            right_values.push(0, at);
            rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        for gather in [&mut keys, &mut left_values, &mut right_values] {
            gather.end()?;
        }
    }
    let list = |gather: Gather, arrays: &[&ArrayRef]| gather.lists(arrays, &array_of(arrays[0].data_type().clone()));
    let null = |values: &ArrayRef| new_null_array(values.data_type(), 1);
    let keys = list(keys, &[&left.keys, &right.keys])?;
    let left_values = list(left_values, &[&left.values, &null(&left.values)])?;
    let right_values = list(right_values, &[&right.values, &null(&right.values)])?;
    let keys = keys.as_list::<i32>();
    let of = |lists: &ArrayRef| Arc::clone(lists.as_list::<i32>().values());
    let made = call.lambda(0, &[Arc::clone(keys.values()), of(&left_values), of(&right_values)], &rows)?;
    map_array(keys.offsets().to_vec(), keys.nulls().cloned(), Arc::clone(keys.values()), made, call.gives)
}
