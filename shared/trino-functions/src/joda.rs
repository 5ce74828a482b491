//! `format_datetime` and `parse_datetime`, with the letters of Joda-Time's `DateTimeFormat`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, TimeZone, Timelike, Weekday};
use datafusion::common::Result;

use super::call::{Call, Instant, Text, Timestamp, collect, invalid, two, whole};
use super::times::{at, offset, zone_of};
use super::{Function, scalar};

const SECTION: &str = "Date and Time";
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "format_datetime", "the time as text, in a format of Joda-Time such as `yyyy-MM-dd HH:mm:ss`")
            .way("format_datetime(timestamp, varchar) -> varchar", whole(format))
            .way("format_datetime(timestamp with time zone, varchar) -> varchar", whole(format))
            .example(
                "format_datetime(TIMESTAMP '2024-02-29 13:05:07', 'EEE d MMM yyyy, h:mm a')",
                "Thu 29 Feb 2024, 1:05 PM",
            ),
        scalar(SECTION, "parse_datetime", "the instant that a text in a format of Joda-Time is; without a zone in UTC")
            .way(
                "parse_datetime(varchar, varchar) -> timestamp with time zone",
                two::<Text, Text, Instant, _>(|text: &str, format: &str| parse(text, &items(format)?).map(Instant)),
            )
            .example("parse_datetime('29/2/2024 1:05 PM', 'd/M/yyyy h:mm a')", "2024-02-29T13:05:00Z"),
    ]
}

/// How often a letter may stand in a row.
const LONGEST: usize = 64;

/// A part of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Text(String),
    /// A letter, and how often it stands there.
    Field(char, usize),
}

/// # Errors
/// `Invalid` for a letter that has no meaning, or none here.
fn items(format: &str) -> Result<Vec<Item>> {
    let (mut items, mut text) = (Vec::new(), String::new());
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.next_if_eq(&'\'').is_some() => text.push('\''),
            '\'' => loop {
                match chars.next() {
                    Some('\'') if chars.next_if_eq(&'\'').is_some() => text.push('\''),
                    Some('\'') => break,
                    Some(c) => text.push(c),
                    None => {
                        return Err(invalid(format!("expected a quote at the end of a quoted text, found `{format}`")));
                    }
                }
            },
            c if c.is_ascii_alphabetic() => {
                if !"GCYyxwEeMDdaKhHkmsSzZ".contains(c) {
                    return Err(invalid(format!("expected letters of Joda-Time's formats, found `{c}` in `{format}`")));
                }
                let mut length = 1;
                while chars.next_if_eq(&c).is_some() {
                    length += 1;
                }
                if length > LONGEST {
                    return Err(invalid(format!(
                        "expected a letter at most {LONGEST} times in a row, found `{c}` {length} times"
                    )));
                }
                if !text.is_empty() {
                    items.push(Item::Text(std::mem::take(&mut text)));
                }
                items.push(Item::Field(c, length));
            }
            c => text.push(c),
        }
    }
    if !text.is_empty() {
        items.push(Item::Text(text));
    }
    if items.is_empty() {
        return Err(invalid("expected a format of Joda-Time, found an empty text"));
    }
    Ok(items)
}

fn format(call: &Call<'_>) -> Result<ArrayRef> {
    let (times, formats) = (call.column::<Timestamp>(0)?, call.column::<Text>(1)?);
    let zone = match call.arguments[0].data_type() {
        DataType::Timestamp(_, Some(name)) => Some((zone_of(call, 0)?, Arc::clone(name))),
        _ => None,
    };
    let mut known: HashMap<&str, Vec<Item>> = HashMap::new();
    collect(call, |row| {
        let (Some(micros), Some(format)) = (times.get(row), formats.get(row)) else { return Ok(None) };
        if !known.contains_key(format) {
            known.insert(format, items(format)?);
        }
        let time = at(micros)?;
        let (offset, name) = match &zone {
            Some((zone, name)) => (offset(*zone, time), name.as_ref()),
            None => (chrono::Offset::fix(&chrono::Utc), "UTC"),
        };
        let local = offset.from_utc_datetime(&time);
        let mut text = String::new();
        known[format].iter().for_each(|item| show(&mut text, item, &local, name));
        Ok(Some(text))
    })
}

