//! How the demo is told: numbered steps with their time, on standard output unless that is for JSON.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use shared::Result;

use crate::cli::arguments::Format;
use crate::cli::output::{Out, Rows};

/// Writes steps and keeps their times.
pub(super) struct Story {
    out: Out,
    begun: Instant,
    step: u32,
    step_begun: Instant,
}

impl Story {
    pub(super) fn new(out: Out) -> Self {
        Self { out, begun: Instant::now(), step: 0, step_begun: Instant::now() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn title(&self, text: &str) -> Result<()> {
        self.write(&format!("\n{text}\n"))
    }

    /// Begins a step.
    pub(super) fn begin(&mut self, what: &str) -> Result<()> {
        self.step += 1;
        self.step_begun = Instant::now();
        self.write(&format!("\n{}. {what}\n", self.step))
    }

    /// Says something within a step.
    pub(super) fn say(&self, text: &str) -> Result<()> {
        self.write(&format!("   {text}\n"))
    }

    pub(super) fn table(&self, rows: &Rows) -> Result<()> {
        if self.out.format() == Format::Json {
            return Ok(());
        }
        self.out.rows(rows)
    }

    /// Ends a step with its time.
    pub(super) fn end(&self) -> Result<()> {
        self.write(&format!("   {:.1} s\n", self.step_begun.elapsed().as_secs_f64()))
    }

    /// A bar over the days of a replay.
    pub(super) fn bar(&self, what: &str) -> ProgressBar {
        self.out.bar(0, what)
    }

    fn write(&self, text: &str) -> Result<()> {
        if self.out.format() == Format::Json { Ok(()) } else { self.out.text(text) }
    }
}

/// A number with commas between its thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([grouped(7), grouped(1_000), grouped(336_776)], ["7", "1,000", "336,776"]);
    }
}
