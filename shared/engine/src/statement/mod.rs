//! Statements that write: what they are, and their grammar in Athena's spelling (and Spark's, where it differs little).
//!
//! `sqlparser` parses the queries and expressions within them; the statements around are parsed here, because its grammar
//! lacks much of Athena's: partition transforms, OPTIMIZE, metadata of branches, several of MERGE's clauses.

mod alter;
mod call;
mod cursor;
mod define;
mod maintenance;
mod rows;

use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

pub(super) use self::alter::Alteration;
use self::cursor::{Cursor, Parsed};
pub(super) use self::define::CreateTable;
pub(super) use self::maintenance::Optimize;
pub(super) use self::rows::{Action, Arm, Delete, Insert, Into, Match, Merge, Update};
use super::errors::Place;
use super::guard::{self, Reading};
use super::session::CATALOG;
use shared::model::TableName;
use shared::{Error, Result};

/// A table as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// One to three, in lower case.
    parts: Vec<String>,
    pub(super) place: Place,
}

impl Named {
    /// # Errors
    /// `Invalid` for a name that is no table's.
    pub(super) fn of(name: &ObjectName) -> Result<Self> {
        let parts: Option<Vec<&Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
        let parts = parts.filter(|parts| (1..=3).contains(&parts.len()));
        let parts = parts.ok_or_else(|| Error::invalid(format!("expected the name of a table, found `{name}`")))?;
        let start = parts[0].span.start;
        Ok(Self {
            parts: parts.into_iter().map(|part| part.value.to_ascii_lowercase()).collect(),
            place: Place { line: start.line, column: start.column },
        })
    }

    /// The table's name; one without a database lies in `database`.
    ///
    /// # Errors
    /// `NotFound` for another catalog, `Invalid` for what can't be a name.
    pub(super) fn resolve(&self, database: &str) -> Result<TableName> {
        match self.parts.as_slice() {
            [table] => TableName::new(database, table),
            [database, table] => TableName::new(database, table),
            [catalog, database, table] if catalog == CATALOG => TableName::new(database, table),
            _ => Err(Error::not_found(format!("no catalog `{}`; the only one is `{CATALOG}`", self.parts[0]))),
        }
    }

    /// Whether these words name it, as it is named here.
    pub(super) fn is(&self, name: &[Ident]) -> bool {
        self.parts.len() == name.len() && self.parts.iter().zip(name).all(|(p, i)| i.value.eq_ignore_ascii_case(p))
    }

    /// What its columns may be qualified with where it has no alias.
    pub(super) fn table(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }
}

/// A statement that writes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, in a box")]
pub(super) enum Writing {
    CreateTable(CreateTable),
    DropTable {
        table: Named,
        if_exists: bool,
        /// Whether the files of a registered table go too.
        purge: bool,
    },
    CreateDatabase {
        name: String,
        if_not_exists: bool,
    },
    DropDatabase {
        name: String,
        if_exists: bool,
    },
    Insert(Insert),
    Delete(Delete),
    Update(Update),
    Merge(Merge),
    Alter {
        table: Named,
        alterations: Vec<Alteration>,
    },
    Optimize(Optimize),
    Vacuum {
        table: Named,
    },
    /// A table that another engine wrote, from its metadata file on.
    Register {
        table: Named,
        file: String,
    },
    /// A table leaves the catalog; its files stay.
    Unregister {
        table: Named,
    },
}

impl Writing {
    /// Its command, e.g. `DROP TABLE`, as outcomes name it.
    pub(super) fn command(&self) -> &'static str {
        match self {
            Self::CreateTable(CreateTable { query: Some(_), .. }) => "CREATE TABLE AS",
            Self::CreateTable(_) => "CREATE TABLE",
            Self::DropTable { .. } => "DROP TABLE",
            Self::CreateDatabase { .. } => "CREATE DATABASE",
            Self::DropDatabase { .. } => "DROP DATABASE",
            Self::Insert(_) => "INSERT",
            Self::Delete(_) => "DELETE",
            Self::Update(_) => "UPDATE",
            Self::Merge(_) => "MERGE",
            Self::Alter { .. } => "ALTER TABLE",
            Self::Optimize(_) => "OPTIMIZE",
            Self::Vacuum { .. } => "VACUUM",
            Self::Register { .. } => "CALL register_table",
            Self::Unregister { .. } => "CALL unregister_table",
        }
    }

    /// The table that it changes, makes or drops.
    pub(super) fn table(&self) -> Option<&Named> {
        match self {
            Self::CreateTable(CreateTable { table, .. })
            | Self::DropTable { table, .. }
            | Self::Insert(Insert { table, .. })
            | Self::Delete(Delete { table, .. })
            | Self::Update(Update { table, .. })
            | Self::Merge(Merge { table, .. })
            | Self::Alter { table, .. }
            | Self::Optimize(Optimize { table, .. })
            | Self::Vacuum { table }
            | Self::Register { table, .. }
            | Self::Unregister { table } => Some(table),
            Self::CreateDatabase { .. } | Self::DropDatabase { .. } => None,
        }
    }

    /// Whether it reads rows before it changes anything.
    pub(super) fn has_rows(&self) -> bool {
        match self {
            Self::CreateTable(made) => made.query.is_some(),
            Self::Insert(_) | Self::Delete(_) | Self::Update(_) | Self::Merge(_) => true,
            _ => false,
        }
    }
}

