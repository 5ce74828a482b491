//! A line of the quarantine.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::aside::Period;
use shared::model::{Column, ColumnType};
use shared::{Error, Result};
use uuid::Uuid;

use crate::quality::form::FORM;

/// A row that was set aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// How the row is written: see [`crate::quality::form`].
    #[serde(default)]
    pub(super) form: u32,
    pub(crate) run: String,
    /// Those that the row breaks.
    pub(crate) rules: Vec<String>,
    /// Why a replay left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// As it is written: numbers keep their digits.
    pub(crate) row: Box<RawValue>,
}

/// Which rows. What a discard is about is kept in its plan as this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    /// When their run began.
    #[serde(flatten)]
    pub(crate) period: Period,
    /// A rule that they break.
    pub(crate) rule: Option<String>,
}

impl Line {
    /// `None` for a line that another program wrote.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Adds the line to an object.
    ///
    /// # Errors
    /// `Bug` when it has no JSON form.
    pub(super) fn write(&self, object: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(&mut *object, self)
            .map_err(|e| Error::bug("a row in quarantine has no JSON form").with_source(e))?;
        object.push(b'\n');
        Ok(())
    }

    /// The same row, left by a replay.
    pub(super) fn left(self, rules: Vec<String>, reason: String) -> Self {
        Self { rules, reason: Some(reason), ..self }
    }

    /// Why the row can't be read for a table of these columns: it is in the first form, which lost something of these types.
    pub(super) fn is_lossy(&self, columns: &[Column]) -> Option<String> {
        let column = columns.iter().find(|column| self.form != FORM && may_be_lost(&column.ty))?;
        Some(format!(
            "an earlier version set it aside, which wrote binary as hexadecimal and NaN as null: the column `{}` of type `{}` can't be told",
            column.name, column.ty
        ))
    }
}

fn may_be_lost(ty: &ColumnType) -> bool {
    match ty {
        ColumnType::Float | ColumnType::Double | ColumnType::Binary => true,
        ColumnType::Array(item) => may_be_lost(item),
        ColumnType::Map(key, value) => may_be_lost(key) || may_be_lost(value),
        ColumnType::Struct(fields) => fields.iter().any(|(_, ty)| may_be_lost(ty)),
        _ => false,
    }
}

/// When a run began, milliseconds since the epoch, by its id.
pub(super) fn began_ms(run: &str) -> Option<i64> {
    let id = Uuid::parse_str(run.rsplit_once('-')?.1).ok()?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(i64::try_from(seconds).ok()? * 1_000 + i64::from(nanos / 1_000_000))
}

impl Filter {
    pub(crate) fn takes(&self, line: &Line) -> bool {
        let in_time = || began_ms(&line.run).is_some_and(|at_ms| self.period.holds(at_ms));
        (self.period.is_all() || in_time()) && self.rule.as_ref().is_none_or(|rule| line.rules.contains(rule))
    }

    /// As [`Filter::takes`]; a line that another program wrote is taken where all are.
    pub(super) fn takes_line(&self, line: &[u8]) -> bool {
        match Line::parse(line) {
            Some(line) => self.takes(&line),
            None => !line.is_empty() && *self == Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_s_id_tells_when_it_began() {
        assert_eq!(began_ms("daily-018bd12c1a607000800000000000000f"), Some(0x018b_d12c_1a60));
        assert_eq!(began_ms("daily-x"), None);
    }

    #[test]
    fn a_line_keeps_the_digits_of_its_row() {
        let text = r#"{"form":2,"run":"w-1","rules":["r"],"row":{"n":12345678901234567890.123456789}}"#;
        let line = Line::parse(text.as_bytes()).unwrap();
        let mut again = Vec::new();
        line.write(&mut again).unwrap();
        assert_eq!(again, format!("{text}\n").into_bytes());
        assert_eq!(Line::parse(br#"{"run":1}"#).map(|line| line.run), None);
    }

    #[test]
    fn what_the_first_form_lost_is_told() {
        let columns = |ty: &str| [Column::new("c", ty.parse().unwrap())];
        let first = Line::parse(br#"{"run":"w-1","rules":[],"row":{}}"#).unwrap();
        assert!(first.is_lossy(&columns("bigint")).is_none());
        assert!(first.is_lossy(&columns("array<struct<a:double>>")).unwrap().contains("`c`"));
        assert!(Line { form: FORM, ..first }.is_lossy(&columns("binary")).is_none());
    }

    #[test]
    fn a_filter_takes_what_it_names() {
        let line = Line::parse(br#"{"run":"w-018bd12c1a607000800000000000000f","rules":["a"],"row":{}}"#).unwrap();
        let of = |since: Option<&str>, until: Option<&str>, rule: Option<&str>| Filter {
            period: Period::parse(since, until).unwrap(),
            rule: rule.map(str::to_owned),
        };
        assert!(of(None, None, Some("a")).takes(&line) && !of(None, None, Some("b")).takes(&line));
        assert!(of(Some("2023-11-14"), Some("2023-11-16"), None).takes(&line));
        assert!(!of(Some("2023-11-16"), None, None).takes(&line));
        assert!(!of(None, None, Some("a")).takes_line(b"no line of ours") && Filter::default().takes_line(b"x"));
    }
}
