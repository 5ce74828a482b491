//! One crawl of one location, from listing to report.

use std::collections::{BTreeMap, BTreeSet};

use format::folders::{below_folder, values_under};
use format::{FileFault, FileFilter};
use futures::StreamExt;
use shared::model::TableName;
use shared::ports::Ports;
use shared::project::{Location, Project};
use shared::storage::Storage;
use shared::telemetry::metrics::{self, Metric};
use shared::{ErrorKind, Result};
use url::Url;

use crate::apply::{self, Outcome};
use crate::group::{self, Grouping, Known, Naming, SoundFile};
use crate::marks::{self, Delta, Mark, Marks};
use crate::plan::Terms;
use crate::read::{CONCURRENCY, read_all};
use crate::refused;
use crate::report::{self, Change, Report, SkippedFile, TableReport};
use crate::select::{Object, Selection, folder, select, unit};

/// What a crawl looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Lists the location.
    Everything,
    /// Only these objects; `false`: it was removed.
    Objects(BTreeMap<Url, bool>),
}

impl Scope {
    /// No object.
    pub fn nothing() -> Self {
        Self::Objects(BTreeMap::new())
    }

    /// Adds an object; of several events for one object the last holds.
    pub fn add(&mut self, url: Url, present: bool) {
        if let Self::Objects(objects) = self {
            objects.insert(url, present);
        }
    }

    /// Adds what another scope of the location looks at.
    pub fn join(&mut self, other: Self) {
        match other {
            Self::Everything => *self = Self::Everything,
            Self::Objects(objects) => objects.into_iter().for_each(|(url, present)| self.add(url, present)),
        }
    }
}

/// A crawl under way.
struct Crawl<'a> {
    ports: &'a Ports,
    name: &'a str,
    location: &'a Location,
    database: String,
    base: Url,
    filter: FileFilter,
    marks: Marks,
    report: Report,
    delta: Delta,
}

/// Crawls the location and keeps the report as its last one.
///
/// # Errors
/// `NotFound` for an unknown location; `Denied` when it lies outside the warehouse; what storage, state and catalog answer.
pub async fn crawl(project: &Project, ports: &Ports, name: &str, scope: Scope) -> Result<Report> {
    let started_ms = ports.clock.now_ms();
    let location = project.location(name)?;
    let mut crawl = Crawl {
        ports,
        name,
        location,
        database: location.database.clone().unwrap_or_else(|| project.database().to_owned()),
        base: project.location_url(name, &ports.keys)?,
        filter: FileFilter::new(&location.exclude)?,
        marks: marks::load(ports.state.as_ref(), name).await?,
        report: Report { location: name.to_owned(), started_ms, ..Report::default() },
        delta: Delta::default(),
    };
    let everything = scope == Scope::Everything;
    let (mut objects, removed) = objects(&ports.storage, &crawl.base, scope).await?;
    if !everything {
        objects.extend(crawl.misfits_beside_changes(&objects, &removed).await?);
    }
    crawl.report.files.listed = objects.len();
    let selection = select(objects, &removed, everything, &crawl.marks, &crawl.filter, location.sample);
    crawl.work(selection).await?;
    marks::add(ports, name, &crawl.delta).await?;
    let mut report = crawl.report;
    report.skipped.sort_by(|a, b| a.file.cmp(&b.file));
    report.files.skipped = report.skipped.len();
    report.elapsed_ms = ports.clock.now_ms() - started_ms;
    report::save(ports.state.as_ref(), &report).await?;
    tracing::info!(location = name, tables = report.tables.len(), read = report.files.read, "crawled");
    let changed = report.tables.iter().filter(|table| table.change != Change::Unchanged).count();
    metrics::emit(
        &[("location", name)],
        &[Metric::count("ObjectsSeen", report.files.listed as u64), Metric::count("TablesChanged", changed as u64)],
    );
    Ok(report)
}

/// The objects to look at, and the paths of those that are gone.
async fn objects(storage: &Storage, base: &Url, scope: Scope) -> Result<(Vec<Object>, Vec<String>)> {
    let named = match scope {
        Scope::Everything => {
            let infos = storage.list(base).await?;
            return Ok((infos.iter().filter_map(|info| Object::of(base, info)).collect(), Vec::new()));
        }
        Scope::Objects(named) => named,
    };
    // The event may be old: what is there now decides.
    heads(storage, base, named.into_keys().collect()).await
}

