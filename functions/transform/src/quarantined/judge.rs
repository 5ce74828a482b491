//! What becomes of rows in quarantine, over the table and by the rules of now.
//!
//! A row goes into the table when it can be read in the table's columns, keeps every rule that sets rows aside or fails, and, where the
//! job merges, nobody has written its key since its run did. Rules about all rows of a run say something of a single one where they ask
//! for every value of a column (`completeness` of 1) or for keys that are there once (`unique`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use engine::Input;
use format::records::RecordSchema;
use futures::TryStreamExt;
use shared::erasure::{self, Erased, Kind};
use shared::model::TableName;
use shared::project::{Job, QualityAction, QualityRule, RuleCheck, Write};
use shared::{Error, ErrorKind, Result};
use std::sync::Arc;
use table::{Read, Table};
use table_datafusion::floats::comparable;

use super::line::{Line, began_ms};
use super::replay::JobTable;
use crate::job::{snapshot_of_run, token_key, with_conditions};
use crate::quality;

/// The table of rows that are checked, and the column that tells them apart.
const CHECKED: &str = "__set_aside";
const PLACE: &str = "__place";

/// The bytes of a key.
type Key = Box<[u8]>;

/// What became of lines.
pub(super) struct Judged {
    /// Of the batches.
    pub(super) schema: SchemaRef,
    /// Rows that go into the table.
    pub(super) batches: Vec<RecordBatch>,
    /// Rows in whose place a newer one of the same key goes.
    pub(super) superseded: u64,
    /// Rows that were asked for and stay.
    pub(super) failing: u64,
    /// Why: the first of them.
    pub(super) reason: Option<String>,
    /// The lines that stay.
    pub(super) left: Vec<u8>,
    pub(super) left_lines: u64,
    /// The objects, by their place, that lines leave.
    pub(super) leaving: BTreeSet<usize>,
}

/// A row that was asked for.
struct Candidate {
    object: usize,
    line: Line,
    fate: Fate,
}

enum Fate {
    Goes,
    Superseded,
    /// The rules that it breaks, and why it stays.
    Stays(Vec<String>, String),
}

/// Rows of candidates, by their places.
struct Rows {
    batch: RecordBatch,
    of: Vec<usize>,
}

/// Whether somebody wrote a key since a run did.
enum Since {
    Keys(HashSet<Key>),
    /// The table does not know any more what it was when the run wrote.
    Unknown,
}

pub(super) struct Judge<'a> {
    target: &'a JobTable<'a>,
    table: &'a Table,
    schema: RecordSchema,
}

impl<'a> Judge<'a> {
    /// # Errors
    /// `Invalid` for a table with a column of a type that can't be read from a line.
    pub(super) fn new(target: &'a JobTable<'a>, table: &'a Table) -> Result<Self> {
        let schema = RecordSchema::of_table(&table.columns()).map_err(|error| {
            error.context(format!("rows of the table `{}` can't be read from the quarantine", target.into))
        })?;
        Ok(Self { target, table, schema })
    }

    /// # Errors
    /// `Invalid` for a rule that can't be checked; what state, table and engine answer.
    pub(super) async fn judge(&self, texts: &[Bytes]) -> Result<Judged> {
        let mut judged = Judged {
            schema: self.schema.arrow().clone(),
            batches: Vec::new(),
            superseded: 0,
            failing: 0,
            reason: None,
            left: Vec::new(),
            left_lines: 0,
            leaving: BTreeSet::new(),
        };
        let mut candidates = self.candidates(texts, &mut judged).await?;
        let mut rows = self.read(&mut candidates)?;
        self.check_rules(&mut candidates, &mut rows).await?;
        self.check_together(&mut candidates, &mut rows)?;
        if self.target.job.write == Write::Merge {
            self.check_keys(&mut candidates, &mut rows).await?;
        }
        if rows.batch.num_rows() > 0 {
            judged.batches.push(rows.batch);
        }
        for candidate in candidates {
            judged.take(candidate)?;
        }
        Ok(judged)
    }

