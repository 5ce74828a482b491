//! Arrays as sets of elements, in which nulls are one element.

use std::collections::HashSet;

use arrow::array::ArrayRef;
use arrow::row::Row;
use datafusion::common::Result;

use super::{Function, SECTION, compute, scalar};
use crate::call::{Call, collect};
use crate::nested::{Gather, Lists, identities, is_valid};

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "array_distinct", "the elements without those that were there before")
            .way("array_distinct(array(T)) -> array(T)", compute(distinct))
            .example("array_distinct(ARRAY[2, 1, 2, NULL, NULL])", "[2, 1, NULL]"),
        scalar(SECTION, "array_except", "the elements of the first array that the second lacks, each once")
            .way("array_except(array(T), array(T)) -> array(T)", compute(except))
            .example("array_except(ARRAY[1, 2, 2, 3], ARRAY[1])", "[2, 3]"),
        scalar(
            SECTION,
            "array_intersect",
            "the elements that both arrays have, each once, in the order of the longer one",
        )
        .way("array_intersect(array(T), array(T)) -> array(T)", compute(intersect))
        .example("array_intersect(ARRAY[1, 2, 3], ARRAY[3, 1])", "[1, 3]"),
        scalar(SECTION, "array_union", "the elements of both arrays, each once")
            .way("array_union(array(T), array(T)) -> array(T)", compute(union))
            .example("array_union(ARRAY[1, 2], ARRAY[2, 3])", "[1, 2, 3]"),
        scalar(
            SECTION,
            "arrays_overlap",
            "whether both have an element that is not null; null where they have none and one of them has a null",
        )
        .way("arrays_overlap(array(T), array(T)) -> boolean", compute(overlap))
        .example("arrays_overlap(ARRAY[1, 2], ARRAY[2, 3])", "true")
        .example("arrays_overlap(ARRAY[1, NULL], ARRAY[2])", "NULL"),
        scalar(
            SECTION,
            "contains_sequence",
            "whether the elements of the second array stand in the first one after the other",
        )
        .way("contains_sequence(array(T), array(T)) -> boolean", compute(contains_sequence))
        .example("contains_sequence(ARRAY[1, 2, 3], ARRAY[2, 3])", "true"),
    ]
}

fn distinct(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(call, 0)?;
    let [ids] = identities([&lists.values])?;
    let mut kept = Gather::new(call.rows);
    let mut seen: HashSet<Row<'_>> = HashSet::new();
    for row in 0..call.rows {
        let Some(range) = lists.get(row) else {
            kept.null();
            continue;
        };
        seen.clear();
        range.filter(|at| seen.insert(ids.row(*at))).for_each(|at| kept.push(0, at));
        kept.end()?;
    }
    kept.lists(&[&lists.values], call.gives)
}

fn except(call: &Call<'_>) -> Result<ArrayRef> {
    let (left, right) = (Lists::of(call, 0)?, Lists::of(call, 1)?);
    let [left_ids, right_ids] = identities([&left.values, &right.values])?;
    let mut kept = Gather::new(call.rows);
    let mut seen: HashSet<Row<'_>> = HashSet::new();
    for row in 0..call.rows {
        let (Some(l), Some(r)) = (left.get(row), right.get(row)) else {
            kept.null();
            continue;
        };
        seen.clear();
        seen.extend(r.map(|at| right_ids.row(at)));
        l.filter(|at| seen.insert(left_ids.row(*at))).for_each(|at| kept.push(0, at));
        kept.end()?;
    }
    kept.lists(&[&left.values], call.gives)
}

fn intersect(call: &Call<'_>) -> Result<ArrayRef> {
    let (left, right) = (Lists::of(call, 0)?, Lists::of(call, 1)?);
    let [left_ids, right_ids] = identities([&left.values, &right.values])?;
    let mut kept = Gather::new(call.rows);
    let (mut there, mut seen): (HashSet<Row<'_>>, HashSet<Row<'_>>) = (HashSet::new(), HashSet::new());
    for row in 0..call.rows {
        let (Some(l), Some(r)) = (left.get(row), right.get(row)) else {
            kept.null();
            continue;
        };
        let (longer, ids, array, shorter, shorter_ids) = match l.len() < r.len() {
            true => (r, &right_ids, 1, l, &left_ids),
            false => (l, &left_ids, 0, r, &right_ids),
        };
        there.clear();
        there.extend(shorter.map(|at| shorter_ids.row(at)));
        seen.clear();
        let both = longer.filter(|at| there.contains(&ids.row(*at)) && seen.insert(ids.row(*at)));
        both.for_each(|at| kept.push(array, at));
        kept.end()?;
    }
    kept.lists(&[&left.values, &right.values], call.gives)
}

