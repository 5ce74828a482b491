//! `tarn demo`: real data through all six functions, over HTTP, with a report whose counts reconcile.
//!
//! [`data`] is what goes in, [`replay`] sends the flights, [`questions`] is what is asked, [`reconcile`] compares what went in with
//! what came out, [`report`] draws the page. The answers (not the times) are the same in every run from scratch; they lie in
//! `answers.json`.

mod charts;
mod client;
pub mod data;
mod questions;
mod reconcile;
mod replay;
mod report;
mod story;

use std::path::Path;

use serde_json::{Map, Value, json};
use shared::config::Settings;
use shared::error::Context;
use shared::{Error, Result};

use crate::cli::arguments::Format;
use crate::cli::caller::{Api, Remote};
use crate::cli::output::{Out, Rows};
use crate::cli::work::run_rows;
use crate::runtime::{self, Options};
use client::Client;
use questions::{DAILY, QUESTIONS, WEATHER_OF_DAYS};
use reconcile::Ledger;
use story::Story;

/// Marks a directory that a demo made, so that the next one may empty it.
const MARK: &str = "made-by-tarn-demo";
/// The blizzard of 8 and 9 February 2013, which the search for anomalies must find.
const BLIZZARD: [&str; 2] = ["2013-02-08", "2013-02-09"];

/// Runs the demo in `directory`, or through the `deployed` lakehouse; answers and page lie in `directory` in either case.
///
/// # Errors
/// `Conflict` for a directory that no demo made, or a deployed lakehouse that has flights already; `NotFound` for one that does
/// not have the demo's streams; `Bug` when counts don't reconcile or the blizzard isn't found.
pub(crate) async fn run(directory: &Path, deployed: Option<&Api>, out: &Out) -> Result<()> {
    if let Some(api) = deployed {
        let url = &api.url;
        let mut demo = Demo::new(Client::new(Remote::deployed(api).await?), *out);
        demo.client.expect_no_flights().await?;
        prepare(directory)?;
        demo.tell(url).await?;
        return demo.finish(directory, *out, &format!("  tables and files      behind {url}\n"));
    }
    prepare(directory)?;
    let mut settings = Settings::embedded(directory)?;
    settings.project = settings.data.join("lakehouse.yaml");
    let running = runtime::start(&settings, &Options::default()).await?;
    let mut demo = Demo::new(Client::new(Remote::new(&running.url)?), *out);
    let done = demo.tell(&running.url).await;
    running.stop().await?;
    done?;
    demo.finish(&settings.data, *out, &kept(&settings.data))
}

/// Empties a directory that an earlier demo made, or makes a new one; writes the lakehouse file.
fn prepare(directory: &Path) -> Result<()> {
    let doing = || format!("making the demo's directory `{}`", directory.display());
    let mark = directory.join(MARK);
    if directory.exists() {
        let empty = std::fs::read_dir(directory).context(doing)?.next().is_none();
        if !empty && !mark.is_file() {
            let found = directory.display();
            return Err(Error::conflict(format!(
                "expected an empty directory or one that a demo made, found `{found}`"
            )));
        }
        // Refuses while another process works there.
        drop(shared::lock::DataLock::acquire(directory, "")?);
        std::fs::remove_dir_all(directory).context(doing)?;
    }
    std::fs::create_dir_all(directory).context(doing)?;
    std::fs::write(&mark, "`tarn demo` empties this directory.\n").context(doing)?;
    std::fs::write(directory.join("lakehouse.yaml"), data::LAKEHOUSE).context(doing)
}

/// The state of the story as it is told.
struct Demo {
    client: Client,
    story: Story,
    ledger: Ledger,
    /// What a run from scratch always answers.
    answers: Map<String, Value>,
}

impl Demo {
    fn new(client: Client, out: Out) -> Self {
        Self { client, story: Story::new(out), ledger: Ledger::default(), answers: Map::new() }
    }

    async fn tell(&mut self, url: &str) -> Result<()> {
        self.story.title(&format!("Flights that left New York in 2013, through {url}"))?;
        self.files(
            &data::DIMENSIONS,
            "Planes, airports and airlines as files: NDJSON, CSV with semicolons, a JSON array",
        )
        .await?;
        self.files(&data::WEATHER[..6], "The weather of January to June as gzipped CSV, a folder a month").await?;
        self.stream(replay::FIRST).await?;
        self.workflow("first").await?;
        self.files(&data::WEATHER[6..], "The weather of July to December: the crawler touches only what is new")
            .await?;
        self.stream(replay::SECOND).await?;
        self.workflow("second").await?;
        self.questions().await?;
        self.forecast().await?;
        self.anomalies().await?;
        self.narrative().await?;
        self.reconcile().await
    }

