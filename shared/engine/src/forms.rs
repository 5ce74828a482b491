//! Spellings of Athena's SQL that the parser lacks, written before parsing as it knows them, and spellings that it takes and Athena
//! refuses or reads otherwise.
//!
//! | as written | as parsed |
//! |---|---|
//! | `VALUES 1, 2`, `VALUES ROW(1, 'a')` | `VALUES (1), (2)`, `VALUES (1, 'a')` |
//! | `TABLE t` | `SELECT * FROM t` |
//! | `trim(LEADING FROM x)` | `ltrim(x)` |
//! | `U&'\0041'` | `'A'` |
//! | `EXPLAIN (TYPE LOGICAL, FORMAT TEXT)` | `EXPLAIN` |

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace, Word};

use super::errors::{Place, pointed};
use shared::{Error, Result};

/// The tokens as the parser knows them.
///
/// # Errors
/// `Invalid` with line and column for what Athena's SQL has not.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>, sql: &str) -> Result<Vec<TokenWithSpan>> {
    for (i, token) in tokens.iter().enumerate() {
        if let Some(message) = refused(&tokens, i, token, sql) {
            let start = token.span.start;
            return Err(Error::invalid(pointed(&message, sql, Place { line: start.line, column: start.column })));
        }
    }
    let mut forms = Forms { read: &tokens, written: Vec::with_capacity(tokens.len()), sql, depth: 0 };
    forms.statement()?;
    Ok(forms.written)
}

/// Why a token can't stand there.
fn refused(tokens: &[TokenWithSpan], i: usize, token: &TokenWithSpan, sql: &str) -> Option<String> {
    let next = || tokens[i + 1..].iter().find(|token| !is_space(&token.token)).map(|token| &token.token);
    let operator =
        |instead: &str| Some(format!("expected an operator of Athena's SQL, found `{}`: use {instead}", token.token));
    match &token.token {
        Token::Caret => operator("power(x, y) or bitwise_xor(x, y)"),
        Token::Ampersand => operator("bitwise_and(x, y)"),
        Token::Pipe => operator("bitwise_or(x, y)"),
        Token::Sharp => operator("bitwise_xor(x, y)"),
        Token::Tilde => operator("regexp_like(text, pattern) or bitwise_not(x)"),
        Token::TildeAsterisk | Token::ExclamationMarkTilde | Token::ExclamationMarkTildeAsterisk => {
            operator("regexp_like(text, pattern)")
        }
        Token::DoubleTilde
        | Token::DoubleTildeAsterisk
        | Token::ExclamationMarkDoubleTilde
        | Token::ExclamationMarkDoubleTildeAsterisk => operator("LIKE"),
        Token::ShiftLeft => operator("bitwise_left_shift(x, shift)"),
        Token::DoubleEq => operator("`=`"),
        Token::Spaceship => operator("IS NOT DISTINCT FROM"),
        Token::DuckIntDiv => operator("`/`, whose quotient of whole numbers is whole"),
        Token::Overlap => operator("AND"),
        Token::ExclamationMark | Token::DoubleExclamationMark => operator("NOT"),
        Token::AtSign => operator("abs(x)"),
        Token::PGSquareRoot => operator("sqrt(x)"),
        Token::PGCubeRoot => operator("cbrt(x)"),
        Token::Number(digits, is_long) => {
            let glued = match tokens.get(i + 1).map(|token| &token.token) {
                Some(Token::Word(word)) if word.quote_style.is_none() => word.value.as_str(),
                _ if *is_long => "L",
                _ => return None,
            };
            Some(format!("expected a number, found `{digits}{glued}`: digits end at a space or an operator"))
        }
        Token::HexStringLiteral(digits) if written_at(sql, token).is_some_and(|c| c == '0') => {
            Some(format!("expected a number in decimal digits, found `0x{digits}`: use from_base('{digits}', 16)"))
        }
        Token::SingleQuotedString(_) if matches!(next(), Some(Token::SingleQuotedString(_))) => {
            Some("expected one text, found two in a row: join them with ||".to_owned())
        }
        Token::Word(word) if is_word(word, "MATCH_RECOGNIZE") && matches!(next(), Some(Token::LParen)) && i > 0 => {
            Some("not supported: MATCH_RECOGNIZE".to_owned())
        }
        _ => None,
    }
}

/// The character of the text where the token begins.
fn written_at(sql: &str, token: &TokenWithSpan) -> Option<char> {
    let at = |n: u64| usize::try_from(n).ok()?.checked_sub(1);
    sql.lines().nth(at(token.span.start.line)?)?.chars().nth(at(token.span.start.column)?)
}

