//! Dates and times: their parts, ISO 8601, Unix time, durations.

use std::fmt::Write;

use arrow::array::ArrayRef;
use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType};
use chrono::{DateTime, Days, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Weekday};
use datafusion::common::Result;

use super::call::{
    Bigint, Call, Date, Day, Decimal, Double, Fixed, Instant, Interval, Text, Timestamp, collect, invalid, one, whole,
};
use super::{Function, scalar};

const SECTION: &str = "Date and Time";

/// Intervals of days and less, or of months.
type Span = Fixed<IntervalMonthDayNanoType>;

const SECOND: i64 = 1_000_000;

pub(super) fn functions() -> Vec<Function> {
    let mut functions = parts();
    functions.extend(unix());
    functions.extend(iso());
    functions.extend(durations());
    functions
}

/// Parts of times, as the engine's own `date_part` gives them: it is looked for in files without reading them.
fn parts() -> Vec<Function> {
    let list: [(&str, &str, &str, &str, &str, &str); 19] = [
        (
            "year",
            "year(timestamp) -> bigint",
            "the year",
            "CAST(date_part('year', $1) AS bigint)",
            "year(DATE '2024-02-29')",
            "2024",
        ),
        (
            "quarter",
            "quarter(timestamp) -> bigint",
            "the quarter of the year",
            "CAST(date_part('quarter', $1) AS bigint)",
            "quarter(DATE '2024-02-29')",
            "1",
        ),
        (
            "month",
            "month(timestamp) -> bigint",
            "the month",
            "CAST(date_part('month', $1) AS bigint)",
            "month(DATE '2024-02-29')",
            "2",
        ),
        (
            "week",
            "week(timestamp) -> bigint",
            "the week of ISO 8601",
            "CAST(date_part('week', $1) AS bigint)",
            "week(DATE '2021-01-01')",
            "53",
        ),
        (
            "week_of_year",
            "week_of_year(timestamp) -> bigint",
            "as `week`",
            "CAST(date_part('week', $1) AS bigint)",
            "week_of_year(DATE '2021-01-01')",
            "53",
        ),
        (
            "year_of_week",
            "year_of_week(timestamp) -> bigint",
            "the year that the week of ISO 8601 belongs to",
            "CAST(date_part('isoyear', $1) AS bigint)",
            "year_of_week(DATE '2021-01-01')",
            "2020",
        ),
        (
            "yow",
            "yow(timestamp) -> bigint",
            "as `year_of_week`",
            "CAST(date_part('isoyear', $1) AS bigint)",
            "yow(DATE '2021-01-01')",
            "2020",
        ),
        (
            "day",
            "day(timestamp) -> bigint",
            "the day of the month",
            "CAST(date_part('day', $1) AS bigint)",
            "day(DATE '2024-02-29')",
            "29",
        ),
        (
            "day_of_month",
            "day_of_month(timestamp) -> bigint",
            "as `day`",
            "CAST(date_part('day', $1) AS bigint)",
            "day_of_month(DATE '2024-02-29')",
            "29",
        ),
        (
            "day_of_week",
            "day_of_week(timestamp) -> bigint",
            "the day of the week, 1 (Monday) to 7 (Sunday)",
            "CAST(date_part('isodow', $1) AS bigint)",
            "day_of_week(DATE '2020-02-16')",
            "7",
        ),
        (
            "dow",
            "dow(timestamp) -> bigint",
            "as `day_of_week`",
            "CAST(date_part('isodow', $1) AS bigint)",
            "dow(DATE '2020-02-16')",
            "7",
        ),
        (
            "day_of_year",
            "day_of_year(timestamp) -> bigint",
            "the day of the year",
            "CAST(date_part('doy', $1) AS bigint)",
            "day_of_year(DATE '2024-02-29')",
            "60",
        ),
        (
            "doy",
            "doy(timestamp) -> bigint",
            "as `day_of_year`",
            "CAST(date_part('doy', $1) AS bigint)",
            "doy(DATE '2024-02-29')",
            "60",
        ),
        (
            "hour",
            "hour(timestamp) -> bigint",
            "the hour",
            "CAST(date_part('hour', $1) AS bigint)",
            "hour(TIMESTAMP '2024-02-29 13:05:07')",
            "13",
        ),
        (
            "minute",
            "minute(timestamp) -> bigint",
            "the minute",
            "CAST(date_part('minute', $1) AS bigint)",
            "minute(TIMESTAMP '2024-02-29 13:05:07')",
            "5",
        ),
        (
            "second",
            "second(timestamp) -> bigint",
            "the second",
            "CAST(date_part('second', $1) AS bigint)",
            "second(TIMESTAMP '2024-02-29 13:05:07')",
            "7",
        ),
        (
            "millisecond",
            "millisecond(timestamp) -> bigint",
            "the milliseconds of the second",
            "CAST(date_part('millisecond', $1) AS bigint) % 1000",
            "millisecond(TIMESTAMP '2024-02-29 13:05:07.089')",
            "89",
        ),
        (
            "date",
            "date(timestamp) -> date",
            "the value as a date",
            "CAST($1 AS date)",
            "date('2024-02-29')",
            "2024-02-29",
        ),
        (
            "last_day_of_month",
            "last_day_of_month(timestamp) -> date",
            "the last day of the month",
            "CAST(date_trunc('month', $1) + INTERVAL '1' MONTH - INTERVAL '1' DAY AS date)",
            "last_day_of_month(DATE '2024-02-01')",
            "2024-02-29",
        ),
    ];
    let mut functions: Vec<Function> = list
        .into_iter()
        .map(|(name, signature, does, template, call, gives)| {
            scalar(SECTION, name, does).stands_for(signature, template).example(call, gives)
        })
        .collect();
    functions.extend([
        scalar(SECTION, "timezone_hour", "the hours of the zone's offset from UTC")
            .way(
                "timezone_hour(timestamp with time zone) -> bigint",
                whole(|call| offsets(call, |seconds| seconds / 3600)),
            )
            .example("timezone_hour(TIMESTAMP '2024-02-29 12:00:00' AT TIME ZONE '-05:30')", "-5"),
        scalar(SECTION, "timezone_minute", "the minutes of the zone's offset from UTC")
            .way(
                "timezone_minute(timestamp with time zone) -> bigint",
                whole(|call| offsets(call, |seconds| seconds / 60 % 60)),
            )
            .example("timezone_minute(TIMESTAMP '2024-02-29 12:00:00' AT TIME ZONE '-05:30')", "-30"),
        scalar(SECTION, "current_timezone", "the zone of the session: always UTC")
            .way("current_timezone() -> varchar", whole(|call| collect(call, |_| Ok(Some("UTC")))))
            .example("current_timezone()", "UTC"),
    ]);
    functions
}

