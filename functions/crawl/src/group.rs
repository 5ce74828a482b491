//! Which files make a table together.

mod fit;

pub use fit::Group;
pub(crate) use fit::{UNTYPED, untyped as fit_untyped};

use std::collections::BTreeMap;

use format::folders::values_under;
use format::{Encoding, FileFault, Sample};
use shared::catalog::Table;
use shared::model::Column;
use shared::model::name::to_identifier;
use url::Url;

use crate::partitions::{Layout, is_partition_like, layout};
use crate::select::{Object, folder, relative_path};

/// What is told of files whose rows have no values.
const NO_COLUMN: &str = "expected a column at least, found rows without any";

/// A sound file.
#[derive(Debug, Clone)]
pub struct SoundFile {
    pub object: Object,
    pub sample: Sample,
}

/// A table of the catalog that lies in the location.
#[derive(Debug, Clone)]
pub struct Known {
    pub table: Table,
    /// Relative to the location: empty, a folder with a final slash, or a file.
    pub path: String,
}

impl Known {
    /// `None` for a table that lies elsewhere, is no file table, or whose location is no URL.
    pub fn of(base: &Url, table: &Table) -> Option<Self> {
        let mut url = Url::parse(&table.input.storage.location).ok()?;
        if table.is_iceberg() {
            return None;
        }
        if !url.path().ends_with('/') && base.path().trim_end_matches('/') == url.path() {
            url = base.clone();
        }
        let path = if url == *base { String::new() } else { relative_path(base, &url)? };
        Some(Self { table: table.clone(), path })
    }

    /// Whether the file would be this table's and not one's that lies deeper.
    pub(crate) fn is_nearest(&self, path: &str, all: &[Self]) -> bool {
        let longer = |other: &Self| other.path.len() > self.path.len() && other.holds(path);
        self.holds(path) && !all.iter().any(longer)
    }

    fn holds(&self, path: &str) -> bool {
        self.path.is_empty() || self.path == path || (path.starts_with(&self.path) && self.path.ends_with('/'))
    }
}

/// Files that make one table.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Names to try, in this order: a later one is taken when the ones before are another table's.
    pub names: Vec<String>,
    /// Relative to the location: empty, a folder with a final slash, or a file.
    pub path: String,
    pub group: Group,
    /// The partitions of these files.
    pub layout: Layout,
    /// Paths relative to the location.
    pub files: Vec<String>,
}

/// What the files make.
#[derive(Debug, Default)]
pub struct Grouping {
    pub proposals: Vec<Proposal>,
    pub misfits: Vec<(String, FileFault)>,
}

/// What a location says about its tables.
#[derive(Debug, Clone, Copy)]
pub struct Naming<'a> {
    pub location: &'a str,
    /// The one table that the whole location is, if it is declared to be.
    pub table: Option<&'a str>,
}

/// Parts the files into tables. A file below a table that exists belongs to that table or to none. Otherwise a location declared
/// as one table is one; each first-level folder is one, or, when its files disagree and all lie deeper, each folder below it;
/// folders that look like partitions make the whole location one; files beside folders, or that disagree, are one each.
pub fn group(files: Vec<SoundFile>, known: &[Known], naming: Naming<'_>) -> Grouping {
    let mut grouping = Grouping::default();
    let mut of_known: BTreeMap<usize, Vec<SoundFile>> = BTreeMap::new();
    let mut of_folder: BTreeMap<String, Vec<SoundFile>> = BTreeMap::new();
    for file in files {
        let holders = known.iter().enumerate().filter(|(_, known)| known.holds(&file.object.path));
        match holders.max_by_key(|(_, known)| known.path.len()) {
            Some((index, _)) => of_known.entry(index).or_default().push(file),
            None => of_folder.entry(first_folder(&file.object.path, naming)).or_default().push(file),
        }
    }
    for (index, files) in of_known {
        grouping.extend_known(&known[index], files);
    }
    let folders = of_folder.keys().any(|folder| !folder.is_empty()) || known.iter().any(|known| !known.path.is_empty());
    for (folder, files) in of_folder {
        let root = folder.is_empty();
        match naming.table {
            Some(name) => grouping.folder(name, "", files, false, naming.location),
            None if root && folders => grouping.each_file(files, naming.location),
            None if root && !make_one(&files) && files.iter().all(|file| !file.object.path.contains('/')) => {
                grouping.each_file(files, naming.location);
            }
            None if root => grouping.folder(naming.location, "", files, false, naming.location),
            None => grouping.folder(folder.trim_end_matches('/'), &folder, files, true, naming.location),
        }
    }
    grouping
}