fn show(text: &mut String, item: &Item, time: &DateTime<FixedOffset>, zone: &str) {
    let (letter, length) = match item {
        Item::Text(quoted) => return text.push_str(quoted),
        Item::Field(letter, length) => (*letter, *length),
    };
    let year_of_era = if time.year() > 0 { time.year() } else { 1 - time.year() };
    let short = |name: &str| if length >= 4 { name.to_owned() } else { name.chars().take(3).collect() };
    let number = match letter {
        'G' => return text.push_str(if time.year() > 0 { "AD" } else { "BC" }),
        'C' => i64::from(year_of_era / 100),
        'Y' | 'y' | 'x' => {
            let year = match letter {
                'Y' => year_of_era,
                'y' => time.year(),
                _ => time.iso_week().year(),
            };
            if length == 2 { i64::from(year.rem_euclid(100)) } else { i64::from(year) }
        }
        'w' => i64::from(time.iso_week().week()),
        'e' => i64::from(time.weekday().number_from_monday()),
        'E' => {
            let name = DAYS.get(usize::try_from(time.weekday().num_days_from_monday()).unwrap_or(0));
            return text.push_str(&short(name.unwrap_or(&"")));
        }
        'M' if length >= 3 => {
            let name = MONTHS.get(usize::try_from(time.month0()).unwrap_or(0));
            return text.push_str(&short(name.unwrap_or(&"")));
        }
        'M' => i64::from(time.month()),
        'D' => i64::from(time.ordinal()),
        'd' => i64::from(time.day()),
        'a' => return text.push_str(if time.hour() < 12 { "AM" } else { "PM" }),
        'K' => i64::from(time.hour() % 12),
        'h' => i64::from(time.hour12().1),
        'H' => i64::from(time.hour()),
        'k' => i64::from(if time.hour() == 0 { 24 } else { time.hour() }),
        'm' => i64::from(time.minute()),
        's' => i64::from(time.second()),
        'S' => {
            // Trino's times here have three digits.
            let digits = format!("{:03}", time.nanosecond() / 1_000_000);
            return text.push_str(&format!("{digits:0<length$}")[..length]);
        }
        'Z' if length >= 3 => return text.push_str(zone),
        'Z' => {
            let offset = time.offset().to_string();
            return text.push_str(&if length == 1 { offset.replace(':', "") } else { offset });
        }
        // The names of zones, as far as there are: those of offsets.
        _ => return text.push_str(zone),
    };
    let sign = if number < 0 { "-" } else { "" };
    let digits = number.unsigned_abs();
    text.push_str(&format!("{sign}{digits:0length$}"));
}

/// What a text tells.
#[derive(Default)]
struct Told {
    year: Option<i32>,
    week_year: Option<i32>,
    week: Option<u32>,
    weekday: Option<u32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    afternoon: Option<bool>,
    /// From 0 to 11.
    half_hour: Option<u32>,
    hour: Option<u32>,
    minute: u32,
    second: u32,
    micros: u32,
    offset: Option<FixedOffset>,
}

/// Microseconds since 1970.
fn parse(text: &str, items: &[Item]) -> Result<i64> {
    let odd = || invalid(format!("expected a time as its format says, found `{text}`"));
    let mut told = Told::default();
    let mut rest = text;
    for (at, item) in items.iter().enumerate() {
        rest = match item {
            Item::Text(quoted) => rest.strip_prefix(quoted.as_str()).ok_or_else(odd)?,
            Item::Field(letter, length) => {
                let is_followed = matches!(items.get(at + 1), Some(Item::Field(next, n)) if is_number(*next, *n));
                told.take(rest, *letter, *length, is_followed)?.ok_or_else(odd)?
            }
        };
    }
    if !rest.is_empty() {
        return Err(odd());
    }
    told.micros().ok_or_else(odd)
}

fn is_number(letter: char, length: usize) -> bool {
    "CYyxweDdKhHkmsS".contains(letter) || (letter == 'M' && length < 3)
}