fn unix() -> Vec<Function> {
    vec![
        scalar(SECTION, "from_unixtime", "the instant so many seconds after 1970, to the millisecond")
            .way("from_unixtime(double) -> timestamp with time zone", one::<Double, Instant, _>(from_unixtime))
            .example("from_unixtime(1.5)", "1970-01-01T00:00:01.500Z"),
        scalar(SECTION, "from_unixtime_nanos", "the instant so many nanoseconds after 1970, to the microsecond")
            .way(
                "from_unixtime_nanos(bigint) -> timestamp with time zone",
                one::<Bigint, Instant, _>(|nanos: i64| Instant(nanos.div_euclid(1_000))),
            )
            .way("from_unixtime_nanos(decimal) -> timestamp with time zone", whole(from_unixtime_nanos))
            .example("from_unixtime_nanos(1500)", "1970-01-01T00:00:00.000001Z"),
        scalar(SECTION, "to_unixtime", "the seconds since 1970")
            .way("to_unixtime(timestamp) -> double", one::<Timestamp, f64, _>(to_unixtime))
            .way("to_unixtime(timestamp with time zone) -> double", one::<Timestamp, f64, _>(to_unixtime))
            .example("to_unixtime(TIMESTAMP '1970-01-01 00:00:01.5')", "1.5"),
    ]
}

fn iso() -> Vec<Function> {
    vec![
        scalar(SECTION, "from_iso8601_date", "the date that a text of ISO 8601 is: of a month, a week or a year")
            .way(
                "from_iso8601_date(varchar) -> date",
                one::<Text, Day, _>(|text: &str| {
                    iso_date(text).map(|date| Day(date.to_epoch_days())).ok_or_else(|| no_date(text))
                }),
            )
            .example("from_iso8601_date('2020-W10')", "2020-03-02"),
        scalar(
            SECTION,
            "from_iso8601_timestamp",
            "the instant that a text of ISO 8601 is, to the millisecond; without a zone in UTC",
        )
        .way(
            "from_iso8601_timestamp(varchar) -> timestamp with time zone",
            one::<Text, Instant, _>(|text: &str| {
                iso_instant(text).map(|micros| Instant(micros.div_euclid(1_000) * 1_000)).ok_or_else(|| no_date(text))
            }),
        )
        .example("from_iso8601_timestamp('2020-05-11T11:15:05.055+01:00')", "2020-05-11T10:15:05.055Z"),
        scalar(SECTION, "from_iso8601_timestamp_nanos", "the instant that a text of ISO 8601 is, to the microsecond")
            .way(
                "from_iso8601_timestamp_nanos(varchar) -> timestamp with time zone",
                one::<Text, Instant, _>(|text: &str| iso_instant(text).map(Instant).ok_or_else(|| no_date(text))),
            )
            .example("from_iso8601_timestamp_nanos('2020-05-11T11:15:05.123456')", "2020-05-11T11:15:05.123456Z"),
        scalar(SECTION, "to_iso8601", "the value as a text of ISO 8601")
            .way(
                "to_iso8601(date) -> varchar",
                one::<Date, String, _>(|day: i32| {
                    NaiveDate::from_epoch_days(day).map(|date| date.to_string()).ok_or_else(outside)
                }),
            )
            .way(
                "to_iso8601(timestamp) -> varchar",
                one::<Timestamp, String, _>(|micros: i64| Ok(at(micros)?.format("%Y-%m-%dT%H:%M:%S%.3f").to_string())),
            )
            .way("to_iso8601(timestamp with time zone) -> varchar", whole(zoned_iso))
            .example("to_iso8601(DATE '2020-05-11')", "2020-05-11"),
    ]
}

