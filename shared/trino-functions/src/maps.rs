//! Maps.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StructArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::row::{Row, Rows};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;

use super::call::{Call, collect, invalid, whole};
use super::nested::{Equality, Gather, Lists, Maps, Single, identities, in_type, is_valid, map_array};
use super::{Function, scalar};

pub(crate) const SECTION: &str = "Map";

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(
            SECTION,
            "map",
            "the map of an array of keys and an array of their values; an empty one without arguments",
        )
        .stands_for("map() -> map(K, V)", "map(ARRAY[], ARRAY[])")
        .way("map(array(K), array(V)) -> map(K, V)", whole(of_arrays))
        .example("map(ARRAY[1, 3], ARRAY['a', 'b'])", "{1: a, 3: b}")
        .example("cardinality(map())", "0"),
        scalar(SECTION, "map_concat", "the entries of all maps; of entries with one key the last")
            .way("map_concat(map(K, V), map(K, V)...) -> map(K, V)", whole(concat))
            .example("map_concat(MAP(ARRAY[1, 2], ARRAY['a', 'b']), MAP(ARRAY[2], ARRAY['c']))", "{1: a, 2: c}"),
        scalar(SECTION, "map_entries", "the entries as an array of rows of a key and a value")
            .way("map_entries(map(K, V)) -> array(row(K, V))", whole(entries))
            .example("map_entries(MAP(ARRAY[1], ARRAY['a']))[1][2]", "a"),
        scalar(SECTION, "map_from_entries", "the map of an array of rows of a key and a value")
            .way("map_from_entries(array(row(K, V))) -> map(K, V)", whole(from_entries))
            .example("map_from_entries(ARRAY[ROW(1, 'a'), ROW(2, 'b')])", "{1: a, 2: b}"),
        scalar(
            SECTION,
            "multimap_from_entries",
            "the map of keys and arrays of their values, of an array of rows of a key and a value",
        )
        .way("multimap_from_entries(array(row(K, V))) -> map(K, array(V))", whole(multimap_from_entries))
        .example("multimap_from_entries(ARRAY[ROW(1, 'x'), ROW(2, 'y'), ROW(1, 'z')])", "{1: [x, z], 2: [y]}"),
        scalar(SECTION, "map_keys", "the keys")
            .way("map_keys(map(K, V)) -> array(K)", whole(keys))
            .example("map_keys(MAP(ARRAY[1, 2], ARRAY['a', 'b']))", "[1, 2]"),
        scalar(SECTION, "map_values", "the values, in the order of the keys")
            .way("map_values(map(K, V)) -> array(V)", whole(values))
            .example("map_values(MAP(ARRAY[1, 2], ARRAY['a', 'b']))", "[a, b]"),
    ]
}

/// The value of a key; null where there is none.
pub(crate) fn value(call: &Call<'_>) -> Result<ArrayRef> {
    of_key(call, |_, _| Ok(None))
}

/// `map[key]`, which fails where there is no such key.
pub(crate) fn subscript(call: &Call<'_>) -> Result<ArrayRef> {
    of_key(call, |key, at| Err(invalid(format!("expected a key of the map, found `{}`", text_of(key, at)?))))
}

fn of_key(call: &Call<'_>, missing: impl Fn(&ArrayRef, usize) -> Result<Option<u64>>) -> Result<ArrayRef> {
    let maps = Maps::of(call, 0)?;
    let sought = Single::of(call, 1, maps.keys.data_type())?;
    let equality = Equality::new(&maps.keys, &sought.values)?;
    let of = |row| {
        let (Some(mut range), Some(at)) = (maps.get(row), sought.get(row)) else { return Ok(None) };
        match range.find(|key| equality.equal(*key, at) == Some(true)) {
            Some(found) => Ok(Some(found as u64)),
            None => missing(&sought.values, at),
        }
    };
    let places: UInt64Array = (0..call.rows).map(of).collect::<Result<_>>()?;
    in_type(&take(&maps.values, &places, None)?, call.gives)
}

fn text_of(values: &ArrayRef, at: usize) -> Result<String> {
    Ok(ArrayFormatter::try_new(values, &FormatOptions::default())?.value(at).to_string())
}

pub(crate) fn cardinality(call: &Call<'_>) -> Result<ArrayRef> {
    let maps = Maps::of(call, 0)?;
    collect(call, |row| Ok(maps.get(row).map(|range| i64::try_from(range.len()).unwrap_or(i64::MAX))))
}

