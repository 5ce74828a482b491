//! Rows in boxes for a terminal, laid out anew for each lot of them: an answer may have any number.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::cli::output::printable;

/// Columns that have no room are not made narrower than this.
const LEAST: usize = 8;

/// A column's name and where its values stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Column {
    pub(in crate::cli) name: String,
    /// As numbers do.
    pub(in crate::cli) is_right: bool,
}

/// A table that is drawn in lots of rows, whose later lots may make columns wider.
#[derive(Debug)]
pub(in crate::cli) struct Table {
    columns: Vec<Column>,
    /// Cells of a line that a terminal shows; none: as many as there are.
    room: Option<usize>,
    /// Widths that the columns' texts have had so far.
    natural: Vec<usize>,
    widths: Vec<usize>,
    is_begun: bool,
}

impl Table {
    pub(in crate::cli) fn new(columns: Vec<Column>, room: Option<usize>) -> Self {
        let columns: Vec<Column> = columns.into_iter().map(|c| Column { name: shown(&c.name), ..c }).collect();
        let natural: Vec<usize> = columns.iter().map(|column| width_of(&column.name)).collect();
        Self { columns, room, widths: natural.clone(), natural, is_begun: false }
    }

    /// Draws rows of texts, one for each column, under the header if they are the first.
    pub(in crate::cli) fn rows(&mut self, rows: &[Vec<String>], out: &mut String) {
        for (natural, at) in self.natural.iter_mut().zip(0..) {
            *natural = rows.iter().filter_map(|row| row.get(at)).map(|text| width_of(text)).fold(*natural, usize::max);
        }
        self.widths = fitted(&self.natural, self.room);
        self.begin(out);
        for row in rows {
            self.row(row.iter().map(String::as_str), true, out);
        }
    }

    /// Whether the columns are wider than the terminal even when they are narrow.
    pub(in crate::cli) fn is_too_wide(&self, rows: &[Vec<String>]) -> bool {
        let mut natural = self.natural.clone();
        for (at, natural) in natural.iter_mut().enumerate() {
            *natural = rows.iter().filter_map(|row| row.get(at)).map(|text| width_of(text)).fold(*natural, usize::max);
        }
        self.room.is_some_and(|room| fitted(&natural, self.room).iter().sum::<usize>() + borders(natural.len()) > room)
    }

    pub(in crate::cli) fn end(mut self, out: &mut String) {
        if !self.columns.is_empty() {
            self.begin(out);
            self.line(["└", "─", "┴", "┘"], out);
        }
    }

    fn begin(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        self.line(["┌", "─", "┬", "┐"], out);
        self.row(self.columns.iter().map(|c| c.name.as_str()), false, out);
        self.line(["╞", "═", "╪", "╡"], out);
    }

    fn line(&self, [left, along, between, right]: [&str; 4], out: &mut String) {
        let parts: Vec<String> = self.widths.iter().map(|width| along.repeat(width + 2)).collect();
        out.push_str(&format!("{left}{}{right}\n", parts.join(between)));
    }

    fn row<'a>(&self, texts: impl Iterator<Item = &'a str>, is_aligned: bool, out: &mut String) {
        let cells: Vec<Vec<&str>> = texts.zip(&self.widths).map(|(text, width)| wrapped(text, *width)).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        for at in 0..height {
            out.push('│');
            for (i, (cell, (width, column))) in cells.iter().zip(self.widths.iter().zip(&self.columns)).enumerate() {
                out.push_str(if i == 0 { " " } else { "┆ " });
                let text = cell.get(at).copied().unwrap_or_default();
                let gap = " ".repeat(width.saturating_sub(text.width()));
                let (before, behind) =
                    if column.is_right && is_aligned { (gap.as_str(), "") } else { ("", gap.as_str()) };
                out.push_str(&format!("{before}{text}{behind} "));
            }
            out.push_str("│\n");
        }
    }
}

/// A row with each column in a line of its own, under its number.
pub(in crate::cli) fn expanded(
    number: u64,
    columns: &[Column],
    texts: &[String],
    room: Option<usize>,
    out: &mut String,
) {
    let names: Vec<String> = columns.iter().map(|column| shown(&column.name)).collect();
    let name_width = names.iter().map(|name| width_of(name)).max().unwrap_or(0);
    let room = room.map_or(usize::MAX, |room| room.saturating_sub(name_width + 3).max(LEAST));
    let title = format!("─[ RECORD {number} ]");
    let value_width = texts.iter().map(|text| width_of(text)).max().unwrap_or(0).min(room);
    let rule = "─".repeat((name_width + 3 + value_width).saturating_sub(title.width()).max(1));
    out.push_str(&format!("{title}{rule}\n"));
    for (name, text) in names.iter().zip(texts) {
        for (i, part) in wrapped(text, room).into_iter().enumerate() {
            let name = if i == 0 { name.as_str() } else { "" };
            let gap = " ".repeat(name_width.saturating_sub(name.width()));
            out.push_str(&format!("{name}{gap} │ {part}\n"));
        }
    }
}