/// Any statement.
#[derive(Debug)]
pub(super) enum Statement {
    Reading(Reading),
    Writing(Box<Writing>),
    /// EXPLAIN of a statement that writes.
    Explain {
        statement: Box<Writing>,
        verbose: bool,
    },
}

/// What statements that write begin with. Others that do, e.g. CREATE VIEW, are for [`guard`] to refuse.
const BEGINNINGS: [&str; 15] = [
    "INSERT",
    "DELETE",
    "UPDATE",
    "MERGE",
    "CREATE TABLE",
    "CREATE DATABASE",
    "CREATE SCHEMA",
    "DROP TABLE",
    "DROP DATABASE",
    "DROP SCHEMA",
    "ALTER TABLE",
    "OPTIMIZE",
    "VACUUM",
    "TRUNCATE TABLE",
    "CALL",
];

/// Parses one statement of any kind.
///
/// # Errors
/// As [`guard::parse`]; `Denied` for a statement that is run by nobody.
pub(super) fn parse(sql: &str) -> Result<Statement> {
    let tokens = guard::tokens(sql)?;
    let mut cursor = Cursor::new(tokens.clone());
    let explains = cursor.eat("EXPLAIN");
    let verbose = explains && cursor.eat("VERBOSE");
    let analyzes = explains && cursor.eat("ANALYZE");
    if !BEGINNINGS.iter().any(|phrase| cursor.next_is(phrase)) {
        return guard::parse_tokens(sql, tokens).map(Statement::Reading);
    }
    if analyzes {
        return Err(Error::denied(
            "EXPLAIN ANALYZE of a statement that writes is not allowed: it would write; EXPLAIN does not",
        ));
    }
    let parsed = writing(&mut cursor).and_then(|statement| cursor.end().map(|()| statement));
    match parsed {
        Ok(statement) if explains => Ok(Statement::Explain { statement: Box::new(statement), verbose }),
        Ok(statement) => Ok(Statement::Writing(Box::new(statement))),
        Err(error) => {
            check_alone(&tokens)?;
            let stopped_at = cursor.parser.peek_token_ref().clone();
            let error = DataFusionError::SQL(Box::new(error), None);
            Err(guard::refuse_unparsed(error, &tokens, &stopped_at, sql))
        }
    }
}

/// # Errors
/// `Invalid` for several statements.
fn check_alone(tokens: &[TokenWithSpan]) -> Result<()> {
    let of = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_) | Token::EOF);
    let statements = tokens.split(|t| t.token == Token::SemiColon).filter(|part| part.iter().any(|t| of(&t))).count();
    match statements {
        0 | 1 => Ok(()),
        more => Err(Error::invalid(format!("expected one statement, found {more}"))),
    }
}

fn writing(cursor: &mut Cursor<'_>) -> Parsed<Writing> {
    if cursor.eat("INSERT") {
        return rows::insert(cursor).map(Writing::Insert);
    }
    if cursor.eat("DELETE") {
        return rows::delete(cursor).map(Writing::Delete);
    }
    if cursor.eat("TRUNCATE") {
        return rows::truncate(cursor).map(Writing::Delete);
    }
    if cursor.eat("UPDATE") {
        return rows::update(cursor).map(Writing::Update);
    }
    if cursor.eat("MERGE") {
        return rows::merge(cursor).map(Writing::Merge);
    }
    if cursor.eat("CREATE") {
        return define::create(cursor);
    }
    if cursor.eat("DROP") {
        return define::drop(cursor);
    }
    if cursor.eat("ALTER TABLE") {
        return alter::alter(cursor);
    }
    if cursor.eat("OPTIMIZE") {
        return maintenance::optimize(cursor).map(Writing::Optimize);
    }
    if cursor.eat("CALL") {
        return call::call(cursor);
    }
    cursor.expect("VACUUM")?;
    Ok(Writing::Vacuum { table: cursor.table()? })
}

#[cfg(test)]
mod tests;