fn durations() -> Vec<Function> {
    vec![
        scalar(SECTION, "to_milliseconds", "the milliseconds of an interval of days and less")
            .way(
                "to_milliseconds(interval) -> bigint",
                one::<Span, i64, _>(|span: IntervalMonthDayNano| match span.months {
                    0 => Ok(i64::from(span.days) * 86_400_000 + span.nanoseconds / 1_000_000),
                    _ => Err(invalid("expected an interval of days, hours, minutes and seconds, found one of months")),
                }),
            )
            .example("to_milliseconds(INTERVAL '1' HOUR)", "3600000"),
        scalar(
            SECTION,
            "parse_duration",
            "the interval that a number and a unit are: ns, us, ms, s, m, h, d; to the millisecond",
        )
        .way("parse_duration(varchar) -> interval", one::<Text, Interval, _>(parse_duration))
        .example("to_milliseconds(parse_duration('42.8ms'))", "43"),
        scalar(SECTION, "human_readable_seconds", "the seconds in weeks, days, hours, minutes and seconds")
            .way("human_readable_seconds(double) -> varchar", one::<Double, String, _>(human_readable))
            .example("human_readable_seconds(3762)", "1 hour, 2 minutes, 42 seconds"),
    ]
}

pub(super) fn outside() -> datafusion::common::DataFusionError {
    invalid("expected a time in the range of times, found one outside of it")
}

fn no_date(text: &str) -> datafusion::common::DataFusionError {
    invalid(format!("expected a date or time of ISO 8601, found `{text}`"))
}

pub(super) fn at(micros: i64) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc()).ok_or_else(outside)
}

/// The zone of the call's argument.
pub(super) fn zone_of(call: &Call<'_>, argument: usize) -> Result<Tz> {
    match call.arguments[argument].data_type() {
        DataType::Timestamp(_, Some(zone)) => Ok(zone.parse()?),
        other => Err(invalid(format!("expected a timestamp with time zone, found {other}"))),
    }
}

/// Seconds east of UTC.
pub(super) fn offset(zone: Tz, time: NaiveDateTime) -> FixedOffset {
    zone.offset_from_utc_datetime(&time).fix()
}

fn offsets(call: &Call<'_>, of: fn(i64) -> i64) -> Result<ArrayRef> {
    let (zone, times) = (zone_of(call, 0)?, call.column::<Timestamp>(0)?);
    collect(call, |row| {
        let time = times.get(row).map(at).transpose()?;
        Ok(time.map(|time| of(i64::from(offset(zone, time).local_minus_utc()))))
    })
}

