//! Erasure in file tables: files with rows of the subject are written anew without them, or removed when nothing else is in them.

use format::FileFormat;
use format::listing::ListedFile;
use format::remove::without_rows;
use object_store::ObjectStoreExt;
use serde::Serialize;
use shared::catalog::Table as Entry;
use shared::erasure::Subject;
use shared::{Error, ErrorKind, Result};
use url::Url;

use super::{Report, Scope};
use crate::Transform;
use crate::bookmark::Replaced;
use crate::listed;

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
        let columns: Vec<&str> = entry.input.storage.columns.iter().map(|column| column.name.as_str()).collect();
        let has = |column: &str| columns.contains(&column) || keys.iter().any(|key| key.name == column);
        if entry.input.table_type.eq_ignore_ascii_case("VIRTUAL_VIEW") || !scope.subject.columns().all(has) {
            return Ok(());
        }
        if let Some(key) = keys.iter().find(|key| scope.subject.columns().any(|column| column == key.name)) {
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
        for ListedFile { url, meta } in listed::files(&self.context.ports, entry).await? {
            match self.erase_file(scope, &format, &columns, &url, meta.e_tag).await {
                Ok(Some((rows, whole))) => {
                    report.files.push(FileReport { table: name.to_string(), url: url.to_string(), rows, whole });
                }
                Ok(None) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Limit) => {
                    report.not_reached.push(format!("file `{url}`: {error}: look into it, and write it anew yourself"));
                }
                Err(error) => return Err(error.context(format!("erasing rows of `{url}`"))),
            }
        }
        Ok(())
    }

    /// How many rows of the subject the file had, and whether it had no others; none when it has none of the subject.
    async fn erase_file(
        &self,
        scope: &Scope<'_>,
        format: &FileFormat,
        columns: &[&str],
        url: &Url,
        etag: Option<String>,
    ) -> Result<Option<(u64, bool)>> {
        let storage = &self.context.ports.storage;
        let file = match storage.get(url).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (format, subject): (FileFormat, Subject) = (format.clone(), scope.subject.clone());
        let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        let path = url.path().to_owned();
        let left = tokio::task::spawn_blocking(move || {
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            without_rows(&format, &columns, &path, file, &subject)
        });
        let left = left.await.map_err(|e| Error::bug("reading a file broke off").with_source(e))??;
        let Some(bytes) = left.bytes else { return Ok(None) };
        let whole = left.rows == 0;
        if !scope.dry_run && whole {
            storage.delete(url).await?;
        } else if !scope.dry_run {
            storage.put(url, bytes).await?;
            let replaced = Replaced { url: url.to_string(), before: etag, now: self.etag(url).await? };
            self.pass_over(&replaced).await?;
        }
        Ok(Some((left.removed, whole)))
    }

    async fn etag(&self, url: &Url) -> Result<Option<String>> {
        let (store, path) = self.context.ports.storage.resolve(url)?;
        let meta = store.head(&path).await.map_err(|e| Error::from(e).context(format!("looking at `{url}`")))?;
        Ok(meta.e_tag)
    }

    /// Jobs that have read a file need not read it again because rows left it.
    async fn pass_over(&self, replaced: &Replaced) -> Result<()> {
        let ports = &self.context.ports;
        for (workflow, declared) in &self.context.project.file().workflows {
            for job in declared.jobs.keys() {
                replaced.note(ports, workflow, job).await?;
            }
        }
        Ok(())
    }
}
