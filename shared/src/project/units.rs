//! The small texts of the lakehouse file: sizes, durations, schedules.

use std::fmt;
use std::str::FromStr;

use crate::model::text::text_type;
use crate::{Error, Result};

/// A number of bytes: `64MiB`, `1GiB`, `500KB`, `1024B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

text_type!(ByteSize, r"^[0-9]+ ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$", "64MiB");

const SIZE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        SIZE_UNITS
            .iter()
            .find_map(|(unit, factor)| Some((text.trim().strip_suffix(unit)?, factor)))
            .and_then(|(number, factor)| number.trim().parse::<u64>().ok()?.checked_mul(*factor))
            .map(Self)
            .ok_or_else(|| Error::invalid(format!("expected a size such as `64MiB`, found `{text}`")))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary =
            SIZE_UNITS[..4].iter().rev().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match binary {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A duration in whole seconds: `30s`, `5m`, `2h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u64);

text_type!(Seconds, r"^[0-9]+ ?[smhd]$", "5m");

impl FromStr for Seconds {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]
            .iter()
            .find_map(|(unit, factor)| Some((text.trim().strip_suffix(unit)?, *factor)))
            .and_then(|(number, factor): (_, u64)| number.trim().parse::<u64>().ok()?.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| {
                Error::invalid(format!("expected a duration such as `30s`, `5m`, `2h` or `1d`, found `{text}`"))
            })
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s > 0 && s % 86_400 == 0 => write!(f, "{}d", s / 86_400),
            s if s > 0 && s % 3_600 == 0 => write!(f, "{}h", s / 3_600),
            s if s > 0 && s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}

/// When something runs: `rate(5m)`, or `cron(0 6 * * *)` with the five fields of crontab, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    Rate(Seconds),
    Cron(String),
}

text_type!(Schedule, r"^(rate\(.+\)|cron\(.+\))$", "rate(5m)");

impl Schedule {
    /// The first time after `after_ms` that the schedule is due, both milliseconds since the epoch. A rate is due at whole
    /// multiples of itself.
    ///
    /// # Errors
    /// `Invalid` when the expression never comes due again.
    pub fn next_after(&self, after_ms: i64) -> Result<i64> {
        match self {
            Self::Rate(Seconds(seconds)) => {
                let step = i64::try_from(*seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000).max(1);
                Ok(after_ms.div_euclid(step).saturating_add(1).saturating_mul(step))
            }
            Self::Cron(expression) => {
                let after = chrono::DateTime::from_timestamp_millis(after_ms)
                    .ok_or_else(|| Error::invalid(format!("expected a time in range, found `{after_ms}` ms")))?;
                let next = parse_cron(expression)?
                    .find_next_occurrence(&after, false)
                    .map_err(|e| Error::invalid(format!("`cron({expression})` never comes due")).with_source(e))?;
                Ok(next.timestamp_millis())
            }
        }
    }
}

fn parse_cron(expression: &str) -> Result<croner::Cron> {
    croner::Cron::from_str(expression).map_err(|e| {
        Error::invalid(format!("expected `cron(minute hour day month weekday)`, found `cron({expression})`"))
            .with_source(e)
    })
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let inner = |name: &str| text.trim().strip_prefix(name)?.trim().strip_prefix('(')?.strip_suffix(')');
        if let Some(rate) = inner("rate") {
            return match rate.parse()? {
                Seconds(0) => Err(Error::invalid("expected a rate of 1s or more, found `0s`")),
                rate => Ok(Self::Rate(rate)),
            };
        }
        if let Some(expression) = inner("cron") {
            parse_cron(expression)?;
            return Ok(Self::Cron(expression.into()));
        }
        Err(Error::invalid(format!("expected `rate(5m)` or `cron(0 6 * * *)`, found `{text}`")))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "rate({rate})"),
            Self::Cron(expression) => write!(f, "cron({expression})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_survive_their_text() {
        for text in ["64MiB", "1GiB", "1500B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["30s", "5m", "2h", "1d"] {
            assert_eq!(text.parse::<Seconds>().unwrap().to_string(), text);
        }
        for text in ["rate(5m)", "cron(0 6 * * *)"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_unit_is_refused_with_its_text() {
        assert!("5 parsecs".parse::<Seconds>().unwrap_err().to_string().contains("`5 parsecs`"));
        assert!("64".parse::<ByteSize>().is_err());
        assert!("rate(0s)".parse::<Schedule>().is_err());
        assert!("cron(61 * * * *)".parse::<Schedule>().is_err());
    }

    #[test]
    fn schedules_come_due_in_utc() {
        let rate: Schedule = "rate(5m)".parse().unwrap();
        assert_eq!(rate.next_after(1).unwrap(), 300_000);
        assert_eq!(rate.next_after(300_000).unwrap(), 600_000);
        let cron: Schedule = "cron(0 6 * * *)".parse().unwrap();
        assert_eq!(cron.next_after(0).unwrap(), 6 * 3_600_000);
    }
}