fn is_space(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_))
}

fn is_word(word: &Word, text: &str) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text)
}

fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// VALUES within the rows of others that are followed.
const MAX_DEPTH: usize = 50;

/// What stands before brackets that hold a query; other words call a function there.
const BEFORE_QUERIES: [Keyword; 26] = [
    Keyword::ALL,
    Keyword::AND,
    Keyword::ANY,
    Keyword::AS,
    Keyword::BETWEEN,
    Keyword::BY,
    Keyword::CASE,
    Keyword::ELSE,
    Keyword::EXCEPT,
    Keyword::EXISTS,
    Keyword::EXPLAIN,
    Keyword::FROM,
    Keyword::HAVING,
    Keyword::IN,
    Keyword::INTERSECT,
    Keyword::JOIN,
    Keyword::LATERAL,
    Keyword::NOT,
    Keyword::ON,
    Keyword::OR,
    Keyword::SELECT,
    Keyword::SOME,
    Keyword::THEN,
    Keyword::UNION,
    Keyword::WHEN,
    Keyword::WHERE,
];

struct Forms<'a> {
    read: &'a [TokenWithSpan],
    written: Vec<TokenWithSpan>,
    sql: &'a str,
    depth: usize,
}

impl Forms<'_> {
    fn statement(&mut self) -> Result<()> {
        let first = self.next(0).map_or(Keyword::NoKeyword, |i| keyword(&self.read[i].token));
        let mut at = 0;
        // The places of the last three tokens that are no space, the last one first.
        let mut before = [None; 3];
        while at < self.read.len() {
            let token = &self.read[at];
            if is_space(&token.token) {
                self.written.push(token.clone());
                at += 1;
                continue;
            }
            let next = match keyword(&token.token) {
                Keyword::VALUES if self.begins_query(before, first) => self.values(at)?,
                Keyword::TABLE if self.begins_query(before, first) => self.table(at),
                Keyword::TRIM => self.trim(at),
                Keyword::EXPLAIN if before[0].is_none() => self.explain(at)?,
                _ => self.one(at)?,
            };
            before = [Some(self.last(at, next)), before[0], before[1]];
            at = next;
        }
        Ok(())
    }

    /// The first token from `at` on that is no space.
    fn next(&self, at: usize) -> Option<usize> {
        (at..self.read.len()).find(|i| !is_space(&self.read[*i].token))
    }

    /// The last token in this range that is no space.
    fn last(&self, from: usize, to: usize) -> usize {
        (from..to).rev().find(|i| !is_space(&self.read[*i].token)).unwrap_or(from)
    }

    fn invalid(&self, message: &str, at: usize) -> Error {
        let start = self.read.get(at).map_or_else(|| self.read[0].span, |token| token.span).start;
        Error::invalid(pointed(message, self.sql, Place { line: start.line, column: start.column }))
    }

    fn token(&self, at: Option<usize>) -> &Token {
        at.map_or(&Token::EOF, |i| &self.read[i].token)
    }

    /// Whether a query may begin after these tokens.
    fn begins_query(&self, before: [Option<usize>; 3], first: Keyword) -> bool {
        let [last, second, third] = before.map(|at| self.token(at));
        let is_call = matches!(second, Token::Word(_)) && !BEFORE_QUERIES.contains(&keyword(second));
        match (last, keyword(last)) {
            (Token::EOF, _) => true,
            (Token::LParen, _) => !is_call,
            (Token::RParen, _) => matches!(first, Keyword::INSERT | Keyword::WITH),
            (_, Keyword::EXPLAIN | Keyword::ANALYZE | Keyword::VERBOSE) => first == Keyword::EXPLAIN,
            (_, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT) => true,
            (_, Keyword::ALL | Keyword::DISTINCT) => {
                matches!(keyword(second), Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT)
            }
            (_, Keyword::AS) => first == Keyword::CREATE,
            (Token::Word(_), _) => {
                let named =
                    keyword(second) == Keyword::INTO || keyword(third) == Keyword::INTO || *second == Token::Period;
                first == Keyword::INSERT && named
            }
            _ => false,
        }
    }

    fn one(&mut self, at: usize) -> Result<usize> {
        let TokenWithSpan { token, span } = &self.read[at];
        let token = match token {
            Token::UnicodeStringLiteral(text) => {
                let next = self.next(at + 1);
                if matches!(self.token(next), Token::Word(word) if is_word(word, "UESCAPE")) {
                    return Err(
                        self.invalid("not supported: UESCAPE; escapes begin with a backslash", next.unwrap_or(at))
                    );
                }
                Token::SingleQuotedString(text.clone())
            }
            other => other.clone(),
        };
        self.written.push(TokenWithSpan { token, span: *span });
        Ok(at + 1)
    }

    /// `VALUES` and its rows; each that is no list in brackets gets some.
    fn values(&mut self, at: usize) -> Result<usize> {
        self.written.push(self.read[at].clone());
        let mut at = at + 1;
        loop {
            let end = self.end_of_row(at);
            let Some(first) = self.next(at).filter(|first| *first < end) else { return Ok(at) };
            let is_row = keyword(&self.read[first].token) == Keyword::ROW;
            let open = if is_row { self.next(first + 1).unwrap_or(first) } else { first };
            if self.read[open].token == Token::LParen && self.closes(open) == Some(self.last(open, end)) {
                self.write(open, end)?;
            } else {
                let bracket = |token| TokenWithSpan { token, span: self.read[first].span };
                let (open, close) = (bracket(Token::LParen), bracket(Token::RParen));
                self.written.push(open);
                self.write(first, end)?;
                self.written.push(close);
            }
            match self.token(Some(end).filter(|end| *end < self.read.len())) {
                Token::Comma => {
                    self.written.push(self.read[end].clone());
                    at = end + 1;
                }
                _ => return Ok(end),
            }
        }
    }

    /// Tokens of a row, with what stands in them rewritten.
    fn write(&mut self, from: usize, to: usize) -> Result<()> {
        if self.depth == MAX_DEPTH {
            let start = self.read[from].span.start;
            let place = Place { line: start.line, column: start.column };
            let message = format!("expected at most {MAX_DEPTH} VALUES within each other, found more");
            return Err(Error::limit(pointed(&message, self.sql, place)));
        }
        let depth = self.depth + 1;
        let mut inner = Forms { read: &self.read[from..to], written: Vec::new(), sql: self.sql, depth };
        inner.within()?;
        self.written.append(&mut inner.written);
        Ok(())
    }

    /// As [`Self::statement`], of tokens in one; no other query begins there but in brackets.
    fn within(&mut self) -> Result<()> {
        let mut at = 0;
        let mut before = [Some(0); 3];
        while at < self.read.len() {
            let next = match keyword(&self.read[at].token) {
                Keyword::TRIM => self.trim(at),
                Keyword::VALUES if at > 0 && self.begins_query(before, Keyword::NoKeyword) => self.values(at)?,
                _ => self.one(at)?,
            };
            if !is_space(&self.read[at].token) {
                before = [Some(self.last(at, next)), before[0], before[1]];
            }
            at = next;
        }
        Ok(())
    }

    /// Where the row that begins at `at` ends: at a comma, a bracket that it did not open, or what follows the rows.
    fn end_of_row(&self, at: usize) -> usize {
        let mut depth = 0_usize;
        for (i, TokenWithSpan { token, .. }) in self.read.iter().enumerate().skip(at) {
            match (token, keyword(token)) {
                (Token::EOF | Token::SemiColon, _) => return i,
                (Token::Comma | Token::RParen, _) if depth == 0 => return i,
                (
                    _,
                    Keyword::ORDER
                    | Keyword::LIMIT
                    | Keyword::OFFSET
                    | Keyword::FETCH
                    | Keyword::UNION
                    | Keyword::EXCEPT
                    | Keyword::INTERSECT,
                ) if depth == 0 => return i,
                (Token::LParen | Token::LBracket | Token::LBrace, _) | (_, Keyword::CASE) => depth += 1,
                (Token::RParen | Token::RBracket | Token::RBrace, _) | (_, Keyword::END) => {
                    depth = depth.saturating_sub(1);
                }
                _ => {}
            }
        }
        self.read.len()
    }

    /// Where the bracket that opens at `at` is closed.
    fn closes(&self, at: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (i, TokenWithSpan { token, .. }) in self.read.iter().enumerate().skip(at) {
            match token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 1 => return Some(i),
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        None
    }

    fn table(&mut self, at: usize) -> usize {
        let named = matches!(self.token(self.next(at + 1)), Token::Word(_));
        if !named {
            self.written.push(self.read[at].clone());
            return at + 1;
        }
        let space = Token::Whitespace(Whitespace::Space);
        let words = [Token::make_keyword("SELECT"), space.clone(), Token::Mul, space, Token::make_keyword("FROM")];
        let span = self.read[at].span;
        self.written.extend(words.into_iter().map(|token| TokenWithSpan { token, span }));
        at + 1
    }

    /// `trim(LEADING FROM x)`, which trims spaces.
    fn trim(&mut self, at: usize) -> usize {
        let open = self.next(at + 1);
        let side = open.and_then(|open| self.next(open + 1));
        let from = side.and_then(|side| self.next(side + 1));
        let function = match keyword(self.token(side)) {
            Keyword::LEADING => "ltrim",
            Keyword::TRAILING => "rtrim",
            Keyword::BOTH => "btrim",
            _ => "",
        };
        match (open, from) {
            (Some(open), Some(from))
                if !function.is_empty()
                    && self.read[open].token == Token::LParen
                    && keyword(&self.read[from].token) == Keyword::FROM =>
            {
                let word = Token::make_word(if function == "btrim" { "trim" } else { function }, None);
                self.written.push(TokenWithSpan { token: word, span: self.read[at].span });
                self.written.push(self.read[open].clone());
                from + 1
            }
            _ => {
                self.written.push(self.read[at].clone());
                at + 1
            }
        }
    }

    /// `EXPLAIN [ANALYZE] [VERBOSE] (TYPE …, FORMAT …)`.
    fn explain(&mut self, at: usize) -> Result<usize> {
        let mut open = self.next(at + 1);
        while matches!(keyword(self.token(open)), Keyword::ANALYZE | Keyword::VERBOSE) {
            open = open.and_then(|open| self.next(open + 1));
        }
        let first = open.and_then(|open| self.next(open + 1));
        let is_option =
            |at| matches!(self.token(at), Token::Word(word) if is_word(word, "TYPE") || is_word(word, "FORMAT"));
        let (Some(open), true) = (open, *self.token(open) == Token::LParen && is_option(first)) else {
            return self.one(at);
        };
        let mut format = None;
        let mut option = first;
        loop {
            let value = option.and_then(|option| self.next(option + 1));
            let end = value.and_then(|value| self.next(value + 1));
            let (Some(name), Some(value), Some(end)) = (option, value, end) else {
                return Err(self.invalid("expected options of EXPLAIN such as (TYPE LOGICAL, FORMAT TEXT)", open));
            };
            match (is_option(Some(name)), &self.read[name].token, &self.read[value].token) {
                (true, Token::Word(name), Token::Word(given)) if is_word(name, "TYPE") => {
                    if !["LOGICAL", "DISTRIBUTED"].iter().any(|known| is_word(given, known)) {
                        let message =
                            format!("not supported: EXPLAIN of type {}; expected LOGICAL or DISTRIBUTED", given.value);
                        return Err(self.invalid(&message, value));
                    }
                }
                (true, _, Token::Word(given)) => {
                    format = match given.value.to_ascii_uppercase().as_str() {
                        "TEXT" => None,
                        "GRAPHVIZ" => Some("graphviz"),
                        "JSON" => Some("pgjson"),
                        other => {
                            let message = format!("expected FORMAT TEXT, GRAPHVIZ or JSON, found {other}");
                            return Err(self.invalid(&message, value));
                        }
                    };
                }
                _ => return Err(self.invalid("expected TYPE or FORMAT, and its value", name)),
            }
            match &self.read[end].token {
                Token::Comma => option = self.next(end + 1),
                Token::RParen => {
                    self.write(at, open)?;
                    if let Some(format) = format {
                        let span = self.read[at].span;
                        let space = Token::Whitespace(Whitespace::Space);
                        let words = [Token::make_keyword("FORMAT"), space, Token::make_word(format, None)];
                        self.written.extend(words.into_iter().map(|token| TokenWithSpan { token, span }));
                    }
                    return Ok(end + 1);
                }
                _ => return Err(self.invalid("expected a comma or the end of the options", end)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;
    use crate::dialect::Athena;

    fn written(sql: &str) -> Result<String> {
        let tokens = Tokenizer::new(&Athena, sql).tokenize_with_location().unwrap();
        Ok(rewrite(tokens, sql)?.iter().map(|token| token.token.to_string()).collect())
    }

    #[test]
    fn rows_without_brackets_get_some() {
        for (sql, expected) in [
            ("VALUES 1, 2", "VALUES(1),( 2)"),
            ("VALUES (1), (2, 3)", "VALUES(1),(2, 3)"),
            ("VALUES (1) + 2, 3 ORDER BY 1", "VALUES((1) + 2),(3 )ORDER BY 1"),
            ("SELECT * FROM (VALUES ROW(1, 'a'), ROW(2, 'b')) AS t", "SELECT * FROM (VALUES(1, 'a'),(2, 'b')) AS t"),
            (
                "VALUES CASE WHEN a THEN 1 END, f(1, 2) UNION VALUES 3",
                "VALUES(CASE WHEN a THEN 1 END),(f(1, 2) )UNION VALUES(3)",
            ),
            ("INSERT INTO t VALUES 1, 2", "INSERT INTO t VALUES(1),(2)"),
            ("INSERT INTO a.t (x) VALUES 1", "INSERT INTO a.t (x) VALUES(1)"),
            ("SELECT x IN (VALUES 1, trim(BOTH FROM y))", "SELECT x IN (VALUES(1),(trim( y)))"),
        ] {
            let plain = |text: &str| text.replace(' ', "");
            assert_eq!(plain(&written(sql).unwrap()), plain(expected), "{sql}");
        }
        for sql in [
            "SELECT values FROM t",
            "SELECT sum(values + 1), (values) FROM t",
            "SELECT x AS values FROM t",
            "MERGE INTO t USING s ON t.a = s.a WHEN NOT MATCHED THEN INSERT (a) VALUES (s.a) WHEN MATCHED THEN DELETE",
        ] {
            assert_eq!(written(sql).unwrap(), sql);
        }
    }

    #[test]
    fn other_spellings_become_what_the_parser_knows() {
        for (sql, expected) in [
            ("TABLE t", "SELECT * FROM t"),
            ("SELECT * FROM (TABLE a.t)", "SELECT * FROM (SELECT * FROM a.t)"),
            ("CREATE TABLE t (a int)", "CREATE TABLE t (a int)"),
            ("SELECT trim(LEADING FROM x), trim( TRAILING  FROM x), trim(x)", "SELECT ltrim( x), rtrim( x), trim(x)"),
            ("SELECT U&'\\0041'", "SELECT 'A'"),
            ("EXPLAIN (TYPE LOGICAL, FORMAT TEXT) SELECT 1", "EXPLAIN  SELECT 1"),
            ("EXPLAIN (FORMAT JSON) SELECT 1", "EXPLAIN FORMAT pgjson SELECT 1"),
            ("EXPLAIN ANALYZE (TYPE DISTRIBUTED) SELECT 1", "EXPLAIN ANALYZE  SELECT 1"),
            ("EXPLAIN (SELECT 1)", "EXPLAIN (SELECT 1)"),
        ] {
            assert_eq!(written(sql).unwrap(), expected, "{sql}");
        }
    }

    #[test]
    fn what_athena_lacks_is_refused_where_it_stands() {
        for (sql, column, found) in [
            ("SELECT 2 ^ 3", 10, "bitwise_xor"),
            ("SELECT 1 & 3", 10, "bitwise_and"),
            ("SELECT 1 | 3", 10, "bitwise_or"),
            ("SELECT ~1", 8, "bitwise_not"),
            ("SELECT 1 == 1", 10, "`=`"),
            ("SELECT 1 << 3", 10, "bitwise_left_shift"),
            ("SELECT 'a' ~ 'b'", 12, "regexp_like"),
            ("SELECT 1_000", 8, "1_000"),
            ("SELECT 12abc", 8, "12abc"),
            ("SELECT 0x1F", 8, "from_base('1F', 16)"),
            ("SELECT 'a' 'b'", 8, "||"),
            ("SELECT U&'\\0041' UESCAPE '!'", 18, "UESCAPE"),
            ("EXPLAIN (TYPE IO) SELECT 1", 15, "LOGICAL"),
            ("SELECT * FROM t MATCH_RECOGNIZE (PATTERN (A))", 17, "MATCH_RECOGNIZE"),
        ] {
            let error = written(sql).unwrap_err();
            assert!(error.message().starts_with(&format!("line 1, column {column}: ")), "{sql}: {error}");
            assert!(error.message().contains(found), "{sql}: {error}");
        }
        for sql in
            ["SELECT X'1F', 1e5, .5, 1.5e-3, 1 AS a, t.a1, ARRAY[1][1]", "SELECT 'a' || 'b'", "SELECT 1-1,2/*x*/a"]
        {
            assert_eq!(written(sql).unwrap(), sql);
        }
    }
}
