use proptest::prelude::*;
use shared::ErrorKind;
use shared::project::InsightKind;

use super::*;
use crate::question::tests::question;
use crate::series::tests::{daily, from_days};
use crate::shapes::{departures, noise, wave};

fn ask(values: &[f64]) -> Forecast {
    forecast(&daily(values), &question(InsightKind::Forecast)).unwrap()
}

#[test]
fn departures_of_2013_are_forecast_better_than_by_repeating_the_week() {
    let values: Vec<f64> = departures().into_iter().map(|d| d.1).collect();
    let answer = ask(&values);
    assert_eq!(answer.seasons, [7]);
    assert_eq!((answer.points.len(), answer.points[0].date.as_str()), (14, "2014-01-01"));
    let (own, naive) = (answer.backtest.figures.mae, answer.backtest.baseline.figures.mae);
    assert!(own < 0.95 * naive, "{own} against {naive}: {:?}", answer.backtest);
    assert!(answer.backtest.figures.mase.unwrap() < 1.0, "{:?}", answer.backtest);
    assert!(answer.points.iter().all(|p| (600.0..1_050.0).contains(&p.mean)), "{:?}", answer.points);
    assert_eq!(ask(&values), answer, "the same answer every time");
}

#[test]
fn a_constant_stays_and_is_certain() {
    for constant in [0.0, 7.0, -3.5, 1e12] {
        let answer = ask(&[constant; 30]);
        let point = &answer.points[13];
        assert_eq!((point.mean, point.lower, point.upper), (constant, constant, constant));
        assert_eq!((answer.backtest.figures.mae, answer.backtest.figures.mase), (0.0, None));
    }
}

#[test]
fn short_series_fall_back_to_simple_models() {
    for n in 3..15 {
        let values: Vec<f64> = (0..n).map(|i| 10.0 + noise(i)).collect();
        let answer = ask(&values);
        assert!(answer.points.iter().all(|p| p.lower <= p.mean && p.mean <= p.upper), "{n}");
        assert!(answer.points[0].upper > answer.points[0].mean, "{n}: one can't be certain of noise");
    }
    for n in 1..3 {
        let error = forecast(&daily(&vec![1.0; n]), &question(InsightKind::Forecast)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("found {n}")), "{error}");
    }
}

#[test]
fn counts_are_never_forecast_below_zero() {
    let fall: Vec<f64> = (0..40).map(|i| (40.0 - i as f64 + noise(i)).max(0.0)).collect();
    let answer = forecast(&daily(&fall), &Question { horizon: 60, ..question(InsightKind::Forecast) }).unwrap();
    assert!(answer.points.iter().all(|p| p.lower >= 0.0 && p.mean >= 0.0));
    let debt: Vec<f64> = (0..40).map(|i| -2.0 * i as f64).collect();
    assert!(ask(&debt).points[13].mean < -80.0);
}

#[test]
fn seasons_that_multiply_with_the_trend_are_followed() {
    let values: Vec<f64> =
        (0..120).map(|i| (100.0 + 3.0 * i as f64) * (1.0 + 0.3 * wave(i, 7)) * (1.0 + 0.01 * noise(i))).collect();
    let answer = ask(&values);
    for (h, point) in answer.points.iter().enumerate() {
        let i = 120 + h;
        let truth = (100.0 + 3.0 * i as f64) * (1.0 + 0.3 * wave(i, 7));
        assert!((point.mean / truth - 1.0).abs() < 0.08, "{h}: {} for {truth} by {}", point.mean, answer.model);
    }
}

#[test]
fn intervals_hold_about_the_share_they_promise() {
    let (mut held, mut all) = (0, 0);
    for k in 0..8 {
        let course = |i: usize| 200.0 + 30.0 * wave(i, 7) + 10.0 * noise(1_000 * k + i);
        let answer = ask(&(0..112).map(course).collect::<Vec<_>>());
        all += answer.points.len();
        held +=
            answer.points.iter().enumerate().filter(|(h, p)| (p.lower..=p.upper).contains(&course(112 + h))).count();
    }
    let share = f64::from(held as u32) / f64::from(all as u32);
    assert!((0.8..0.98).contains(&share), "{share}");
}

#[test]
fn gaps_do_not_disturb_the_season() {
    let course = |i: i32| if i % 7 > 4 { 60.0 } else { 100.0 + noise(i as usize) };
    let rows: Vec<_> = (0..140).filter(|i| i % 11 != 3).map(|i| (i, Some(course(i)))).collect();
    let series = from_days(&rows).unwrap();
    let answer = forecast(&series, &question(InsightKind::Forecast)).unwrap();
    for (h, point) in answer.points.iter().enumerate() {
        assert!((point.mean - course(140 + h as i32)).abs() < 8.0, "{h} {point:?} {}", answer.model);
    }
}

#[test]
fn a_declared_season_wins() {
    let values: Vec<f64> = (0..100).map(|i| 100.0 + 10.0 * wave(i, 7) + noise(i)).collect();
    let ask =
        |season| forecast(&daily(&values), &Question { season, ..question(InsightKind::Forecast) }).unwrap().seasons;
    assert_eq!(ask(None), [7]);
    assert_eq!(ask(Some(14)), [14]);
    assert!(ask(Some(1)).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn intervals_are_ordered_hold_the_mean_and_never_narrow(
        values in prop::collection::vec(prop_oneof![4 => -1e3..1e3f64, 1 => Just(0.0), 1 => -1e140..1e140f64], 3..60),
        horizon in prop_oneof![Just(1usize), Just(14), Just(1_000)],
        interval in 0.5..0.99f64,
    ) {
        let question = Question { horizon, interval, ..question(InsightKind::Forecast) };
        let answer = forecast(&daily(&values), &question).unwrap();
        prop_assert_eq!(answer.points.len(), horizon);
        let clipped = values.iter().all(|v| *v >= 0.0);
        let mut before = 0.0;
        for point in &answer.points {
            prop_assert!(point.lower.is_finite() && point.mean.is_finite() && point.upper.is_finite());
            prop_assert!(point.lower <= point.mean && point.mean <= point.upper);
            let width = point.upper - point.lower;
            prop_assert!(clipped || width >= before - 1e-5 * (width.abs() + point.mean.abs()));
            before = width;
        }
    }
}
