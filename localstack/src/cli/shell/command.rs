//! Commands of the shell: a backslash, a name, words.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use shared::{Error, Result};

use crate::cli::answer::write::Expanded;
use crate::cli::arguments::Format;

pub(super) const HELP: &str = "\
A statement ends with `;` and may run over several lines. Ctrl-C stops it; Tab completes names.

  \\d [TABLE]        tables, or the columns of one
  \\dt [PATTERN]     tables whose name, or database.name, is like the pattern: `*` stands for any text, `?` for a character
  \\l                databases

  \\x [on|off|auto]  a line for each column of a row; auto: where rows are wider than the terminal
  \\format [NAME]    table, json, ndjson, csv, markdown, parquet, arrow
  \\null [TEXT]      what stands in tables for null
  \\limit [ROWS]     rows of an answer at most; 0: all. On a terminal a table shows 1000 unless this says otherwise
  \\pager [on|off]   $PAGER, or `less`, for what is higher than the screen
  \\timing [on|off]  bytes and time of each statement

  \\o [FILE]         answers go to this file from here on; without a file, to the terminal again
  \\g [FILE]         ends a statement as `;` does; its answer goes to the file
  \\gx               ends a statement; its rows are expanded
  \\watch [SECONDS]  ends a statement and asks it again and again, the last one where there is none; Ctrl-C ends that
  \\i FILE           runs the statements and commands of a file
  \\q                leaves (also Ctrl-D)
  \\?                this help";

/// How often a statement is watched unless it is said.
const WATCH: Duration = Duration::from_secs(2);

/// What a command says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Help,
    Quit,
    Tables(Option<String>),
    Describe(String),
    Databases,
    Expanded(Option<Expanded>),
    Format(Option<Format>),
    Null(Option<String>),
    Limit(Option<u64>),
    Pager(Option<bool>),
    Timing(Option<bool>),
    Output(Option<PathBuf>),
    Go(Option<PathBuf>),
    GoExpanded,
    Watch(Duration),
    Include(PathBuf),
}

impl Command {
    /// # Errors
    /// `Invalid` for a command that there is not, or words that it does not take.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let word = Some(unquoted(rest.trim())).filter(|word| !word.is_empty());
        let told = |of: &str| Error::invalid(format!("expected `{name}{of}`, found `{text}`"));
        let parsed = match name {
            "\\?" | "\\h" | "\\help" => Self::Help,
            "\\q" | "\\quit" => Self::Quit,
            "\\l" => Self::Databases,
            "\\d" => match word {
                Some(word) if word.contains(['*', '?']) => Self::Tables(Some(word)),
                Some(word) => Self::Describe(word),
                None => Self::Tables(None),
            },
            "\\dt" => Self::Tables(word),
            "\\x" => Self::Expanded(match word.as_deref() {
                Some("auto") => Some(Expanded::Auto),
                word => switch(word)
                    .ok_or_else(|| told(" [on|off|auto]"))?
                    .map(|on| if on { Expanded::On } else { Expanded::Off }),
            }),
            "\\timing" => Self::Timing(switch(word.as_deref()).ok_or_else(|| told(" [on|off]"))?),
            "\\pager" => Self::Pager(switch(word.as_deref()).ok_or_else(|| told(" [on|off]"))?),
            "\\format" | "\\f" => {
                let format = word.map(|word| Format::from_str(&word, true)).transpose();
                Self::Format(format.map_err(|_| told(" [table|json|ndjson|csv|markdown|parquet|arrow]"))?)
            }
            "\\null" => Self::Null(Some(unquoted(rest.trim())).filter(|_| !rest.trim().is_empty())),
            "\\limit" => Self::Limit(word.map(|w| w.parse()).transpose().map_err(|_| told(" [ROWS]"))?),
            "\\pset" => {
                return Self::parse(&renamed(rest.trim()).ok_or_else(|| told(" null|expanded|format|pager [VALUE]"))?);
            }
            "\\o" => Self::Output(word.map(PathBuf::from)),
            "\\g" => Self::Go(word.map(PathBuf::from)),
            "\\gx" => Self::GoExpanded,
            "\\watch" => Self::Watch(interval(word.as_deref()).ok_or_else(|| told(" [SECONDS]"))?),
            "\\i" | "\\include" => Self::Include(word.ok_or_else(|| told(" FILE"))?.into()),
            _ => {
                return Err(Error::invalid(format!(
                    "expected a command such as `\\d`, found `{text}`: `\\?` lists them"
                )));
            }
        };
        Ok(parsed)
    }

    /// Whether it ends the statement before it.
    pub(super) fn ends_a_statement(&self) -> bool {
        matches!(self, Self::Go(_) | Self::GoExpanded | Self::Watch(_))
    }
}