    /// Uploads files; the crawler hears of each and puts it in the catalog.
    async fn files(&mut self, files: &[data::RawFile], what: &str) -> Result<()> {
        self.story.begin(what)?;
        for file in files {
            self.client.upload(file).await?;
            *self.ledger.uploaded.entry(file.location).or_default() += file.rows()?;
        }
        let mut names: Vec<_> = files.iter().map(|f| f.location).collect();
        names.dedup();
        for name in names {
            let rows = self.ledger.uploaded[name];
            self.client.until(&format!("nyc.{name}"), rows).await?;
            self.story.say(&format!("`nyc.{name}` has {} rows", story::grouped(rows)))?;
        }
        self.story.end()
    }

    /// Replays a part of the year through the stream; waits until the batcher has written it all.
    async fn stream(&mut self, part: replay::Part) -> Result<()> {
        self.story.begin(part.what)?;
        let sent = replay::send(&self.client, part, self.ledger.flights, self.story.bar(part.what)).await?;
        self.ledger.add(&sent);
        self.client.json("POST", "/streams/flights/flush", None).await?;
        let rows = self.ledger.accepted;
        self.client.until("nyc.flights", rows).await?;
        self.story.say(&format!(
            "{} records sent: {} accepted, {} refused at the door ({} were bad on purpose); `nyc.flights` has {} rows",
            story::grouped(sent.flights + sent.bad),
            story::grouped(sent.accepted),
            sent.rejected,
            sent.bad,
            story::grouped(rows)
        ))?;
        self.story.end()
    }

    /// Runs the workflow and waits for it.
    async fn workflow(&mut self, round: &str) -> Result<()> {
        self.story.begin(&format!("The workflow `curate`, {round} run"))?;
        let record = self.client.json("POST", "/workflows/curate/runs", Some(&json!({}))).await?;
        let shown = run_rows(&record);
        self.story.table(&shown)?;
        if record["status"] != "succeeded" {
            return Err(Error::bug(format!("the {round} run of `curate` ended as {}: {record}", record["status"])));
        }
        let quarantined = record.pointer("/jobs/flights/rows_quarantined").and_then(Value::as_u64).unwrap_or_default();
        self.ledger.quarantined += quarantined;
        let replaced = record.pointer("/jobs/daily_delays/rows_deleted").and_then(Value::as_u64).unwrap_or_default();
        if replaced > 0 {
            self.story
                .say(&format!("{replaced} rows of the day that was cut in two were counted anew and replaced"))?;
        }
        self.answers.insert(format!("{round}_run"), objects(&shown));
        self.story.end()
    }

    async fn questions(&mut self) -> Result<()> {
        self.story.begin("Questions in SQL")?;
        for question in &QUESTIONS {
            let rows = self.client.sql(question.sql).await?;
            self.story.say(question.text)?;
            self.story.table(&rows)?;
            self.answers.insert(question.name.into(), objects(&rows));
        }
        let daily = self.client.sql(DAILY).await?;
        self.answers.insert("daily".into(), objects(&daily));
        self.story.end()
    }

    async fn forecast(&mut self) -> Result<()> {
        self.story.begin("A forecast of the next four weeks' departures")?;
        let answer = self.insight("daily_departures").await?;
        let week = Rows::of_objects(&answer["forecast"]["points"], &["date", "mean", "lower", "upper"]);
        self.story.table(&Rows { rows: week.rows.into_iter().take(7).collect(), ..week })?;
        let error = answer.pointer("/forecast/backtest/mape").and_then(Value::as_f64).unwrap_or_default();
        self.story.say(&format!(
            "model {}; in the past it was {error:.1} % off on average; the band should hold 90 % of days",
            answer["forecast"]["model"].as_str().unwrap_or_default()
        ))?;
        self.story.end()
    }

    async fn anomalies(&mut self) -> Result<()> {
        self.story.begin("Unusual days, explained")?;
        let answer = self.insight("cancellations").await?;
        let top: Vec<&Value> = answer["anomalies"]["anomalies"].as_array().into_iter().flatten().take(5).collect();
        for anomaly in &top {
            self.story.say(&explained(anomaly))?;
        }
        let days: Vec<String> = BLIZZARD.iter().map(|day| format!("'{day}'")).collect();
        let weather = self.client.sql(&WEATHER_OF_DAYS.replace("{days}", &days.join(", "))).await?;
        self.story.say("The weather on 8 and 9 February 2013, the blizzard:")?;
        self.story.table(&weather)?;
        self.answers.insert("blizzard_weather".into(), objects(&weather));
        if !top.iter().any(|a| BLIZZARD.iter().any(|day| a["date"].as_str().is_some_and(|d| d.starts_with(day)))) {
            return Err(Error::bug(format!(
                "expected the blizzard of {} among the five most unusual days",
                BLIZZARD[0]
            )));
        }
        self.story.end()
    }

    async fn narrative(&mut self) -> Result<()> {
        self.story.begin("The year in words")?;
        let answer = self.insight("year_in_words").await?;
        for sentence in report::sentences(&answer) {
            self.story.say(&sentence)?;
        }
        self.story.end()
    }

