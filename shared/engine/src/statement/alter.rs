//! ALTER TABLE.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Writing;
use super::cursor::{Cursor, Parsed};
use super::define::{column, properties};
use shared::model::Column;
use shared::model::PartitionField;
use table::{Alter, Keep, Position, SortField};

/// One change of a table.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a statement has few")]
pub(crate) enum Alteration {
    To(Alter),
    /// As [`Alter::RollbackToTime`]; the time is an expression without columns.
    RollbackToTime {
        time: Expr,
        replay: bool,
    },
    /// As [`Alter::DropRef`]; no error when there is none.
    DropRefIfExists(String),
}

impl From<Alter> for Alteration {
    fn from(change: Alter) -> Self {
        Self::To(change)
    }
}

/// `column [ASC | DESC] [NULLS FIRST | LAST]`, or a transform of one; nulls lie first in ascending and last in descending order
/// unless told.
pub(super) fn sort_field(cursor: &mut Cursor<'_>) -> Parsed<SortField> {
    let PartitionField { column, transform } = cursor.partition_field()?;
    let descending = cursor.eat_one(&["ASC", "DESC"]) == Some("DESC");
    let nulls_first = match cursor.eat_one(&["NULLS FIRST", "NULLS LAST"]) {
        Some(nulls) => nulls == "NULLS FIRST",
        None => !descending,
    };
    Ok(SortField { column, transform, descending, nulls_first })
}

pub(super) fn alter(cursor: &mut Cursor<'_>) -> Parsed<Writing> {
    let table = cursor.table()?;
    let mut alterations = Vec::new();
    loop {
        alteration(cursor, &mut alterations)?;
        if !cursor.eat_token(&Token::Comma) {
            return Ok(Writing::Alter { table, alterations });
        }
    }
}

fn alteration(cursor: &mut Cursor<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    if cursor.eat("ADD PARTITION FIELD") {
        to.push(Alter::AddPartitionField(cursor.partition_field()?).into());
    } else if cursor.eat("DROP PARTITION FIELD") {
        to.push(Alter::DropPartitionField(cursor.partition_field()?).into());
    } else if cursor.eat("REPLACE PARTITION FIELD") {
        to.push(Alter::DropPartitionField(cursor.partition_field()?).into());
        cursor.expect("WITH")?;
        to.push(Alter::AddPartitionField(cursor.partition_field()?).into());
    } else if cursor.eat("ADD") {
        add(cursor, to)?;
    } else if cursor.next_is("DROP BRANCH") || cursor.next_is("DROP TAG") {
        cursor.expect("DROP")?;
        drop_reference(cursor, to)?;
    } else if cursor.eat("DROP") {
        drop(cursor, to)?;
    } else if cursor.eat("RENAME COLUMN") {
        let from = cursor.path()?;
        cursor.expect("TO")?;
        to.push(Alter::RenameColumn { from, to: cursor.ident()? }.into());
    } else if cursor.eat("CHANGE") {
        change(cursor, to)?;
    } else if cursor.eat("ALTER") {
        alter_column(cursor, to)?;
    } else if cursor.eat("SET TBLPROPERTIES") {
        to.push(Alter::SetProperties(properties(cursor)?).into());
    } else if cursor.eat("UNSET TBLPROPERTIES") {
        cursor.eat("IF EXISTS");
        to.push(Alter::RemoveProperties(cursor.list(Cursor::text)?).into());
    } else if cursor.eat("WRITE UNORDERED") {
        to.push(Alter::SetSortOrder(Vec::new()).into());
    } else if cursor.eat("WRITE ORDERED BY") {
        let fields = match cursor.parser.peek_token_ref().token {
            Token::LParen => cursor.list(sort_field)?,
            _ => cursor.items(&mut sort_field)?,
        };
        to.push(Alter::SetSortOrder(fields).into());
    } else if cursor.eat("CREATE") {
        create_reference(cursor, to)?;
    } else if cursor.eat("EXECUTE") {
        to.push(execute(cursor)?);
    } else {
        return cursor.unexpected(
            "ADD, DROP, RENAME COLUMN, CHANGE, ALTER COLUMN, SET TBLPROPERTIES, UNSET TBLPROPERTIES, WRITE ORDERED BY, \
             CREATE or DROP of a branch or tag, or EXECUTE",
        );
    }
    Ok(())
}

