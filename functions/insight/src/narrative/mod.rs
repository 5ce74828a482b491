//! A series in plain words: size, extremes, growth, movers, trend, outlook, unusual periods.
//!
//! Sentences are made by a fixed grammar. Every number and date in them is also a fact of the answer.

mod wording;

use serde::Serialize;
use shared::{ErrorKind, Result};

pub use wording::{Fact, FactValue, Facts};

use crate::anomalies::{Anomalies, anomalies};
use crate::decompose::{Fit, decompose};
use crate::forecast::{Forecast, forecast, prepared};
use crate::question::Question;
use crate::robust::mean;
use crate::series::{Dimension, Series};
use wording::moved;

/// Periods that a narrative needs.
const LEAST: usize = 2;
/// Members of a dimension that are named as movers.
const MOVERS: usize = 3;
/// Anomalies that are named.
const UNUSUAL: usize = 3;
/// Changes below this share are no change.
const NOTHING: f64 = 0.005;

/// A series in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Narrative {
    /// All sentences.
    pub text: String,
    pub sentences: Vec<Sentence>,
    pub facts: Vec<Fact>,
}

/// A sentence and what it is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sentence {
    pub about: About,
    pub text: String,
}

/// What a sentence is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    Summary,
    Extremes,
    Growth,
    PeriodOverPeriod,
    Movers,
    Trend,
    Forecast,
    Anomalies,
}

impl About {
    /// As answers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Extremes => "extremes",
            Self::Growth => "growth",
            Self::PeriodOverPeriod => "period_over_period",
            Self::Movers => "movers",
            Self::Trend => "trend",
            Self::Forecast => "forecast",
            Self::Anomalies => "anomalies",
        }
    }
}

/// Tells the series.
///
/// # Errors
/// `Invalid` for fewer than two known periods.
pub fn narrative(series: &Series, question: &Question) -> Result<Narrative> {
    series.require(LEAST, "a narrative")?;
    let (values, seasons) = prepared(series, question.season)?;
    let window = window(&seasons, values.len());
    let mut teller = Teller { series, values: &values, window, facts: Facts::default(), sentences: Vec::new() };
    teller.summary();
    teller.extremes();
    teller.growth();
    teller.period_over_period();
    for dimension in &series.dimensions {
        teller.movers(dimension);
    }
    teller.trend(&seasons)?;
    if let Some(forecast) = unless_short(forecast(series, question))? {
        teller.forecast(&forecast);
    }
    if let Some(found) = unless_short(anomalies(series, question))? {
        teller.anomalies(&found);
    }
    let text = teller.sentences.iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join(" ");
    Ok(Narrative { text, sentences: teller.sentences, facts: teller.facts.facts })
}

/// A series too short for one part is told without it.
fn unless_short<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == ErrorKind::Invalid => Ok(None),
        Err(error) => Err(error),
    }
}

/// Periods that are compared with as many before: the longest season held four times, else one period.
fn window(seasons: &[usize], n: usize) -> usize {
    seasons.iter().copied().filter(|s| n >= 4 * s).max().unwrap_or(1)
}

struct Teller<'a> {
    series: &'a Series,
    /// Without gaps.
    values: &'a [f64],
    /// Periods that are compared with as many before.
    window: usize,
    facts: Facts,
    sentences: Vec<Sentence>,
}

