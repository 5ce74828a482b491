//! From rows to a regular series: the period is found, rows of a period are summed, gaps are marked, periods that are not
//! whole are left out at the ends.

use shared::{Error, Result};

use super::calendar::{Calendar, Unit};
use super::rows::{Labels, Row, Rows};
use super::{Dimension, LeftOut, Member, Series};

/// Share of the periods between the first and the last date that must hold rows for the period to be the series' own.
const DENSE: f64 = 0.4;
/// Larger numbers would overflow in sums and squares.
const MAX_VALUE: f64 = 1e150;
/// Members of a dimension that are kept apart; the smaller ones become `(other)`.
const MAX_MEMBERS: usize = 1_000;
/// Numbers that one dimension may take.
const MAX_CELLS: usize = 4_000_000;
/// Periods that a series may have.
const MAX_PERIODS: usize = 1_000_000;
/// How many periods at the other end tell whether the first or last one is whole.
const NEIGHBOURS: usize = 30;

/// Makes the series; `now_ms` tells whether the last period is over.
///
/// # Errors
/// `Invalid` when no row counts or a sum is beyond what models can work with; `Limit` for too many periods.
pub(crate) fn series(rows: Rows, date: &str, value: &str, now_ms: i64) -> Result<Series> {
    let mut instants: Vec<i64> = rows.rows.iter().map(|row| row.instant).collect();
    instants.sort_unstable();
    instants.dedup();
    if instants.is_empty() {
        return Err(Error::invalid(match rows.read {
            0 => "expected rows in the answer of the SELECT, found none".to_owned(),
            read => format!("expected rows with a date in `{date}` and a number in `{value}`, found {read} without"),
        }));
    }
    let calendar = Calendar::new(unit_of(&instants), &instants);
    let events = has_events(calendar, &instants);
    let (first, last, left_out) = whole_periods(calendar, &instants, events, now_ms, rows.zoned);
    let count = usize::try_from(last - first + 1).unwrap_or(usize::MAX);
    if count > MAX_PERIODS {
        return Err(Error::limit(format!("expected at most {MAX_PERIODS} periods, found {count}")));
    }
    let slot = |row: &Row| usize::try_from(calendar.index(row.instant) - first).ok().filter(|i| *i < count);
    let values = totals(&rows.rows, slot, count, events);
    if values.iter().flatten().any(|v| v.abs() > MAX_VALUE) {
        return Err(Error::invalid(format!("expected sums of `{value}` below {MAX_VALUE:e}, found a larger one")));
    }
    let dimensions = rows.dimensions.iter().map(|labels| dimension(labels, &rows.rows, slot, count)).collect();
    Ok(Series {
        date: date.into(),
        value: value.into(),
        calendar,
        first,
        zoned: rows.zoned,
        values,
        dimensions,
        rows: rows.read,
        ignored_rows: rows.ignored,
        left_out,
    })
}

/// The finest unit whose periods between the first and the last instant are dense with instants, or a coarser one that keeps
/// them apart as well: hours rather than half hours of which every other one is empty.
fn unit_of(instants: &[i64]) -> Unit {
    if instants.len() == 1 {
        return Unit::Day;
    }
    let periods = |unit: Unit| {
        let calendar = Calendar::new(unit, instants);
        let mut periods: Vec<i64> = instants.iter().map(|t| calendar.index(*t)).collect();
        periods.dedup();
        let span = periods.last().unwrap_or(&0) - periods.first().unwrap_or(&0) + 1;
        (periods.len(), periods.len() as f64 / span as f64)
    };
    let dense = Unit::ALL.into_iter().find(|unit| matches!(periods(*unit), (2.., share) if share >= DENSE));
    let Some(finest) = dense else { return Unit::Year };
    let apart = periods(finest).0;
    Unit::ALL.into_iter().rfind(|unit| periods(*unit).0 == apart).unwrap_or(finest)
}

/// Whether periods hold several instants: then rows are events, and a period without any has the sum 0. Otherwise rows are
/// readings, and a period without one is a gap of unknown value.
fn has_events(calendar: Calendar, instants: &[i64]) -> bool {
    instants.windows(2).any(|pair| calendar.index(pair[0]) == calendar.index(pair[1]))
}

