//! What rustyline asks while a line is typed: whether it is whole, what a word may become, in which colours it stands.

use std::borrow::Cow;

use clap::ValueEnum;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::catalog::{Catalog, TableNames};
use super::input;
use super::keywords::{BEFORE_TABLES, KEYWORDS, is_keyword};
use crate::cli::arguments::Format;

const COMMANDS: &[&str] = &[
    "\\?", "\\d", "\\dt", "\\format", "\\g", "\\gx", "\\i", "\\l", "\\limit", "\\null", "\\o", "\\pager", "\\q",
    "\\timing", "\\watch", "\\x",
];

/// Of one shell.
pub(super) struct SqlHelper {
    pub(super) catalog: Catalog,
    files: FilenameCompleter,
    has_colours: bool,
}

impl SqlHelper {
    pub(super) fn new(catalog: Catalog, has_colours: bool) -> Self {
        Self { catalog, files: FilenameCompleter::new(), has_colours }
    }

    /// What a command's word may become.
    fn of_command(&self, before: &str, word: &str) -> Vec<String> {
        let names = |all: Vec<String>| starting(all.into_iter(), word);
        match before.split_whitespace().next() {
            Some(command) if before.contains(char::is_whitespace) => match command {
                "\\d" | "\\dt" => names(table_names(&self.catalog.names().tables)),
                "\\format" => names(Format::value_variants().iter().map(|format| format.name().to_owned()).collect()),
                "\\x" => names(["on", "off", "auto"].map(str::to_owned).into()),
                "\\timing" | "\\pager" => names(["on", "off"].map(str::to_owned).into()),
                _ => Vec::new(),
            },
            _ => starting(COMMANDS.iter().map(|command| (*command).to_owned()), before),
        }
    }

    /// What a word of a statement may become. `before` is the statement up to the word, `all` the whole of it.
    fn of_statement(&self, before: &str, word: &str, all: &str) -> Vec<String> {
        let known = self.catalog.names();
        let tables = known.tables.as_slice();
        if let Some((of, prefix)) = word.rsplit_once('.') {
            let of_those = names_of(of, all, tables);
            return starting(of_those.into_iter(), prefix).into_iter().map(|name| format!("{of}.{name}")).collect();
        }
        let previous = before.split_whitespace().next_back().unwrap_or_default().to_ascii_uppercase();
        if BEFORE_TABLES.contains(&previous.as_str()) {
            return starting(table_names(tables).into_iter(), word);
        }
        if word.is_empty() {
            return Vec::new();
        }
        let is_lower = word.chars().all(|c| !c.is_uppercase());
        let keyword = |word: &&str| if is_lower { word.to_ascii_lowercase() } else { (*word).to_owned() };
        let mentioned: Vec<&TableNames> = match mentioned(all, tables) {
            none if none.is_empty() => tables.iter().collect(),
            some => some.into_iter().map(|(_, table)| table).collect(),
        };
        let columns = mentioned.into_iter().flat_map(|table| &table.columns);
        let functions = known.functions.iter().map(|name| format!("{name}("));
        let named = columns.map(|name| quoted(name)).chain(functions).chain(table_names(tables));
        starting(named.chain(KEYWORDS.iter().map(keyword)), word)
    }
}

/// A word that is the only one is whole: a space follows it, unless more of it does.
fn candidates(found: Vec<String>) -> Vec<Pair> {
    let is_only = found.len() == 1;
    let pair = |name: String| {
        let behind = if is_only && !name.ends_with(['(', '.']) { " " } else { "" };
        Pair { replacement: format!("{name}{behind}"), display: name }
    };
    found.into_iter().map(pair).collect()
}

/// Those that begin with `prefix`, in whatever case, each once and in order.
fn starting(names: impl Iterator<Item = String>, prefix: &str) -> Vec<String> {
    let prefix = prefix.to_lowercase();
    let mut found: Vec<String> = names.filter(|name| name.to_lowercase().starts_with(&prefix)).collect();
    found.sort();
    found.dedup();
    found
}

/// Names that stand for tables: with their database where they need one; and the databases.
fn table_names(tables: &[TableNames]) -> Vec<String> {
    let name = |table: &TableNames| match table.is_near {
        true => quoted(&table.name),
        false => format!("{}.{}", quoted(&table.database), quoted(&table.name)),
    };
    tables.iter().map(name).chain(tables.iter().map(|table| format!("{}.", quoted(&table.database)))).collect()
}

/// What may follow `of` and a point: tables of a database, or columns of a table or what stands for one.
fn names_of(of: &str, statement: &str, tables: &[TableNames]) -> Vec<String> {
    let plain = of.replace('"', "");
    let in_database = tables.iter().filter(|table| table.database == plain).map(|table| quoted(&table.name));
    let whole = |table: &&TableNames| table.name == plain || format!("{}.{}", table.database, table.name) == plain;
    let own = tables.iter().filter(whole).flat_map(|table| &table.columns);
    let named = mentioned(statement, tables).into_iter().filter(|(name, _)| *name == plain);
    let standing = named.flat_map(|(_, table)| table.columns.iter());
    let columns: Vec<String> = own.chain(standing).map(|name| quoted(name)).collect();
    in_database.chain(columns).collect()
}

