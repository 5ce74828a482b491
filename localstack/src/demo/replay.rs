//! The replay: the flights of each day, in order, as gzipped NDJSON through the HTTP API, with bad records among them.

use indicatif::ProgressBar;
use shared::{Error, Result};

use super::client::Client;
use super::data::{self, BAD, BAD_EVERY, Batch};

/// A part of the year. The two parts meet within 1 July, so that the second run of the workflow must count that day anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) what: &'static str,
    /// Months, 1 to 12; of the month of the cut both parts have a share.
    months: (usize, usize),
    /// The day that is cut, and how many of its flights belong to the first part.
    first: bool,
}

const CUT_DAY: &str = "07-01";
const CUT_FLIGHTS: usize = 400;

pub(super) const FIRST: Part =
    Part { what: "Flights as a stream: 1 January until the morning of 1 July", months: (1, 7), first: true };
pub(super) const SECOND: Part =
    Part { what: "Flights as a stream: 1 July until 31 December", months: (7, 12), first: false };

/// What was sent and what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) flights: u64,
    /// Records that were made bad on purpose.
    pub(super) bad: u64,
    pub(super) accepted: u64,
    pub(super) rejected: u64,
}

/// Sends one part, day by day. `before` flights were sent earlier.
pub(super) async fn send(client: &Client, part: Part, before: u64, bar: ProgressBar) -> Result<Sent> {
    let mut sent = Sent::default();
    bar.set_length(184);
    for month in part.months.0..=part.months.1 {
        let batches = tokio::task::spawn_blocking(move || data::month(month))
            .await
            .map_err(|e| Error::bug("reading the demo's flights broke off").with_source(e))??;
        for batch in batches.into_iter().filter_map(|batch| part.share(batch)) {
            // The day that is cut is sent in two parts.
            let name = format!("{}/{}", batch.day, if part.first { "first" } else { "second" });
            let lines = with_bad(batch.lines, before + sent.flights, &mut sent);
            let taken = client.send(&name, data::gzipped(&lines)?).await?;
            sent.accepted += taken.stored;
            sent.rejected += taken.rejected;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(sent)
}

impl Part {
    /// What of a day belongs to this part.
    fn share(self, mut batch: Batch) -> Option<Batch> {
        let before_cut = batch.day.as_str() < CUT_DAY;
        if batch.day == CUT_DAY {
            let rest = batch.lines.split_off(CUT_FLIGHTS.min(batch.lines.len()));
            if !self.first {
                batch.lines = rest;
            }
            return Some(batch);
        }
        (before_cut == self.first).then_some(batch)
    }
}

/// The lines with a bad record behind each [`BAD_EVERY`]th flight, counted from the first flight of the year.
fn with_bad(lines: Vec<Vec<u8>>, before: u64, sent: &mut Sent) -> Vec<Vec<u8>> {
    let mut mixed = Vec::with_capacity(lines.len() + 1);
    for (number, line) in (before + 1..).zip(lines) {
        mixed.push(line);
        sent.flights += 1;
        if number.is_multiple_of(BAD_EVERY) {
            let kind = usize::try_from(number / BAD_EVERY).unwrap_or_default() % BAD.len();
            mixed.push(BAD[kind].as_bytes().to_vec());
            sent.bad += 1;
        }
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(day: &str, lines: usize) -> Batch {
        Batch { day: day.into(), lines: vec![b"{}\n".to_vec(); lines] }
    }

    #[test]
    fn each_flight_belongs_to_exactly_one_part() {
        for (day, lines) in [("01-01", 3), ("06-30", 5), ("07-01", 950), ("07-02", 4), ("12-31", 7)] {
            let of = |part: Part| part.share(batch(day, lines)).map_or(0, |b| b.lines.len());
            assert_eq!(of(FIRST) + of(SECOND), lines, "{day}");
        }
    }

    #[test]
    fn a_bad_record_follows_every_five_thousandth_flight() {
        let mut sent = Sent::default();
        let mixed = with_bad(vec![b"{}\n".to_vec(); 10_000], 4_000, &mut sent);
        assert_eq!((sent.flights, sent.bad, mixed.len()), (10_000, 2, 10_002));
        assert_eq!(mixed[1_000], BAD[1].as_bytes());
    }
}
