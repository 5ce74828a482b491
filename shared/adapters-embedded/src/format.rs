//! The format of a data directory: a number in its file `format.json`, beside the version of the program that wrote it.
//!
//! | format | what changed |
//! |---|---|
//! | 1 | directories without the file |
//! | 2 | the file |
//!
//! A program refuses a directory of a format that is newer than its own, before it opens anything in it, and takes one of an older
//! format through a [`Step`] for each number between. A step names the files that it changes: they are copied to `before-format-N/`
//! first. Steps can be done again, so a process that is killed in one leaves a directory that the next one upgrades.

use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::error::Context;
use shared::{Error, Result};

/// The file of a data directory that says what its format is.
pub const FILE: &str = "format.json";

/// What this program writes.
pub const CURRENT: u32 = 2;

/// The folder that a restore fills before its entries become those of the directory: while it is there, they are not whole.
pub const RESTORING: &str = ".restoring";

/// What `format.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    format: u32,
    /// The version of the program that wrote it.
    version: String,
}

/// How a directory of one format becomes one of the next.
struct Step {
    /// The format afterwards.
    to: u32,
    /// The files that it changes.
    changes: &'static [&'static str],
    run: fn(&Path) -> Result<()>,
}

const STEPS: [Step; 1] = [
    // Nothing but the number is new.
    Step { to: 2, changes: &[], run: |_| Ok(()) },
];

/// Refuses a directory that this program can't work on: one of a newer format, and one that a restore has left half done.
///
/// # Errors
/// `Invalid`, naming the directory, the formats and the version of the program that wrote it; `Conflict` for half a restore.
pub fn check(data: &Path) -> Result<()> {
    known(data, CURRENT).map(drop)
}

/// The format of a data directory.
///
/// # Errors
/// As [`check`].
pub fn of(data: &Path) -> Result<u32> {
    Ok(known(data, CURRENT)?.unwrap_or(CURRENT))
}

/// Makes the directory one of the [`CURRENT`] format.
///
/// # Errors
/// As [`check`]; `Limit` or `Denied` when it can't be written.
pub(crate) fn upgrade(data: &Path) -> Result<()> {
    upgrade_by(data, CURRENT, &STEPS)
}

/// The format of the directory; `None` of a new one.
fn known(data: &Path, current: u32) -> Result<Option<u32>> {
    if data.join(RESTORING).exists() {
        return Err(Error::conflict(format!(
            "expected a whole data directory, found `{}`, whose restore is not finished: run `tarn restore` again",
            data.display()
        )));
    }
    let file = data.join(FILE);
    let doing = || format!("reading `{}`", file.display());
    let text = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(data.join("catalog.db").exists().then_some(1));
        }
        text => text.context(doing)?,
    };
    let format: Format = serde_json::from_str(&text)
        .map_err(|e| Error::invalid(format!("expected a format, found `{}`", text.trim())).with_source(e))
        .context(doing)?;
    if format.format > current {
        return Err(Error::invalid(format!(
            "expected a data directory of format {current} or older, found format {} in `{}`: Tarn {} wrote it, this is Tarn {}",
            format.format,
            data.display(),
            format.version,
            env!("CARGO_PKG_VERSION")
        )));
    }
    Ok(Some(format.format))
}

fn upgrade_by(data: &Path, current: u32, steps: &[Step]) -> Result<()> {
    let found = known(data, current)?;
    let mut format = found.unwrap_or(current);
    while format < current {
        let step = steps
            .iter()
            .find(|step| step.to == format + 1)
            .ok_or_else(|| Error::bug(format!("no step leads from format {format} to {}", format + 1)))?;
        let doing = || format!("upgrading `{}` from format {format} to {}", data.display(), step.to);
        keep(data, format, step.changes).context(doing)?;
        (step.run)(data).context(doing)?;
        write(data, step.to).context(doing)?;
        tracing::info!(data = %data.display(), from = format, to = step.to, "the data directory was upgraded");
        format = step.to;
    }
    match found {
        Some(_) => Ok(()),
        None => write(data, current),
    }
}

/// Copies what a step is about to change, unless an earlier try has.
fn keep(data: &Path, format: u32, files: &[&str]) -> Result<()> {
    let folder = data.join(format!("before-format-{}", format + 1));
    for name in files {
        let (from, to) = (data.join(name), folder.join(name));
        if !from.exists() || to.exists() {
            continue;
        }
        std::fs::create_dir_all(&folder).context(|| format!("making the folder `{}`", folder.display()))?;
        // A database's log is part of it; so that no copy is half one, each appears under its name when it is whole.
        let draft = folder.join(format!("{name}.draft"));
        let copied = match std::path::Path::new(name).extension().is_some_and(|extension| extension == "db") {
            true => copy_database(&from, &draft),
            false => std::fs::copy(&from, &draft).map(drop).map_err(Error::from),
        };
        copied
            .and_then(|()| Ok(std::fs::File::open(&draft)?.sync_all()?))
            .and_then(|()| Ok(std::fs::rename(&draft, &to)?))
            .context(|| format!("copying `{}` to `{}`", from.display(), to.display()))?;
    }
    Ok(())
}

