//! Which files the crawls of a location left out of each of its tables.

use std::collections::{BTreeMap, BTreeSet};

use format::FileFault;
use format::listing::RefusedFile;

use crate::group::Known;
use crate::marks::{Delta, Mark, Marks};

/// For each table the files in its folder that are no part of it, by path relative to the location. A file that holds nothing is
/// not missed.
pub fn of_tables(tables: &[Known], marks: &Marks, delta: &Delta) -> Vec<BTreeMap<String, RefusedFile>> {
    let gone: BTreeSet<&String> = delta.gone.iter().collect();
    let mut refused = vec![BTreeMap::new(); tables.len()];
    let mut now: BTreeMap<&String, &Mark> = marks.objects.iter().collect();
    now.retain(|path, _| !gone.contains(path));
    now.extend(&delta.seen);
    for (path, mark) in now {
        let Some(fault) = mark.fault.as_ref().filter(|fault| !matches!(fault, FileFault::Empty | FileFault::Vanished))
        else {
            continue;
        };
        let path = if path == "/" { "" } else { path.as_str() };
        for (at, table) in tables.iter().enumerate() {
            let file = RefusedFile { mark: mark.mark.clone(), why: fault.to_string() };
            // A table with a log may lie in a table, or a table in it.
            let logged = path.is_empty() || path.ends_with('/');
            if table.is_nearest(path, tables)
                || (logged && (table.path.starts_with(path) || path.starts_with(&table.path)))
            {
                refused[at].insert(path.to_owned(), file);
            }
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use shared::catalog::{StorageDescriptor, Table, TableInput};
    use shared::model::TableName;

    use super::*;

    fn known(path: &str) -> Known {
        let input = TableInput {
            name: TableName::new("db", "t").unwrap(),
            description: None,
            table_type: "EXTERNAL_TABLE".into(),
            parameters: BTreeMap::new(),
            storage: StorageDescriptor::default(),
            partition_keys: Vec::new(),
        };
        let table = Table { input, version: String::new(), created_ms: 0, updated_ms: 0, fault: None };
        Known { table, path: path.into() }
    }

    #[test]
    fn a_file_is_missed_in_the_nearest_table_and_a_log_in_every_table_around_it() {
        let faulty = |fault: FileFault| Mark { mark: "m".into(), table: None, fault: Some(fault) };
        let odd = || faulty(FileFault::Misfit { found: "odd".into() });
        let marks = Marks {
            objects: BTreeMap::from([
                ("a/x.csv".into(), odd()),
                ("a/b/y.csv".into(), odd()),
                ("a/empty.csv".into(), faulty(FileFault::Empty)),
                ("c/gone.csv".into(), odd()),
                ("a/delta/".into(), faulty(FileFault::Unsupported { format: "a Delta Lake table".into() })),
            ]),
        };
        let delta = Delta { gone: vec!["c/gone.csv".into()], seen: BTreeMap::from([("c/new.csv".into(), odd())]) };
        let paths = |refused: &BTreeMap<String, RefusedFile>| refused.keys().cloned().collect::<Vec<_>>();
        let refused = of_tables(&[known("a/"), known("a/b/"), known("c/")], &marks, &delta);
        assert_eq!(paths(&refused[0]), ["a/delta/", "a/x.csv"]);
        assert_eq!(paths(&refused[1]), ["a/b/y.csv"]);
        assert_eq!(paths(&refused[2]), ["c/new.csv"]);
        let top = Marks { objects: BTreeMap::from([("/".into(), odd())]) };
        assert_eq!(paths(&of_tables(&[known("a/")], &top, &Delta::default())[0]), [""], "the location itself");
    }
}
