//! Records and rows that were set aside: NDJSON objects in a folder, `errors/` of streams and `quarantine/` of workflows.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

use crate::api::status::counted;
use crate::storage::{ObjectInfo, Storage};
use crate::{Error, ErrorKind, Result};

/// Bytes of objects that are read to count their lines; what lies beyond is counted in objects only.
const MOST_BYTES: u64 = 16 << 20;
/// Likewise: each object is a call.
const MOST_OBJECTS: usize = 200;

/// From a time on, and before another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

impl Period {
    /// Of two times such as `2026-01-31T06:00:00Z`; without a zone UTC is meant, a date alone is midnight.
    ///
    /// # Errors
    /// `Invalid` for a text that is no time.
    pub fn parse(since: Option<&str>, until: Option<&str>) -> Result<Self> {
        let parsed = |name: &str, text: Option<&str>| text.map(|text| time(name, text)).transpose();
        Ok(Self { since: parsed("since", since)?, until: parsed("until", until)? })
    }

    /// Whether a time, milliseconds since the epoch, lies in it.
    pub fn holds(&self, at_ms: i64) -> bool {
        self.since.is_none_or(|since| at_ms >= since.timestamp_millis())
            && self.until.is_none_or(|until| at_ms < until.timestamp_millis())
    }

    /// Whether every time lies in it.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

fn time(name: &str, text: &str) -> Result<DateTime<Utc>> {
    let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let plain = || {
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
    };
    let date = || Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(NaiveTime::MIN));
    zoned.or_else(|error| plain().or_else(date).map(|time| time.and_utc()).ok_or(error)).map_err(|e| {
        Error::invalid(format!("`{name}`: expected a time such as `2026-01-31T06:00:00Z` or a date, found `{text}`"))
            .with_source(e)
    })
}

/// What lies in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    pub objects: u64,
    /// Lines of the objects that were read.
    pub records: u64,
    /// Whether some were too much to be read.
    pub more: bool,
    /// When the oldest and the newest object were written, milliseconds since the epoch.
    pub oldest_ms: Option<i64>,
    pub newest_ms: Option<i64>,
    /// Why the newest were set aside, each reason once.
    pub reasons: Vec<String>,
}

impl SetAside {
    /// Reads `objects`, the newest first. `reason` tells why a line was set aside; `None` for a line that another program
    /// wrote. At most `reasons` of them are told.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn read(
        storage: &Storage,
        mut objects: Vec<ObjectInfo>,
        reasons: usize,
        reason: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        objects.sort_by_key(|object| std::cmp::Reverse(object.modified_ms));
        let mut aside = Self {
            objects: objects.len() as u64,
            oldest_ms: objects.last().map(|object| object.modified_ms),
            newest_ms: objects.first().map(|object| object.modified_ms),
            ..Self::default()
        };
        let mut bytes = 0;
        for (at, object) in objects.into_iter().enumerate() {
            bytes += object.size;
            if at > 0 && (bytes > MOST_BYTES || at >= MOST_OBJECTS) {
                aside.more = true;
                break;
            }
            for line in text(storage, &object).await?.lines().rev() {
                aside.records += 1;
                if aside.reasons.len() < reasons
                    && let Some(why) = reason(line)
                    && !aside.reasons.contains(&why)
                {
                    aside.reasons.push(why);
                }
            }
        }
        Ok(aside)
    }

    /// E.g. `12 records not stored, in 3 objects; the newest: expected a number` of a `record` that is `not stored`; none without
    /// any.
    pub fn told(&self, one: &str, state: &str) -> Option<String> {
        let least = if self.more { "at least " } else { "" };
        let why = self.reasons.first().map_or_else(String::new, |reason| format!("; the newest: {reason}"));
        let (records, objects) = (counted(self.records, one), counted(self.objects, "object"));
        (self.objects > 0).then(|| format!("{least}{records} {state}, in {objects}{why}"))
    }
}

/// An object's text; empty when it went since it was listed.
async fn text(storage: &Storage, object: &ObjectInfo) -> Result<String> {
    match storage.get(&object.url).await {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}
