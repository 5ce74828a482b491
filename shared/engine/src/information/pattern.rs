//! Which names a SHOW lists: `LIKE 'pattern'`, or Athena's pattern in quotes alone.

use datafusion::sql::sqlparser::ast::{ShowStatementFilter, ShowStatementFilterPosition, ShowStatementOptions};

use shared::{Error, Result};

/// Part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Any text, also none.
    Text,
    /// Any one character.
    One,
    Exactly(char),
}

/// The patterns one of which a name must match; none: all names are wanted.
#[derive(Debug)]
pub(crate) struct Pattern(Option<Vec<Vec<Part>>>);

impl Pattern {
    /// # Errors
    /// `Invalid` for WHERE, and for a pattern with signs that have no meaning.
    pub(crate) fn of(options: &ShowStatementOptions) -> Result<Self> {
        match &options.filter_position {
            None => Ok(Self(None)),
            Some(ShowStatementFilterPosition::Infix(filter) | ShowStatementFilterPosition::Suffix(filter)) => {
                Self::of_filter(Some(filter))
            }
        }
    }

    /// # Errors
    /// As [`Pattern::of`].
    pub(crate) fn of_filter(filter: Option<&ShowStatementFilter>) -> Result<Self> {
        let alternatives = |text: &str, part: &dyn Fn(&str) -> Result<Vec<Part>>| {
            text.to_ascii_lowercase().split('|').map(part).collect::<Result<_>>().map(|all| Self(Some(all)))
        };
        match filter {
            None => Ok(Self(None)),
            Some(ShowStatementFilter::Like(text) | ShowStatementFilter::ILike(text)) => {
                alternatives(text, &|text| Ok(like(text)))
            }
            Some(ShowStatementFilter::NoKeyword(text)) => alternatives(text, &athenas),
            Some(ShowStatementFilter::Where(_)) => Err(Error::invalid("expected SHOW … LIKE 'pattern', found WHERE")),
        }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| fits(pattern, name)))
    }
}

/// `%` is any text, `_` any character; Hive's `*` is understood too.
fn like(text: &str) -> Vec<Part> {
    let part = |c| match c {
        '%' | '*' => Part::Text,
        '_' => Part::One,
        c => Part::Exactly(c),
    };
    text.chars().map(part).collect()
}

/// `*` is any text and `.` any character, so that `.*` is any text as well.
fn athenas(text: &str) -> Result<Vec<Part>> {
    let part = |c: char| match c {
        '*' | '%' => Ok(Part::Text),
        '.' => Ok(Part::One),
        c if c.is_alphanumeric() || matches!(c, '_' | '-') => Ok(Part::Exactly(c)),
        _ => Err(Error::invalid(format!("expected a pattern of names, `*`, `.` and `|`, found `{text}`"))),
    };
    text.replace(".*", "*").trim().chars().map(part).collect()
}

/// Takes as many characters for any text as it must, and one more each time that what follows does not fit: nothing before the last
/// one is looked at again, so the time is that of pattern times text.
fn fits(pattern: &[Part], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match (pattern.get(p), star) {
            (Some(Part::Text), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(part), _) if *part == Part::One || *part == Part::Exactly(text[t]) => {
                p += 1;
                t += 1;
            }
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|part| *part == Part::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_knows_any_text_and_any_character() {
        for (pattern, name, expected) in [
            ("fl%", "flights", true),
            ("*lights", "flights", true),
            ("f_ights", "flights", true),
            ("f_ight", "flights", false),
            ("%", "", true),
            ("flights", "flights", true),
            ("light", "flights", false),
            ("%l%s", "flights", true),
            ("fl%ts_", "flights", false),
            ("%_", "ü", true),
        ] {
            assert_eq!(fits(&like(pattern), name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn like_with_many_stars_takes_no_time() {
        let started = std::time::Instant::now();
        assert!(!fits(&like(&"%a".repeat(40)), &("a".repeat(60) + "b")));
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }

    #[test]
    fn athenas_patterns_are_choices_with_stars() {
        let wanted = |text: &str, name: &str| {
            Pattern::of_filter(Some(&ShowStatementFilter::NoKeyword(text.into()))).unwrap().matches(name)
        };
        for (pattern, name, expected) in [
            ("fl*|we*", "weather", true),
            ("fl*|we*", "planes", false),
            ("FLIGHTS", "flights", true),
            ("*a_b*", "axb", false),
            ("*a_b*", "a_b", true),
            ("fl.*s", "flights", true),
            ("flight.", "flights", true),
            ("flight", "flights", false),
        ] {
            assert_eq!(wanted(pattern, name), expected, "{pattern} {name}");
        }
        let error = Pattern::of_filter(Some(&ShowStatementFilter::NoKeyword("fl[aeiou]".into()))).unwrap_err();
        assert!(error.to_string().contains("fl[aeiou]"), "{error}");
    }
}
