//! Who made a period unusual: each member of a dimension against what was expected of it.

use serde::Serialize;

use crate::robust::{median, rounded};
use crate::series::Dimension;

/// Members that are named; the rest become `(other)`.
const NAMED: usize = 5;
/// Rounds of the season that are looked at on each side.
const ROUNDS: usize = 4;

/// A dimension's part in one period.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contribution {
    pub dimension: String,
    /// Members by the size of their deviation, largest first; their deviations add up to the period's.
    pub members: Vec<Mover>,
}

/// One member's part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mover {
    pub member: String,
    pub actual: f64,
    pub expected: f64,
    /// Actual minus expected.
    pub deviation: f64,
    /// Share of the period's deviation: 1 is all of it, below 0 moved against it.
    pub share: f64,
}

/// Parts the deviation of period `at`, of which `expected` was expected, by the members of `dimension`.
///
/// A member's expectation is the median of its values at the same place in the rounds of the season around, leaving out
/// `unusual` periods; expectations are then stretched to add up to the period's.
pub(crate) fn contribution(
    dimension: &Dimension,
    at: usize,
    expected: f64,
    season: Option<usize>,
    unusual: &[bool],
) -> Contribution {
    let actual: Vec<f64> = dimension.members.iter().map(|m| m.values[at]).collect();
    let around = around(at, season, unusual);
    let typical = |values: &[f64]| median(&around.iter().map(|i| values[*i]).collect::<Vec<_>>());
    let mut each: Vec<f64> = dimension.members.iter().map(|m| typical(&m.values)).collect();
    let missing = stretch(&mut each, expected);
    let deviation = actual.iter().sum::<f64>() - expected;
    let mover = |member: &str, actual: f64, expected: f64| Mover {
        member: member.into(),
        actual: rounded(actual),
        expected: rounded(expected),
        deviation: rounded(actual - expected),
        share: if deviation == 0.0 { 0.0 } else { rounded((actual - expected) / deviation) },
    };
    let mut order: Vec<usize> = (0..each.len()).collect();
    order.sort_by(|a, b| (actual[*b] - each[*b]).abs().total_cmp(&(actual[*a] - each[*a]).abs()).then(a.cmp(b)));
    let (named, rest) = order.split_at(order.len().min(NAMED));
    let mut members: Vec<Mover> =
        named.iter().map(|m| mover(&dimension.members[*m].name, actual[*m], each[*m])).collect();
    if !rest.is_empty() || missing != 0.0 {
        let sum = |values: &[f64]| rest.iter().map(|m| values[*m]).sum::<f64>();
        members.push(mover("(other)", sum(&actual), sum(&each) + missing));
    }
    Contribution { dimension: dimension.name.clone(), members }
}

/// The periods that `at` is compared with.
fn around(at: usize, season: Option<usize>, unusual: &[bool]) -> Vec<usize> {
    let step = season.unwrap_or(1);
    let reach = if season.is_some() { ROUNDS } else { 2 * ROUNDS };
    let before = (1..=reach).filter_map(|k| at.checked_sub(k * step));
    let after = (1..=reach).map(|k| at + k * step).filter(|i| *i < unusual.len());
    let all: Vec<usize> = before.chain(after).collect();
    let usual: Vec<usize> = all.iter().copied().filter(|i| !unusual[*i]).collect();
    if usual.is_empty() { all } else { usual }
}

/// Makes the expectations add up to `expected` by stretching them, if that takes no more than a half or a double. Gives what
/// is missing otherwise.
fn stretch(each: &mut [f64], expected: f64) -> f64 {
    let sum: f64 = each.iter().sum();
    let factor = expected / sum;
    if factor.is_finite() && (0.5..=2.0).contains(&factor) {
        each.iter_mut().for_each(|e| *e *= factor);
        return 0.0;
    }
    expected - sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::series::Member;

    fn dimension(members: Vec<Vec<f64>>) -> Dimension {
        let members = members.into_iter().enumerate().map(|(i, values)| Member { name: format!("m{i}"), values });
        Dimension { name: "carrier".into(), members: members.collect() }
    }

    #[test]
    fn the_member_that_fell_takes_the_deviation() {
        let mut fell = vec![60.0; 21];
        fell[10] = 10.0;
        let found = contribution(&dimension(vec![fell, vec![40.0; 21]]), 10, 100.0, Some(7), &[false; 21]);
        assert_eq!(found.members[0].member, "m0");
        assert_eq!((found.members[0].expected, found.members[0].deviation, found.members[0].share), (60.0, -50.0, 1.0));
        assert_eq!(found.members[1].share, 0.0);
    }

    #[test]
    fn beyond_five_members_are_other() {
        let found =
            contribution(&dimension((0..9).map(|i| vec![f64::from(i); 9]).collect()), 4, 30.0, None, &[false; 9]);
        assert_eq!((found.members.len(), found.members[5].member.as_str()), (6, "(other)"));
    }

    proptest! {
        #[test]
        fn deviations_and_shares_add_up(
            members in prop::collection::vec(prop::collection::vec(-100.0..100.0f64, 30), 1..12),
            expected in -500.0..500.0f64,
            at in 0..30usize,
        ) {
            let total: f64 = members.iter().map(|m| m[at]).sum();
            let found = contribution(&dimension(members), at, expected, Some(7), &[false; 30]);
            let deviation: f64 = found.members.iter().map(|m| m.deviation).sum();
            prop_assert!((deviation - (total - expected)).abs() < 1e-2, "{deviation} {}", total - expected);
            if (total - expected).abs() > 1.0 {
                let shares: f64 = found.members.iter().map(|m| m.share).sum();
                prop_assert!((shares - 1.0).abs() < 1e-2);
            }
        }
    }
}
