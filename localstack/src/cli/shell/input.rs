//! What is typed or read from a script: statements that end with `;`, and commands, which begin with a backslash and end with the
//! line.

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

/// The statement that is being read.
struct Current {
    start: usize,
    /// Where its first word stands; none while there are spaces and comments alone.
    first: Option<usize>,
}

/// Takes the text apart. Semicolons and backslashes in quotes and comments mean nothing.
pub(super) fn parse(text: &str) -> Input {
    let (mut input, mut within) = (Input::default(), Within::Plain);
    let mut current = Current { start: 0, first: None };
    let line_of = |at: usize| text[..at].matches('\n').count() + 1;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        match within {
            Within::Plain => match c {
                ';' => {
                    if let Some(first) = current.first {
                        let sql = text[current.start..at].trim().to_owned();
                        input.items.push(Item::Statement { sql, line: line_of(first) });
                    }
                    current = Current { start: at + 1, first: None };
                }
                '\\' => {
                    let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
                    let pending = current.first.map(|_| text[current.start..at].trim().to_owned());
                    let command = text[at..end].trim().to_owned();
                    input.items.push(Item::Command { text: command, pending, line: line_of(at) });
                    while chars.peek().is_some_and(|(at, _)| *at < end) {
                        chars.next();
                    }
                    current = Current { start: end, first: None };
                }
                '-' if next == Some('-') => within = Within::LineComment,
                '/' if next == Some('*') => {
                    chars.next();
                    within = Within::Comment;
                }
                c => {
                    if !c.is_whitespace() {
                        current.first.get_or_insert(at);
                    }
                    if matches!(c, '\'' | '"' | '`') {
                        within = Within::Quotes { quote: c, escapes: c == '\'' && has_escapes(&text[..at]) };
                    }
                }
            },
            Within::Quotes { escapes: true, .. } if c == '\\' => {
                chars.next();
            }
            Within::Quotes { quote, .. } if c == quote => within = Within::Plain,
            Within::LineComment if c == '\n' => within = Within::Plain,
            Within::Comment if c == '*' && next == Some('/') => {
                chars.next();
                within = Within::Plain;
            }
            _ => {}
        }
    }
    input.is_open = within != Within::Plain;
    input.rest = current.first.map(|first| (text[current.start..].trim().to_owned(), line_of(first)));
    input
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
