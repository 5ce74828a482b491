//! `${name}` in a job's SQL: which parameters a run has, and how their values get into the text.
//!
//! A value can never change the shape of the statement. Where `${name}` stands decides how its value is written:
//!
//! - inside `'…'` or `"…"`: as text, the quote doubled: `'${year}-01-01'`, `"${table}"`;
//! - anywhere else: as an SQL literal: a JSON number or `true`/`false` as it is (a negative number in parentheses), anything
//!   else quoted: `WHERE day >= ${start} LIMIT ${n}` becomes `WHERE day >= '2013-01-01' LIMIT 10`;
//! - in comments nothing is replaced.
//!
//! Where they stand is found by [`shared::project::parameters`].

use std::collections::BTreeMap;

use shared::project::parameters::{Piece, Region, pieces};
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
    for piece in pieces(sql) {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Parameter { name, region } => {
                let value = values.get(name).ok_or_else(|| {
                    let expected = one_of(values.keys());
                    Error::invalid(format!("no parameter `{name}` for `${{{name}}}`: expected {expected}"))
                })?;
                out.push_str(&written(value, region));
            }
        }
    }
    Ok(out)
}

/// `sql` with something in place of each parameter that any type can be; none when it has no parameter.
pub fn without_values(sql: &str) -> Option<String> {
    let pieces = pieces(sql);
    let text = |piece: &Piece<'_>| match piece {
        Piece::Text(text) => (*text).to_owned(),
        Piece::Parameter { region: Region::Quoted(_) | Region::Escaped, .. } => "1".to_owned(),
        Piece::Parameter { .. } => "NULL".to_owned(),
    };
    let has_parameters = pieces.iter().any(|piece| matches!(piece, Piece::Parameter { .. }));
    has_parameters.then(|| pieces.iter().map(text).collect())
}

/// The value as it must be written in this part of a text.
fn written(value: &str, region: Region) -> String {
    match region {
        Region::Quoted(quote) => value.replace(quote, &format!("{quote}{quote}")),
        Region::Escaped => value.replace('\\', "\\\\").replace('\'', "''"),
        _ => literal(value),
    }
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
