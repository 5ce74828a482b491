//! Whether the first row of a delimited text holds names.

use super::rows::Rows;
use crate::infer::text_shape;
use crate::merge::Shape;

/// Rows that the first one is compared with.
const COMPARED_ROWS: usize = 200;

/// Compares the first row with the rest, whose shapes are `rest`. A text over a column of numbers or dates is a name; a number or
/// date is none, years apart; where all is text, names differ from the values below them in length or by never occurring there.
pub(super) fn is_header(rows: &Rows, rest: &[Shape]) -> bool {
    let first: Vec<&str> = rows.row(0).map(|(text, _)| text).collect();
    let empty = first.iter().filter(|cell| cell.trim().is_empty()).count();
    if empty * 2 > first.len() {
        return false;
    }
    let typed: Vec<&str> = first.iter().copied().filter(|cell| text_shape(cell).is_typed_scalar()).collect();
    if !typed.is_empty() {
        return typed.len() < first.len() && are_years(&typed) && !are_years_below(rows, &first);
    }
    if rows.len() == 1 {
        return first.iter().all(|cell| cell.trim().is_empty() || is_like_a_name(cell));
    }
    if rest.iter().zip(&first).any(|(shape, cell)| shape.is_typed_scalar() && !cell.is_empty()) {
        return true;
    }
    match (0..first.len()).map(|column| vote(rows, column, first[column])).sum::<i32>() {
        0 => first.iter().all(|cell| cell.trim().is_empty() || is_like_a_name(cell)),
        votes => votes > 0,
    }
}

/// For (above 0) or against (below 0) `cell` being the name of a column of texts.
fn vote(rows: &Rows, column: usize, cell: &str) -> i32 {
    let values: Vec<&str> = (1..rows.len().min(COMPARED_ROWS))
        .filter_map(|row| rows.row(row).nth(column).map(|(text, _)| text))
        .filter(|text| !text.is_empty())
        .collect();
    if values.contains(&cell) {
        return -2;
    }
    let (Some(first), true) = (values.first(), values.len() > 1) else { return 0 };
    let one_length = values.iter().all(|text| text.len() == first.len());
    let form = match (one_length, first.len() == cell.len()) {
        (true, true) => same_form(cell, &values),
        (true, false) => 1,
        (false, _) => 0,
    };
    let distinct = values.iter().collect::<std::collections::HashSet<_>>().len();
    form + i32::from(values.len() >= 8 && distinct * 4 <= values.len())
}

/// Whether a cell is a code like the values below it, which are as long. Names are written in lower case over codes in upper case, and
/// lower case is how names are written, so it does not tell a name from the values.
fn same_form(cell: &str, values: &[&str]) -> i32 {
    let form = |text: &str| text.chars().map(kind).collect::<Vec<_>>();
    let own = form(cell);
    match values.iter().all(|text| form(text) == own) {
        true if own.iter().all(|kind| *kind == Kind::Lower) => 0,
        true => -1,
        false => 1,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lower,
    Upper,
    Digit,
    Other,
}

fn kind(c: char) -> Kind {
    match c {
        c if c.is_lowercase() => Kind::Lower,
        c if c.is_uppercase() => Kind::Upper,
        c if c.is_numeric() => Kind::Digit,
        _ => Kind::Other,
    }
}

/// Two or more different years, as in tables with a column a year.
fn are_years(cells: &[&str]) -> bool {
    let distinct = cells.iter().collect::<std::collections::HashSet<_>>().len();
    cells.len() >= 2 && distinct == cells.len() && cells.iter().all(|cell| is_year(cell))
}

fn is_year(cell: &str) -> bool {
    cell.len() == 4 && cell.parse::<u16>().is_ok_and(|year| (1800..=2100).contains(&year))
}

/// Whether the second row also holds years where the first does: then they are values.
fn are_years_below(rows: &Rows, first: &[&str]) -> bool {
    rows.len() < 2 || rows.row(1).zip(first).any(|((below, _), cell)| is_year(cell) && is_year(below))
}

fn is_like_a_name(cell: &str) -> bool {
    let cell = cell.trim();
    cell.len() <= 64
        && cell.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !cell.contains(['@', '\n'])
        && !cell.contains("://")
        && !cell.contains(". ")
}