impl Told {
    /// Reads a field, and gives what is left; none for what is no such field.
    ///
    /// # Errors
    /// `Invalid` for letters that can't be read back.
    fn take<'a>(&mut self, text: &'a str, letter: char, length: usize, is_followed: bool) -> Result<Option<&'a str>> {
        if is_number(letter, length) {
            let most = match letter {
                // Numbers beside each other have as many digits as letters.
                _ if is_followed => length,
                'Y' | 'y' | 'x' => 9,
                'D' => 3.max(length),
                'S' => length,
                _ => 2.max(length),
            };
            return Ok(self.take_number(text, letter, length, most));
        }
        let name = |names: &[&str]| {
            let starts = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
            let whole = names.iter().position(|name| starts(name)).map(|at| (at, names[at].len()));
            whole.or_else(|| names.iter().position(|name| starts(&name[..3])).map(|at| (at, 3)))
        };
        let read = match letter {
            'M' => name(&MONTHS).map(|(at, length)| {
                self.month = u32::try_from(at + 1).ok();
                length
            }),
            'E' => name(&DAYS).map(|(at, length)| {
                self.weekday = u32::try_from(at + 1).ok();
                length
            }),
            'a' => text.get(..2).and_then(|half| {
                self.afternoon = Some(half.eq_ignore_ascii_case("PM"));
                (half.eq_ignore_ascii_case("AM") || half.eq_ignore_ascii_case("PM")).then_some(2)
            }),
            'Z' => {
                let end = text.find(|c: char| !(c.is_ascii_digit() || "+-:Z".contains(c))).unwrap_or(text.len());
                let zone = &text[..end];
                self.offset = if zone == "Z" { FixedOffset::east_opt(0) } else { zone.parse().ok() };
                self.offset.map(|_| end)
            }
            other => return Err(invalid(format!("expected letters that can be read back, found `{other}`"))),
        };
        Ok(read.and_then(|length| text.get(length..)))
    }

    fn take_number<'a>(&mut self, text: &'a str, letter: char, length: usize, most: usize) -> Option<&'a str> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) if "Yyx".contains(letter) => (true, rest),
            _ => (false, text),
        };
        let end = digits.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (number, rest) = digits.split_at(end);
        let value: u32 = number.parse().ok()?;
        let year = || {
            let year = i32::try_from(value).ok()?;
            // Two digits are those of a year within 50 of this century's beginning and end.
            let year = if length == 2 && end == 2 { if year < 70 { 2000 + year } else { 1900 + year } } else { year };
            Some(if negative { -year } else { year })
        };
        match letter {
            'Y' | 'y' => self.year = Some(year()?),
            'x' => self.week_year = Some(year()?),
            'w' => self.week = Some(value),
            'e' => self.weekday = Some(value),
            'M' => self.month = Some(value),
            'D' => self.day_of_year = Some(value),
            'd' => self.day = Some(value),
            'K' => self.half_hour = Some(Some(value).filter(|hour| *hour < 12)?),
            'h' => self.half_hour = Some(Some(value % 12).filter(|_| (1..=12).contains(&value))?),
            'H' => self.hour = Some(value),
            'k' => self.hour = Some(Some(value % 24).filter(|_| (1..=24).contains(&value))?),
            'm' => self.minute = value,
            's' => self.second = value,
            'S' => self.micros = format!("{number:0<6}").get(..6)?.parse::<u32>().ok()? / 1_000 * 1_000,
            _ => return None,
        }
        Some(rest)
    }

    fn micros(&self) -> Option<i64> {
        let year = self.year.unwrap_or(1970);
        let date = match (self.week, self.day_of_year) {
            (Some(week), _) => {
                let weekday = Weekday::try_from(u8::try_from(self.weekday.unwrap_or(1)).ok()?.checked_sub(1)?).ok()?;
                NaiveDate::from_isoywd_opt(self.week_year.unwrap_or(year), week, weekday)?
            }
            (None, Some(day)) => NaiveDate::from_yo_opt(year, day)?,
            (None, None) => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1))?,
        };
        let half = self.half_hour.map(|hour| hour + if self.afternoon == Some(true) { 12 } else { 0 });
        let time: NaiveDateTime =
            date.and_hms_micro_opt(self.hour.or(half).unwrap_or(0), self.minute, self.second, self.micros)?;
        let seconds = self.offset.map_or(0, |offset| offset.local_minus_utc());
        Some(time.and_utc().timestamp_micros() - i64::from(seconds) * 1_000_000)
    }
}
