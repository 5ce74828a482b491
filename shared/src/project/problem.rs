//! What is wrong with a lakehouse file, and where.

use std::fmt;

use serde::Serialize;

use super::tree::{Node, Path, Place};
use crate::{Error, Result};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub path: Path,
    #[serde(flatten)]
    pub place: Place,
    /// What was expected and what was found.
    pub message: String,
}

/// What is wrong at some paths of a lakehouse file, in the order of its text.
///
/// # Errors
/// `Invalid` for a text that is no YAML.
pub fn located(text: &str, found: Vec<(Path, String)>) -> Result<Vec<Problem>> {
    let root = Node::parse(text)?;
    let problem = |(path, message): (Path, String)| Problem { place: root.find(&path), path, message };
    let mut problems: Vec<Problem> = found.into_iter().map(problem).collect();
    problems.sort_by_key(|problem| problem.place);
    Ok(problems)
}

/// All problems of the file `origin` in one error, each in a line of its own.
pub fn refusal(origin: &str, problems: &[Problem]) -> Error {
    let lines: Vec<_> = problems.iter().map(|problem| format!("{origin}:{problem}")).collect();
    Error::invalid(lines.join("\n"))
}

/// What is wrong with a column that is none of `columns`.
pub fn no_column<T: AsRef<str>>(name: &str, columns: &[T]) -> String {
    format!("expected a column ({}), found `{name}`{}", one_of(columns), near(name, columns))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.place.line, self.place.column)?;
        let path = self.path.to_string();
        if path.is_empty() { f.write_str(&self.message) } else { write!(f, "{path}: {}", self.message) }
    }
}

/// ``; did you mean `…`?`` when a known name is close to `name`, otherwise nothing.
pub(super) fn near<T: AsRef<str>>(name: &str, known: &[T]) -> String {
    let distance = |other: &str| strsim::osa_distance(name, other);
    let close = known.iter().map(AsRef::as_ref).min_by_key(|other| distance(other));
    match close {
        Some(other) if distance(other) <= 1 + other.len().min(name.len()) / 4 => format!("; did you mean `{other}`?"),
        _ => String::new(),
    }
}

/// Names in backticks with commas between them.
pub(super) fn one_of<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_another_word_is_not() {
        let known = ["partition_by", "schema", "table"];
        assert_eq!(near("partiton_by", &known), "; did you mean `partition_by`?");
        assert_eq!(near("tabel", &known), "; did you mean `table`?");
        assert_eq!(near("interval", &known), "");
    }
}