/// The objects at these URLs, and the paths of those where none is.
async fn heads(storage: &Storage, base: &Url, urls: Vec<Url>) -> Result<(Vec<Object>, Vec<String>)> {
    let (mut objects, mut removed) = (Vec::new(), Vec::new());
    let heads = urls.into_iter().map(|url| async move { (storage.head(&url).await, url) });
    let mut heads = futures::stream::iter(heads).buffered(CONCURRENCY);
    while let Some((head, url)) = heads.next().await {
        match head {
            Ok(info) => objects.extend(Object::of(base, &info)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                removed.extend(crate::select::relative_path(base, &url));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((objects, removed))
}

impl Crawl<'_> {
    /// The files that did not fit what was beside them, where a file that was seen before has changed or is gone.
    async fn misfits_beside_changes(&self, objects: &[Object], removed: &[String]) -> Result<Vec<Object>> {
        let changed = objects.iter().filter(|object| self.marks.is_new(object)).map(|object| &object.path);
        let seen_before = changed.chain(removed).filter(|path| self.marks.objects.contains_key(*path));
        let units: BTreeSet<&str> = seen_before.map(|path| unit(path)).collect();
        let looked_at: BTreeSet<&String> = objects.iter().map(|object| &object.path).chain(removed).collect();
        let misfits = self.marks.objects.iter().filter(|(path, mark)| {
            matches!(mark.fault, Some(FileFault::Misfit { .. }))
                && units.contains(unit(path))
                && !looked_at.contains(path)
        });
        let urls = misfits.map(|(path, _)| below_folder(&self.base, path)).collect();
        Ok(heads(&self.ports.storage, &self.base, urls).await?.0)
    }

    async fn work(&mut self, mut selection: Selection) -> Result<()> {
        let counts = &mut self.report.files;
        counts.assumed = selection.assumed.len();
        counts.unchanged = selection.unchanged;
        counts.ignored = selection.ignored;
        counts.gone = selection.gone.len();
        for (file, fault) in std::mem::take(&mut selection.known_faults) {
            self.report.skipped.push(SkippedFile::new(file, fault));
        }
        for (folder, kind) in &selection.logged {
            self.report.skipped.push(SkippedFile::new(folder, FileFault::Unsupported { format: kind.clone() }));
        }
        if selection.is_empty(&self.marks) {
            return Ok(());
        }
        for (folder, kind) in selection.logged {
            let fault = Some(FileFault::Unsupported { format: kind });
            self.delta.seen.insert(folder, Mark { mark: String::new(), table: None, fault });
        }
        let known = self.known_tables().await?;
        let marks: BTreeMap<String, String> =
            selection.read.iter().map(|object| (object.path.clone(), object.mark.clone())).collect();
        let files = self.sound_files(selection.read).await?;
        let unread = marks.len() - self.report.files.read;
        self.report.unfinished = unread > 0;
        if unread > 0 {
            tracing::warn!(location = self.name, unread, "time was up before all new files were read");
        }
        let naming = Naming { location: self.name, table: self.location.table.as_deref() };
        let Grouping { proposals, misfits } = group::group(files, &known, naming);
        for (path, fault) in misfits {
            self.skip(path, &marks, fault);
        }
        let terms = self.terms();
        for proposal in proposals {
            match apply::apply(self.ports, &self.database, &self.base, &proposal, &terms).await? {
                Outcome::Done(name, report) => {
                    self.report.tables.push(report);
                    for path in proposal.files {
                        self.belongs(path, &marks, &name);
                    }
                }
                Outcome::Refused(found) => {
                    for path in proposal.files {
                        self.skip(path, &marks, FileFault::Misfit { found: found.clone() });
                    }
                }
            }
        }
        // What it is like may be among the unread ones.
        if !self.report.unfinished {
            self.assume(selection.assumed);
        }
        self.delta.gone = selection.gone;
        self.retire(&known).await?;
        self.remember().await
    }

    /// Writes what was left out into the definitions of the tables whose it would be, so that no query answers without it.
    async fn remember(&self) -> Result<()> {
        let known = self.known_tables().await?;
        let refused = refused::of_tables(&known, &self.marks, &self.delta);
        for (known, refused) in known.iter().zip(refused) {
            let kept = apply::remember(self.ports, known, &self.location.exclude, &refused).await?;
            if kept {
                tracing::info!(table = %known.table.input.name, files = refused.len(), "the table's left out files changed");
            }
        }
        Ok(())
    }

    /// The file tables that lie in the location.
    async fn known_tables(&self) -> Result<Vec<Known>> {
        match self.ports.catalog.list_tables(&self.database).await {
            Ok(tables) => Ok(tables.iter().filter_map(|table| Known::of(&self.base, table)).collect()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Reads the objects; what is wrong with one is reported.
    async fn sound_files(&mut self, objects: Vec<Object>) -> Result<Vec<SoundFile>> {
        let mut sound = Vec::new();
        let files = read_all(self.ports, objects).await?;
        self.report.files.read = files.len();
        for file in files {
            match file.sample {
                Ok(sample) => {
                    let path = &file.object.path;
                    self.report.notes.extend(sample.notes.iter().map(|note| format!("`{path}`: {note}")));
                    sound.push(SoundFile { object: file.object, sample });
                }
                Err(fault) => {
                    let marks = BTreeMap::from([(file.object.path.clone(), file.object.mark)]);
                    self.skip(file.object.path, &marks, fault);
                }
            }
        }
        Ok(sound)
    }

    fn terms(&self) -> Terms {
        Terms {
            location: self.name.to_owned(),
            description: self.location.description.clone(),
            exclude: self.location.exclude.clone(),
            policy: self.location.on_schema_change,
        }
    }

    fn skip(&mut self, path: String, marks: &BTreeMap<String, String>, fault: FileFault) {
        // A file that vanished is not marked: if it comes back, it is new.
        if let (Some(mark), false) = (marks.get(&path), fault == FileFault::Vanished) {
            let mark = Mark { mark: mark.clone(), table: None, fault: Some(fault.clone()) };
            self.delta.seen.insert(path.clone(), mark);
        }
        self.report.skipped.push(SkippedFile::new(path, fault));
    }

    fn belongs(&mut self, path: String, marks: &BTreeMap<String, String>, name: &TableName) {
        if let Some(mark) = marks.get(&path) {
            let mark = Mark { mark: mark.clone(), table: Some(name.table.clone()), fault: None };
            self.delta.seen.insert(path, mark);
        }
    }

    /// Unread files belong where the read ones of their folder do. Where none was sound, they are left for the next crawl.
    fn assume(&mut self, objects: Vec<Object>) {
        let tables: BTreeMap<String, String> = self
            .marks
            .objects
            .iter()
            .chain(&self.delta.seen)
            .filter_map(|(path, mark)| Some((folder(path).to_owned(), mark.table.clone()?)))
            .collect();
        for object in objects {
            if let Some(table) = tables.get(folder(&object.path)) {
                let mark = Mark { mark: object.mark, table: Some(table.clone()), fault: None };
                self.delta.seen.insert(object.path, mark);
            }
        }
    }

    /// Treats tables and partitions that lost their last file as the location's policy says.
    async fn retire(&mut self, known: &[Known]) -> Result<()> {
        let gone: BTreeSet<&str> = self.delta.gone.iter().map(String::as_str).collect();
        let affected: BTreeSet<String> =
            gone.iter().filter_map(|path| self.marks.objects.get(*path)?.table.clone()).collect();
        for table in affected {
            let Some(known) = known.iter().find(|known| known.table.input.name.table == table) else { continue };
            let seen = self.delta.seen.iter().filter(|(_, mark)| mark.table.as_deref() == Some(&table));
            let left: BTreeSet<&str> = self
                .marks
                .of_table(&table)
                .filter(|path| !gone.contains(path))
                .chain(seen.map(|(path, _)| path.as_str()))
                .collect();
            let report = if left.is_empty() {
                self.retire_table(known).await?
            } else {
                self.retire_partitions(known, &left).await?
            };
            self.report.tables.extend(report);
        }
        Ok(())
    }

    async fn retire_table(&self, known: &Known) -> Result<Option<TableReport>> {
        if self.holds_files(&known.path).await? {
            return Ok(None);
        }
        let name = &known.table.input.name;
        let now_ms = self.ports.clock.now_ms();
        let change = apply::retire_table(self.ports, name, self.location.on_delete, now_ms).await?;
        Ok(Some(self.retired(known, change, 0)))
    }

    async fn retire_partitions(&self, known: &Known, left: &BTreeSet<&str>) -> Result<Option<TableReport>> {
        let keys = &known.table.input.partition_keys;
        if keys.is_empty() {
            return Ok(None);
        }
        let gone: BTreeSet<&str> =
            self.delta.gone.iter().filter(|path| path.starts_with(&known.path)).map(|path| folder(path)).collect();
        let held: BTreeSet<&str> = left.iter().map(|path| folder(path)).collect();
        let mut values = Vec::new();
        for place in gone.difference(&held) {
            let relative = place.get(known.path.len()..).unwrap_or_default();
            if let Ok(found) = values_under(keys, relative)
                && !self.holds_files(&format!("{place}/")).await?
            {
                values.push(found);
            }
        }
        if values.is_empty() {
            return Ok(None);
        }
        let name = &known.table.input.name;
        let now_ms = self.ports.clock.now_ms();
        let policy = self.location.on_delete;
        let gone = apply::retire_partitions(self.ports.catalog.as_ref(), name, &values, policy, now_ms).await?;
        Ok(Some(self.retired(known, Change::Unchanged, gone)))
    }

    /// Whether files are there now: another crawl may have seen them come.
    async fn holds_files(&self, path: &str) -> Result<bool> {
        if !path.is_empty() && !path.ends_with('/') {
            return self.ports.storage.exists(&below_folder(&self.base, path)).await;
        }
        let infos = self.ports.storage.list(&below_folder(&self.base, path)).await?;
        let files = infos.iter().filter_map(|info| Object::of(&self.base, info));
        Ok(files.into_iter().any(|object| object.size > 0 && self.filter.includes(&object.path)))
    }

    fn retired(&self, known: &Known, change: Change, partitions_gone: usize) -> TableReport {
        TableReport {
            table: known.table.input.name.to_string(),
            change,
            format: known.table.input.parameters.get("classification").cloned().unwrap_or_default(),
            files: 0,
            partitions_added: 0,
            partitions_gone,
            details: Vec::new(),
        }
    }
}