impl Teller<'_> {
    fn say(&mut self, about: About, text: String) {
        self.sentences.push(Sentence { about, text });
    }

    /// `day`, `days`, `30 minutes`: some periods by their unit.
    fn periods(&mut self, name: &str, count: usize) -> String {
        let unit = self.series.calendar.unit().as_str();
        let count_text = self.facts.number(name, count as f64);
        match unit.split_once(' ') {
            Some(_) => {
                let unit = self.facts.word(format!("{name}.unit"), unit);
                format!("{count_text} periods of {unit}")
            }
            None => format!("{count_text} {unit}{}", if count == 1 { "" } else { "s" }),
        }
    }

    fn summary(&mut self) {
        let known: Vec<f64> = self.series.values.iter().flatten().copied().collect();
        let periods = self.periods("periods", self.series.len());
        let from = self.facts.word("from", &self.series.label(0));
        let to = self.facts.word("to", &self.series.label(self.series.len() - 1));
        let total = self.facts.number("total", known.iter().sum());
        let average = self.facts.number("mean", mean(&known));
        let gaps = self.series.len() - known.len();
        let gaps = match gaps {
            0 => String::new(),
            gaps => format!("; {} of them had no value", self.facts.number("gaps", gaps as f64)),
        };
        let value = self.facts.word("value", &self.series.value);
        self.say(
            About::Summary,
            format!("`{value}` was observed over {periods} from {from} to {to}{gaps}: {total} in total, {average} on average."),
        );
    }

    fn extremes(&mut self) {
        let known: Vec<(usize, f64)> =
            self.series.values.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))).collect();
        let highest = known.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
        let lowest = known.iter().copied().reduce(|a, b| if b.1 < a.1 { b } else { a });
        let (Some((top, most)), Some((bottom, least))) = (highest, lowest) else { return };
        if most == least {
            let same = self.facts.number("maximum.value", most);
            return self.say(About::Extremes, format!("It was {same} all the time."));
        }
        let most = self.facts.number("maximum.value", most);
        let top = self.facts.word("maximum.date", &self.series.label(top));
        let least = self.facts.number("minimum.value", least);
        let bottom = self.facts.word("minimum.date", &self.series.label(bottom));
        self.say(About::Extremes, format!("It was highest with {most} on {top} and lowest with {least} on {bottom}."));
    }

    /// The last window against the first.
    fn growth(&mut self) {
        let n = self.values.len();
        if n < 2 * self.window + 1 {
            return;
        }
        let (first, last) = (mean(&self.values[..self.window]), mean(&self.values[n - self.window..]));
        let text = self.change("growth", first, last);
        let what = match self.window {
            1 => "From the first to the last period".to_owned(),
            window => {
                let periods = self.periods("growth.window", window);
                format!("From the first {periods} to the last, the average")
            }
        };
        let subject = if self.window == 1 { "it " } else { "" };
        let separator = if self.window == 1 { ", " } else { " " };
        self.say(About::Growth, format!("{what}{separator}{subject}{text}."));
    }

    /// The last window against the one before, and the last period against the same place one window before.
    fn period_over_period(&mut self) {
        let n = self.values.len();
        if n < 2 * self.window {
            return;
        }
        let sum = |from: usize| self.values[from..from + self.window].iter().sum::<f64>();
        let (before, last) = (sum(n - 2 * self.window), sum(n - self.window));
        let text = self.change("period_over_period", before, last);
        let what = match self.window {
            1 => "Against the period before, the last one".to_owned(),
            window => {
                let periods = self.periods("period_over_period.window", window);
                format!("Against the {periods} before, the total of the last ones")
            }
        };
        self.say(About::PeriodOverPeriod, format!("{what} {text}."));
    }

    /// `rose by 12% from 100 to 112`.
    fn change(&mut self, name: &str, from: f64, to: f64) -> String {
        let change = to - from;
        let (start, end) =
            (self.facts.number(format!("{name}.from"), from), self.facts.number(format!("{name}.to"), to));
        if start == end {
            return format!("stayed at {end}");
        }
        if from > 0.0 {
            let percent = self.facts.percent(format!("{name}.percent"), change / from);
            return format!("{} by {percent}, from {start} to {end}", moved(change));
        }
        let size = self.facts.size(format!("{name}.change"), change);
        format!("{} by {size}, from {start} to {end}", moved(change))
    }

    /// Who moved most between the last window and the one before.
    fn movers(&mut self, dimension: &Dimension) {
        let (n, window) = (self.series.len(), self.window);
        if n < 2 * window {
            return;
        }
        let sums = |values: &[f64]| {
            let sum = |from: usize| values[from..from + window].iter().sum::<f64>();
            (sum(n - 2 * window), sum(n - window))
        };
        let mut moves: Vec<(&str, f64)> = dimension
            .members
            .iter()
            .map(|m| (m.name.as_str(), sums(&m.values)))
            .map(|(name, (before, last))| (name, last - before))
            .filter(|(_, change)| *change != 0.0)
            .collect();
        moves.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(b.0)));
        moves.truncate(MOVERS);
        let name = &dimension.name;
        if moves.is_empty() {
            return self.say(About::Movers, format!("No `{name}` moved."));
        }
        let told: Vec<String> = moves
            .iter()
            .zip(1..)
            .map(|((member, change), rank)| {
                let key = format!("movers.{name}.{rank}");
                let member = self.facts.word(format!("{key}.member"), member);
                let size = self.facts.size(format!("{key}.change"), *change);
                format!("{member} ({} by {size})", moved(*change))
            })
            .collect();
        let name = self.facts.word(format!("movers.{name}"), name);
        self.say(About::Movers, format!("By `{name}`, what moved most was {}.", listed(&told)));
    }

    /// The decomposition's trend from its start to its end.
    fn trend(&mut self, seasons: &[usize]) -> Result<()> {
        if self.values.len() < 8 {
            return Ok(());
        }
        let trend = decompose(self.values, seasons, Fit::Robust)?.trend;
        let (first, last) = (trend[0], trend[trend.len() - 1]);
        let size = mean(&self.values.iter().map(|v| v.abs()).collect::<Vec<_>>());
        let change = last - first;
        let direction = if change.abs() <= NOTHING * size {
            "is level".to_owned()
        } else {
            let per = self.facts.size("trend.per_period", change / (trend.len() - 1) as f64);
            format!("{} by {per} a period on average", if change > 0.0 { "rises" } else { "falls" })
        };
        let season = match seasons {
            [] => "no season was found".to_owned(),
            seasons => {
                let each: Vec<String> =
                    seasons.iter().zip(1..).map(|(s, i)| self.periods(&format!("season.{i}"), *s)).collect();
                format!("the pattern repeats every {}", listed(&each))
            }
        };
        self.say(About::Trend, format!("The trend {direction}, and {season}."));
        Ok(())
    }

    fn forecast(&mut self, forecast: &Forecast) {
        let Some(last) = forecast.points.last() else { return };
        let total: f64 = forecast.points.iter().map(|p| p.mean).sum();
        let average = self.facts.number("forecast.mean", total / forecast.points.len() as f64);
        let periods = self.periods("forecast.periods", forecast.points.len());
        let until = self.facts.word("forecast.until", &last.date);
        let (low, high) = (
            self.facts.number("forecast.last.lower", last.lower),
            self.facts.number("forecast.last.upper", last.upper),
        );
        let level = self.facts.percent("forecast.interval", forecast.interval);
        let error = self.facts.number("forecast.mae", forecast.backtest.figures.mae);
        self.say(
            About::Forecast,
            format!(
                "For the next {periods}, until {until}, {average} a period is expected; on the last of them between {low} \
                 and {high} with a probability of about {level}. Such forecasts were wrong by {error} on average in the past."
            ),
        );
    }

    fn anomalies(&mut self, found: &Anomalies) {
        if found.anomalies.is_empty() {
            return self.say(About::Anomalies, "No period was unusual.".into());
        }
        let count = self.facts.number("anomalies", found.anomalies.len() as f64);
        let told: Vec<String> = found
            .anomalies
            .iter()
            .take(UNUSUAL)
            .map(|a| {
                let key = format!("anomalies.{}", a.rank);
                let date = self.facts.word(format!("{key}.date"), &a.date);
                let actual = self.facts.number(format!("{key}.actual"), a.actual);
                let expected = self.facts.number(format!("{key}.expected"), a.expected);
                let blame = a.contributions.first().and_then(|c| c.members.first()).filter(|m| m.share > 0.0);
                let blame = blame.map_or_else(String::new, |m| {
                    let member = self.facts.word(format!("{key}.member"), &m.member);
                    let share = self.facts.percent(format!("{key}.share"), m.share);
                    format!(", {share} of the difference from {member}")
                });
                format!("{date} ({actual} instead of {expected}{blame})")
            })
            .collect();
        let (verb, noun) = if found.anomalies.len() == 1 { ("was", "period") } else { ("were", "periods") };
        let most = if found.anomalies.len() > 1 { "most of all " } else { "" };
        self.say(About::Anomalies, format!("{count} {noun} {verb} unusual, {most}{}.", listed(&told)));
    }
}

/// `a`, `a and b`, `a, b and c`.
fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests;