/// psql's name for a setting as ours.
fn renamed(rest: &str) -> Option<String> {
    let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let ours = match name {
        "null" => "\\null",
        "expanded" | "x" => "\\x",
        "format" => "\\format",
        "pager" => "\\pager",
        _ => return None,
    };
    Some(format!("{ours} {value}"))
}

/// A word, or what single quotes hold.
fn unquoted(word: &str) -> String {
    let inner = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    inner.map_or_else(|| word.to_owned(), |inner| inner.replace("''", "'"))
}

/// On, off, or the other; none for another word.
#[expect(clippy::option_option, reason = "a wrong word differs from none")]
fn switch(word: Option<&str>) -> Option<Option<bool>> {
    match word {
        None => Some(None),
        Some("on") => Some(Some(true)),
        Some("off") => Some(Some(false)),
        Some(_) => None,
    }
}

fn interval(word: Option<&str>) -> Option<Duration> {
    let Some(word) = word else { return Some(WATCH) };
    let seconds: f64 = word.trim_start_matches("interval=").parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|interval| *interval >= Duration::from_millis(100))
}

/// The pattern of `\dt` as LIKE has it, with `\` before what means itself.
pub(super) fn like(pattern: &str) -> String {
    let mut like = String::new();
    for c in pattern.chars() {
        match c {
            '*' => like.push('%'),
            '?' => like.push('_'),
            '%' | '_' | '\\' => like.extend(['\\', c]),
            '\'' => like.push_str("''"),
            c => like.push(c),
        }
    }
    like
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_are_typed() {
        for (text, command) in [
            ("\\q", Command::Quit),
            ("\\d orders;", Command::Describe("orders".into())),
            ("\\d", Command::Tables(None)),
            ("\\dt nyc.*", Command::Tables(Some("nyc.*".into()))),
            ("\\x", Command::Expanded(None)),
            ("\\x auto", Command::Expanded(Some(Expanded::Auto))),
            ("\\pset expanded on", Command::Expanded(Some(Expanded::On))),
            ("\\pset null '(null)'", Command::Null(Some("(null)".into()))),
            ("\\null ''", Command::Null(Some(String::new()))),
            ("\\format CSV", Command::Format(Some(Format::Csv))),
            ("\\limit 0", Command::Limit(Some(0))),
            ("\\o 'my answers.csv'", Command::Output(Some("my answers.csv".into()))),
            ("\\o", Command::Output(None)),
            ("\\watch", Command::Watch(Duration::from_secs(2))),
            ("\\watch 0.5", Command::Watch(Duration::from_millis(500))),
        ] {
            assert_eq!(Command::parse(text).unwrap(), command, "{text}");
        }
    }

    #[test]
    fn what_is_no_command_is_told() {
        for (text, says) in
            [("\\z", "`\\z`"), ("\\x maybe", "\\x [on|off|auto]"), ("\\watch 0", "[SECONDS]"), ("\\i", "\\i FILE")]
        {
            let error = Command::parse(text).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
    }

    #[test]
    fn patterns_are_those_of_the_shell() {
        assert_eq!(like("o*_?'x"), "o%\\__''x");
    }
}
