//! The demo's data, carried in the program: see `demo/data/README.md`.

use std::io::{Read, Write};

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::Int32Type;
use arrow::json::LineDelimitedWriter;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::error::Context;
use shared::{Error, Result};

/// The lakehouse file of the demo.
pub const LAKEHOUSE: &str = include_str!("../../demo/lakehouse.yaml");

const FLIGHTS: &[u8] = include_bytes!("../../demo/data/flights.parquet");

/// A file of the raw zone: its location, its path there, its bytes, its rows.
pub struct RawFile {
    pub location: &'static str,
    pub path: &'static str,
    pub bytes: &'static [u8],
}

impl RawFile {
    /// How many rows it holds.
    ///
    /// # Errors
    /// `Bug` when the data in the program can't be read.
    pub fn rows(&self) -> Result<u64> {
        let broken =
            |e: &dyn std::fmt::Display| Error::bug(format!("the demo's file `{}` can't be read: {e}", self.path));
        let mut text = String::new();
        let read = match self.path.ends_with(".gz") {
            true => GzDecoder::new(self.bytes).read_to_string(&mut text),
            false => { self.bytes }.read_to_string(&mut text),
        };
        read.map_err(|e| broken(&e))?;
        let rows = match self.path.trim_end_matches(".gz").rsplit_once('.').map(|(_, extension)| extension) {
            Some("json") => serde_json::from_str::<Vec<serde_json::Value>>(&text).map_err(|e| broken(&e))?.len(),
            // One line is the header.
            Some("csv") => text.lines().count().saturating_sub(1),
            _ => text.lines().count(),
        };
        Ok(rows as u64)
    }
}

/// Planes, airports and airlines.
pub const DIMENSIONS: [RawFile; 3] = [
    RawFile { location: "planes", path: "planes.ndjson", bytes: include_bytes!("../../demo/data/planes.ndjson") },
    RawFile { location: "airports", path: "airports.csv", bytes: include_bytes!("../../demo/data/airports.csv") },
    RawFile { location: "airlines", path: "airlines.json", bytes: include_bytes!("../../demo/data/airlines.json") },
];

macro_rules! weather {
    ($($month:literal),*) => {
        [$(RawFile {
            location: "weather",
            path: concat!("observed=2013-", $month, "/weather.csv.gz"),
            bytes: include_bytes!(concat!("../../demo/data/weather/observed=2013-", $month, "/weather.csv.gz")),
        }),*]
    };
}

/// The hourly weather, a file for each month.
pub const WEATHER: [RawFile; 12] = weather!("01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12");

/// Rows of each table as the source has them.
pub const SOURCE_ROWS: [(&str, u64); 5] =
    [("flights", 336_776), ("weather", 26_115), ("planes", 3_322), ("airports", 1_458), ("airlines", 16)];

/// The flights of a part of a day, in the order of the schedule.
pub struct Batch {
    /// As `MM-DD`.
    pub day: String,
    /// NDJSON lines, each with its newline.
    pub lines: Vec<Vec<u8>>,
}

/// The flights of one month (1 to 12), a batch for each day.
///
/// # Errors
/// `Bug` when the data in the program can't be read.
pub fn month(month: usize) -> Result<Vec<Batch>> {
    let broken = |e| Error::bug("the demo's flights can't be read").with_source(e);
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from_static(FLIGHTS)).map_err(broken)?;
    let reader = builder.with_row_groups(vec![month - 1]).build().map_err(broken)?;
    let batches = reader.collect::<Result<Vec<RecordBatch>, _>>()?;
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let rows = concat_batches(&first.schema(), &batches)?;
    let day_of = rows
        .column_by_name("day")
        .and_then(|c| c.as_primitive_opt::<Int32Type>())
        .ok_or_else(|| Error::bug("the demo's flights have no column `day`"))?
        .values();
    let mut days = Vec::new();
    let mut from = 0;
    for chunk in day_of.chunk_by(|a, b| a == b) {
        days.push(Batch { day: format!("{month:02}-{:02}", chunk[0]), lines: lines(&rows.slice(from, chunk.len()))? });
        from += chunk.len();
    }
    Ok(days)
}

/// The rows as JSON objects; what is null is left out.
fn lines(rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    Ok(writer.into_inner().split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect())
}

/// Some lines as one gzipped body.
///
/// # Errors
/// None in practice: it writes to memory.
pub fn gzipped(lines: &[Vec<u8>]) -> Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for line in lines {
        encoder.write_all(line).context(|| "compressing records".into())?;
    }
    Ok(encoder.finish().context(|| "compressing records".into())?.into())
}

/// Records that no stream should take: a text for a number, a missing field, a number too large, half an object, no object.
pub const BAD: [&str; 5] = [
    "{\"year\":2013,\"month\":\"soon\",\"day\":1,\"sched_dep_time\":600,\"carrier\":\"UA\",\"flight\":1,\"origin\":\"EWR\",\"dest\":\"IAH\",\"time_hour\":\"2013-01-01T11:00:00Z\"}\n",
    "{\"year\":2013,\"month\":1,\"day\":1,\"sched_dep_time\":600,\"carrier\":\"UA\",\"flight\":1,\"dest\":\"IAH\",\"time_hour\":\"2013-01-01T11:00:00Z\"}\n",
    "{\"year\":2013,\"month\":1,\"day\":1,\"sched_dep_time\":600,\"carrier\":\"UA\",\"flight\":99999999999,\"origin\":\"EWR\",\"dest\":\"IAH\",\"time_hour\":\"2013-01-01T11:00:00Z\"}\n",
    "{\"year\":2013,\"month\":1,\"da\n",
    "[2013,1,1,\"UA\"]\n",
];

/// A bad record follows every so many good ones.
pub const BAD_EVERY: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_months_hold_every_flight_once_in_the_order_of_the_days() {
        let mut rows = 0;
        let mut last = String::new();
        for number in 1..=12 {
            for batch in month(number).unwrap() {
                assert!(last < batch.day, "{last} before {}", batch.day);
                last = batch.day.clone();
                rows += batch.lines.len() as u64;
            }
        }
        assert_eq!((rows, last.as_str()), (SOURCE_ROWS[0].1, "12-31"));
    }

    #[test]
    fn the_files_hold_the_rows_of_their_source() {
        for (location, expected) in &SOURCE_ROWS[1..] {
            let files = DIMENSIONS.iter().chain(&WEATHER).filter(|file| file.location == *location);
            assert_eq!(files.map(|file| file.rows().unwrap()).sum::<u64>(), *expected, "{location}");
        }
    }

    #[test]
    fn a_flight_is_one_json_object_a_line() {
        let batch = &month(1).unwrap()[0];
        let flight: serde_json::Value = serde_json::from_slice(&batch.lines[0]).unwrap();
        assert_eq!(flight["time_hour"], "2013-01-01T10:00:00Z");
        assert_eq!(flight["carrier"], "UA");
    }

    #[test]
    fn the_lakehouse_file_is_valid() {
        shared::project::Project::parse(LAKEHOUSE, "lakehouse.yaml").unwrap();
    }
}