/// Sees to keys that are there once and not null, row by row.
pub(crate) struct NewKeys<'a> {
    keys: &'a ArrayRef,
    ids: &'a Rows,
    seen: HashSet<Row<'a>>,
}

impl<'a> NewKeys<'a> {
    pub(crate) fn new(keys: &'a ArrayRef, ids: &'a Rows) -> Self {
        Self { keys, ids, seen: HashSet::new() }
    }

    pub(crate) fn start(&mut self) {
        self.seen.clear();
    }

    /// # Errors
    /// `Invalid` for a key that is null or was there before.
    pub(crate) fn add(&mut self, at: usize) -> Result<()> {
        if !is_valid(self.keys, at) {
            return Err(invalid("expected a key that is not null, found NULL"));
        }
        match self.seen.insert(self.ids.row(at)) {
            true => Ok(()),
            false => Err(invalid(format!("expected each key once, found `{}` twice", text_of(self.keys, at)?))),
        }
    }
}

fn of_arrays(call: &Call<'_>) -> Result<ArrayRef> {
    let (keys, values) = (Lists::of(call, 0)?, Lists::of(call, 1)?);
    let [ids] = identities([&keys.values])?;
    let mut new = NewKeys::new(&keys.values, &ids);
    let (mut taken_keys, mut taken_values) = (Gather::new(call.rows), Gather::new(call.rows));
    for row in 0..call.rows {
        let (Some(k), Some(v)) = (keys.get(row), values.get(row)) else {
            taken_keys.null();
            taken_values.null();
            continue;
        };
        if k.len() != v.len() {
            return Err(invalid(format!("expected as many values as keys, found {} for {} keys", v.len(), k.len())));
        }
        new.start();
        k.clone().try_for_each(|at| new.add(at))?;
        taken_keys.extend(0, k);
        taken_values.extend(0, v);
        taken_keys.end()?;
        taken_values.end()?;
    }
    paired(taken_keys, &keys.values, taken_values, &values.values, call.gives)
}

/// Maps of keys and values that were taken in the same number.
fn paired(
    keys: Gather,
    of_keys: &ArrayRef,
    values: Gather,
    of_values: &ArrayRef,
    gives: &DataType,
) -> Result<ArrayRef> {
    let list = |gather: Gather, of: &ArrayRef| gather.lists(&[of], &super::signature::array_of(of.data_type().clone()));
    let (keys, values) = (list(keys, of_keys)?, list(values, of_values)?);
    let (keys, values) = (keys.as_list::<i32>(), values.as_list::<i32>());
    let offsets = keys.offsets().to_vec();
    map_array(offsets, keys.nulls().cloned(), Arc::clone(keys.values()), Arc::clone(values.values()), gives)
}

fn concat(call: &Call<'_>) -> Result<ArrayRef> {
    let maps = (0..call.arguments.len()).map(|at| Maps::of(call, at)).collect::<Result<Vec<_>>>()?;
    let keys: Vec<&ArrayRef> = maps.iter().map(|maps| &maps.keys).collect();
    let whole = arrow::compute::concat(&keys.iter().map(|keys| keys.as_ref()).collect::<Vec<_>>())?;
    let [ids] = identities([&whole])?;
    let before: Vec<usize> = keys
        .iter()
        .scan(0, |sum, keys| {
            let before = *sum;
            *sum += keys.len();
            Some(before)
        })
        .collect();
    let mut all = Gather::new(call.rows);
    let mut last: HashMap<Row<'_>, usize> = HashMap::new();
    for row in 0..call.rows {
        let ranges: Option<Vec<_>> = maps.iter().map(|maps| maps.get(row)).collect();
        let Some(ranges) = ranges else {
            all.null();
            continue;
        };
        last.clear();
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        for (map, at) in ranges.into_iter().enumerate().flat_map(|(map, range)| range.map(move |at| (map, at))) {
            let place = *last.entry(ids.row(before[map] + at)).or_insert(chosen.len());
            match chosen.get_mut(place) {
                Some(entry) => *entry = (map, at),
                None => chosen.push((map, at)),
            }
        }
        chosen.into_iter().for_each(|(map, at)| all.push(map, at));
        all.end()?;
    }
    all.maps(&keys, &maps.iter().map(|maps| &maps.values).collect::<Vec<_>>(), call.gives)
}

