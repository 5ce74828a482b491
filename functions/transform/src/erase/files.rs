//! Erasure in file tables: files with rows of the subject are written anew without them, or removed when nothing else is in them.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use format::FileFormat;
use format::listing::ListedFile;
use format::remove::without_rows;
use object_store::{ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use serde::{Deserialize, Serialize};
use shared::catalog::Table as Entry;
use shared::digest::sha256_hex;
use shared::erasure::{Kind, Subject};
use shared::state::{change_json, get_json};
use shared::{Error, ErrorKind, Result};
use url::Url;

use super::{Report, Scope};
use crate::Transform;
use crate::bookmark::Replaced;
use crate::listed;

/// The state document with the files that are being written anew.
const INTENTS: &str = "erasures/files";
/// Bytes of a file that is written anew, at most: it is held in memory.
const MOST_BYTES: u64 = 1 << 30;

/// By URL.
type Intents = BTreeMap<String, Intent>;

/// A file that is about to be written anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Intent {
    /// The etag of what it replaces.
    before: Option<String>,
    /// SHA-256 of what it will hold.
    digest: String,
}

/// A file with rows of the subject.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileReport {
    table: String,
    url: String,
    /// Rows of the subject.
    pub(super) rows: u64,
    /// Whether nothing else is in it: then the file goes.
    whole: bool,
}

impl Transform {
    pub(super) async fn erase_files(&self, scope: &Scope<'_>, entry: &Entry, report: &mut Report) -> Result<()> {
        let name = &entry.input.name;
        let keys = &entry.input.partition_keys;
        let columns: Vec<(String, Kind)> =
            entry.input.storage.columns.iter().map(|column| (column.name.clone(), Kind::of(&column.ty))).collect();
        let is = |name: &str, column: &str| name.eq_ignore_ascii_case(column);
        let has = |column: &str| {
            columns.iter().any(|(own, _)| is(own, column)) || keys.iter().any(|key| is(&key.name, column))
        };
        if entry.input.table_type.eq_ignore_ascii_case("VIRTUAL_VIEW") || !scope.subject.columns().all(has) {
            return Ok(());
        }
        if let Some(key) = keys.iter().find(|key| scope.subject.columns().any(|column| is(&key.name, column))) {
            report.not_reached.push(format!(
                "table `{name}`: its files lie in folders by `{}`: remove the folders of the subject yourself",
                key.name
            ));
            return Ok(());
        }
        let format = match entry.check().and_then(|()| FileFormat::from_table(&entry.input)) {
            Ok(format) => format,
            Err(error) => {
                report.not_reached.push(format!("table `{name}`: {error}"));
                return Ok(());
            }
        };
        report.matched = true;
        let listed = match listed::files(&self.context.ports, entry).await {
            Err(error) if error.kind() == ErrorKind::Invalid => {
                report.remaining.push(format!("table `{name}`: {error}"));
                return Ok(());
            }
            listed => listed?,
        };
        for listed in listed {
            let url = &listed.url;
            match self.erase_file(scope, &format, &columns, &listed).await {
                Ok(Some((rows, whole))) => {
                    report.files.push(FileReport { table: name.to_string(), url: url.to_string(), rows, whole });
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Conflict => report.remaining.push(error.to_string()),
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Limit) => {
                    report.not_reached.push(format!("file `{url}`: {error}: look into it, and write it anew yourself"));
                }
                Err(error) => return Err(error.context(format!("erasing rows of `{url}`"))),
            }
        }
        if !scope.dry_run && report.files.is_empty() {
            self.check_files(scope, entry, report).await?;
        }
        Ok(())
    }

