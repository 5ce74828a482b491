//! How far texts are from each other, and what their digits check.

use datafusion::common::Result;

use super::call::{Text, invalid, one, two};
use super::strings::count;
use super::{Function, scalar};

const SECTION: &str = "String";

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "starts_with", "whether the text begins so")
            .way(
                "starts_with(varchar, varchar) -> boolean",
                two::<Text, Text, bool, _>(|text: &str, part: &str| text.starts_with(part)),
            )
            .example("starts_with('lakehouse', 'lake')", "true"),
        scalar(SECTION, "ends_with", "whether the text ends so")
            .way(
                "ends_with(varchar, varchar) -> boolean",
                two::<Text, Text, bool, _>(|text: &str, part: &str| text.ends_with(part)),
            )
            .example("ends_with('lakehouse', 'house')", "true"),
        scalar(SECTION, "hamming_distance", "the places at which two texts of one length differ")
            .way("hamming_distance(varchar, varchar) -> bigint", two::<Text, Text, i64, _>(hamming))
            .example("hamming_distance('karolin', 'kathrin')", "3"),
        scalar(
            SECTION,
            "levenshtein_distance",
            "the fewest insertions, deletions and replacements of characters between two texts",
        )
        .way("levenshtein_distance(varchar, varchar) -> bigint", two::<Text, Text, i64, _>(levenshtein))
        .example("levenshtein_distance('kitten', 'sitting')", "3"),
        scalar(SECTION, "luhn_check", "whether the digits are valid by Luhn's checksum")
            .way("luhn_check(varchar) -> boolean", one::<Text, bool, _>(luhn))
            .example("luhn_check('79927398713')", "true"),
    ]
}

fn hamming(left: &str, right: &str) -> Result<i64> {
    let (mut one, mut other) = (left.chars(), right.chars());
    let mut differ = 0;
    loop {
        match (one.next(), other.next()) {
            (None, None) => return Ok(differ),
            (Some(l), Some(r)) => differ += i64::from(l != r),
            _ => return Err(invalid(format!("expected two texts of one length, found `{left}` and `{right}`"))),
        }
    }
}

/// Steps that one call may take.
const LEVENSHTEIN_STEPS: usize = 1_000_000;

fn levenshtein(left: &str, right: &str) -> Result<i64> {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().saturating_mul(right.len()) > LEVENSHTEIN_STEPS {
        let (found, max) = (left.len().saturating_mul(right.len()), LEVENSHTEIN_STEPS);
        return Err(invalid(format!("expected two texts whose lengths multiply to at most {max}, found {found}")));
    }
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut before = above[0];
        above[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = before + usize::from(l != r);
            before = above[j + 1];
            above[j + 1] = replaced.min(above[j] + 1).min(above[j + 1] + 1);
        }
    }
    Ok(count(above[right.len()]))
}

fn luhn(digits: &str) -> Result<bool> {
    let mut sum = 0;
    for (at, c) in digits.chars().rev().enumerate() {
        let digit = c.to_digit(10).ok_or_else(|| invalid(format!("expected digits, found `{digits}`")))?;
        sum += match digit * (1 + u32::from(at % 2 == 1)) {
            large if large > 9 => large - 9,
            small => small,
        };
    }
    Ok(!digits.is_empty() && sum % 10 == 0)
}
