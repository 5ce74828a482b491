//! Periods of time: which one an instant falls into, when it starts, what it is called.
//!
//! Instants are microseconds since 1970-01-01T00:00:00 (UTC for columns with a zone, the clock on the wall for those without).

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// The length of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Second,
    Minute,
    FiveMinutes,
    QuarterHour,
    HalfHour,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Unit {
    /// From the finest to the coarsest.
    pub const ALL: [Self; 11] = [
        Self::Second,
        Self::Minute,
        Self::FiveMinutes,
        Self::QuarterHour,
        Self::HalfHour,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::Year,
    ];

    /// As answers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::FiveMinutes => "5 minutes",
            Self::QuarterHour => "15 minutes",
            Self::HalfHour => "30 minutes",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }

    /// Microseconds, of units that always last as long.
    fn micros(self) -> Option<i64> {
        Some(match self {
            Self::Second => SECOND,
            Self::Minute => 60 * SECOND,
            Self::FiveMinutes => 300 * SECOND,
            Self::QuarterHour => 900 * SECOND,
            Self::HalfHour => 1_800 * SECOND,
            Self::Hour => 3_600 * SECOND,
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month | Self::Quarter | Self::Year => return None,
        })
    }

    /// Calendar months, of the others.
    fn months(self) -> i64 {
        match self {
            Self::Quarter => 3,
            Self::Year => 12,
            _ => 1,
        }
    }

    /// Season lengths, in periods, that calendars and clocks suggest: shortest first.
    pub fn usual_seasons(self) -> &'static [usize] {
        match self {
            Self::Second => &[60],
            Self::Minute => &[60, 1_440],
            Self::FiveMinutes => &[12, 288, 2_016],
            Self::QuarterHour => &[4, 96, 672],
            Self::HalfHour => &[48, 336],
            Self::Hour => &[24, 168],
            Self::Day => &[7, 365],
            Self::Week => &[52],
            Self::Month => &[12],
            Self::Quarter => &[4],
            Self::Year => &[],
        }
    }
}

/// Numbers periods of one unit; the number grows by one from each period to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    unit: Unit,
    /// Microseconds that the start of a period lies after a multiple of its length; not 0 only for weeks.
    shift: i64,
}

impl Calendar {
    /// Weeks start on the weekday that all `instants` share, else on Monday.
    pub fn new(unit: Unit, instants: &[i64]) -> Self {
        let weekday = |t: &i64| t.div_euclid(DAY).rem_euclid(7);
        // 1970-01-01 was a Thursday, so Mondays are the days 4, 11, …
        let shared = instants.first().map(weekday).filter(|day| instants.iter().all(|t| weekday(t) == *day));
        let shift = if unit == Unit::Week { shared.unwrap_or(4) * DAY } else { 0 };
        Self { unit, shift }
    }

    pub fn unit(self) -> Unit {
        self.unit
    }

    /// The number of the period that holds `instant`.
    pub fn index(self, instant: i64) -> i64 {
        match self.unit.micros() {
            Some(length) => (instant - self.shift).div_euclid(length),
            None => {
                let date = moment(instant).date();
                (i64::from(date.year()) * 12 + i64::from(date.month0())).div_euclid(self.unit.months())
            }
        }
    }

    /// The first instant of a period.
    pub fn start(self, index: i64) -> i64 {
        match self.unit.micros() {
            Some(length) => index.saturating_mul(length).saturating_add(self.shift),
            None => {
                let months = index.saturating_mul(self.unit.months());
                let year = i32::try_from(months.div_euclid(12)).unwrap_or(i32::MAX);
                let month = u32::try_from(months.rem_euclid(12) + 1).unwrap_or(1);
                let date = NaiveDate::from_ymd_opt(year, month, 1).unwrap_or(NaiveDate::MAX);
                date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros()
            }
        }
    }

    /// The name of a period: its first day, or its first second for periods shorter than a day (`Z` when `zoned`).
    pub fn label(self, index: i64, zoned: bool) -> String {
        let start = moment(self.start(index));
        if self.is_days() {
            return start.format("%Y-%m-%d").to_string();
        }
        let text = start.format("%Y-%m-%dT%H:%M:%S").to_string();
        if zoned { text + "Z" } else { text }
    }

    /// Whether periods last whole days.
    pub fn is_days(self) -> bool {
        matches!(self.unit, Unit::Day | Unit::Week | Unit::Month | Unit::Quarter | Unit::Year)
    }
}

/// Whether an instant lies in the years 1 to 9999, which every part of an answer can write.
pub(crate) fn is_in_range(instant: i64) -> bool {
    const FIRST: i64 = -62_135_596_800 * SECOND;
    const END: i64 = 253_402_300_800 * SECOND;
    (FIRST..END).contains(&instant)
}

fn moment(instant: i64) -> NaiveDateTime {
    DateTime::from_timestamp_micros(instant).unwrap_or(DateTime::UNIX_EPOCH).naive_utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(text: &str) -> i64 {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros()
    }

    #[test]
    fn every_period_holds_its_own_start_and_not_the_next_one() {
        for unit in Unit::ALL {
            let calendar = Calendar::new(unit, &[]);
            for text in ["2013-02-09 17:43", "1969-12-31 23:59", "2024-02-29 00:00", "0001-03-01 00:00"] {
                let index = calendar.index(instant(text));
                assert_eq!(calendar.index(calendar.start(index)), index, "{unit:?} {text}");
                assert_eq!(calendar.index(calendar.start(index + 1) - 1), index, "{unit:?} {text}");
            }
        }
    }

    #[test]
    fn periods_are_named_by_their_start() {
        let at = instant("2013-02-09 17:43");
        let label = |unit| {
            let calendar = Calendar::new(unit, &[]);
            calendar.label(calendar.index(at), true)
        };
        assert_eq!(label(Unit::QuarterHour), "2013-02-09T17:30:00Z");
        assert_eq!(label(Unit::Day), "2013-02-09");
        assert_eq!(label(Unit::Week), "2013-02-04");
        assert_eq!(label(Unit::Month), "2013-02-01");
        assert_eq!(label(Unit::Quarter), "2013-01-01");
    }

    #[test]
    fn weeks_start_on_the_weekday_of_the_data() {
        let sundays = [instant("2013-02-03 00:00"), instant("2013-02-10 00:00")];
        let calendar = Calendar::new(Unit::Week, &sundays);
        assert_eq!(calendar.label(calendar.index(sundays[1]), false), "2013-02-10");
    }
}