/// The first-level folder with a final slash; empty for loose files and for folders that are partitions of the whole location.
fn first_folder(path: &str, naming: Naming<'_>) -> String {
    match path.split_once('/') {
        Some((first, _)) if naming.table.is_none() && !is_partition_like(first) => format!("{first}/"),
        _ => String::new(),
    }
}

fn make_one(files: &[SoundFile]) -> bool {
    clusters(files).len() == 1
}

/// Files that fit together, in groups; the largest first.
fn clusters(files: &[SoundFile]) -> Vec<(Group, Vec<usize>)> {
    let names = fit::header_names(files.iter().map(|file| &file.sample));
    let mut clusters: Vec<(Group, Vec<usize>)> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let group = Group::of_sample(&file.object.path, fit::with_fitting_header(file.sample.clone(), names.as_ref()));
        let mut joined = false;
        for (known, members) in &mut clusters {
            if let Ok(merged) = known.clone().join(group.clone()) {
                *known = merged;
                members.push(index);
                joined = true;
                break;
            }
        }
        if !joined {
            clusters.push((group, vec![index]));
        }
    }
    clusters.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    clusters
}

impl Grouping {
    fn misfit(&mut self, path: &str, found: String) {
        self.misfits.push((path.to_owned(), FileFault::Misfit { found }));
    }

    /// Files of a table that exists: each fits it or is left out.
    fn extend_known(&mut self, known: &Known, files: Vec<SoundFile>) {
        let name = &known.table.input.name;
        let table = match known.table.check().and_then(|()| Group::of_table(&known.table.input)) {
            Ok(table) => table,
            Err(error) => {
                for file in files {
                    self.misfit(&file.object.path, format!("the table `{name}` can't be extended: {error}"));
                }
                return;
            }
        };
        let mut group = table;
        let mut taken = Vec::new();
        let mut folders = Vec::new();
        for file in files {
            match fits_known(known, &group, &file) {
                Ok((merged, values)) => {
                    group = merged;
                    folders.extend(values);
                    taken.push(file.object.path);
                }
                Err(found) => self.misfit(&file.object.path, format!("does not fit the table `{name}`: {found}")),
            }
        }
        if taken.is_empty() {
            return;
        }
        folders.sort();
        folders.dedup();
        let layout = Layout { keys: known.table.input.partition_keys.clone(), folders };
        let path = known.path.clone();
        self.proposals.push(Proposal { names: vec![name.table.clone()], path, group, layout, files: taken });
    }

    /// The files of one folder: one table, or, with `descend`, one for each folder below, or none.
    fn folder(&mut self, name: &str, path: &str, files: Vec<SoundFile>, descend: bool, location: &str) {
        let mut clusters = clusters(&files);
        if clusters.len() > 1 {
            let below = below(path, &files);
            match below {
                Some(below) if descend => {
                    for (folder, files) in below {
                        let name = folder.trim_end_matches('/').rsplit('/').next().unwrap_or(name).to_owned();
                        self.folder(&name, &folder, files, true, location);
                    }
                }
                _ => self.mixed(path, &files, &clusters),
            }
            return;
        }
        let Some((group, _)) = clusters.pop() else { return };
        if group.columns.is_empty() {
            for file in files {
                self.misfit(&file.object.path, NO_COLUMN.to_owned());
            }
            return;
        }
        let folders: Vec<String> =
            files.iter().map(|file| folder(&file.object.path[path.len()..]).to_owned()).collect();
        match layout(&folders) {
            Ok(layout) => {
                let group = group.without_keys(&layout.keys);
                let files = files.into_iter().map(|file| file.object.path).collect();
                let names = names(name, &group, path.trim_end_matches('/'), location);
                self.proposals.push(Proposal { names, path: path.to_owned(), group, layout, files });
            }
            Err(found) => {
                for file in files {
                    self.misfit(&file.object.path, format!("no table can be made of its folder: {found}"));
                }
            }
        }
    }