fn copy_database(from: &Path, to: &Path) -> Result<()> {
    // What an earlier try left of it.
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let connection = rusqlite::Connection::open(from)?;
    connection.execute("VACUUM INTO ?1", [to.display().to_string()])?;
    Ok(())
}

/// Writes the file: whole or not at all.
fn write(data: &Path, format: u32) -> Result<()> {
    let (file, draft) = (data.join(FILE), data.join(format!("{FILE}.{}", std::process::id())));
    let format = Format { format, version: env!("CARGO_PKG_VERSION").into() };
    let text = serde_json::to_string(&format).map_err(|e| Error::bug("a format has no JSON form").with_source(e))?;
    std::fs::write(&draft, format!("{text}\n"))
        .and_then(|()| std::fs::File::open(&draft)?.sync_all())
        .and_then(|()| std::fs::rename(&draft, &file))
        .map_err(|e| Error::from(e).context(format!("writing `{}`", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_of(data: &Path) -> u32 {
        serde_json::from_str::<Format>(&std::fs::read_to_string(data.join(FILE)).unwrap()).unwrap().format
    }

    #[test]
    fn a_new_directory_has_the_current_format_and_an_old_one_is_upgraded_step_by_step() {
        let folder = tempfile::tempdir().unwrap();
        upgrade(folder.path()).unwrap();
        assert_eq!(format_of(folder.path()), CURRENT);
        upgrade(folder.path()).unwrap();

        let old = tempfile::tempdir().unwrap();
        std::fs::write(old.path().join("catalog.db"), "").unwrap();
        upgrade(old.path()).unwrap();
        assert_eq!(format_of(old.path()), CURRENT);
    }

    #[test]
    fn a_newer_format_is_refused_by_name_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{{\"format\":{},\"version\":\"9.8.7\",\"more\":1}}", CURRENT + 1);
        std::fs::write(folder.path().join(FILE), &text).unwrap();
        for error in [check(folder.path()).unwrap_err(), upgrade(folder.path()).unwrap_err()] {
            let told = error.to_string();
            assert_eq!(error.kind(), shared::ErrorKind::Invalid);
            let place = folder.path().display().to_string();
            assert!(
                told.contains("9.8.7") && told.contains(&format!("format {}", CURRENT + 1)) && told.contains(&place),
                "{told}"
            );
        }
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), text);
    }

    #[test]
    fn what_a_step_changes_is_kept_as_it_was_also_when_the_step_is_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        rusqlite::Connection::open(data.join("catalog.db"))
            .unwrap()
            .execute_batch("CREATE TABLE a (x); PRAGMA journal_mode=WAL;")
            .unwrap();
        std::fs::write(data.join("objects.url"), "old").unwrap();
        let broken = [Step {
            to: 2,
            changes: &["catalog.db", "objects.url", "absent"],
            run: |data| {
                std::fs::write(data.join("objects.url"), "new")?;
                Err(Error::limit("the disk is full"))
            },
        }];
        let error = upgrade_by(data, 2, &broken).unwrap_err();
        assert!(error.to_string().contains("from format 1 to 2"), "{error}");
        assert_eq!(known(data, 2).unwrap(), Some(1), "it is no directory of the new format yet");
        let whole = [
            Step { to: 3, changes: &[], run: |_| Ok(()) },
            Step { run: |data| Ok(std::fs::write(data.join("objects.url"), "newest")?), ..broken[0] },
        ];
        upgrade_by(data, 3, &whole).unwrap();
        assert_eq!(format_of(data), 3);
        assert_eq!(std::fs::read_to_string(data.join("objects.url")).unwrap(), "newest");
        assert_eq!(std::fs::read_to_string(data.join("before-format-2/objects.url")).unwrap(), "old");
        let kept = rusqlite::Connection::open(data.join("before-format-2/catalog.db")).unwrap();
        assert_eq!(kept.query_row("SELECT count(*) FROM a", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }

    #[test]
    fn half_a_restore_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(RESTORING)).unwrap();
        assert_eq!(check(folder.path()).unwrap_err().kind(), shared::ErrorKind::Conflict);
    }
}
