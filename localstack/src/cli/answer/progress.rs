//! How far a statement is, on standard error while it runs.

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::Figures;
use crate::cli::output::Out;

/// A line that is gone once this is dropped.
pub(in crate::cli) struct ProgressLine(ProgressBar);

impl ProgressLine {
    /// Shown while standard error is a terminal.
    pub(in crate::cli) fn start(out: Out) -> Self {
        let line = out.spinner("");
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            line.set_style(style);
        }
        Self(line)
    }

    pub(in crate::cli) fn show(&self, figures: &Figures) {
        if !self.0.is_hidden() {
            self.0.set_message(text(figures));
        }
    }

    pub(in crate::cli) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Nothing is said of what the query does beside scanning: the estimate is of bytes alone.
fn text(figures: &Figures) -> String {
    let scanned = HumanBytes(figures.bytes_scanned);
    let scanned = match figures.expected_bytes {
        Some(expected) if expected > figures.bytes_scanned => {
            let percent = figures.bytes_scanned.saturating_mul(100) / expected;
            format!("{scanned} scanned of about {} ({percent} %)", HumanBytes(expected))
        }
        _ => format!("{scanned} scanned"),
    };
    match figures.rows {
        0 => scanned,
        rows => format!("{scanned}, {} rows", HumanCount(rows)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_shown_while_it_holds() {
        let figures = Figures { rows: 0, bytes_scanned: 1 << 20, elapsed_ms: 9, expected_bytes: Some(4 << 20) };
        assert_eq!(text(&figures), "1.00 MiB scanned of about 4.00 MiB (25 %)");
        assert_eq!(text(&Figures { expected_bytes: Some(5), rows: 1000, ..figures }), "1.00 MiB scanned, 1,000 rows");
    }
}