/// The tables that a statement names, each with the name that it gives them there.
fn mentioned<'a>(statement: &str, tables: &'a [TableNames]) -> Vec<(String, &'a TableNames)> {
    let words: Vec<String> =
        statement.split(|c: char| !is_of_word(c)).filter(|word| !word.is_empty()).map(|w| w.replace('"', "")).collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let is_it = |table: &&TableNames| {
            (table.is_near && table.name == *word) || format!("{}.{}", table.database, table.name) == *word
        };
        let Some(table) = tables.iter().find(is_it) else { continue };
        let mut rest = words[at + 1..].iter().filter(|word| !word.eq_ignore_ascii_case("as"));
        let alias = rest.next().filter(|word| !is_keyword(word)).unwrap_or(&table.name);
        found.push((alias.clone(), table));
    }
    found
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '"' | '$')
}

/// The name as a statement must have it.
fn quoted(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl Completer for SqlHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..pos];
        let command = before.rfind('\n').map_or(before, |end| &before[end + 1..]).trim_start();
        let is_command = command.starts_with('\\') && !input::parse(before).is_open;
        if is_command && ["\\i ", "\\o ", "\\g "].iter().any(|name| command.starts_with(name)) {
            return self.files.complete(line, pos, context);
        }
        let start =
            before.rfind(|c| !is_of_word(c)).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = &before[start..];
        let (start, found) = match is_command {
            true if !command.contains(char::is_whitespace) => (pos - command.len(), self.of_command(command, word)),
            true => (start, self.of_command(command, word)),
            false if input::parse(before).is_open && !word.starts_with('"') => (start, Vec::new()),
            false => (start, self.of_statement(&before[..start], word, line)),
        };
        Ok((start, candidates(found)))
    }
}

impl Hinter for SqlHelper {
    type Hint = String;
}

impl Validator for SqlHelper {
    /// A line goes on below until its statement has ended.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = input::parse(context.input());
        Ok(match input.rest.is_none() && !input.is_open {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

const KEYWORD: &str = "\x1b[1;34m";
const TEXT: &str = "\x1b[32m";
const COMMENT: &str = "\x1b[90m";
const PLAIN: &str = "\x1b[0m";

impl Highlighter for SqlHelper {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.has_colours && !line.trim_start().starts_with('\\') { coloured(line).into() } else { line.into() }
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.has_colours && kind != CmdKind::MoveCursor
    }
}

impl Helper for SqlHelper {}

fn coloured(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(c) = rest.chars().next() {
        let (length, colour) = match c {
            '\'' => (rest[1..].find('\'').map_or(rest.len(), |at| at + 2), Some(TEXT)),
            '-' if rest.starts_with("--") => (rest.find('\n').unwrap_or(rest.len()), Some(COMMENT)),
            '/' if rest.starts_with("/*") => (rest.find("*/").map_or(rest.len(), |at| at + 2), Some(COMMENT)),
            c if is_of_word(c) => {
                let length = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
                (length, is_keyword(&rest[..length]).then_some(KEYWORD))
            }
            c => (c.len_utf8(), None),
        };
        let (part, behind) = rest.split_at(length);
        match colour {
            Some(colour) => out.extend([colour, part, PLAIN]),
            None => out.push_str(part),
        }
        rest = behind;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Vec<TableNames> {
        let table = |database: &str, name: &str, columns: &[&str], is_near| TableNames {
            database: database.into(),
            name: name.into(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            is_near,
        };
        vec![table("shop", "orders", &["id", "Day"], true), table("mart", "sums", &["day", "total"], false)]
    }

    #[test]
    fn tables_far_away_are_named_with_their_database() {
        assert_eq!(table_names(&tables()), ["orders", "mart.sums", "shop.", "mart."]);
    }

    #[test]
    fn a_point_follows_databases_tables_and_what_stands_for_them() {
        let all = "SELECT o. FROM orders AS o JOIN mart.sums WHERE";
        assert_eq!(names_of("mart", all, &tables()), ["sums"]);
        assert_eq!(names_of("o", all, &tables()), ["id", "\"Day\""]);
        assert_eq!(names_of("mart.sums", all, &tables()), ["day", "total"]);
        assert_eq!(names_of("x", all, &tables()), [""; 0]);
    }

    #[test]
    fn words_are_completed_in_whatever_case() {
        let names = ["SELECT", "set", "sum("].map(str::to_owned);
        assert_eq!(starting(names.into_iter(), "Se"), ["SELECT", "set"]);
    }

    #[test]
    fn colours_add_nothing_else() {
        let line = "SELECT 'it''s', \"from\" -- Ü\n FROM t /* 'x' */";
        let plain = [KEYWORD, TEXT, COMMENT, PLAIN].iter().fold(coloured(line), |text, code| text.replace(code, ""));
        assert_eq!(plain, line);
        assert!(coloured(line).starts_with("\x1b[1;34mSELECT\x1b[0m \x1b[32m'it'"));
    }
}