    /// Looks by a query for rows that the files' text did not show as the subject's: `0042` is the number 42.
    async fn check_files(&self, scope: &Scope<'_>, entry: &Entry, report: &mut Report) -> Result<()> {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let terms = scope.subject.terms().iter().map(|term| {
            let values: Vec<_> = term.values.iter().map(|value| quoted(value)).collect();
            format!("CAST(\"{}\" AS VARCHAR) IN ({})", term.column.replace('"', "\"\""), values.join(", "))
        });
        let name = &entry.input.name;
        let condition = terms.collect::<Vec<_>>().join(" AND ");
        let sql = format!("SELECT count(*) FROM \"{}\".\"{}\" WHERE {condition}", name.database, name.table);
        let counted = async {
            let answer = self.context.engine.query(&sql, &self.context.options(BTreeMap::new())).await?;
            let (batches, _) = answer.collect().await?;
            let count = batches.first().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0));
            Ok::<_, Error>(count.unwrap_or(0))
        };
        match counted.await {
            Ok(0) => {}
            Ok(rows) => report.remaining.push(format!(
                "{rows} rows of `{name}` are left whose files show their values otherwise: write those files anew yourself"
            )),
            // A file that can't be read is told of already.
            Err(error) => report.not_reached.push(format!("table `{name}` can't be read whole: {error}")),
        }
        Ok(())
    }

    /// How many rows of the subject the file had, and whether it had no others; none when it has none of the subject.
    ///
    /// # Errors
    /// `Conflict` when it was changed meanwhile.
    async fn erase_file(
        &self,
        scope: &Scope<'_>,
        format: &FileFormat,
        columns: &[(String, Kind)],
        listed: &ListedFile,
    ) -> Result<Option<(u64, bool)>> {
        let url = &listed.url;
        if listed.meta.size > MOST_BYTES {
            let found = listed.meta.size;
            return Err(Error::limit(format!("expected a file of at most {MOST_BYTES} bytes, found {found}")));
        }
        let (store, path) = self.context.ports.storage.resolve(url)?;
        let read = match store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            read => read.map_err(Error::from)?,
        };
        let before = read.meta.e_tag.clone();
        let file = read.bytes().await.map_err(Error::from)?;
        let (format, subject): (FileFormat, Subject) = (format.clone(), scope.subject.clone());
        let columns = columns.to_vec();
        let name = url.path().to_owned();
        let left = tokio::task::spawn_blocking(move || {
            let columns: Vec<_> = columns.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
            without_rows(&format, &columns, &name, file, &subject)
        });
        let left = left.await.map_err(|e| Error::bug("reading a file broke off").with_source(e))??;
        let Some(bytes) = left.bytes else { return Ok(None) };
        let whole = left.rows == 0;
        if scope.dry_run {
            return Ok(Some((left.removed, whole)));
        }
        if whole {
            self.check_same(url, before.as_deref()).await?;
            self.context.ports.storage.delete(url).await?;
        } else {
            self.replace(url, before, bytes).await?;
        }
        Ok(Some((left.removed, whole)))
    }

    /// Writes a file anew, unless somebody else has. What is about to be written is noted first: a later pass finishes the notes
    /// of the jobs that have read the file, should this one stop.
    async fn replace(&self, url: &Url, before: Option<String>, bytes: Vec<u8>) -> Result<()> {
        let ports = &self.context.ports;
        let digest = sha256_hex(&bytes, 32);
        let intent = Intent { before: before.clone(), digest };
        let note = |intents: &mut Intents| intents.insert(url.to_string(), intent.clone()).as_ref() != Some(&intent);
        change_json(ports.state.as_ref(), &*ports.random, INTENTS, note).await.map(|_: Intents| ())?;
        let (store, path) = ports.storage.resolve(url)?;
        let update = PutMode::Update(UpdateVersion { e_tag: before.clone(), version: None });
        let options = PutOptions { mode: update, ..PutOptions::default() };
        let put = match store.put_opts(&path, bytes.clone().into(), options).await {
            // Files of a folder can't be compared and written at once.
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                self.check_same(url, before.as_deref()).await?;
                store.put(&path, bytes.into()).await
            }
            put => put,
        };
        let put = put.map_err(|e| match e {
            object_store::Error::Precondition { .. } => changed(url),
            other => Error::from(other),
        })?;
        self.pass_over(url, &Replaced { url: url.to_string(), before, now: put.e_tag }).await
    }

    async fn check_same(&self, url: &Url, before: Option<&str>) -> Result<()> {
        let (store, path) = self.context.ports.storage.resolve(url)?;
        let now = store.head(&path).await.map_err(Error::from)?;
        if now.e_tag.as_deref() == before { Ok(()) } else { Err(changed(url)) }
    }

    /// Finishes what an earlier pass began and did not come to note.
    pub(super) async fn settle_files(&self) -> Result<()> {
        let ports = &self.context.ports;
        let Some((intents, _)) = get_json::<Intents>(ports.state.as_ref(), INTENTS).await? else { return Ok(()) };
        for (url, intent) in intents {
            let at = listed::parse_url(&url)?;
            let (store, path) = ports.storage.resolve(&at)?;
            let now = match store.get(&path).await {
                Err(object_store::Error::NotFound { .. }) => None,
                read => {
                    let read = read.map_err(Error::from)?;
                    let e_tag = read.meta.e_tag.clone();
                    let bytes = read.bytes().await.map_err(Error::from)?;
                    (sha256_hex(&bytes, 32) == intent.digest).then_some(e_tag)
                }
            };
            match now {
                Some(now) => self.pass_over(&at, &Replaced { url, before: intent.before, now }).await?,
                None => self.forget_intent(&at).await?,
            }
        }
        Ok(())
    }

    async fn forget_intent(&self, url: &Url) -> Result<()> {
        let ports = &self.context.ports;
        let forget = |intents: &mut Intents| intents.remove(url.as_str()).is_some();
        change_json(ports.state.as_ref(), &*ports.random, INTENTS, forget).await.map(|_: Intents| ())
    }

    /// Jobs that have read a file need not read it again because rows left it.
    async fn pass_over(&self, url: &Url, replaced: &Replaced) -> Result<()> {
        let ports = &self.context.ports;
        for (workflow, declared) in &self.context.project.file().workflows {
            for job in declared.jobs.keys() {
                replaced.note(ports, workflow, job).await?;
            }
        }
        self.forget_intent(url).await
    }
}

fn changed(url: &Url) -> Error {
    Error::conflict(format!("expected `{url}` as it was read, found it changed meanwhile"))
}