/// `COLUMNS (c type, …)` or `COLUMN c type [FIRST | AFTER d]`; `s.f` adds the field `f` to the struct `s`
fn add(cursor: &mut Cursor<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    cursor.eat_one(&["COLUMNS", "COLUMN"]);
    let columns = match cursor.parser.peek_token_ref().token {
        Token::LParen => cursor.list(new_column)?,
        _ => vec![new_column(cursor)?],
    };
    to.extend(columns);
    Ok(())
}

fn new_column(cursor: &mut Cursor<'_>) -> Parsed<Alteration> {
    let mut column = Column::new(cursor.path()?, cursor.column_type()?);
    if cursor.eat("NOT NULL") {
        column.required = true;
    }
    if cursor.eat("COMMENT") {
        column.comment = Some(cursor.text()?);
    }
    Ok(Alter::AddColumn { column, after: place(cursor)?.unwrap_or_default() }.into())
}

fn place(cursor: &mut Cursor<'_>) -> Parsed<Option<Position>> {
    Ok(match cursor.eat_one(&["FIRST", "AFTER", "BEFORE", "LAST"]) {
        Some("FIRST") => Some(Position::First),
        Some("AFTER") => Some(Position::After(cursor.ident()?)),
        Some("BEFORE") => Some(Position::Before(cursor.ident()?)),
        Some(_) => Some(Position::Last),
        None => None,
    })
}

fn drop(cursor: &mut Cursor<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    cursor.eat_one(&["COLUMNS", "COLUMN"]);
    let columns = match cursor.parser.peek_token_ref().token {
        Token::LParen => cursor.list(Cursor::path)?,
        _ => vec![cursor.path()?],
    };
    to.extend(columns.into_iter().map(|column| Alter::DropColumn(column).into()));
    Ok(())
}

/// `[COLUMN] a b type [COMMENT 'text'] [FIRST | AFTER c]`
fn change(cursor: &mut Cursor<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    cursor.eat("COLUMN");
    let from = cursor.path()?;
    let changed = column(cursor)?;
    let to_place = place(cursor)?;
    let name = match from.rsplit_once('.') {
        Some((within, _)) => format!("{within}.{}", changed.name),
        None => changed.name.clone(),
    };
    if name != from {
        to.push(Alter::RenameColumn { from, to: changed.name }.into());
    }
    to.push(Alter::WidenColumn { name: name.clone(), ty: changed.ty }.into());
    if changed.comment.is_some() {
        to.push(Alter::Comment { column: name.clone(), comment: changed.comment }.into());
    }
    if let Some(place) = to_place {
        to.push(Alter::MoveColumn { name, to: place }.into());
    }
    Ok(())
}

fn alter_column(cursor: &mut Cursor<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    cursor.eat("COLUMN");
    let name = cursor.path()?;
    let change = if cursor.eat_one(&["SET DATA TYPE", "TYPE"]).is_some() {
        Alter::WidenColumn { name, ty: cursor.column_type()? }
    } else if cursor.eat("DROP NOT NULL") {
        Alter::DropNotNull(name)
    } else if cursor.eat("COMMENT") {
        Alter::Comment { column: name, comment: Some(cursor.text()?) }
    } else if let Some(place) = place(cursor)? {
        Alter::MoveColumn { name, to: place }
    } else {
        return cursor.unexpected("TYPE, DROP NOT NULL, COMMENT, FIRST or AFTER");
    };
    to.push(change.into());
    Ok(())
}

