//! Partitions in the folders of a table.
//!
//! `year=2013/month=1/` is Hive's way: the folder names key and value (percent-encoded). A plain folder is a value without a name:
//! `2013/01/02` are `year`, `month` and `day` (and `hour`), anything else is `partition_0`, `partition_1`, … as Glue names it.

use std::collections::BTreeMap;

use format::folders::{key_value, segments, value};
use shared::catalog::NULL_VALUE;
use shared::model::{Column, ColumnType};

/// The names of dated folders, outermost first, and the values they may have.
const DATED: [(&str, u32, u32); 4] = [("year", 1900, 2100), ("month", 1, 12), ("day", 1, 31), ("hour", 0, 23)];

/// The partition columns of a table and each folder's values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    pub keys: Vec<Column>,
    /// The folders (relative to the table, without a final slash) with their values.
    pub folders: Vec<(String, Vec<String>)>,
}

/// Whether a folder of this name is a partition rather than a table.
pub fn is_partition_like(segment: &str) -> bool {
    key_value(segment).is_some() || is_dated(segment, 0) || is_date(segment)
}

fn is_dated(segment: &str, level: usize) -> bool {
    let width = if level == 0 { 4 } else { 2 };
    DATED.get(level).is_some_and(|(_, least, most)| {
        segment.len() == width && segment.parse::<u32>().is_ok_and(|number| (*least..=*most).contains(&number))
    })
}

fn is_date(text: &str) -> bool {
    format::infer::text_shape(text).column_type() == ColumnType::Date
}

/// The partitions of a table whose files lie in `folders` (relative to the table, the table's own as an empty text). No keys when
/// files lie at different depths and no folder is Hive's: then they are just folders.
///
/// # Errors
/// What does not fit, in words: keys that differ from folder to folder.
pub fn layout(folders: &[String]) -> Result<Layout, String> {
    let split: Vec<Vec<&str>> = folders.iter().map(|folder| segments(folder)).collect();
    let depth = split.iter().map(Vec::len).max().unwrap_or(0);
    let any_hive = split.iter().flatten().any(|segment| key_value(segment).is_some());
    if depth == 0 || (!any_hive && split.iter().any(|folder| folder.len() != depth)) {
        return Ok(Layout::default());
    }
    if let Some(odd) = split.iter().position(|folder| folder.len() != depth) {
        return Err(format!("the folder `{}` has not the {depth} partition levels of the others", folders[odd]));
    }
    let names = (0..depth).map(|level| level_name(&split, level)).collect::<Result<Vec<_>, _>>()?;
    let values: Vec<Vec<String>> = split.iter().map(|folder| folder.iter().map(|s| value(s)).collect()).collect();
    let keys = names
        .into_iter()
        .enumerate()
        .map(|(level, name)| {
            let ty = key_type(&name, values.iter().map(|values| values[level].as_str()));
            Column::new(name, ty)
        })
        .collect();
    let mut folders: Vec<_> = folders.iter().cloned().zip(values).collect();
    folders.sort();
    folders.dedup();
    let mut places: BTreeMap<&Vec<String>, &str> = BTreeMap::new();
    for (folder, values) in &folders {
        if let Some(other) = places.insert(values, folder) {
            let values = values.join("/");
            return Err(format!("the folders `{other}` and `{folder}` are both the partition `{values}`"));
        }
    }
    Ok(Layout { keys, folders })
}

/// The narrowest of `before` and what the values are: int, date, otherwise string.
pub fn key_type<'a>(name: &str, values: impl Iterator<Item = &'a str>) -> ColumnType {
    let dated = DATED.iter().any(|(key, _, _)| *key == name) || name == "minute" || name == "week" || name == "quarter";
    let values: Vec<&str> = values.filter(|value| *value != NULL_VALUE).collect();
    let is_int = |value: &&str| {
        let padded = value.len() > 1 && value.starts_with('0');
        value.parse::<i32>().is_ok() && !value.starts_with('+') && (dated || !padded)
    };
    match values.as_slice() {
        [] => ColumnType::String,
        all if all.iter().all(is_int) => ColumnType::Int,
        all if all.iter().all(|value| is_date(value)) => ColumnType::Date,
        _ => ColumnType::String,
    }
}

fn level_name(folders: &[Vec<&str>], level: usize) -> Result<String, String> {
    let first = folders[0][level];
    if let Some((key, _)) = key_value(first) {
        let differs =
            folders.iter().map(|folder| folder[level]).find(|s| key_value(s).is_none_or(|(name, _)| name != key));
        return match differs {
            Some(odd) => Err(format!("expected folders `{key}=…` as `{first}`, found `{odd}`")),
            None => Ok(key),
        };
    }
    if let Some(odd) = folders.iter().map(|folder| folder[level]).find(|segment| key_value(segment).is_some()) {
        return Err(format!("expected folders without a key as `{first}`, found `{odd}`"));
    }
    let dated = (0..=level).all(|level| folders.iter().all(|folder| is_dated(folder[level], level)));
    Ok(if dated { DATED[level].0.to_owned() } else { format!("partition_{level}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(folders: &[&str]) -> String {
        let folders: Vec<String> = folders.iter().map(|f| (*f).to_owned()).collect();
        match layout(&folders) {
            Ok(layout) => layout.keys.iter().map(|k| format!("{}:{}", k.name, k.ty)).collect::<Vec<_>>().join(" "),
            Err(found) => format!("error: {found}"),
        }
    }

    #[test]
    fn hive_folders_give_typed_keys() {
        assert_eq!(keys(&["year=2013/Origin=JFK", "year=2014/Origin=EWR"]), "year:int origin:string");
        assert_eq!(keys(&["day=2013-01-02", "day=__HIVE_DEFAULT_PARTITION__"]), "day:date");
        assert_eq!(keys(&["zip=02139", "zip=10001"]), "zip:string");
        assert_eq!(keys(&["month=01", "month=12"]), "month:int");
    }

    #[test]
    fn two_folders_of_one_partition_are_refused() {
        let folders = ["p=a%20b", "p=a b"].map(str::to_owned);
        assert!(layout(&folders).unwrap_err().contains("`p=a b` and `p=a%20b`"));
    }

    #[test]
    fn values_are_decoded() {
        let layout = layout(&["at=2013-01-02%2003%3A00".to_owned()]).unwrap();
        assert_eq!(layout.folders[0].1, ["2013-01-02 03:00"]);
        for (folder, value) in [("k=100%", "100%"), ("k=%zz", "%zz"), ("k=S%E3o", "S%E3o"), ("k=", "")] {
            assert_eq!(super::layout(&[folder.to_owned()]).unwrap().folders[0].1, [value]);
        }
    }

    #[test]
    fn dated_and_other_plain_folders_have_names_too() {
        assert_eq!(keys(&["2013/01/02", "2013/12/31"]), "year:int month:int day:int");
        assert_eq!(keys(&["2013-01-02", "2013-01-03"]), "partition_0:date");
        assert_eq!(keys(&["eu/2013", "us/2013"]), "partition_0:string partition_1:int");
    }

    #[test]
    fn uneven_plain_folders_are_no_partitions_and_uneven_hive_folders_an_error() {
        assert_eq!(keys(&["", "a"]), "");
        assert!(keys(&["year=2013", "year=2013/month=1"]).starts_with("error"));
        assert!(keys(&["year=2013", "month=1"]).starts_with("error"));
        assert!(keys(&["year=2013", ""]).starts_with("error"));
    }
}
