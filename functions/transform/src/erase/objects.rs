//! Erasure in what lies beside tables: lines of error objects and of the quarantine, and stored answers.

use format::records::Rejected;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::erasure::Kind;
use shared::{ErrorKind, Result};
use url::Url;

use super::{Report, Scope};
use crate::Transform;

/// A folder with records of the subject.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectReport {
    /// `errors` or `quarantine`, or a folder in them.
    folder: String,
    objects: u64,
    pub(super) records: u64,
}

/// A line of the quarantine.
#[derive(Deserialize)]
struct Line {
    row: Value,
}

/// Whose a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Subject,
    Others,
    /// It can't be read, and holds the subject's values as words.
    Unknown,
}

impl Transform {
    pub(super) async fn erase_objects(&self, scope: &Scope<'_>, report: &mut Report) -> Result<()> {
        let keys = &self.context.ports.keys;
        if scope.tables.is_none() {
            // Also of streams, workflows and jobs that are not declared any more.
            self.erase_lines(scope, "errors".into(), &keys.all_errors(), report, Self::of_error).await?;
            self.erase_lines(scope, "quarantine".into(), &keys.all_quarantines(), report, Self::of_quarantine).await?;
            return self.erase_results(scope, report).await;
        }
        for stream in self.streams_into(scope)? {
            self.erase_lines(scope, format!("errors/{stream}"), &keys.errors(&stream), report, Self::of_error).await?;
        }
        let project = &self.context.project;
        for (workflow, declared) in &project.file().workflows {
            for (job, query) in &declared.jobs {
                if scope.holds(&project.table_name(&query.into)?) {
                    let folder = keys.quarantines_of_job(workflow, job);
                    self.erase_lines(
                        scope,
                        format!("quarantine/{workflow}/{job}"),
                        &folder,
                        report,
                        Self::of_quarantine,
                    )
                    .await?;
                }
            }
        }
        self.erase_results(scope, report).await
    }

    async fn erase_lines(
        &self,
        scope: &Scope<'_>,
        name: String,
        folder: &Url,
        report: &mut Report,
        whose: fn(&Self, &Scope<'_>, &[u8]) -> Whose,
    ) -> Result<()> {
        let storage = &self.context.ports.storage;
        let mut told = ObjectReport { folder: name, objects: 0, records: 0 };
        let mut unknown = 0;
        for object in storage.list(folder).await? {
            let text = match storage.get(&object.url).await {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let (mut kept, mut gone) = (Vec::with_capacity(text.len()), 0);
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                match whose(self, scope, line) {
                    Whose::Subject => gone += 1,
                    Whose::Unknown if scope.broken => gone += 1,
                    Whose::Unknown => {
                        unknown += 1;
                        kept.extend_from_slice(line);
                    }
                    Whose::Others => kept.extend_from_slice(line),
                }
            }
            if gone == 0 {
                continue;
            }
            told.objects += 1;
            told.records += gone;
            match kept.is_empty() {
                _ if scope.dry_run => {}
                true => storage.delete(&object.url).await?,
                false => storage.put(&object.url, kept).await?,
            }
        }
        if unknown > 0 {
            report.not_reached.push(format!(
                "{unknown} records below `{}` can't be read and hold a value as a word: look at them, `broken` removes them too",
                told.folder
            ));
        }
        if told.records > 0 {
            report.objects.push(told);
        }
        Ok(())
    }

    /// Stored answers may hold anything: all of them go.
    async fn erase_results(&self, scope: &Scope<'_>, report: &mut Report) -> Result<()> {
        let storage = &self.context.ports.storage;
        for object in storage.list(&self.context.ports.keys.results()).await? {
            report.results += 1;
            if !scope.dry_run {
                storage.delete(&object.url).await?;
            }
        }
        Ok(())
    }
}

impl Transform {
    fn of_error(&self, scope: &Scope<'_>, line: &[u8]) -> Whose {
        let Some(rejected) = Rejected::parse(line) else { return of_record(scope, line, |_| Kind::Any) };
        let schema =
            self.context.project.stream(&rejected.stream).map(|stream| stream.schema.as_slice()).unwrap_or_default();
        let kind = |column: &str| {
            let own = schema.iter().find(|own| own.name.eq_ignore_ascii_case(column));
            own.map_or(Kind::Any, |own| Kind::of(&own.ty))
        };
        of_record(scope, &rejected.data().unwrap_or_else(|| line.to_vec()), kind)
    }

    fn of_quarantine(&self, scope: &Scope<'_>, line: &[u8]) -> Whose {
        match serde_json::from_slice::<Line>(line) {
            Ok(line) if scope.subject.is_json(&line.row, |_| Kind::Any) => Whose::Subject,
            Ok(_) => Whose::Others,
            Err(_) => of_record(scope, line, |_| Kind::Any),
        }
    }
}

fn of_record(scope: &Scope<'_>, data: &[u8], kind: impl Fn(&str) -> Kind) -> Whose {
    match serde_json::from_slice::<Value>(data) {
        Ok(record) if scope.subject.is_json(&record, kind) => Whose::Subject,
        Ok(record) if record.is_object() => Whose::Others,
        _ if scope.subject.may_be_text(&String::from_utf8_lossy(data)) => Whose::Unknown,
        _ => Whose::Others,
    }
}
