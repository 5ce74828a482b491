use std::sync::Arc;

use arrow::array::{Date32Array, Float64Array, StringArray};
use proptest::prelude::*;
use shared::project::InsightKind;

use super::*;
use crate::question::tests::question;
use crate::series::tests::{daily, from_days, read};
use crate::shapes::departures;

fn ask(series: &Series) -> Narrative {
    narrative(series, &question(InsightKind::Narrative)).unwrap()
}

/// Every run of digits in the text, with its dots, commas and signs, must be what a fact's text is made of.
fn numbers_without_fact(told: &Narrative) -> Vec<String> {
    let mut rest = told.text.clone();
    let mut texts: Vec<&str> = told.facts.iter().map(|f| f.text.as_str()).collect();
    texts.sort_by_key(|t| std::cmp::Reverse(t.len()));
    for text in texts {
        rest = rest.replace(text, " ");
    }
    rest.split_whitespace().filter(|w| w.contains(|c: char| c.is_ascii_digit())).map(str::to_owned).collect()
}

#[test]
fn departures_of_2013_are_told_with_the_blizzard() {
    let values: Vec<f64> = departures().into_iter().map(|d| d.1).collect();
    let told = ask(&daily(&values));
    assert!(told.text.contains("365 days from 2013-01-01 to 2013-12-31: 328,521 in total"), "{}", told.text);
    assert!(told.text.contains("lowest with 291 on 2013-02-09"), "{}", told.text);
    assert!(told.text.contains("the pattern repeats every 7 days"), "{}", told.text);
    assert!(told.text.contains("unusual, most of all 2013-02-0"), "{}", told.text);
    assert!(numbers_without_fact(&told).is_empty(), "{:?}", numbers_without_fact(&told));
}

#[test]
fn the_growth_and_the_movers_are_told() {
    let rows: Vec<(i32, &str, f64)> =
        (0..10).flat_map(|day| [(day, "AA", 10.0), (day, "UA", if day == 9 { 40.0 } else { 10.0 })]).collect();
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
    let told = ask(&series);
    assert!(told.text.contains("From the first to the last period, it rose by 150%, from 20 to 50."), "{}", told.text);
    assert!(told.text.contains("By `carrier`, what moved most was UA (rose by 30)."), "{}", told.text);
}

#[test]
fn a_constant_is_told_without_division_by_zero() {
    for constant in [0.0, 5.0] {
        let told = ask(&daily(&[constant; 30]));
        assert!(told.text.contains("all the time") && told.text.contains("stayed at"), "{}", told.text);
        assert!(!told.text.contains("NaN") && !told.text.contains("inf"), "{}", told.text);
    }
}

#[test]
fn two_points_can_be_told_and_one_can_not() {
    let told = ask(&daily(&[10.0, 20.0]));
    assert!(told.text.contains("rose by 100%, from 10 to 20"), "{}", told.text);
    assert!(told.sentences.iter().all(|s| !matches!(s.about, About::Forecast | About::Anomalies)));
    assert!(narrative(&daily(&[1.0]), &question(InsightKind::Narrative)).is_err());
}

#[test]
fn gaps_are_told() {
    let told = ask(&from_days(&[(0, Some(1.0)), (1, Some(2.0)), (3, Some(4.0)), (4, Some(4.0))]).unwrap());
    assert!(told.text.contains("1 of them had no value"), "{}", told.text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_number_in_the_text_is_a_fact(
        values in prop::collection::vec(prop_oneof![4 => -1e4..1e4f64, 1 => -1e-3..1e-3f64, 1 => -1e20..1e20f64], 2..50),
    ) {
        let told = ask(&daily(&values));
        prop_assert!(numbers_without_fact(&told).is_empty(), "{:?} {}", numbers_without_fact(&told), told.text);
        let total = told.facts.iter().find(|f| f.name == "total").unwrap();
        let FactValue::Number(total) = total.value else { panic!("a total is a number") };
        let sum: f64 = values.iter().sum();
        prop_assert!((total - sum).abs() <= 1e-5 * values.iter().map(|v| v.abs()).sum::<f64>());
    }
}