    /// Each file a table of its own.
    fn each_file(&mut self, files: Vec<SoundFile>, location: &str) {
        for file in files {
            let path = file.object.path;
            let stem = path.rsplit('/').next().unwrap_or(&path).split('.').next().unwrap_or_default();
            let group = Group::of_sample(&path, file.sample);
            if group.columns.is_empty() {
                self.misfit(&path, NO_COLUMN.to_owned());
                continue;
            }
            let names = names(stem, &group, &path, location);
            let layout = Layout::default();
            self.proposals.push(Proposal { names, path: path.clone(), group, layout, files: vec![path] });
        }
    }

    /// No table can be made: every file is reported, the odd ones with what sets them apart.
    fn mixed(&mut self, path: &str, files: &[SoundFile], clusters: &[(Group, Vec<usize>)]) {
        let place = if path.is_empty() { "the location".to_owned() } else { format!("the folder `{path}`") };
        let odd: Vec<&str> =
            clusters.iter().skip(1).flat_map(|(_, members)| members).map(|i| files[*i].object.path.as_str()).collect();
        for (rank, (group, members)) in clusters.iter().enumerate() {
            for index in members {
                let file = &files[*index].object.path;
                let found = if rank == 0 {
                    let named = odd.iter().take(10).map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
                    format!("{place} makes no table because of {} that do not fit: {named}", odd.len())
                } else {
                    let why = clusters[0].0.clone().join(group.clone()).err().unwrap_or_default();
                    format!("does not fit the other files of {place}: {why}")
                };
                self.misfit(file, found);
            }
        }
    }
}

/// Names to try: the plain one, with the format's name, with the whole path, with the location's name before each.
fn names(plain: &str, group: &Group, path: &str, location: &str) -> Vec<String> {
    let plain = to_identifier(plain);
    let with_format = format!("{plain}_{}", group.format.classification());
    let own = [plain, with_format, to_identifier(path)];
    let located = own.clone().map(|name| to_identifier(&format!("{location}_{name}")));
    let mut names: Vec<String> = Vec::new();
    for name in own.into_iter().chain(located) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The files by the folder below `path`; `None` when one lies in `path` itself or a folder there is a partition.
fn below(path: &str, files: &[SoundFile]) -> Option<BTreeMap<String, Vec<SoundFile>>> {
    let mut below: BTreeMap<String, Vec<SoundFile>> = BTreeMap::new();
    for file in files {
        let (first, _) = file.object.path[path.len()..].split_once('/')?;
        if is_partition_like(first) {
            return None;
        }
        below.entry(format!("{path}{first}/")).or_default().push(file.clone());
    }
    Some(below)
}

/// The table with the file in it, and the partition that the file lies in, if the table has any.
type Fit = (Group, Option<(String, Vec<String>)>);

fn fits_known(known: &Known, table: &Group, file: &SoundFile) -> Result<Fit, String> {
    let keys: &[Column] = &known.table.input.partition_keys;
    let relative = file.object.path.get(known.path.len()..).unwrap_or_default();
    let place = folder(relative).to_owned();
    let values = values_of(keys, &place)?;
    let sample = fit::with_fitting_header(file.sample.clone(), table.header_names().as_ref());
    let group = Group::of_sample(&file.object.path, sample).without_keys(keys);
    Ok((table.clone().join(group)?, values))
}

/// The values of a folder of a table with such keys, if it has keys.
fn values_of(keys: &[Column], place: &str) -> Result<Option<(String, Vec<String>)>, String> {
    if keys.is_empty() {
        if place.split('/').any(|segment| segment.contains('=')) {
            return Err(format!("expected no partitions, found the folder `{place}`"));
        }
        return Ok(None);
    }
    Ok(Some((place.to_owned(), values_under(keys, place)?)))
}

/// Whether columns of such files are found by position.
pub(crate) fn is_positional(encoding: &Encoding) -> bool {
    matches!(encoding, Encoding::Csv(_))
}
