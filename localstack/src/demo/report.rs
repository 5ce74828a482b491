//! The page of the results: one HTML file without anything from outside.

use serde_json::Value;
use shared::{Error, Result};

use super::charts::{self, Bar, Expected, Marked, Point, escape};
use super::explained;

/// Unusual days that are marked in the chart and listed.
const LISTED: usize = 8;

/// The page, from the answers.
///
/// # Errors
/// `Bug` when an answer is missing.
pub(super) fn page(answers: &Value) -> Result<String> {
    let sections = [
        section(
            "Departures a day",
            "The line is 2013, the band the forecast of the next four weeks (90 % of days should fall in it), the dots are days on which unusually many flights were cancelled. Point at anything for its figures.",
            &timeline(answers)?,
        ),
        section(
            "Unusual days",
            "Most unusual first, with the carriers and airports that had the largest part.",
            &unusual(answers)?,
        ),
        section(
            "The blizzard",
            "What the weather stations saw on 8 and 9 February 2013 (UTC).",
            &table(at(answers, "blizzard_weather")?),
        ),
        section("The year in words", "", &narrative(answers)),
        section("Delay by airline", "Mean delay of departures, minutes.", &delays(at(answers, "carriers")?, "airline")),
        section("Delay by airport", "Mean delay of departures, minutes.", &delays(at(answers, "airports")?, "airport")),
        section(
            "Weather and delay",
            "Mean delay of departures, minutes, by how far one could see at the hour of the departure.",
            &weather(at(answers, "weather")?),
        ),
        section("The year", "", &table(at(answers, "year")?)),
        section(
            "The workflow's two runs",
            "The second run read only what was new, and counted anew the one day that was cut in two.",
            &format!("{}{}", table(at(answers, "first_run")?), table(at(answers, "second_run")?)),
        ),
        section(
            "Every record accounted for",
            "What went in against what lies in tables, errors and quarantine.",
            &table(at(answers, "reconciled")?),
        ),
    ];
    Ok(include_str!("page.html").replace("{{sections}}", &sections.concat()))
}

fn at<'a>(answers: &'a Value, name: &str) -> Result<&'a Value> {
    answers.get(name).ok_or_else(|| Error::bug(format!("the demo has no answer `{name}`")))
}

fn section(title: &str, lead: &str, body: &str) -> String {
    let lead = if lead.is_empty() { String::new() } else { format!("<p>{}</p>", escape(lead)) };
    format!("<section><h2>{}</h2>{lead}{body}</section>\n", escape(title))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The date of a period that is a day.
fn day(value: &Value) -> String {
    let label = text(value);
    label.get(..10).unwrap_or(&label).to_owned()
}

fn anomalies(answers: &Value) -> Result<&Value> {
    Ok(&at(answers, "cancellations")?["anomalies"]["anomalies"])
}

fn timeline(answers: &Value) -> Result<String> {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let past: Vec<Point> = list(at(answers, "daily")?)
        .map(|row| Point { day: day(&row["day"]), value: number(&row["departures"]) })
        .collect();
    let to_come: Vec<Expected> = list(&at(answers, "daily_departures")?["forecast"]["points"])
        .map(|point| Expected {
            day: day(&point["date"]),
            mean: number(&point["mean"]),
            lower: number(&point["lower"]),
            upper: number(&point["upper"]),
        })
        .collect();
    let marked: Vec<Marked> = list(anomalies(answers)?)
        .take(LISTED)
        .map(|anomaly| Marked { day: day(&anomaly["date"]), text: explained(anomaly) })
        .collect();
    Ok(charts::timeline(&past, &to_come, &marked))
}

fn unusual(answers: &Value) -> Result<String> {
    let items: String =
        list(anomalies(answers)?).take(LISTED).map(|a| format!("<li>{}</li>", escape(&explained(a)))).collect();
    Ok(format!("<ol>{items}</ol>"))
}

/// The sentences of a narrative.
pub(super) fn sentences(answer: &Value) -> Vec<String> {
    list(&answer["narrative"]["sentences"]).map(|sentence| text(&sentence["text"])).collect()
}

fn narrative(answers: &Value) -> String {
    let items: String =
        sentences(&answers["year_in_words"]).iter().map(|sentence| format!("<li>{}</li>", escape(sentence))).collect();
    format!("<ul>{items}</ul>")
}

fn delays(rows: &Value, label: &str) -> String {
    let bars: Vec<Bar> = list(rows)
        .map(|row| Bar {
            label: text(&row[label]),
            value: row["mean_delay"].as_f64().unwrap_or_default(),
            shown: format!("{} min", text(&row["mean_delay"])),
            title: format!(
                "{}: {} flights, {} % more than 15 minutes late",
                text(&row[label]),
                text(&row["flights"]),
                text(&row["late_percent"])
            ),
        })
        .collect();
    charts::bars(&format!("Mean delay of departures by {label}"), &bars)
}

fn weather(rows: &Value) -> String {
    let bars: Vec<Bar> = list(rows)
        .map(|row| {
            // The number in front only orders the classes.
            let class = text(&row["visibility"]);
            let class = class.split_once(' ').map_or(class.as_str(), |(_, name)| name).to_owned();
            Bar {
                value: row["mean_delay"].as_f64().unwrap_or_default(),
                shown: format!("{} min", text(&row["mean_delay"])),
                title: format!(
                    "{class}: {} flights, {} % cancelled",
                    text(&row["flights"]),
                    text(&row["cancelled_percent"])
                ),
                label: class,
            }
        })
        .collect();
    charts::bars("Mean delay of departures by visibility", &bars)
}

/// Objects as a table; numbers to the right.
fn table(rows: &Value) -> String {
    let names: Vec<&String> = list(rows).next().and_then(Value::as_object).into_iter().flat_map(|o| o.keys()).collect();
    let head: String = names.iter().map(|n| format!("<th>{}</th>", escape(&n.replace('_', " ")))).collect();
    let cell = |value: &Value| {
        let class = if value.is_number() { " class=\"number\"" } else { "" };
        format!("<td{class}>{}</td>", escape(&text(value)))
    };
    let body: String = list(rows)
        .map(|row| format!("<tr>{}</tr>", names.iter().map(|n| cell(&row[n.as_str()])).collect::<String>()))
        .collect();
    format!("<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_needs_every_answer() {
        assert!(page(&json!({})).unwrap_err().to_string().contains("`daily`"));
    }

    #[test]
    fn a_table_shows_text_as_text() {
        let html = table(&json!([{"a_b": "<x>", "n": 1}]));
        assert!(
            html.contains("<th>a b</th>") && html.contains("<td>&lt;x&gt;</td><td class=\"number\">1</td>"),
            "{html}"
        );
    }

    #[test]
    fn the_page_loads_nothing_from_outside() {
        let html = include_str!("page.html");
        assert!(!html.contains("http") && !html.contains("src=") && !html.contains("@import"));
    }
}