/// The first and last whole periods, and those at the ends that are not whole.
fn whole_periods(
    calendar: Calendar,
    instants: &[i64],
    events: bool,
    now_ms: i64,
    zoned: bool,
) -> (i64, i64, Vec<LeftOut>) {
    let index = |t: Option<&i64>| t.map_or(0, |t| calendar.index(*t));
    let (mut first, mut last) = (index(instants.first()), index(instants.last()));
    let mut left_out = Vec::new();
    let mut leave = |index: i64, reason: &'static str| {
        left_out.push(LeftOut { date: calendar.label(index, zoned), reason });
    };
    let now = now_ms.saturating_mul(1_000);
    if last > first && calendar.index(now) == last {
        leave(last, "the period is not over");
        last -= 1;
    } else if events && last > first + 1 && ends_early(calendar, instants, last) {
        leave(last, "its rows end earlier than those of the periods before it");
        last -= 1;
    }
    if events && last > first + 1 && starts_late(calendar, instants, first) {
        leave(first, "its rows start later than those of the periods after it");
        first += 1;
    }
    (first, last, left_out)
}

/// Whether the last period's latest instant lies, by a tenth of a period, before the earliest such of the periods before it.
fn ends_early(calendar: Calendar, instants: &[i64], last: i64) -> bool {
    let length = (calendar.start(last + 1) - calendar.start(last)) as f64;
    let mut ends = std::collections::BTreeMap::new();
    for t in instants.iter().rev() {
        let index = calendar.index(*t);
        ends.entry(last - index).or_insert((t - calendar.start(index)) as f64 / length);
        if ends.len() > NEIGHBOURS {
            break;
        }
    }
    let own = ends.remove(&0).unwrap_or(1.0);
    ends.values().copied().reduce(f64::min).is_some_and(|earliest| own < earliest - 0.1)
}

/// The same for the first period's earliest instant.
fn starts_late(calendar: Calendar, instants: &[i64], first: i64) -> bool {
    let length = (calendar.start(first + 1) - calendar.start(first)) as f64;
    let mut starts = std::collections::BTreeMap::new();
    for t in instants {
        let index = calendar.index(*t);
        starts.entry(index - first).or_insert((t - calendar.start(index)) as f64 / length);
        if starts.len() > NEIGHBOURS {
            break;
        }
    }
    let own = starts.remove(&0).unwrap_or(0.0);
    starts.values().copied().reduce(f64::max).is_some_and(|latest| own > latest + 0.1)
}

/// Sums by period. Rows are added in order of size, so that the sums don't depend on the order they came in.
fn totals(rows: &[Row], slot: impl Fn(&Row) -> Option<usize>, count: usize, events: bool) -> Vec<Option<f64>> {
    let mut placed: Vec<(usize, f64)> = rows.iter().filter_map(|row| Some((slot(row)?, row.value))).collect();
    placed.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut values = vec![events.then_some(0.0); count];
    for (i, value) in placed {
        values[i] = Some(values[i].unwrap_or(0.0) + value);
    }
    values
}

/// Sums by period and member, the largest members first.
fn dimension(labels: &Labels, rows: &[Row], slot: impl Fn(&Row) -> Option<usize>, count: usize) -> Dimension {
    let mut placed: Vec<(u32, usize, f64)> =
        rows.iter().zip(&labels.of_row).filter_map(|(row, member)| Some((*member, slot(row)?, row.value))).collect();
    placed.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
    let mut sizes = vec![0.0; labels.members.len()];
    let mut order = Vec::new();
    for (member, _, value) in &placed {
        let member = *member as usize;
        if order.last() != Some(&member) {
            order.push(member);
        }
        sizes[member] += value.abs();
    }
    order.sort_by(|a, b| sizes[*b].total_cmp(&sizes[*a]).then_with(|| labels.members[*a].cmp(&labels.members[*b])));
    let kept = MAX_MEMBERS.min(MAX_CELLS / count.max(1)).max(1);
    let mut target = vec![0; sizes.len()];
    for (rank, member) in order.iter().enumerate() {
        target[*member] = rank.min(kept);
    }
    let mut members: Vec<Member> = order
        .iter()
        .take(kept)
        .map(|m| labels.members[*m].as_str())
        .chain((order.len() > kept).then_some("(other)"))
        .map(|name| Member { name: name.into(), values: vec![0.0; count] })
        .collect();
    for (member, i, value) in placed {
        members[target[member as usize]].values[i] += value;
    }
    Dimension { name: labels.name.clone(), members }
}
