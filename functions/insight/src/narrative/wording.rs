//! Numbers and dates in words, each kept as a fact.

use serde::Serialize;

use crate::robust::rounded;

/// A number or a date that the text names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fact {
    /// What it is, e.g. `maximum.value`.
    pub name: String,
    pub value: FactValue,
    /// As the text writes it.
    pub text: String,
}

/// A fact's value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FactValue {
    Number(f64),
    Text(String),
}

/// Collects facts while sentences are built, so that no number gets into the text without one.
#[derive(Debug, Default)]
pub struct Facts {
    pub facts: Vec<Fact>,
}

impl Facts {
    /// A quantity, e.g. `1,234.5`.
    pub fn number(&mut self, name: impl Into<String>, value: f64) -> String {
        self.keep(name, FactValue::Number(rounded(value)), number(value))
    }

    /// A quantity without its sign.
    pub fn size(&mut self, name: impl Into<String>, value: f64) -> String {
        self.keep(name, FactValue::Number(rounded(value)), number(value.abs()))
    }

    /// A share of 1 as a percentage without its sign, e.g. `12.3%`.
    pub fn percent(&mut self, name: impl Into<String>, share: f64) -> String {
        self.keep(name, FactValue::Number(rounded(100.0 * share)), format!("{}%", number((100.0 * share).abs())))
    }

    /// A date, or any text that comes from the data.
    pub fn word(&mut self, name: impl Into<String>, text: &str) -> String {
        self.keep(name, FactValue::Text(text.into()), text.into())
    }

    fn keep(&mut self, name: impl Into<String>, value: FactValue, text: String) -> String {
        self.facts.push(Fact { name: name.into(), value, text: text.clone() });
        text
    }
}

/// One decimal below 1,000 and none above, two significant digits below 1; thousands apart; powers of ten from a quadrillion.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1e15 || (size > 0.0 && size < 1e-4) {
        return format!("{value:.2e}");
    }
    let text = match size {
        s if s >= 999.95 => format!("{value:.0}"),
        s if s >= 1.0 || s == 0.0 => format!("{value:.1}"),
        s => format!("{value:.*}", (1.0 - s.log10()).ceil() as usize),
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let (whole, rest) = text.split_once('.').map_or((text, String::new()), |(w, r)| (w, format!(".{r}")));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let apart: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|chunk| std::str::from_utf8(chunk).unwrap_or_default()).collect();
    if digits == "0" && rest.is_empty() { "0".into() } else { format!("{sign}{}{rest}", apart.join(",")) }
}

/// `rose` or `fell`; `stayed` when the change is too small to show.
pub(crate) fn moved(change: f64) -> &'static str {
    match change {
        c if c > 0.0 => "rose",
        c if c < 0.0 => "fell",
        _ => "stayed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (900.0575, "900.1"),
            (12.0, "12"),
            (999.96, "1,000"),
            (-1_234_567.8, "-1,234,568"),
            (0.012_345, "0.012"),
            (0.5, "0.5"),
            (-0.04, "-0.04"),
            (1e18, "1.00e18"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
