//! The books: what went in against what lies in tables, errors and quarantine.

use std::collections::BTreeMap;

use serde_json::json;
use shared::Result;

use super::client::Client;
use super::data::SOURCE_ROWS;
use super::replay::Sent;
use crate::cli::output::Rows;

/// What went in.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) flights: u64,
    bad: u64,
    /// Records that the stream took.
    pub(super) accepted: u64,
    rejected: u64,
    pub(super) quarantined: u64,
    /// Rows of files, by location.
    pub(super) uploaded: BTreeMap<&'static str, u64>,
}

/// A count that is known in two ways.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) expected: u64,
    pub(super) found: u64,
}

impl Check {
    fn new(what: impl Into<String>, expected: u64, found: u64) -> Self {
        Self { what: what.into(), expected, found }
    }

    pub(super) fn holds(&self) -> bool {
        self.expected == self.found
    }
}

impl Ledger {
    pub(super) fn add(&mut self, sent: &Sent) {
        self.flights += sent.flights;
        self.bad += sent.bad;
        self.accepted += sent.accepted;
        self.rejected += sent.rejected;
    }

    /// Asks the tables and compares.
    pub(super) async fn checks(&self, client: &Client) -> Result<Vec<Check>> {
        let stored = client.number("SELECT count(*) FROM nyc.flights").await?;
        let curated = client.number("SELECT count(*) FROM curated.flights").await?;
        let planned = client.number("SELECT sum(planned) FROM curated.daily_delays").await?;
        let mut checks = vec![
            Check::new("flights of the source that were sent", SOURCE_ROWS[0].1, self.flights),
            Check::new(
                "flights and bad records sent = accepted + refused",
                self.flights + self.bad,
                self.accepted + self.rejected,
            ),
            Check::new("refused = bad on purpose", self.bad, self.rejected),
            Check::new("accepted = rows of nyc.flights", self.accepted, stored),
            Check::new("rows of nyc.flights = curated.flights + quarantine", stored, curated + self.quarantined),
            Check::new("rows of curated.flights = planned in daily_delays", curated, planned),
        ];
        for (table, rows) in &SOURCE_ROWS[1..] {
            let found = client.number(&format!("SELECT count(*) FROM nyc.{table}")).await?;
            checks.push(Check::new(format!("rows of the files of `{table}` = rows of nyc.{table}"), *rows, found));
        }
        Ok(checks)
    }
}

/// The checks as a table.
pub(super) fn rows(checks: &[Check]) -> Rows {
    let mut rows = Rows::new(&["what", "expected", "found", "holds"]);
    for check in checks {
        let holds = if check.holds() { "yes" } else { "NO" };
        rows.rows.push(vec![json!(check.what), json!(check.expected), json!(check.found), json!(holds)]);
    }
    rows
}
