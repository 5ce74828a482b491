//! How the shell shows answers, and where: what commands change.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use shared::{Error, Result};

use super::command::Command;
use crate::cli::answer::screen::{OutFile, Paging, Screen, Target, terminal_size};
use crate::cli::answer::write::{Expanded, Style};
use crate::cli::arguments::Format;

/// Rows of a table on a terminal, unless it is said how many.
const SHOWN: u64 = 1000;

#[derive(Debug)]
pub(super) struct Display {
    format: Format,
    pub(super) expanded: Expanded,
    null: String,
    /// Rows at most, where it was said; 0: all.
    limit: Option<u64>,
    paging: Paging,
    pages: bool,
    pub(super) timing: bool,
    /// Where answers go instead of standard output.
    output: Option<Output>,
}

/// The file of `\o`.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    format: Format,
    /// None once an answer has it for itself.
    file: Option<OutFile>,
}

/// One answer's own settings.
#[derive(Debug, Default)]
pub(super) struct Once {
    pub(super) file: Option<PathBuf>,
    pub(super) is_expanded: bool,
    pub(super) runs_through: bool,
}

/// Where an answer goes, how it is written, and how many of its rows.
pub(super) struct Place {
    pub(super) target: Target,
    pub(super) style: Style,
    pub(super) limit: Option<u64>,
}

impl Display {
    /// `pager` is the variable `PAGER`.
    pub(super) fn new(format: Format, limit: Option<u64>, pager: Option<&str>) -> Self {
        Self {
            format,
            expanded: Expanded::Off,
            null: "NULL".into(),
            limit,
            paging: Paging::of(pager),
            pages: true,
            timing: false,
            output: None,
        }
    }

    /// Changes a setting, and says how it is.
    pub(super) fn set(&mut self, setting: Command) -> String {
        match setting {
            Command::Expanded(to) => {
                let other = if self.expanded == Expanded::Off { Expanded::On } else { Expanded::Off };
                self.expanded = to.unwrap_or(other);
                let when = match self.expanded {
                    Expanded::Off => "in tables",
                    Expanded::On => "expanded",
                    Expanded::Auto => "expanded where they are wider than the terminal",
                };
                format!("rows are shown {when}")
            }
            Command::Format(to) => {
                self.format = to.unwrap_or(self.format);
                format!("answers are written as {}", self.format.name())
            }
            Command::Null(to) => {
                self.null = to.unwrap_or_else(|| "NULL".into());
                format!("null is shown as `{}`", self.null)
            }
            Command::Limit(to) => {
                self.limit = to;
                match to {
                    Some(0) => "all rows are shown".to_owned(),
                    Some(rows) => format!("at most {rows} rows are shown"),
                    None => format!("at most {SHOWN} rows of a table are shown on a terminal"),
                }
            }
            Command::Pager(to) => {
                self.pages = to.unwrap_or(!self.pages);
                format!("the pager is {}used", if self.pages { "" } else { "not " })
            }
            Command::Timing(to) => {
                self.timing = to.unwrap_or(!self.timing);
                format!("times are {}", if self.timing { "shown" } else { "hidden" })
            }
            other => format!("expected a setting, found {other:?}"),
        }
    }

    /// Lets answers go to a file from here on, or no longer; says so.
    ///
    /// # Errors
    /// What making the file gives.
    pub(super) fn redirect(&mut self, path: Option<&Path>) -> Result<String> {
        self.output = None;
        let Some(path) = path else { return Ok("answers are shown here".to_owned()) };
        let format = format_of(path, self.format);
        self.output = Some(Output { path: path.to_owned(), format, file: Some(OutFile::create(path)?) });
        Ok(format!("answers go to `{}` as {}; `\\o` ends that", path.display(), format.name()))
    }

    /// Makes the place for an answer.
    ///
    /// # Errors
    /// What making a file gives; `Invalid` where the format can't go.
    pub(super) fn place(&mut self, once: &Once) -> Result<Place> {
        let (target, format) = self.target(once)?;
        let is_screen = matches!(target, Target::Screen(_));
        let limit = match (self.limit, format) {
            (Some(0), _) => None,
            (Some(rows), _) => Some(rows),
            (None, Format::Table | Format::Markdown) if is_screen => Some(SHOWN),
            (None, _) => None,
        };
        let style = Style {
            format,
            expanded: if once.is_expanded { Expanded::On } else { self.expanded },
            null: self.null.clone(),
            width: is_screen.then(|| terminal_size().0),
        };
        Ok(Place { target, style, limit })
    }

    fn target(&mut self, once: &Once) -> Result<(Target, Format)> {
        if let Some(path) = &once.file {
            let format = format_of(path, self.format);
            return Ok((file(OutFile::create(path)?, format), format));
        }
        if let Some(output) = &mut self.output {
            return Ok((file(output.file()?, output.format), output.format));
        }
        if !std::io::stdout().is_terminal() {
            return Ok((Target::Stdout, self.format));
        }
        if self.format.is_binary() {
            let name = self.format.name();
            let message = format!("expected a file or a pipe for {name}, found a terminal: `> answer.{name}`");
            return Err(Error::invalid(message));
        }
        let paging = if self.pages && !once.runs_through { self.paging.clone() } else { Paging::Never };
        Ok((Target::Screen(Screen::new(paging)), self.format))
    }
}

impl Output {
    /// The file for one more answer.
    fn file(&mut self) -> Result<OutFile> {
        let taken = || {
            let path = self.path.display();
            Error::invalid(format!("expected one answer in `{path}`, found another: `\\o` names a file for it"))
        };
        match self.format.is_binary() {
            true => self.file.take().ok_or_else(taken),
            false => self.file.as_ref().ok_or_else(taken)?.again(),
        }
    }
}

/// A file that means nothing until it is whole is kept only when it is.
fn file(file: OutFile, format: Format) -> Target {
    Target::File(if format.is_binary() { file.all_or_nothing() } else { file })
}

/// The format that a file's name tells, where tables are shown; otherwise the one that was chosen.
fn format_of(path: &Path, chosen: Format) -> Format {
    if chosen != Format::Table {
        return chosen;
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Format::Csv,
        Some("json" | "jsonl" | "ndjson") => Format::Ndjson,
        Some("md") => Format::Markdown,
        Some("parquet") => Format::Parquet,
        Some("arrow" | "arrows") => Format::Arrow,
        _ => Format::Table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_tells_its_format_unless_one_was_chosen() {
        for (name, chosen, format) in [
            ("a.parquet", Format::Table, Format::Parquet),
            ("a.csv", Format::Table, Format::Csv),
            ("a.csv", Format::Ndjson, Format::Ndjson),
            ("a.txt", Format::Table, Format::Table),
        ] {
            assert_eq!(format_of(Path::new(name), chosen), format, "{name}");
        }
    }

    #[test]
    fn a_parquet_file_takes_one_answer_and_a_text_file_many() {
        let folder = tempfile::tempdir().unwrap();
        let mut display = Display::new(Format::Table, None, None);
        for (name, takes_two) in [("a.parquet", false), ("a.csv", true)] {
            display.redirect(Some(&folder.path().join(name))).unwrap();
            let place = display.place(&Once::default()).unwrap();
            assert_eq!(place.limit, None, "a file takes all rows");
            assert_eq!(display.place(&Once::default()).is_ok(), takes_two, "{name}");
        }
    }
}