    /// The rows that are asked for; other lines stay, those of erased subjects leave.
    async fn candidates(&self, texts: &[Bytes], judged: &mut Judged) -> Result<Vec<Candidate>> {
        let erased = erasure::erased(self.target.transform.context.ports.state.as_ref()).await?;
        let mut candidates = Vec::new();
        for (object, text) in texts.iter().enumerate() {
            for text in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match Line::parse(text) {
                    Some(line) if self.is_erased(&line, &erased) => drop(judged.leaving.insert(object)),
                    Some(line) if self.target.filter.takes(&line) => {
                        candidates.push(Candidate { object, line, fate: Fate::Goes });
                    }
                    _ => judged.keep(text),
                }
            }
        }
        Ok(candidates)
    }

    fn is_erased(&self, line: &Line, erased: &[Erased]) -> bool {
        let kind = |column: &str| {
            let own = self.schema.columns().iter().find(|own| own.name.eq_ignore_ascii_case(column));
            own.map_or(Kind::Any, |own| Kind::of(&own.ty))
        };
        let at_ms = began_ms(&line.run).unwrap_or_default();
        // An erasure from some streams alone says nothing of rows that jobs made.
        erased.iter().any(|erased| erased.is_record("", at_ms, line.row.get().as_bytes(), kind))
    }

    /// The rows in the table's columns.
    fn read(&self, candidates: &mut [Candidate]) -> Result<Rows> {
        let columns = self.schema.columns();
        for candidate in candidates.iter_mut() {
            if let Some(why) = candidate.line.is_lossy(columns) {
                candidate.stays(why);
            }
        }
        let all = |candidates: &[Candidate]| {
            let of: Vec<usize> = (0..candidates.len()).filter(|at| candidates[*at].goes()).collect();
            let texts = of.iter().map(|at| candidates[*at].line.row.get().as_bytes());
            self.schema.decode(texts).map(|decoded| (of, decoded))
        };
        let (mut of, mut decoded) = all(candidates)?;
        if !decoded.ignored.is_empty() {
            // A value that the table has no column for would be lost.
            for at in of {
                let own = self.schema.decode([candidates[at].line.row.get().as_bytes()])?;
                if let Some(name) = own.ignored.keys().next() {
                    let why =
                        format!("it has a value of `{name}`, which the table `{}` has no column for", self.target.into);
                    candidates[at].stays(why);
                }
            }
            (of, decoded) = all(candidates)?;
        }
        for (place, error) in decoded.errors.iter().rev() {
            candidates[of.remove(*place)].stays(error.message.clone());
        }
        Ok(Rows { batch: decoded.batch, of })
    }

    /// Rules about each row.
    async fn check_rules(&self, candidates: &mut [Candidate], rows: &mut Rows) -> Result<()> {
        let mut parts: Vec<(Vec<QualityRule>, Vec<usize>)> = Vec::new();
        match with_conditions(self.target.job, &BTreeMap::new()) {
            Ok(job) => parts.push((job.quality, (0..rows.of.len()).collect())),
            // Conditions have parameters: each run has its own.
            Err(_) => {
                let mut by_run: BTreeMap<String, Vec<usize>> = BTreeMap::new();
                for (row, at) in rows.of.iter().enumerate() {
                    by_run.entry(candidates[*at].line.run.clone()).or_default().push(row);
                }
                for (run, of_run) in by_run {
                    match self.job_of(&run).await? {
                        Some(job) => parts.push((job.quality, of_run)),
                        None => of_run.into_iter().for_each(|row| {
                            candidates[rows.of[row]].stays(format!(
                                "conditions of rules have parameters, and the record of run `{run}`, which has their values, is gone"
                            ));
                        }),
                    }
                }
            }
        }
        for (rules, of_part) in parts {
            let batch = rows.some(&of_part)?;
            for (place, broken) in self.broken(&rules, &batch).await?.into_iter().enumerate() {
                if !broken.is_empty() {
                    candidates[rows.of[of_part[place]]].breaks(broken);
                }
            }
        }
        rows.keep_going(candidates)
    }

    /// The job with the parameters of a run; none when its record is gone.
    async fn job_of(&self, run: &str) -> Result<Option<Job>> {
        match self.target.transform.ledger.get(run).await {
            Ok(stored) => with_conditions(self.target.job, &stored.record.parameters).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of the rules that each row breaks.
    async fn broken(&self, rules: &[QualityRule], batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
        let mut broken = vec![Vec::new(); batch.num_rows()];
        let name = TableName::new(&self.target.into.database, CHECKED)?;
        let all = format!("SELECT * FROM \"{}\".\"{}\"", name.database, name.table);
        let sql = quality::with_flags(&all, rules);
        if sql == all || batch.num_rows() == 0 {
            return Ok(broken);
        }
        let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(PLACE, DataType::Int64, false)));
        let schema = Arc::new(Schema::new(fields));
        let places: Int64Array = (0..batch.num_rows() as i64).collect();
        let columns = batch.columns().iter().cloned().chain([Arc::new(places) as ArrayRef]).collect();
        let input = Input::Batches(schema.clone(), vec![RecordBatch::try_new(schema, columns)?]);
        let options = self.target.transform.context.options(BTreeMap::from([(name, input)]));
        let doing = |error: Error| error.context(format!("checking the quality rules of job `{}`", self.target.name));
        let mut answer = self.target.transform.context.engine.query(&sql, &options).await.map_err(doing)?.rows;
        while let Some(flagged) = answer.try_next().await.map_err(|error| doing(error.into()))? {
            let places = flagged.column(flagged.schema().index_of(PLACE)?).as_primitive::<Int64Type>().clone();
            for (rule, column) in quality::flags(rules, &flagged)? {
                let kept = column.as_boolean();
                for row in (0..kept.len()).filter(|row| kept.is_null(*row) || !kept.value(*row)) {
                    let place = usize::try_from(places.value(row)).unwrap_or(usize::MAX);
                    let names: Option<&mut Vec<String>> = broken.get_mut(place);
                    names.ok_or_else(|| Error::bug("a checked row has no place"))?.push(rule.name.clone());
                }
            }
        }
        Ok(broken)
    }

    /// Rules that fail about all rows, as far as they say something of one.
    fn check_together(&self, candidates: &mut [Candidate], rows: &mut Rows) -> Result<()> {
        for rule in self.target.job.quality.iter().filter(|rule| rule.action == QualityAction::Fail) {
            let wrong: Vec<usize> = match &rule.check {
                RuleCheck::Completeness { column, at_least } if *at_least >= 1.0 => {
                    let nulls = self.column(rows, rule, column)?.logical_nulls();
                    (0..rows.of.len()).filter(|row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(*row))).collect()
                }
                RuleCheck::Unique(names) => {
                    let columns = names.iter().map(|name| self.column(rows, rule, name)).collect::<Result<Vec<_>>>()?;
                    let mut seen = HashSet::new();
                    let keys = keys_of(&columns)?;
                    (0..rows.of.len()).filter(|row| !seen.insert(keys[*row].clone())).collect()
                }
                _ => Vec::new(),
            };
            wrong.into_iter().for_each(|row| candidates[rows.of[row]].breaks(vec![rule.name.clone()]));
            rows.keep_going(candidates)?;
        }
        Ok(())
    }

    fn column(&self, rows: &Rows, rule: &QualityRule, name: &str) -> Result<ArrayRef> {
        rows.batch.column_by_name(name).cloned().ok_or_else(|| {
            Error::invalid(format!(
                "quality rule `{}`: expected a column of the table `{}`, found `{name}`",
                rule.name, self.target.into
            ))
        })
    }

    /// Of rows with one key the newest goes, unless the table has got a newer one.
    async fn check_keys(&self, candidates: &mut [Candidate], rows: &mut Rows) -> Result<()> {
        if rows.of.is_empty() {
            return Ok(());
        }
        let columns = self.target.job.key.iter().map(|name| {
            rows.batch.column_by_name(name).cloned().ok_or_else(|| {
                Error::invalid(format!(
                    "expected the key column `{name}` in the table `{}`, found none",
                    self.target.into
                ))
            })
        });
        let keys = keys_of(&columns.collect::<Result<Vec<_>>>()?)?;
        let mut by_key: HashMap<&Key, Vec<usize>> = HashMap::new();
        keys.iter().enumerate().for_each(|(row, key)| by_key.entry(key).or_default().push(row));
        let run_of = |candidates: &[Candidate], row: usize| candidates[rows.of[row]].line.run.clone();
        let mut newest: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for alike in by_key.into_values() {
            let last = alike.iter().map(|row| run_of(candidates, *row)).max().unwrap_or_default();
            let (of_last, older): (Vec<usize>, Vec<usize>) =
                alike.into_iter().partition(|row| run_of(candidates, *row) == last);
            if let [row] = of_last[..] {
                older.into_iter().for_each(|row| candidates[rows.of[row]].fate = Fate::Superseded);
                newest.entry(last).or_default().push(row);
            } else {
                let why = format!("run `{last}` set several rows of its key aside: which one counts can't be told");
                of_last.into_iter().chain(older).for_each(|row| candidates[rows.of[row]].stays(why.clone()));
            }
        }
        if !self.target.overwrite {
            for (run, of_run) in newest {
                let wanted: HashSet<&Key> = of_run.iter().map(|row| &keys[*row]).collect();
                let since = self.written_since(&run, &wanted).await?;
                for row in of_run {
                    let why = match &since {
                        Since::Keys(written) if !written.contains(&keys[row]) => continue,
                        Since::Keys(_) => format!(
                            "the table has got, or lost, a row of its key since run `{run}` set it aside: `overwrite` writes it all the same"
                        ),
                        Since::Unknown => format!(
                            "the version that run `{run}` made of the table is gone, so it can't be told whether its key was written since: \
                             `overwrite` writes it all the same"
                        ),
                    };
                    // Rows that are older still stay with it.
                    for other in (0..keys.len()).filter(|other| keys[*other] == keys[row]) {
                        candidates[rows.of[other]].stays(why.clone());
                    }
                }
            }
        }
        rows.keep_going(candidates)
    }

    /// The wanted keys that somebody wrote or removed since the run, or that it wrote itself.
    async fn written_since(&self, run: &str, wanted: &HashSet<&Key>) -> Result<Since> {
        let token = token_key(self.target.workflow, self.target.name);
        let (Some(own), Some(now)) = (snapshot_of_run(self.table, &token, run), self.table.current_snapshot()) else {
            return Ok(Since::Unknown);
        };
        let before = own.parent.filter(|parent| self.table.metadata().snapshot_by_id(*parent).is_some());
        let after = before.unwrap_or(own.id);
        let mut written = HashSet::new();
        if own.parent.is_none() {
            self.add_keys(Read::Snapshot(own.id), wanted, &mut written).await?;
        }
        if after != now {
            self.add_keys(Read::Came { after, to: now }, wanted, &mut written).await?;
            self.add_keys(Read::Left { after, to: now }, wanted, &mut written).await?;
        }
        Ok(Since::Keys(written))
    }

    /// Adds those wanted keys that rows of the table have.
    async fn add_keys(&self, read: Read, wanted: &HashSet<&Key>, found: &mut HashSet<Key>) -> Result<()> {
        let names = &self.target.job.key;
        let types = names.iter().map(|name| Ok(self.schema.arrow().field_with_name(name)?.data_type().clone()));
        let types = types.collect::<Result<Vec<DataType>>>()?;
        let listed: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let into = &self.target.into;
        let sql = format!("SELECT {} FROM \"{}\".\"{}\"", listed.join(", "), into.database, into.table);
        let context = &self.target.transform.context;
        let options = context.options(BTreeMap::from([(into.clone(), Input::Rows(read))]));
        let mut rows = context.engine.query(&sql, &options).await?.rows;
        while let Some(batch) = rows.try_next().await? {
            let columns = batch.columns().iter().zip(&types).map(|(values, ty)| cast(values, ty));
            let keys = keys_of(&columns.collect::<Result<Vec<_>, _>>()?)?;
            found.extend(keys.into_iter().filter(|key| wanted.contains(key)));
        }
        Ok(())
    }
}

