//! `tarn backup` and `tarn restore`.

use chrono::DateTime;
use serde_json::{Value, json};
use shared::clock::{Clock, SystemClock};
use shared::{Error, Result};

use super::arguments::{Backup, Restore};
use super::caller::Lakehouse;
use super::output::{Out, Rows};
use crate::backup::{self, Listed, Wanted};

pub(super) async fn backup(lakehouse: &Lakehouse, backup: &Backup, out: &Out) -> Result<()> {
    let dir = backup.dir.clone();
    if backup.list || backup.verify {
        let verify = backup.verify;
        let spinner = out.spinner("reading");
        let listed = blocking(move || backup::list(&dir, verify)).await;
        spinner.finish_and_clear();
        return list(&listed?, out);
    }
    expect_local(lakehouse, "`make backup` writes down what a deployed one has beside the versions of its bucket")?;
    let settings = lakehouse.settings.clone();
    let keep = backup.keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX));
    let spinner = out.spinner("copying");
    let report = blocking(move || backup::backup(&settings, &dir, keep, SystemClock.now_ms())).await;
    spinner.finish_and_clear();
    document(out, &to_json(&report?)?, &["name", "files", "bytes", "newBytes", "elapsedMs", "heldMs"])
}

pub(super) async fn restore(lakehouse: &Lakehouse, restore: &Restore, out: &Out) -> Result<()> {
    expect_local(lakehouse, "`make restore` restores a deployed one")?;
    let data = &lakehouse.settings.data;
    let spinner = out.spinner("restoring");
    let wanted = Wanted { at: restore.at.clone(), relocate: restore.relocate };
    let restored = backup::restore(&restore.dir, &wanted, data, SystemClock.now_ms()).await;
    spinner.finish_and_clear();
    document(out, &to_json(&restored?)?, &["name", "files", "bytes", "relocated", "elapsedMs"])
}

/// One row a backup.
///
/// # Errors
/// `Bug` when one is damaged, once all are shown.
fn list(listed: &[Listed], out: &Out) -> Result<()> {
    let rows = to_json(listed)?;
    let rows = rows.as_array().into_iter().flatten().map(|row| {
        let at = row["atMs"].as_i64().and_then(DateTime::from_timestamp_millis);
        let mut row = row.clone();
        row["at"] = json!(at.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)));
        row
    });
    let document = json!({"backups": rows.collect::<Vec<_>>()});
    out.document(&document, |document| {
        Rows::of_objects(&document["backups"], &["name", "at", "files", "bytes", "version", "damage"])
    })?;
    match listed.iter().find_map(|listed| Some((&listed.name, listed.damage.as_ref()?))) {
        Some((name, damage)) => Err(Error::bug(format!("the backup `{name}` can't be restored: {damage}"))),
        None => Ok(()),
    }
}

/// # Errors
/// `Invalid` for a deployed lakehouse; `instead` says what to do.
fn expect_local(lakehouse: &Lakehouse, instead: &str) -> Result<()> {
    match &lakehouse.api {
        None => Ok(()),
        Some(api) => Err(Error::invalid(format!(
            "expected a lakehouse in a data directory, found the deployed one at `{}`: {instead}",
            api.url
        ))),
    }
}

fn document(out: &Out, value: &Value, columns: &[&str]) -> Result<()> {
    out.document(value, |value| Rows::of_objects(&json!([value]), columns))
}

fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::bug("a report has no JSON form").with_source(e))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::bug("a backup broke off").with_source(e))?
}
