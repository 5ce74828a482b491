//! What is wrong with a lakehouse file, and where.

use std::fmt;

use super::tree::{Path, Place};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) path: Path,
    pub(super) place: Place,
    /// What was expected and what was found.
    pub(super) message: String,
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