fn union(call: &Call<'_>) -> Result<ArrayRef> {
    let (left, right) = (Lists::of(call, 0)?, Lists::of(call, 1)?);
    let [left_ids, right_ids] = identities([&left.values, &right.values])?;
    let mut kept = Gather::new(call.rows);
    let mut seen: HashSet<Row<'_>> = HashSet::new();
    for row in 0..call.rows {
        let (Some(l), Some(r)) = (left.get(row), right.get(row)) else {
            kept.null();
            continue;
        };
        seen.clear();
        l.filter(|at| seen.insert(left_ids.row(*at))).for_each(|at| kept.push(0, at));
        r.filter(|at| seen.insert(right_ids.row(*at))).for_each(|at| kept.push(1, at));
        kept.end()?;
    }
    kept.lists(&[&left.values, &right.values], call.gives)
}

fn overlap(call: &Call<'_>) -> Result<ArrayRef> {
    let (left, right) = (Lists::of(call, 0)?, Lists::of(call, 1)?);
    let [left_ids, right_ids] = identities([&left.values, &right.values])?;
    let mut there: HashSet<Row<'_>> = HashSet::new();
    collect(call, |row| {
        let (Some(l), Some(r)) = (left.get(row), right.get(row)) else { return Ok(None) };
        if l.is_empty() || r.is_empty() {
            return Ok(Some(false));
        }
        there.clear();
        there.extend(r.clone().filter(|at| is_valid(&right.values, *at)).map(|at| right_ids.row(at)));
        if l.clone().any(|at| is_valid(&left.values, at) && there.contains(&left_ids.row(at))) {
            return Ok(Some(true));
        }
        let has_null = |lists: &Lists, mut range: std::ops::Range<usize>| range.any(|at| !is_valid(&lists.values, at));
        Ok((!has_null(&left, l) && !has_null(&right, r)).then_some(false))
    })
}

fn contains_sequence(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, sought) = (Lists::of(call, 0)?, Lists::of(call, 1)?);
    let [ids, sought_ids] = identities([&lists.values, &sought.values])?;
    collect(call, |row| {
        let (Some(range), Some(sought)) = (lists.get(row), sought.get(row)) else { return Ok(None) };
        Ok(Some(found(
            range.len(),
            sought.len(),
            |at, of| ids.row(range.start + at) == sought_ids.row(sought.start + of),
            |at, of| sought_ids.row(sought.start + at) == sought_ids.row(sought.start + of),
        )))
    })
}

/// Whether a sequence stands in another, in time linear in both (Knuth, Morris, Pratt).
fn found(
    len: usize,
    sought: usize,
    same: impl Fn(usize, usize) -> bool,
    same_within: impl Fn(usize, usize) -> bool,
) -> bool {
    // How much of the beginning ends at each place.
    let mut borders = vec![0_usize; sought];
    let mut border = 0;
    for at in 1..sought {
        while border > 0 && !same_within(at, border) {
            border = borders[border - 1];
        }
        border += usize::from(same_within(at, border));
        borders[at] = border;
    }
    let mut matched = 0;
    for at in 0..len {
        if matched == sought {
            break;
        }
        while matched > 0 && !same(at, matched) {
            matched = borders[matched - 1];
        }
        matched += usize::from(same(at, matched));
    }
    matched == sought
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_found_where_it_overlaps_itself() {
        let found = |text: &str, sought: &str| {
            let (text, sought) = (text.as_bytes(), sought.as_bytes());
            found(text.len(), sought.len(), |at, of| text[at] == sought[of], |at, of| sought[at] == sought[of])
        };
        for (text, sought, expected) in [
            ("aabaaab", "aaab", true),
            ("ababac", "abac", true),
            ("ababab", "abac", false),
            ("abc", "", true),
            ("", "", true),
            ("", "a", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(found(text, sought), expected, "{sought} in {text}");
        }
    }
}
