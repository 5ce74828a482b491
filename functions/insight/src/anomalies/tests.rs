use std::sync::Arc;

use arrow::array::{Date32Array, Float64Array, StringArray};
use proptest::prelude::*;
use shared::project::InsightKind;

use super::*;
use crate::question::tests::question;
use crate::series::tests::{daily, from_days, read};
use crate::shapes::{departures, noise, wave};

fn ask(values: &[f64]) -> Anomalies {
    anomalies(&daily(values), &question(InsightKind::Anomalies)).unwrap()
}

fn dates(found: &Anomalies) -> Vec<&str> {
    found.anomalies.iter().map(|a| a.date.as_str()).collect()
}

#[test]
fn the_blizzard_of_february_2013_stands_out() {
    let values: Vec<f64> = departures().into_iter().map(|d| d.1).collect();
    let found = ask(&values);
    let dates = dates(&found);
    let mut first = [dates[0], dates[1]];
    first.sort_unstable();
    assert_eq!(first, ["2013-02-08", "2013-02-09"], "{dates:?}");
    assert!(dates[2..].contains(&"2013-11-28") && dates.len() < 10, "Thanksgiving, and little else: {dates:?}");
    let blizzard = &found.anomalies[dates.iter().position(|d| *d == "2013-02-09").unwrap()];
    assert_eq!((blizzard.actual, blizzard.direction, blizzard.severity), (291.0, Direction::Below, Severity::Extreme));
    assert!((600.0..750.0).contains(&blizzard.expected), "a Saturday in winter: {blizzard:?}");
    assert_eq!(ask(&values), found, "the same answer every time");
}

#[test]
fn one_wild_value_among_calm_ones_is_found() {
    let calm: Vec<f64> = (0..120).map(|i| 100.0 + 20.0 * wave(i, 7) + noise(i)).collect();
    let mut values = calm.clone();
    values[60] = 160.0;
    let found = ask(&values);
    assert_eq!(found.anomalies[0].at, 60);
    assert!((found.anomalies[0].expected - calm[60]).abs() < 6.0, "{:?}", found.anomalies[0]);
    assert_eq!(found.anomalies.len(), 1, "{:?}", dates(&found));
}

#[test]
fn a_weekly_pattern_alone_is_not_unusual() {
    for k in 0..10 {
        let values: Vec<f64> = (0..200)
            .map(|i| if i % 7 > 4 { 40.0 } else { 100.0 } + 0.1 * i as f64 + 3.0 * noise(k * 500 + i))
            .collect();
        assert!(ask(&values).anomalies.len() <= 2, "{:?}", dates(&ask(&values)));
    }
}

#[test]
fn constants_and_lines_have_no_anomalies_but_a_step_out_of_them_is_one() {
    assert!(ask(&[0.0; 40]).anomalies.is_empty());
    assert!(ask(&[5.0; 40]).anomalies.is_empty());
    assert!(ask(&(0..40).map(|i| 3.0 * f64::from(i)).collect::<Vec<_>>()).anomalies.is_empty());
    let mut values = [5.0; 40];
    values[20] = 50.0;
    assert_eq!(ask(&values).anomalies.iter().map(|a| a.at).collect::<Vec<_>>(), [20]);
    let mut values = [0.0; 40];
    values[20] = 1.0;
    assert_eq!(ask(&values).anomalies[0].percent, None, "nothing is no base for a percentage");
}

#[test]
fn a_level_shift_is_told_where_it_happens_and_not_ever_after() {
    let values: Vec<f64> = (0..120).map(|i| if i < 60 { 100.0 } else { 200.0 } + 2.0 * noise(i)).collect();
    let found = ask(&values);
    assert!(found.anomalies.iter().all(|a| (50..70).contains(&a.at)), "{:?}", dates(&found));
}

#[test]
fn gaps_are_expected_but_never_unusual() {
    let rows: Vec<_> = (0..60).filter(|i| i % 13 != 5).map(|i| (i, Some(10.0 + f64::from(i % 3)))).collect();
    let found = anomalies(&from_days(&rows).unwrap(), &question(InsightKind::Anomalies)).unwrap();
    assert!(found.periods.iter().filter(|p| p.actual.is_none()).all(|p| !p.anomaly && p.expected > 5.0));
    assert_eq!(found.periods.len(), 60 - 1 + usize::from(59 % 13 != 5));
}

#[test]
fn too_few_periods_are_refused() {
    let error = anomalies(&daily(&[1.0; 7]), &question(InsightKind::Anomalies)).unwrap_err();
    assert_eq!(error.kind(), shared::ErrorKind::Invalid);
    assert!(error.to_string().contains("at least 8") && error.to_string().contains("found 7"), "{error}");
}

#[test]
fn an_anomaly_is_explained_by_the_member_that_made_it() {
    let days = (0..56).flat_map(|day| ["AA", "UA"].map(|carrier| (day, carrier)));
    let rows: Vec<(i32, &str, f64)> = days
        .map(|(day, carrier)| {
            (day, carrier, if carrier == "UA" && day == 30 { 5.0 } else { 50.0 + f64::from(day % 7) })
        })
        .collect();
    let series = read(
        vec![
            ("day", Arc::new(Date32Array::from_iter_values(rows.iter().map(|r| r.0)))),
            ("count", Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2)))),
            ("carrier", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1)))),
        ],
        &["carrier"],
        4_000_000_000_000,
    )
    .unwrap();
    let found = anomalies(&series, &question(InsightKind::Anomalies)).unwrap();
    let anomaly = &found.anomalies[0];
    assert_eq!(anomaly.at, 30);
    let movers = &anomaly.contributions[0].members;
    assert_eq!(movers[0].member, "UA");
    assert!(movers[0].share > 0.9, "{movers:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bands_are_ordered_and_ranks_follow_scores(
        values in prop::collection::vec(prop_oneof![8 => -50.0..50.0f64, 1 => -1e140..1e140f64], 8..120),
    ) {
        let found = ask(&values);
        for period in &found.periods {
            prop_assert!(period.expected.is_finite() && period.score.is_finite());
            prop_assert!(period.lower <= period.expected && period.expected <= period.upper);
        }
        for (anomaly, rank) in found.anomalies.iter().zip(1..) {
            prop_assert!(anomaly.rank == rank && anomaly.score >= UNUSUAL);
        }
        prop_assert!(found.anomalies.windows(2).all(|pair| pair[0].score >= pair[1].score));
    }
}
