//! Regular expressions of Java's syntax.
//!
//! A pattern is searched for with the crate `regex`, or by backtracking where it looks around or back; how far that goes is bounded.
//! `$` without `(?m)` also stands before a line feed that ends the text. Matches go on where the last one ended, also empty ones.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
use datafusion::common::{DataFusionError, Result};
use fancy_regex::{Captures, Match, Regex};

use super::call::{Bigint, Call, Column, Text, collect, invalid, whole};
use super::strings::count;
use super::{Function, scalar};

const SECTION: &str = "Regular Expression";

/// Patterns that are kept compiled.
const KEPT: usize = 64;

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "regexp_like", "whether the pattern matches somewhere in the text")
            .way("regexp_like(varchar, varchar) -> boolean", whole(like))
            .example("regexp_like('1a 2b 14m', '\\d+b')", "true"),
        scalar(SECTION, "regexp_count", "how often the pattern matches")
            .way(
                "regexp_count(varchar, varchar) -> bigint",
                whole(|call| by_row(call, |text, pattern, _| Ok(Some(count(pattern.matches(text)?.len()))))),
            )
            .example("regexp_count('1a 2b 14m', '\\s*[a-z]+\\s*')", "3"),
        scalar(SECTION, "regexp_extract", "the first match, or what its group matched; null where nothing does")
            .way("regexp_extract(varchar, varchar) -> varchar", whole(extract))
            .way("regexp_extract(varchar, varchar, bigint) -> varchar", whole(extract))
            .example("regexp_extract('1a 2b 14m', '(\\d+)([a-z]+)', 2)", "a"),
        scalar(SECTION, "regexp_extract_all", "all matches, or what their group matched")
            .way("regexp_extract_all(varchar, varchar) -> array(varchar)", whole(extract_all))
            .way("regexp_extract_all(varchar, varchar, bigint) -> array(varchar)", whole(extract_all))
            .example("regexp_extract_all('1a 2b 14m', '(\\d+)([a-z]+)', 2)", "[a, b, m]"),
        scalar(
            SECTION,
            "regexp_position",
            "where the pattern matches, from the character `start` on, the nth time; -1 where it does not",
        )
        .way("regexp_position(varchar, varchar) -> bigint", whole(position))
        .way("regexp_position(varchar, varchar, bigint) -> bigint", whole(position))
        .way("regexp_position(varchar, varchar, bigint, bigint) -> bigint", whole(position))
        .example("regexp_position('I have 23 apples, 5 pears', '\\d+', 13)", "19"),
        scalar(
            SECTION,
            "regexp_replace",
            "the text with each match replaced, or without it; `$1` and `${name}` are what groups matched",
        )
        .way("regexp_replace(varchar, varchar) -> varchar", whole(replace))
        .way("regexp_replace(varchar, varchar, varchar) -> varchar", whole(replace))
        .example("regexp_replace('1a 2b 14m', '(\\d+)([ab]) ', '3c$2 ')", "3ca 3cb 14m"),
        scalar(SECTION, "regexp_split", "the parts between matches")
            .way("regexp_split(varchar, varchar) -> array(varchar)", whole(split))
            .example("regexp_split('1a 2b 14m', '\\s*[a-z]+\\s*')", "[1, 2, 14, ]"),
    ]
}

/// A pattern, compiled.
struct Pattern {
    regex: Regex,
    /// For texts that end with a line feed, if `$` is in it.
    before_line_feed: Option<Regex>,
}

impl Pattern {
    /// # Errors
    /// `Invalid` for a pattern that can't be read.
    fn new(text: &str) -> Result<Self> {
        let compile = |pattern: &str| {
            Regex::new(pattern).map_err(|e| invalid(format!("expected a regular expression, found `{text}`: {e}")))
        };
        let before_line_feed = with_line_feed(text).map(|pattern| compile(&pattern)).transpose()?;
        Ok(Self { regex: compile(text)?, before_line_feed })
    }

    /// The compiled pattern, from memory if it is known.
    fn of(text: &str) -> Result<Arc<Self>> {
        static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Pattern>>>> = LazyLock::new(Mutex::default);
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pattern) = known().get(text) {
            return Ok(Arc::clone(pattern));
        }
        let pattern = Arc::new(Self::new(text)?);
        let mut known = known();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(text.to_owned(), Arc::clone(&pattern));
        Ok(pattern)
    }

    fn regex(&self, text: &str) -> &Regex {
        self.before_line_feed.as_ref().filter(|_| text.ends_with('\n')).unwrap_or(&self.regex)
    }

    /// Groups beside the whole match.
    fn groups(&self) -> usize {
        self.regex.captures_len() - 1
    }

    /// # Errors
    /// `Invalid` for a group that the pattern does not have.
    fn group(&self, group: i64) -> Result<usize> {
        let known = usize::try_from(group).ok().filter(|group| *group <= self.groups());
        known.ok_or_else(|| {
            let groups = self.groups();
            invalid(format!("expected a group of the pattern, which has {groups}, found {group}"))
        })
    }

    fn matches<'t>(&self, text: &'t str) -> Result<Vec<Match<'t>>> {
        let regex = self.regex(text);
        successive(
            text,
            0,
            |from| regex.find_from_pos(text, from).map_err(searching),
            |found| (found.start(), found.end()),
        )
    }

    fn captures<'t>(&self, text: &'t str) -> Result<Vec<Captures<'t>>> {
        let regex = self.regex(text);
        let whole = |found: &Captures<'t>| found.get(0).map_or((0, 0), |whole| (whole.start(), whole.end()));
        successive(text, 0, |from| regex.captures_from_pos(text, from).map_err(searching), whole)
    }
}

