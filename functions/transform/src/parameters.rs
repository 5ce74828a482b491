//! `${name}` in a job's SQL: which parameters a run has, and how their values get into the text.
//!
//! A value can never change the shape of the statement. Where `${name}` stands decides how its value is written:
//!
//! - inside `'…'` or `"…"`: as text, the quote doubled: `'${year}-01-01'`, `"${table}"`;
//! - anywhere else: as an SQL literal: a JSON number or `true`/`false` as it is (a negative number in parentheses), anything
//!   else quoted: `WHERE day >= ${start} LIMIT ${n}` becomes `WHERE day >= '2013-01-01' LIMIT 10`;
//! - in comments nothing is replaced.
//!
//! Pure.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::CharIndices;

use shared::{Error, Result};

/// The run's id; a run can't set it.
pub const RUN_ID: &str = "run_id";
/// The UTC date on which the run began, `2013-01-31`; a run may set another one (to fill in a day that was missed).
pub const RUN_DATE: &str = "run_date";

/// The values of a run: those that the workflow declares, replaced by those that the run sets, and the built-in ones.
///
/// # Errors
/// `Invalid` when the run sets a parameter that the workflow does not declare.
pub fn resolve(
    declared: &BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
    run_id: &str,
    run_date: &str,
) -> Result<BTreeMap<String, String>> {
    let mut values = declared.clone();
    values.entry(RUN_DATE.into()).or_insert_with(|| run_date.into());
    for (name, value) in set {
        if !values.contains_key(name) {
            return Err(Error::invalid(format!("expected {}, found the parameter `{name}`", one_of(values.keys()))));
        }
        values.insert(name.clone(), value.clone());
    }
    values.insert(RUN_ID.into(), run_id.into());
    Ok(values)
}

/// `sql` with every `${name}` replaced by its value.
///
/// # Errors
/// `Invalid` for a name that has no value.
pub fn substitute(sql: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let mut out = String::with_capacity(sql.len());
    let mut region = Region::Code;
    let mut rest = sql.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        if region.takes_parameters()
            && c == '$'
            && let Some(name) = parameter_at(&sql[at..])
        {
            let value = values.get(name).ok_or_else(|| {
                Error::invalid(format!("no parameter `{name}` for `${{{name}}}`: expected {}", one_of(values.keys())))
            })?;
            out.push_str(&region.write(value));
            skip(&mut rest, at + name.len() + "${}".len());
            continue;
        }
        out.push(c);
        let (next, pair) = region.after(&sql[..at], &sql[at..]);
        region = next;
        if pair && let Some((_, second)) = rest.next() {
            out.push(second);
        }
    }
    Ok(out)
}

/// Where in the text of a statement a character stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Region {
    Code,
    /// Between this quote and the next one.
    Quoted(char),
    /// In `E'…'`, where a backslash escapes.
    Escaped,
    LineComment,
    /// With the number of comments that are open.
    BlockComment(u32),
}

impl Region {
    fn takes_parameters(self) -> bool {
        matches!(self, Self::Code | Self::Quoted(_) | Self::Escaped)
    }

    /// The value as it must be written here.
    fn write(self, value: &str) -> String {
        match self {
            Self::Quoted(quote) => value.replace(quote, &format!("{quote}{quote}")),
            Self::Escaped => value.replace('\\', "\\\\").replace('\'', "''"),
            _ => literal(value),
        }
    }

    /// The place after the first character of `text`, which stands behind `before`; and whether its second character
    /// belongs to it.
    fn after(self, before: &str, text: &str) -> (Self, bool) {
        let c = text.chars().next().unwrap_or_default();
        match self {
            Self::Code if text.starts_with("--") => (Self::LineComment, false),
            Self::Code if text.starts_with("/*") => (Self::BlockComment(1), true),
            Self::Code if c == '\'' && ends_with_word_e(before) => (Self::Escaped, false),
            Self::Code if matches!(c, '\'' | '"' | '`') => (Self::Quoted(c), false),
            // A doubled quote closes and opens again, which comes to the same.
            Self::Quoted(quote) if c == quote => (Self::Code, false),
            Self::Escaped if text.starts_with("''") => (Self::Escaped, true),
            Self::Escaped if c == '\'' => (Self::Code, false),
            Self::Escaped if c == '\\' => (Self::Escaped, true),
            Self::LineComment if c == '\n' => (Self::Code, false),
            Self::BlockComment(open) if text.starts_with("/*") => (Self::BlockComment(open + 1), true),
            Self::BlockComment(1) if text.starts_with("*/") => (Self::Code, true),
            Self::BlockComment(open) if text.starts_with("*/") => (Self::BlockComment(open - 1), true),
            same => (same, false),
        }
    }
}

