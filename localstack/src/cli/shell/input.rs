//! What is typed or read from a script: statements that end with `;`, and commands, which begin with a backslash and end with the
//! line.

use std::iter::Peekable;
use std::str::CharIndices;

/// A part of the input that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Statement {
        sql: String,
        /// Where it begins, from 1.
        line: usize,
    },
    Command {
        /// From the backslash to the end of the line.
        text: String,
        /// A statement before it that has not ended, as in `SELECT 1 \gx`.
        pending: Option<String>,
        line: usize,
    },
}

/// Input taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) items: Vec<Item>,
    /// A statement that has not ended, and the line where it begins.
    pub(super) rest: Option<(String, usize)>,
    /// Whether it ends within quotes or a comment.
    pub(super) is_open: bool,
}

/// What the next character is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Plain,
    Quotes {
        quote: char,
        /// Whether a backslash takes the next character its meaning.
        escapes: bool,
    },
    LineComment,
    Comment,
}

/// Takes the text apart. Semicolons and backslashes in quotes and comments mean nothing.
pub(super) fn parse(text: &str) -> Input {
    let mut reader = Reader {
        text,
        chars: text.char_indices().peekable(),
        within: Within::Plain,
        start: 0,
        first: None,
        items: Vec::new(),
    };
    while let Some((at, c)) = reader.chars.next() {
        reader.take(at, c);
    }
    let rest = reader.first.map(|first| (text[reader.start..].trim().to_owned(), reader.line_of(first)));
    Input { items: reader.items, rest, is_open: reader.within != Within::Plain }
}

struct Reader<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    within: Within,
    /// Where the statement that is being read starts.
    start: usize,
    /// Where its first word stands; none while there are spaces and comments alone.
    first: Option<usize>,
    items: Vec<Item>,
}

impl Reader<'_> {
    fn take(&mut self, at: usize, c: char) {
        match self.within {
            Within::Plain => self.take_plain(at, c),
            Within::Quotes { escapes: true, .. } if c == '\\' => self.pass(),
            Within::Quotes { quote, .. } if c == quote => self.within = Within::Plain,
            Within::LineComment if c == '\n' => self.within = Within::Plain,
            Within::Comment if self.text[at..].starts_with("*/") => {
                self.pass();
                self.within = Within::Plain;
            }
            _ => {}
        }
    }

    fn take_plain(&mut self, at: usize, c: char) {
        match c {
            ';' => {
                if let Some((sql, first)) = self.statement(at) {
                    self.items.push(Item::Statement { sql, line: self.line_of(first) });
                }
                self.begin(at + 1);
            }
            '\\' => {
                let end = self.text[at..].find('\n').map_or(self.text.len(), |length| at + length);
                let pending = self.statement(at).map(|(sql, _)| sql);
                let text = self.text[at..end].trim().to_owned();
                self.items.push(Item::Command { text, pending, line: self.line_of(at) });
                while self.chars.next_if(|(at, _)| *at < end).is_some() {}
                self.begin(end);
            }
            '-' if self.text[at..].starts_with("--") => self.within = Within::LineComment,
            '/' if self.text[at..].starts_with("/*") => {
                self.pass();
                self.within = Within::Comment;
            }
            c => {
                if !c.is_whitespace() {
                    self.first.get_or_insert(at);
                }
                if matches!(c, '\'' | '"' | '`') {
                    self.within = Within::Quotes { quote: c, escapes: c == '\'' && has_escapes(&self.text[..at]) };
                }
            }
        }
    }

    /// The statement up to here and where its first word stands, unless there is nothing but comments.
    fn statement(&self, end: usize) -> Option<(String, usize)> {
        self.first.map(|first| (self.text[self.start..end].trim().to_owned(), first))
    }

    fn begin(&mut self, at: usize) {
        (self.start, self.first) = (at, None);
    }

    fn pass(&mut self) {
        self.chars.next();
    }

    fn line_of(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }
}

/// Whether a text that begins here is one such as `E'it\'s'`.
fn has_escapes(before: &str) -> bool {
    let mut last = before.chars().rev();
    let is_marked = last.next().is_some_and(|c| matches!(c, 'e' | 'E'));
    is_marked && !last.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(text: &str) -> Vec<String> {
        let items = parse(text).items.into_iter();
        items.filter_map(|item| if let Item::Statement { sql, .. } = item { Some(sql) } else { None }).collect()
    }

    #[test]
    fn semicolons_in_texts_and_comments_end_nothing() {
        let text = "SELECT ';' AS \"a;b\"; -- no; not here\nSELECT 2; /* ; */ SELECT 3";
        assert_eq!(statements(text), ["SELECT ';' AS \"a;b\"", "-- no; not here\nSELECT 2"]);
        assert_eq!(parse(text).rest, Some(("/* ; */ SELECT 3".into(), 2)));
    }

    #[test]
    fn a_quote_within_a_text_is_doubled_or_escaped() {
        assert_eq!(statements("SELECT 'it''s;'; x"), ["SELECT 'it''s;'"]);
        assert_eq!(statements("SELECT E'it\\'s;', 'a\\';"), ["SELECT E'it\\'s;', 'a\\'"]);
    }

    #[test]
    fn comments_alone_are_no_statement() {
        assert_eq!(parse("-- nothing\n /* here; */ ;\n"), Input::default());
        assert_eq!(parse("/*/ a; */").rest, None);
        assert!(parse("SELECT 'a;").is_open && !parse("SELECT 'a'").is_open);
    }

    #[test]
    fn a_command_ends_with_its_line_and_may_follow_a_statement() {
        let command = |text: &str, pending: Option<&str>, line| Item::Command {
            text: text.into(),
            pending: pending.map(Into::into),
            line,
        };
        let found = parse("\\timing\nSELECT '\\d' \\gx\nSELECT\n 1;");
        let expected = [
            command("\\timing", None, 1),
            command("\\gx", Some("SELECT '\\d'"), 2),
            Item::Statement { sql: "SELECT\n 1".into(), line: 3 },
        ];
        assert_eq!((found.items.as_slice(), found.rest), (&expected[..], None));
    }
}
