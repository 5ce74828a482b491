//! Texts taken apart and put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, MapBuilder, MapFieldNames, StringBuilder};
use datafusion::common::Result;

use super::call::{Bigint, Call, Text, collect, invalid, three, whole};
use super::{Function, scalar};

const SECTION: &str = "String";

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "split", "the parts between delimiters; with a limit the last part holds all that is left")
            .way("split(varchar, varchar) -> array(varchar)", whole(split))
            .way("split(varchar, varchar, bigint) -> array(varchar)", whole(split))
            .example("split('a,b,c', ',')", "[a, b, c]")
            .example("split('a,b,c', ',', 2)", "[a, b,c]"),
        scalar(SECTION, "split_part", "the part at a place, counted from 1; null past the last")
            .way("split_part(varchar, varchar, bigint) -> varchar", three::<Text, Text, Bigint, String, _>(split_part))
            .example("split_part('a-b-c', '-', 2)", "b"),
        scalar(SECTION, "split_to_map", "the map that entries of keys and values in a text are")
            .way("split_to_map(varchar, varchar, varchar) -> map(varchar, varchar)", whole(split_to_map))
            .example("split_to_map('a=1;b=2', ';', '=')['b']", "2"),
        scalar(SECTION, "split_to_multimap", "the map of arrays that entries of keys and values in a text are")
            .way(
                "split_to_multimap(varchar, varchar, varchar) -> map(varchar, array(varchar))",
                whole(split_to_multimap),
            )
            .example("split_to_multimap('a=1;b=2;a=3', ';', '=')['a']", "[1, 3]"),
        scalar(SECTION, "concat_ws", "the texts that are not null with a separator between them")
            .way("concat_ws(varchar, varchar...) -> varchar", whole(concat_ws))
            .way("concat_ws(varchar, array(varchar)) -> varchar", whole(concat_ws_of_arrays))
            .example("concat_ws('-', 'a', NULL, 'b')", "a-b"),
    ]
}

fn split(call: &Call<'_>) -> Result<ArrayRef> {
    let (text, delimiter) = (call.column::<Text>(0)?, call.column::<Text>(1)?);
    let limit = if call.arguments.len() > 2 { Some(call.column::<Bigint>(2)?) } else { None };
    let mut parts = ListBuilder::new(StringBuilder::new());
    for row in 0..call.rows {
        let limit = match limit.as_ref().map(|limit| limit.get(row)) {
            Some(None) => {
                parts.append_null();
                continue;
            }
            Some(Some(limit)) => limit,
            None => i64::MAX,
        };
        let (Some(text), Some(delimiter)) = (text.get(row), delimiter.get(row)) else {
            parts.append_null();
            continue;
        };
        if delimiter.is_empty() {
            return Err(invalid("expected a delimiter, found an empty text"));
        }
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        let limit = limit.ok_or_else(|| invalid("expected a limit from 1 on, found a smaller one"))?;
        text.splitn(limit, delimiter).for_each(|part| parts.values().append_value(part));
        parts.append(true);
    }
    Ok(Arc::new(parts.finish()))
}

fn split_part(text: &str, delimiter: &str, at: i64) -> Result<Option<String>> {
    let skip = usize::try_from(at).ok().and_then(|at| at.checked_sub(1));
    let skip = skip.ok_or_else(|| invalid(format!("expected a place from 1 on, found {at}")))?;
    if delimiter.is_empty() {
        return Ok(text.chars().nth(skip).map(String::from));
    }
    Ok(text.split(delimiter).nth(skip).map(str::to_owned))
}

/// The entries of keys and values that a text holds, in its order.
fn entries<'a>(text: &'a str, between: &str, within: &str) -> Result<Vec<(&'a str, &'a str)>> {
    if between.is_empty() || within.is_empty() || between == within {
        return Err(invalid(format!("expected two delimiters that differ, found `{between}` and `{within}`")));
    }
    let text = text.strip_suffix(between).unwrap_or(text);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let entry = |entry: &'a str| match entry.split(within).collect::<Vec<_>>()[..] {
        [key, value] => Ok((key, value)),
        _ => Err(invalid(format!("expected `{within}` once in each entry, found `{entry}`"))),
    };
    text.split(between).map(entry).collect()
}

fn names() -> Option<MapFieldNames> {
    Some(MapFieldNames { entry: "entries".to_owned(), key: "key".to_owned(), value: "value".to_owned() })
}

fn split_to_map(call: &Call<'_>) -> Result<ArrayRef> {
    let (text, between, within) = (call.column::<Text>(0)?, call.column::<Text>(1)?, call.column::<Text>(2)?);
    let mut map = MapBuilder::new(names(), StringBuilder::new(), StringBuilder::new());
    for row in 0..call.rows {
        let (Some(text), Some(between), Some(within)) = (text.get(row), between.get(row), within.get(row)) else {
            map.append(false)?;
            continue;
        };
        let mut seen = std::collections::BTreeSet::new();
        for (key, value) in entries(text, between, within)? {
            if !seen.insert(key) {
                return Err(invalid(format!("expected each key once, found `{key}` twice")));
            }
            map.keys().append_value(key);
            map.values().append_value(value);
        }
        map.append(true)?;
    }
    Ok(Arc::new(map.finish()))
}

fn split_to_multimap(call: &Call<'_>) -> Result<ArrayRef> {
    let (text, between, within) = (call.column::<Text>(0)?, call.column::<Text>(1)?, call.column::<Text>(2)?);
    let mut map = MapBuilder::new(names(), StringBuilder::new(), ListBuilder::new(StringBuilder::new()));
    for row in 0..call.rows {
        let (Some(text), Some(between), Some(within)) = (text.get(row), between.get(row), within.get(row)) else {
            map.append(false)?;
            continue;
        };
        let mut keys: Vec<&str> = Vec::new();
        let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in entries(text, between, within)? {
            let of_key = values.entry(key).or_default();
            if of_key.is_empty() {
                keys.push(key);
            }
            of_key.push(value);
        }
        for key in keys {
            map.keys().append_value(key);
            values[key].iter().for_each(|value| map.values().values().append_value(value));
            map.values().append(true);
        }
        map.append(true)?;
    }
    Ok(Arc::new(map.finish()))
}

fn concat_ws(call: &Call<'_>) -> Result<ArrayRef> {
    let separator = call.column::<Text>(0)?;
    let texts = (1..call.arguments.len()).map(|at| call.column::<Text>(at)).collect::<Result<Vec<_>>>()?;
    collect(call, |row| {
        Ok(separator
            .get(row)
            .map(|separator| texts.iter().filter_map(|text| text.get(row)).collect::<Vec<_>>().join(separator)))
    })
}

fn concat_ws_of_arrays(call: &Call<'_>) -> Result<ArrayRef> {
    let separator = call.column::<Text>(0)?;
    let arrays = call.arrays()?;
    let lists = arrays[1].as_list::<i32>();
    collect(call, |row| {
        let Some(separator) = separator.get(row) else { return Ok(None) };
        if lists.is_null(row) {
            return Ok(None);
        }
        let texts = arrow::compute::cast(&lists.value(row), &arrow::datatypes::DataType::Utf8)?;
        Ok(Some(texts.as_string::<i32>().iter().flatten().collect::<Vec<_>>().join(separator)))
    })
}