/// The entries of each row, one after the other.
fn gathered(call: &Call<'_>, maps: &Maps) -> Result<Gather> {
    let mut all = Gather::new(call.rows);
    for row in 0..call.rows {
        match maps.get(row) {
            Some(range) => {
                all.extend(0, range);
                all.end()?;
            }
            None => all.null(),
        }
    }
    Ok(all)
}

fn keys(call: &Call<'_>) -> Result<ArrayRef> {
    let maps = Maps::of(call, 0)?;
    gathered(call, &maps)?.lists(&[&maps.keys], call.gives)
}

fn values(call: &Call<'_>) -> Result<ArrayRef> {
    let maps = Maps::of(call, 0)?;
    gathered(call, &maps)?.lists(&[&maps.values], call.gives)
}

fn entries(call: &Call<'_>) -> Result<ArrayRef> {
    let maps = Maps::of(call, 0)?;
    let DataType::List(field) = call.gives else { return Err(invalid("expected an array, found another type")) };
    let DataType::Struct(fields) = field.data_type() else { return Err(invalid("expected rows, found another type")) };
    let columns = vec![in_type(&maps.keys, fields[0].data_type())?, in_type(&maps.values, fields[1].data_type())?];
    let rows: ArrayRef = Arc::new(StructArray::try_new_with_length(fields.clone(), columns, None, maps.keys.len())?);
    gathered(call, &maps)?.lists(&[&rows], call.gives)
}

/// The keys and values of rows, with the rows that are null.
fn columns(rows: &ArrayRef) -> Result<(ArrayRef, ArrayRef)> {
    match rows.as_struct_opt().map(StructArray::columns) {
        Some([key, value]) => Ok((Arc::clone(key), Arc::clone(value))),
        _ => Err(invalid("expected rows of a key and a value, found other rows")),
    }
}

/// # Errors
/// `Invalid` for an entry that is null.
fn check_entry(rows: &ArrayRef, at: usize) -> Result<()> {
    match is_valid(rows, at) {
        true => Ok(()),
        false => Err(invalid("expected entries that are not null, found NULL")),
    }
}

fn from_entries(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    let (keys, values) = columns(&lists.values)?;
    let [ids] = identities([&keys])?;
    let mut new = NewKeys::new(&keys, &ids);
    let mut all = Gather::new(call.rows);
    for row in 0..call.rows {
        let Some(range) = lists.get(row) else {
            all.null();
            continue;
        };
        new.start();
        for at in range {
            check_entry(&lists.values, at)?;
            new.add(at)?;
            all.push(0, at);
        }
        all.end()?;
    }
    all.maps(&[&keys], &[&values], call.gives)
}

fn multimap_from_entries(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    let (keys, values) = columns(&lists.values)?;
    let [ids] = identities([&keys])?;
    let (mut of_keys, mut of_values) = (Gather::new(call.rows), Gather::new(0));
    let mut groups: HashMap<Row<'_>, usize> = HashMap::new();
    for row in 0..call.rows {
        let Some(range) = lists.get(row) else {
            of_keys.null();
            continue;
        };
        groups.clear();
        let mut grouped: Vec<Vec<usize>> = Vec::new();
        for at in range {
            check_entry(&lists.values, at)?;
            if !is_valid(&keys, at) {
                return Err(invalid("expected a key that is not null, found NULL"));
            }
            let group = *groups.entry(ids.row(at)).or_insert(grouped.len());
            match grouped.get_mut(group) {
                Some(group) => group.push(at),
                None => grouped.push(vec![at]),
            }
        }
        for group in grouped {
            of_keys.push(0, group[0]);
            group.into_iter().for_each(|at| of_values.push(0, at));
            of_values.end()?;
        }
        of_keys.end()?;
    }
    let DataType::Map(field, _) = call.gives else { return Err(invalid("expected a map, found another type")) };
    let DataType::Struct(fields) = field.data_type() else {
        return Err(invalid("expected entries, found another type"));
    };
    let values = of_values.lists(&[&values], fields[1].data_type())?;
    let lists = of_keys.lists(&[&keys], &super::signature::array_of(keys.data_type().clone()))?;
    let lists = lists.as_list::<i32>();
    map_array(lists.offsets().to_vec(), lists.nulls().cloned(), Arc::clone(lists.values()), values, call.gives)
}