/// `[OR REPLACE] BRANCH | TAG name [AS OF VERSION id] [RETAIN n DAYS]`
fn create_reference(cursor: &mut Cursor<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    let replace = cursor.eat("OR REPLACE");
    let branch = match cursor.eat_one(&["BRANCH", "TAG"]) {
        Some(kind) => kind == "BRANCH",
        None => return cursor.unexpected("BRANCH or TAG"),
    };
    let name = cursor.reference()?;
    let snapshot = if cursor.eat("AS OF VERSION") { Some(cursor.snapshot()?) } else { None };
    let max_ref_age_ms = if cursor.eat("RETAIN") {
        let token = cursor.parser.peek_token();
        let n = i64::try_from(cursor.whole_number()?).ok();
        let unit = match cursor.eat_one(&["DAYS", "DAY", "HOURS", "HOUR", "MINUTES", "MINUTE"]) {
            Some("DAYS" | "DAY") => 86_400_000,
            Some("HOURS" | "HOUR") => 3_600_000,
            Some(_) => 60_000,
            None => return cursor.unexpected("DAYS, HOURS or MINUTES"),
        };
        match n.and_then(|n| n.checked_mul(unit)) {
            Some(ms) => Some(ms),
            None => return Cursor::refused(&token, "expected a shorter time to retain"),
        }
    } else {
        None
    };
    let keep = Keep { max_ref_age_ms, ..Keep::default() };
    let change = match branch {
        true => Alter::CreateBranch { name, snapshot, keep, replace },
        false => Alter::CreateTag { name, snapshot, keep, replace },
    };
    to.push(change.into());
    Ok(())
}

fn drop_reference(cursor: &mut Cursor<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    if cursor.eat_one(&["BRANCH", "TAG"]).is_none() {
        return cursor.unexpected("BRANCH or TAG");
    }
    let if_exists = cursor.eat("IF EXISTS");
    let name = cursor.reference()?;
    to.push(if if_exists { Alteration::DropRefIfExists(name) } else { Alter::DropRef(name).into() });
    Ok(())
}

/// `rollback_to_snapshot(id[, replay => true])`, `rollback_to_timestamp(time[, replay => true])`, `fast_forward('branch', 'to')`
fn execute(cursor: &mut Cursor<'_>) -> Parsed<Alteration> {
    let procedure = cursor.eat_one(&["ROLLBACK_TO_SNAPSHOT", "ROLLBACK_TO_TIMESTAMP", "FAST_FORWARD"]);
    if procedure.is_none() {
        return cursor.unexpected("rollback_to_snapshot(…), rollback_to_timestamp(…) or fast_forward(…)");
    }
    cursor.expect_token(&Token::LParen)?;
    let done = match procedure {
        Some("ROLLBACK_TO_SNAPSHOT") => {
            let snapshot = cursor.snapshot()?;
            Alter::RollbackTo { snapshot, replay: replay(cursor)? }.into()
        }
        Some("ROLLBACK_TO_TIMESTAMP") => {
            let time = cursor.expr()?;
            Alteration::RollbackToTime { time, replay: replay(cursor)? }
        }
        _ => {
            let branch = cursor.text()?;
            cursor.expect_token(&Token::Comma)?;
            Alter::FastForward { branch, to: cursor.text()? }.into()
        }
    };
    cursor.expect_token(&Token::RParen)?;
    Ok(done)
}

/// `, replay => true`, if it stands there
fn replay(cursor: &mut Cursor<'_>) -> Parsed<bool> {
    if !cursor.eat_token(&Token::Comma) {
        return Ok(false);
    }
    let start = cursor.parser.peek_token();
    if cursor.ident()? != "replay" {
        return Cursor::refused(&start, "expected `replay => true`, found another argument");
    }
    cursor.expect_token(&Token::RArrow)?;
    match cursor.eat_one(&["TRUE", "FALSE"]) {
        Some(word) => Ok(word == "TRUE"),
        None => cursor.unexpected("TRUE or FALSE"),
    }
}

impl Cursor<'_> {
    /// The name of a branch or tag: a word, or any text in quotes.
    fn reference(&mut self) -> Parsed<String> {
        match self.parser.peek_token_ref().token {
            Token::SingleQuotedString(_) => self.text(),
            _ => Ok(self.parser.parse_identifier()?.value),
        }
    }
}
