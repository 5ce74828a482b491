//! `${name}` in SQL text: where a parameter stands, and in what.

/// Where in the text of a statement a character stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    Code,
    /// Between this quote and the next one.
    Quoted(char),
    /// In `E'…'`, where a backslash escapes.
    Escaped,
    LineComment,
    /// With the number of comments that are open.
    BlockComment(u32),
}

impl Region {
    fn takes_parameters(self) -> bool {
        matches!(self, Self::Code | Self::Quoted(_) | Self::Escaped)
    }

    /// The region after the first character of `text`, which stands behind `before`; and whether its second character
    /// belongs to it.
    fn after(self, before: &str, text: &str) -> (Self, bool) {
        let c = text.chars().next().unwrap_or_default();
        match self {
            Self::Code if text.starts_with("--") => (Self::LineComment, false),
            Self::Code if text.starts_with("/*") => (Self::BlockComment(1), true),
            Self::Code if c == '\'' && ends_with_word_e(before) => (Self::Escaped, false),
            Self::Code if matches!(c, '\'' | '"' | '`') => (Self::Quoted(c), false),
            // A doubled quote closes and opens again, which comes to the same.
            Self::Quoted(quote) if c == quote => (Self::Code, false),
            Self::Escaped if text.starts_with("''") => (Self::Escaped, true),
            Self::Escaped if c == '\'' => (Self::Code, false),
            Self::Escaped if c == '\\' => (Self::Escaped, true),
            Self::LineComment if c == '\n' => (Self::Code, false),
            Self::BlockComment(open) if text.starts_with("/*") => (Self::BlockComment(open + 1), true),
            Self::BlockComment(1) if text.starts_with("*/") => (Self::Code, true),
            Self::BlockComment(open) if text.starts_with("*/") => (Self::BlockComment(open - 1), true),
            same => (same, false),
        }
    }
}

/// Whether a text ends with the letter that makes the string behind it one with backslash escapes: `E'…'`.
fn ends_with_word_e(text: &str) -> bool {
    let mut back = text.chars().rev();
    matches!(back.next(), Some('e' | 'E')) && !back.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// The name in a text that begins with `${name}`.
fn parameter_at(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix("${")?.split_once('}')?;
    let head_fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (head_fits && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some(name)
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    Text(&'a str),
    /// A parameter, and what it stands in; those in comments are text.
    Parameter {
        name: &'a str,
        region: Region,
    },
}

/// Cuts a text at its parameters.
pub fn pieces(sql: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut region) = (Vec::new(), Region::Code);
    let (mut begin, mut at) = (0, 0);
    while let Some(c) = sql[at..].chars().next() {
        if region.takes_parameters()
            && let Some(name) = parameter_at(&sql[at..])
        {
            pieces.push(Piece::Text(&sql[begin..at]));
            pieces.push(Piece::Parameter { name, region });
            at += name.len() + "${}".len();
            begin = at;
            continue;
        }
        let (next, pair) = region.after(&sql[..at], &sql[at..]);
        region = next;
        at += c.len_utf8();
        if pair {
            at += sql[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    pieces.push(Piece::Text(&sql[begin..]));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_with_what_they_stand_in() {
        let found = |sql| {
            let parameter = |piece| match piece {
                Piece::Parameter { name, region } => Some((name, region)),
                Piece::Text(_) => None,
            };
            pieces(sql).into_iter().filter_map(parameter).collect::<Vec<_>>()
        };
        let quoted = [("x", Region::Code), ("y", Region::Quoted('\'')), ("z", Region::Escaped)];
        assert_eq!(found(r"a ${x}, '${y}', E'\'${z}'"), quoted);
        assert_eq!(found("-- ${x}\n/* /* ${y} */ ${z} */ `${q}` ${1} ${ x}"), [("q", Region::Quoted('`'))]);
    }

    #[test]
    fn the_pieces_are_the_text() {
        let sql = "SELECT 'é${a}''' -- ${no}\n, ${b}";
        let text = |piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Parameter { name, .. } => format!("${{{name}}}"),
        };
        assert_eq!(pieces(sql).into_iter().map(text).collect::<String>(), sql);
    }
}