/// All matches: the search goes on at the end of the last one, after an empty one a character later.
fn successive<M>(
    text: &str,
    from: usize,
    find: impl Fn(usize) -> Result<Option<M>>,
    place: impl Fn(&M) -> (usize, usize),
) -> Result<Vec<M>> {
    let (mut found, mut from) = (Vec::new(), Some(from));
    while let Some(at) = from {
        let Some(next) = find(at)? else { break };
        let (start, end) = place(&next);
        from = if end > start { Some(end) } else { text[end..].chars().next().map(|c| end + c.len_utf8()) };
        found.push(next);
    }
    Ok(found)
}

fn searching(error: fancy_regex::Error) -> DataFusionError {
    invalid(format!("expected a regular expression that is found or not found within bounds: {error}"))
}

/// The pattern with `$` as what also stands before a line feed at the end; none where there is nothing to change.
fn with_line_feed(pattern: &str) -> Option<String> {
    let has_modes = pattern.match_indices("(?").any(|(at, _)| {
        let modes = pattern[at + 2..].split([':', ')', '-']).next().unwrap_or_default();
        !modes.is_empty() && modes.chars().all(|c| c.is_ascii_lowercase()) && modes.contains('m')
    });
    if has_modes {
        return None;
    }
    let (mut changed, mut changes, mut in_class) = (String::new(), false, 0_usize);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                changed.push(c);
                changed.extend(chars.next());
                continue;
            }
            '[' => in_class += 1,
            ']' => in_class = in_class.saturating_sub(1),
            '$' if in_class == 0 => {
                changed.push_str("(?=\\n?\\z)");
                changes = true;
                continue;
            }
            _ => {}
        }
        changed.push(c);
    }
    changes.then_some(changed)
}

/// A value for each row whose text and pattern are there. The closure gets the row too.
fn by_row<R: super::call::Given>(
    call: &Call<'_>,
    mut of: impl FnMut(&str, &Pattern, usize) -> Result<Option<R>>,
) -> Result<ArrayRef> {
    let mut patterns = Patterns::new(call)?;
    let text = call.column::<Text>(0)?;
    collect(call, |row| match (text.get(row), patterns.get(row)?) {
        (Some(text), Some(pattern)) => of(text, &pattern, row),
        _ => Ok(None),
    })
}

/// The patterns of a call.
struct Patterns<'a> {
    column: Column<'a, Text>,
    last: Option<(&'a str, Arc<Pattern>)>,
}

impl<'a> Patterns<'a> {
    fn new(call: &Call<'a>) -> Result<Self> {
        Ok(Self { column: call.column::<Text>(1)?, last: None })
    }

    fn get(&mut self, row: usize) -> Result<Option<Arc<Pattern>>> {
        let Some(text) = self.column.get(row) else { return Ok(None) };
        if let Some((last, pattern)) = &self.last
            && *last == text
        {
            return Ok(Some(Arc::clone(pattern)));
        }
        let pattern = Pattern::of(text)?;
        self.last = Some((text, Arc::clone(&pattern)));
        Ok(Some(pattern))
    }
}

/// An argument that may be left out.
fn optional<'a>(call: &Call<'a>, at: usize) -> Result<Option<Column<'a, Bigint>>> {
    if call.arguments.len() > at { call.column::<Bigint>(at).map(Some) } else { Ok(None) }
}

fn like(call: &Call<'_>) -> Result<ArrayRef> {
    by_row(call, |text, pattern, _| pattern.regex(text).is_match(text).map(Some).map_err(searching))
}

fn extract(call: &Call<'_>) -> Result<ArrayRef> {
    let groups = optional(call, 2)?;
    by_row(call, |text, pattern, row| {
        let Some(group) = groups.as_ref().map_or(Some(0), |groups| groups.get(row)) else { return Ok(None) };
        let group = pattern.group(group)?;
        let found = pattern.regex(text).captures(text).map_err(searching)?;
        Ok(found.and_then(|found| found.get(group).map(|part| part.as_str().to_owned())))
    })
}