/// Whether a text ends with the letter that makes the string behind it one with backslash escapes: `E'…'`.
fn ends_with_word_e(text: &str) -> bool {
    let mut back = text.chars().rev();
    matches!(back.next(), Some('e' | 'E')) && !back.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// The name in a text that begins with `${name}`.
fn parameter_at(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix("${")?.split_once('}')?;
    let head_fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (head_fits && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some(name)
}

fn skip(rest: &mut Peekable<CharIndices<'_>>, to: usize) {
    while rest.next_if(|(at, _)| *at < to).is_some() {}
}

fn literal(value: &str) -> String {
    if matches!(value, "true" | "false") {
        return value.into();
    }
    // JSON's grammar of numbers: no leading zeros, so that a code such as `007` stays text.
    let is_number = value.trim() == value && serde_json::from_str::<serde_json::Number>(value).is_ok();
    match is_number {
        true if value.starts_with('-') => format!("({value})"),
        true => value.into(),
        false => format!("'{}'", value.replace('\'', "''")),
    }
}

fn one_of<'a>(names: impl Iterator<Item = &'a String>) -> String {
    format!("one of {}", names.map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_value_is_a_literal_in_code_and_text_in_quotes() {
        let values = values(&[("start", "2013-01-01"), ("n", "10"), ("low", "-1"), ("who", "O'Hare"), ("zip", "007")]);
        for (sql, expected) in [
            ("d >= ${start} LIMIT ${n}", "d >= '2013-01-01' LIMIT 10"),
            ("x -${low}", "x -(-1)"),
            ("'${start} at ${who}'", "'2013-01-01 at O''Hare'"),
            ("a = ${who} AND z = ${zip}", "a = 'O''Hare' AND z = '007'"),
            ("\"t_${n}\" || 'it''s ${n}'", "\"t_10\" || 'it''s 10'"),
            ("1 -- ${nothing}\n + ${n}", "1 -- ${nothing}\n + 10"),
            ("/* /* ${a} */ ${b} */ ${n}", "/* /* ${a} */ ${b} */ 10"),
            (r"E'\'${who}\' ${n}' + ${n}", r"E'\'O''Hare\' 10' + 10"),
            ("'^a{2}$' || '${2}' || é${n}", "'^a{2}$' || '${2}' || é10"),
        ] {
            assert_eq!(substitute(sql, &values).unwrap(), expected);
        }
    }

    #[test]
    fn a_parameter_without_a_value_is_refused_with_those_that_there_are() {
        let error = substitute("SELECT ${strat}", &values(&[("start", "1")])).unwrap_err();
        assert_eq!(error.to_string(), "no parameter `strat` for `${strat}`: expected one of `start`");
    }

    #[test]
    fn a_run_sets_what_is_declared_and_the_date_but_nothing_else() {
        let declared = values(&[("start", "2013-01-01")]);
        let resolved = resolve(&declared, &values(&[("start", "2014-01-01")]), "w-1", "2026-11-22").unwrap();
        assert_eq!(resolved, values(&[("start", "2014-01-01"), ("run_id", "w-1"), ("run_date", "2026-11-22")]));
        let resolved = resolve(&declared, &values(&[("run_date", "2013-05-05")]), "w-1", "2026-11-22").unwrap();
        assert_eq!(resolved["run_date"], "2013-05-05");
        for name in ["end", "run_id"] {
            let error = resolve(&declared, &values(&[(name, "x")]), "w-1", "2026-11-22").unwrap_err();
            assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        }
    }

    proptest! {
        /// Whatever the value, the statement has the same tokens but for the one literal.
        #[test]
        fn no_value_leaves_its_literal(value in ".*") {
            let values = values(&[("v", &value)]);
            let sql = substitute("SELECT '${v}', 1", &values).unwrap();
            let inner = sql.strip_prefix("SELECT '").unwrap().strip_suffix("', 1").unwrap();
            prop_assert_eq!(inner.replace("''", ""), value.replace('\'', ""));
            let sql = substitute("SELECT ${v}", &values).unwrap();
            let bare = sql.strip_prefix("SELECT ").unwrap();
            if let Some(text) = bare.strip_prefix('\'') {
                prop_assert_eq!(text.strip_suffix('\'').unwrap().replace("''", "'"), value);
            } else {
                prop_assert!(bare.chars().all(|c| c.is_ascii_alphanumeric() || "()+-.".contains(c)));
            }
        }
    }
}