impl Candidate {
    fn goes(&self) -> bool {
        matches!(self.fate, Fate::Goes)
    }

    fn stays(&mut self, why: String) {
        self.fate = Fate::Stays(self.line.rules.clone(), why);
    }

    fn breaks(&mut self, rules: Vec<String>) {
        let why = format!("it breaks `{}`", rules.join("`, `"));
        self.fate = Fate::Stays(rules, why);
    }
}

impl Rows {
    fn some(&self, rows: &[usize]) -> Result<RecordBatch> {
        let wanted: HashSet<&usize> = rows.iter().collect();
        let flags: BooleanArray = (0..self.of.len()).map(|row| Some(wanted.contains(&row))).collect();
        Ok(filter_record_batch(&self.batch, &flags)?)
    }

    /// Without the rows of candidates that don't go any more.
    fn keep_going(&mut self, candidates: &[Candidate]) -> Result<()> {
        let flags: BooleanArray = self.of.iter().map(|at| Some(candidates[*at].goes())).collect();
        self.batch = filter_record_batch(&self.batch, &flags)?;
        self.of.retain(|at| candidates[*at].goes());
        Ok(())
    }
}

impl Judged {
    /// Rows that go into the table.
    pub(super) fn rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    fn keep(&mut self, line: &[u8]) {
        self.left.extend_from_slice(line);
        self.left.push(b'\n');
        self.left_lines += 1;
    }

    fn take(&mut self, candidate: Candidate) -> Result<()> {
        let Candidate { object, line, fate } = candidate;
        match fate {
            Fate::Stays(rules, reason) => {
                self.failing += 1;
                self.reason.get_or_insert_with(|| reason.clone());
                self.left_lines += 1;
                return line.left(rules, reason).write(&mut self.left);
            }
            Fate::Superseded => self.superseded += 1,
            Fate::Goes => {}
        }
        self.leaving.insert(object);
        Ok(())
    }
}

/// The bytes of each row's key: equal where the values are, null equal to null.
fn keys_of(columns: &[ArrayRef]) -> Result<Vec<Key>> {
    let values: Vec<ArrayRef> = columns.iter().map(comparable).collect();
    let converter =
        RowConverter::new(values.iter().map(|column| SortField::new(column.data_type().clone())).collect())?;
    let rows = converter.convert_columns(&values)?;
    Ok(rows.iter().map(|row| Box::from(row.as_ref())).collect())
}