/// Text as a cell shows it.
pub(in crate::cli) fn shown(text: &str) -> String {
    printable(text).replace('\t', "    ")
}

fn borders(columns: usize) -> usize {
    3 * columns + 1
}

fn width_of(text: &str) -> usize {
    text.split('\n').map(UnicodeWidthStr::width).max().unwrap_or(0)
}

/// Widths with which the columns fit: those that need much give way.
fn fitted(natural: &[usize], room: Option<usize>) -> Vec<usize> {
    let Some(room) = room.map(|room| room.saturating_sub(borders(natural.len()))) else { return natural.to_vec() };
    let fits = |most: usize| natural.iter().map(|width| (*width).min(most)).sum::<usize>() <= room;
    let widest = natural.iter().copied().max().unwrap_or(0);
    let most = (LEAST..=widest.max(LEAST)).rev().find(|most| fits(*most)).unwrap_or(LEAST);
    natural.iter().map(|width| (*width).min(most)).collect()
}

/// The lines of a text that is cut at spaces, or where it must be.
fn wrapped(text: &str, width: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let mut rest = line;
        while rest.width() > width {
            let end = end_within(rest, width);
            // A space right behind the last character that has room is one to cut at.
            let cut_within = end + usize::from(rest[end..].starts_with(' '));
            match rest[..cut_within].rfind(' ').filter(|space| *space > 0) {
                Some(space) => {
                    lines.push(&rest[..space]);
                    rest = &rest[space + 1..];
                }
                None => {
                    lines.push(&rest[..end]);
                    rest = &rest[end..];
                }
            }
        }
        lines.push(rest);
    }
    lines
}

/// Where the first characters end that are no wider than `width`; behind the first at least.
fn end_within(text: &str, width: usize) -> usize {
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += c.width().unwrap_or(0);
        if taken > width && at > 0 {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(of: &[(&str, bool)]) -> Vec<Column> {
        of.iter().map(|(name, is_right)| Column { name: (*name).into(), is_right: *is_right }).collect()
    }

    fn drawn(room: Option<usize>, of: &[(&str, bool)], rows: &[&[&str]]) -> String {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|t| (*t).to_owned()).collect()).collect();
        let (mut table, mut out) = (Table::new(columns(of), room), String::new());
        table.rows(&rows, &mut out);
        table.end(&mut out);
        out
    }

    #[test]
    fn numbers_stand_to_the_right_and_wide_characters_count_twice() {
        let expected = "\
┌──────┬────┐
│ name ┆ n  │
╞══════╪════╡
│ 日本 ┆  1 │
│ a    ┆ 20 │
└──────┴────┘
";
        assert_eq!(drawn(None, &[("name", false), ("n", true)], &[&["日本", "1"], &["a", "20"]]), expected);
    }

    #[test]
    fn what_is_too_wide_is_wrapped_and_narrow_columns_stay_as_they_are() {
        let expected = "\
┌────┬────────────┐
│ n  ┆ text       │
╞════╪════════════╡
│ 10 ┆ one two    │
│    ┆ three four │
│    ┆ fivesixsev │
│    ┆ en         │
└────┴────────────┘
";
        let drawn = drawn(Some(19), &[("n", true), ("text", false)], &[&["10", "one two three four fivesixseven"]]);
        assert_eq!(drawn, expected);
    }

    #[test]
    fn lines_of_a_value_are_lines_of_its_cell() {
        let drawn = drawn(None, &[("t", false)], &[&["a\nbc"]]);
        assert!(drawn.contains("│ a  │\n│ bc │"), "{drawn}");
    }

    #[test]
    fn later_rows_make_columns_wider_and_have_no_header_again() {
        let (mut table, mut out) = (Table::new(columns(&[("t", false)]), None), String::new());
        table.rows(&[vec!["a".into()]], &mut out);
        table.rows(&[vec!["long".into()]], &mut out);
        table.end(&mut out);
        assert_eq!(out, "┌───┐\n│ t │\n╞═══╡\n│ a │\n│ long │\n└──────┘\n");
    }

    #[test]
    fn an_answer_without_rows_has_a_header() {
        assert_eq!(drawn(None, &[("n", true)], &[]), "┌───┐\n│ n │\n╞═══╡\n└───┘\n");
    }

    #[test]
    fn too_many_columns_are_wider_than_the_terminal() {
        let many: Vec<(String, bool)> = (0..10).map(|n| (format!("column_{n}"), false)).collect();
        let many: Vec<(&str, bool)> = many.iter().map(|(name, right)| (name.as_str(), *right)).collect();
        assert!(Table::new(columns(&many), Some(80)).is_too_wide(&[]));
        assert!(!Table::new(columns(&many), Some(130)).is_too_wide(&[]));
    }

    #[test]
    fn an_expanded_row_has_a_line_for_each_column() {
        let mut out = String::new();
        let texts = ["1".to_owned(), "one two three".to_owned()];
        expanded(7, &columns(&[("n", true), ("text", false)]), &texts, Some(15), &mut out);
        assert_eq!(out, "─[ RECORD 7 ]──\nn    │ 1\ntext │ one two\n     │ three\n");
    }
}