/// Lists of texts, null where the closure gives none.
fn lists(
    call: &Call<'_>,
    mut of: impl FnMut(&str, &Pattern, usize, &mut StringBuilder) -> Result<bool>,
) -> Result<ArrayRef> {
    let mut patterns = Patterns::new(call)?;
    let text = call.column::<Text>(0)?;
    let mut made = ListBuilder::new(StringBuilder::new());
    for row in 0..call.rows {
        let valid = match (text.get(row), patterns.get(row)?) {
            (Some(text), Some(pattern)) => of(text, &pattern, row, made.values())?,
            _ => false,
        };
        made.append(valid);
    }
    Ok(Arc::new(made.finish()))
}

fn extract_all(call: &Call<'_>) -> Result<ArrayRef> {
    let groups = optional(call, 2)?;
    lists(call, |text, pattern, row, parts| {
        let Some(group) = groups.as_ref().map_or(Some(0), |groups| groups.get(row)) else { return Ok(false) };
        let group = pattern.group(group)?;
        pattern
            .captures(text)?
            .iter()
            .for_each(|found| parts.append_option(found.get(group).map(|part| part.as_str())));
        Ok(true)
    })
}

fn split(call: &Call<'_>) -> Result<ArrayRef> {
    lists(call, |text, pattern, _, parts| {
        let mut from = 0;
        for found in pattern.matches(text)? {
            parts.append_value(&text[from..found.start()]);
            from = found.end();
        }
        parts.append_value(&text[from..]);
        Ok(true)
    })
}

fn position(call: &Call<'_>) -> Result<ArrayRef> {
    let (starts, nths) = (optional(call, 2)?, optional(call, 3)?);
    by_row(call, |text, pattern, row| {
        let start = starts.as_ref().map_or(Some(1), |starts| starts.get(row));
        let nth = nths.as_ref().map_or(Some(1), |nths| nths.get(row));
        let (Some(start), Some(nth)) = (start, nth) else { return Ok(None) };
        let skip = |name: &str, found: i64| {
            let skip = usize::try_from(found).ok().and_then(|found| found.checked_sub(1));
            skip.ok_or_else(|| invalid(format!("expected {name} from 1 on, found {found}")))
        };
        let (start, nth) = (skip("a start", start)?, skip("an occurrence", nth)?);
        let from = text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(start);
        let Some(from) = from else { return Ok(Some(-1)) };
        let regex = pattern.regex(text);
        let place = |found: &Match<'_>| (found.start(), found.end());
        let found = successive(text, from, |from| regex.find_from_pos(text, from).map_err(searching), place)?;
        Ok(Some(found.get(nth).map_or(-1, |found| count(text[..found.start()].chars().count()) + 1)))
    })
}

fn replace(call: &Call<'_>) -> Result<ArrayRef> {
    let replacements = if call.arguments.len() > 2 { Some(call.column::<Text>(2)?) } else { None };
    by_row(call, |text, pattern, row| {
        let Some(replacement) = replacements.as_ref().map_or(Some(""), |with| with.get(row)) else { return Ok(None) };
        let parts = replacement_parts(replacement, pattern)?;
        let (mut replaced, mut from) = (String::with_capacity(text.len()), 0);
        for found in pattern.captures(text)? {
            let Some(whole) = found.get(0) else { continue };
            replaced.push_str(&text[from..whole.start()]);
            for part in &parts {
                match part {
                    Part::Text(text) => replaced.push_str(text),
                    Part::Group(group) => replaced.push_str(found.get(*group).map_or("", |part| part.as_str())),
                }
            }
            from = whole.end();
        }
        replaced.push_str(&text[from..]);
        Ok(Some(replaced))
    })
}

/// A part of what a match is replaced by.
enum Part {
    Text(String),
    Group(usize),
}

/// The parts of a replacement in Java's syntax: `$1` takes as many digits as make a group, `${name}` a name, `\` the next character.
///
/// # Errors
/// `Invalid` for a group that the pattern does not have, and a `$` or `\` that nothing follows.
fn replacement_parts(replacement: &str, pattern: &Pattern) -> Result<Vec<Part>> {
    let odd = || invalid(format!("expected a replacement with groups as `$1` or `${{name}}`, found `{replacement}`"));
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut chars = replacement.chars().peekable();
    while let Some(c) = chars.next() {
        let group = match c {
            '\\' => {
                text.push(chars.next().ok_or_else(odd)?);
                continue;
            }
            '$' => match chars.next().ok_or_else(odd)? {
                '{' => {
                    let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
                    let mut names = pattern.regex.capture_names();
                    names.position(|known| known == Some(name.as_str())).ok_or_else(odd)?
                }
                digit => {
                    let mut group = pattern.group(digit.to_digit(10).map(i64::from).ok_or_else(odd)?)?;
                    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                        let more = group.saturating_mul(10).saturating_add(usize::try_from(digit).unwrap_or(0));
                        if more > pattern.groups() {
                            break;
                        }
                        group = more;
                        chars.next();
                    }
                    group
                }
            },
            c => {
                text.push(c);
                continue;
            }
        };
        parts.push(Part::Text(std::mem::take(&mut text)));
        parts.push(Part::Group(group));
    }
    parts.push(Part::Text(text));
    Ok(parts)
}