    async fn insight(&mut self, name: &str) -> Result<Value> {
        let answer = self.client.json("POST", &format!("/insights/{name}"), Some(&json!({}))).await?;
        self.answers.insert(name.into(), answer.clone());
        Ok(answer)
    }

    async fn reconcile(&mut self) -> Result<()> {
        self.story.begin("Every record accounted for: in = stored + rejected")?;
        let checks = self.ledger.checks(&self.client).await?;
        let rows = reconcile::rows(&checks);
        self.story.table(&rows)?;
        self.answers.insert("reconciled".into(), objects(&rows));
        self.story.end()?;
        match checks.iter().find(|check| !check.holds()) {
            None => Ok(()),
            Some(check) => Err(Error::bug(format!(
                "counts don't reconcile: {}: expected {}, found {}",
                check.what, check.expected, check.found
            ))),
        }
    }

    /// Writes answers and page into `data`, says where they lie and `where_else`.
    fn finish(self, data: &Path, out: Out, where_else: &str) -> Result<()> {
        let (answers, page) = (data.join("answers.json"), data.join("report.html"));
        let value = Value::Object(self.answers);
        let text =
            serde_json::to_string_pretty(&value).map_err(|e| Error::bug("answers have no JSON").with_source(e))?;
        std::fs::write(&answers, text + "\n").context(|| format!("writing `{}`", answers.display()))?;
        std::fs::write(&page, report::page(&value)?).context(|| format!("writing `{}`", page.display()))?;
        if out.format() == Format::Json {
            let summary = json!({"data": data, "answers": answers, "report": page, "reconciled": value["reconciled"]});
            return out.text(&format!("{summary}\n"));
        }
        self.story.title(&format!("Done in {:.0} s", self.story.elapsed().as_secs_f64()))?;
        out.text(&format!(
            "  page of the results   {}\n  answers as JSON       {}\n{where_else}",
            page.display(),
            answers.display()
        ))
    }
}

/// What a demo on one machine leaves, and what to do with it.
fn kept(data: &Path) -> String {
    let shown = data.display();
    format!(
        "  lakehouse file        {shown}/lakehouse.yaml
  tables and files      {shown}/objects/
  stream, catalog,      {shown}/stream.db, catalog.db,
    state                 state.db

Go on:
  tarn sql --data {shown} 'SELECT * FROM curated.daily_delays LIMIT 5'
  tarn sql --data {shown}
  tarn status --data {shown}
  tarn up --data {shown}
"
    )
}

/// Rows as JSON objects.
fn objects(rows: &Rows) -> Value {
    let object = |row: &Vec<Value>| Value::Object(rows.columns.iter().cloned().zip(row.iter().cloned()).collect());
    rows.rows.iter().map(object).collect()
}

/// An anomaly in a sentence: the day, what was found and expected, who had the largest part.
fn explained(anomaly: &Value) -> String {
    let number = |name: &str| anomaly[name].as_f64().unwrap_or_default();
    let date = anomaly["date"].as_str().unwrap_or_default();
    let mut text = format!(
        "{}: {:.0} cancelled where {:.0} were expected ({})",
        date.get(..10).unwrap_or(date),
        number("actual"),
        number("expected"),
        anomaly["severity"].as_str().unwrap_or_default()
    );
    for contribution in anomaly["contributions"].as_array().into_iter().flatten() {
        let members = contribution["members"].as_array().into_iter().flatten().take(3);
        let parts: Vec<_> = members
            .map(|m| {
                let share = 100.0 * m["share"].as_f64().unwrap_or_default();
                format!("{} {share:.0} %", m["member"].as_str().unwrap_or_default())
            })
            .collect();
        text += &format!("; by {}: {}", contribution["dimension"].as_str().unwrap_or_default(), parts.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_no_demo_made_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        assert_eq!(prepare(dir.path()).unwrap_err().kind(), shared::ErrorKind::Conflict);
        assert!(dir.path().join("thesis.txt").exists());
    }

    #[test]
    fn a_directory_that_a_demo_made_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let demo = dir.path().join("demo");
        prepare(&demo).unwrap();
        std::fs::write(demo.join("old"), "").unwrap();
        prepare(&demo).unwrap();
        assert!(!demo.join("old").exists() && demo.join("lakehouse.yaml").exists());
    }

    #[test]
    fn an_anomaly_is_told_with_those_who_had_a_part() {
        let anomaly = json!({
            "date": "2013-02-08", "actual": 472.0, "expected": 14.6, "severity": "extreme",
            "contributions": [{"dimension": "carrier", "members": [{"member": "EV", "share": 0.411}]}],
        });
        assert_eq!(
            explained(&anomaly),
            "2013-02-08: 472 cancelled where 15 were expected (extreme); by carrier: EV 41 %"
        );
    }
}
