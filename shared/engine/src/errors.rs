//! DataFusion's errors about a statement, with the place in the SQL text where there is one. Of which kind they are is
//! told in [`shared::error::datafusion`].

use std::fmt::Write as _;

use datafusion::common::{DataFusionError, Diagnostic, SchemaError};

use shared::Error;
use shared::error::datafusion::lowercase_first;

/// A place in the SQL text; both count characters and lines from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// The error of a statement: what DataFusion says, `Invalid` where it says nothing about the kind, with the place in `sql`.
pub(super) fn of_statement(error: DataFusionError, sql: &str) -> Error {
    let Some(diagnostic) = error.diagnostic() else { return Error::from(error) };
    let place = diagnostic.span.map(|span| Place { line: span.start.line, column: span.start.column });
    let message = diagnostic_message(diagnostic, &error);
    let kind = Error::from(error).kind();
    match place {
        Some(place) => Error::new(kind, pointed(&message, sql, place)),
        None => Error::new(kind, message),
    }
}

/// What the diagnostic says, with its hints; a column that is not found lists the near or all names.
fn diagnostic_message(diagnostic: &Diagnostic, error: &DataFusionError) -> String {
    let mut message = lowercase_first(diagnostic.message.trim_end_matches('.'));
    let hints = diagnostic.notes.iter().map(|n| &n.message).chain(diagnostic.helps.iter().map(|h| &h.message));
    let mut hinted = false;
    for hint in hints {
        let _ = write!(message, "{} {}", if hinted { "," } else { ";" }, lowercase_first(hint.trim_end_matches('.')));
        hinted = true;
    }
    match missing_field(error) {
        Some((name, valid)) if !hinted => message + &suggestion(name, valid.iter().map(String::as_str)),
        _ => message,
    }
}

fn missing_field(error: &DataFusionError) -> Option<(&str, Vec<String>)> {
    match error.find_root() {
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                Some((field.name(), valid_fields.iter().map(|f| f.name().to_owned()).collect()))
            }
            _ => None,
        },
        _ => None,
    }
}

/// `message` with line and column before it, the line itself and a caret below it.
pub(super) fn pointed(message: &str, sql: &str, place: Place) -> String {
    let Place { line, column } = place;
    let text = sql.lines().nth(usize::try_from(line).unwrap_or(1).saturating_sub(1)).unwrap_or_default();
    let indent: String = text
        .chars()
        .take(usize::try_from(column).unwrap_or(1).saturating_sub(1))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    format!("line {line}, column {column}: {message}\n{text}\n{indent}^")
}

/// Nothing, or `; did you mean …` with the nearest names, or the few that there are.
pub(super) fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .map(|k| (strsim::levenshtein(name, k), *k))
        .filter(|(d, k)| *d <= 1 + name.len().max(k.len()) / 4 || (name.len() > 2 && k.contains(name)))
        .collect();
    near.sort_unstable();
    near.dedup();
    let quoted = |names: Vec<&str>| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    match near.len() {
        0 if known.is_empty() || known.len() > 30 => String::new(),
        0 => format!("; expected one of {}", quoted(known)),
        _ => format!("; did you mean {}?", quoted(near.into_iter().take(3).map(|(_, k)| k).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_with_its_line_and_a_caret() {
        let shown = pointed("no column `b`", "SELECT a,\n\tb FROM t", Place { line: 2, column: 2 });
        assert_eq!(shown, "line 2, column 2: no column `b`\n\tb FROM t\n\t^");
    }

    #[test]
    fn near_names_come_first_and_few_names_are_listed() {
        assert_eq!(suggestion("fligths", ["flights", "planes"].into_iter()), "; did you mean `flights`?");
        assert_eq!(suggestion("zzz", ["a_table", "b_table"].into_iter()), "; expected one of `a_table`, `b_table`");
        assert_eq!(suggestion("zzz", std::iter::empty()), "");
    }
}