fn from_unixtime(seconds: f64) -> Result<Instant> {
    let millis = (seconds * 1_000.0).round();
    if !millis.is_finite() || millis.abs() > 8.64e15 {
        return Err(invalid(format!("expected seconds in the range of times, found {seconds}")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
    let millis = millis as i64;
    millis.checked_mul(1_000).map(Instant).ok_or_else(outside)
}

fn from_unixtime_nanos(call: &Call<'_>) -> Result<ArrayRef> {
    let values = call.column::<Decimal>(0)?;
    let unit = match call.arguments[0].data_type() {
        DataType::Decimal128(_, scale) => 10_i128.pow(u32::try_from(*scale).unwrap_or(0)),
        _ => 1,
    };
    collect(call, |row| {
        let micros =
            values.get(row).map(|digits| i64::try_from((digits / unit).div_euclid(1_000)).map_err(|_| outside()));
        micros.transpose().map(|micros| micros.map(Instant))
    })
}

#[expect(clippy::cast_precision_loss, reason = "as far as a double holds it")]
fn to_unixtime(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// A date of a month (`2020-05-11`, `2020-05`, `2020`), a week (`2020-W10-1`) or a year (`2020-123`).
fn iso_date(text: &str) -> Option<NaiveDate> {
    let number = |part: &str, digits: usize| {
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<u32>().ok())?
    };
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let mut parts = rest.split('-');
    let year = i32::try_from(number(parts.next()?, 4)?).ok()? * sign;
    match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => NaiveDate::from_ymd_opt(year, 1, 1),
        (Some(week), day, None) if week.starts_with('W') => {
            let day = day.map_or(Some(1), |day| number(day, 1))?;
            let weekday = Weekday::try_from(u8::try_from(day).ok()?.checked_sub(1)?).ok()?;
            NaiveDate::from_isoywd_opt(year, number(&week[1..], 2)?, weekday)
        }
        (Some(day), None, None) if day.len() == 3 => NaiveDate::from_yo_opt(year, number(day, 3)?),
        (Some(month), None, None) => NaiveDate::from_ymd_opt(year, number(month, 2)?, 1),
        (Some(month), Some(day), None) => NaiveDate::from_ymd_opt(year, number(month, 2)?, number(day, 2)?),
        _ => None,
    }
}

/// Microseconds since 1970.
fn iso_instant(text: &str) -> Option<i64> {
    let Some((date, rest)) = text.split_once('T') else {
        return Some(iso_date(text)?.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
    };
    let (time, zone) = match rest.find(['Z', '+', '-']) {
        Some(at) => rest.split_at(at),
        None => (rest, "Z"),
    };
    let (whole, fraction) = time.split_once(['.', ',']).unwrap_or((time, ""));
    let mut parts = whole.split(':').map(|part| if part.len() == 2 { part.parse::<u32>().ok() } else { None });
    let hour = parts.next()??;
    let (minute, second) = (parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
    if parts.next().is_some() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros = format!("{fraction:0<6}").get(..6)?.parse::<u32>().ok()?;
    // The last instant of a day may be written as 24:00.
    let (hour, days) = if (hour, minute, second, micros) == (24, 0, 0, 0) { (0, 1) } else { (hour, 0) };
    let time = NaiveTime::from_hms_micro_opt(hour, minute, second, micros)?;
    let seconds = if zone == "Z" { 0 } else { zone.parse::<FixedOffset>().ok()?.local_minus_utc() };
    let local = iso_date(date)?.checked_add_days(Days::new(days))?.and_time(time);
    Some(local.and_utc().timestamp_micros() - i64::from(seconds) * SECOND)
}

fn zoned_iso(call: &Call<'_>) -> Result<ArrayRef> {
    let (zone, times) = (zone_of(call, 0)?, call.column::<Timestamp>(0)?);
    collect(call, |row| {
        let Some(time) = times.get(row).map(at).transpose()? else { return Ok(None) };
        let offset = offset(zone, time);
        let local = offset.from_utc_datetime(&time).format("%Y-%m-%dT%H:%M:%S%.3f");
        let suffix = if offset.local_minus_utc() == 0 { "Z".to_owned() } else { offset.to_string() };
        Ok(Some(format!("{local}{suffix}")))
    })
}

fn parse_duration(text: &str) -> Result<Interval> {
    let odd = || invalid(format!("expected a number and a unit of ns, us, ms, s, m, h or d, found `{text}`"));
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(odd)?;
    let (number, unit) = trimmed.split_at(split);
    let millis = match unit.trim_start() {
        "ns" => 1e-6,
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        "h" => 3.6e6,
        "d" => 8.64e7,
        _ => return Err(odd()),
    };
    let millis = (number.parse::<f64>().map_err(|_| odd())? * millis).round();
    if millis > 9e12 {
        return Err(invalid(format!("expected a duration of at most 100,000 days, found `{text}`")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
    let millis = millis as i64;
    let days = i32::try_from(millis / 86_400_000).unwrap_or(i32::MAX);
    Ok(Interval(IntervalMonthDayNano::new(0, days, millis % 86_400_000 * 1_000_000)))
}

fn human_readable(seconds: f64) -> Result<String> {
    let rounded = seconds.abs().round();
    if !rounded.is_finite() || rounded > 9e15 {
        return Err(invalid(format!("expected seconds, found {seconds}")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and in range")]
    let mut rest = rounded as u64;
    let mut text = String::new();
    for (unit, name) in [(604_800, "week"), (86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")] {
        let (number, after) = (rest / unit, rest % unit);
        rest = after;
        if number > 0 || (unit == 1 && text.is_empty()) {
            let (comma, plural) = (if text.is_empty() { "" } else { ", " }, if number == 1 { "" } else { "s" });
            let _ = write!(text, "{comma}{number} {name}{plural}");
        }
    }
    Ok(text)
}
