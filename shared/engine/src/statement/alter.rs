//! ALTER TABLE.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Writing;
use super::define::{column, properties};
use super::words::{Parsed, Words};
use shared::model::Column;
use shared::model::PartitionField;
use table::{Alter, Keep, Position, SortField};

/// One change of a table.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a statement has few")]
pub(crate) enum Alteration {
    To(Alter),
    /// As [`Alter::RollbackToTime`]; the time is an expression without columns.
    RollbackToTime(Expr),
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
pub(super) fn sort_field(words: &mut Words<'_>) -> Parsed<SortField> {
    let PartitionField { column, transform } = words.partition_field()?;
    let descending = words.eat_one(&["ASC", "DESC"]) == Some("DESC");
    let nulls_first = match words.eat_one(&["NULLS FIRST", "NULLS LAST"]) {
        Some(nulls) => nulls == "NULLS FIRST",
        None => !descending,
    };
    Ok(SortField { column, transform, descending, nulls_first })
}

pub(super) fn alter(words: &mut Words<'_>) -> Parsed<Writing> {
    let table = words.table()?;
    let mut alterations = Vec::new();
    loop {
        alteration(words, &mut alterations)?;
        if !words.eat_token(&Token::Comma) {
            return Ok(Writing::Alter { table, alterations });
        }
    }
}

fn alteration(words: &mut Words<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    if words.eat("ADD PARTITION FIELD") {
        to.push(Alter::AddPartitionField(words.partition_field()?).into());
    } else if words.eat("DROP PARTITION FIELD") {
        to.push(Alter::DropPartitionField(words.partition_field()?).into());
    } else if words.eat("REPLACE PARTITION FIELD") {
        to.push(Alter::DropPartitionField(words.partition_field()?).into());
        words.expect("WITH")?;
        to.push(Alter::AddPartitionField(words.partition_field()?).into());
    } else if words.eat("ADD") {
        add(words, to)?;
    } else if words.next_is("DROP BRANCH") || words.next_is("DROP TAG") {
        words.expect("DROP")?;
        drop_reference(words, to)?;
    } else if words.eat("DROP") {
        drop(words, to)?;
    } else if words.eat("RENAME COLUMN") {
        let from = words.path()?;
        words.expect("TO")?;
        to.push(Alter::RenameColumn { from, to: words.ident()? }.into());
    } else if words.eat("CHANGE") {
        change(words, to)?;
    } else if words.eat("ALTER") {
        alter_column(words, to)?;
    } else if words.eat("SET TBLPROPERTIES") {
        to.push(Alter::SetProperties(properties(words)?).into());
    } else if words.eat("UNSET TBLPROPERTIES") {
        words.eat("IF EXISTS");
        to.push(Alter::RemoveProperties(words.list(Words::text)?).into());
    } else if words.eat("WRITE UNORDERED") {
        to.push(Alter::SetSortOrder(Vec::new()).into());
    } else if words.eat("WRITE ORDERED BY") {
        let fields = match words.parser.peek_token_ref().token {
            Token::LParen => words.list(sort_field)?,
            _ => words.items(&mut sort_field)?,
        };
        to.push(Alter::SetSortOrder(fields).into());
    } else if words.eat("CREATE") {
        create_reference(words, to)?;
    } else if words.eat("EXECUTE") {
        to.push(execute(words)?);
    } else {
        return words.unexpected(
            "ADD, DROP, RENAME COLUMN, CHANGE, ALTER COLUMN, SET TBLPROPERTIES, UNSET TBLPROPERTIES, WRITE ORDERED BY, \
             CREATE or DROP of a branch or tag, or EXECUTE",
        );
    }
    Ok(())
}

/// `COLUMNS (c type, …)` or `COLUMN c type [FIRST | AFTER d]`; `s.f` adds the field `f` to the struct `s`
fn add(words: &mut Words<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    words.eat_one(&["COLUMNS", "COLUMN"]);
    let columns = match words.parser.peek_token_ref().token {
        Token::LParen => words.list(new_column)?,
        _ => vec![new_column(words)?],
    };
    to.extend(columns);
    Ok(())
}

fn new_column(words: &mut Words<'_>) -> Parsed<Alteration> {
    let mut column = Column::new(words.path()?, words.column_type()?);
    if words.eat("NOT NULL") {
        column.required = true;
    }
    if words.eat("COMMENT") {
        column.comment = Some(words.text()?);
    }
    Ok(Alter::AddColumn { column, after: place(words)?.unwrap_or_default() }.into())
}

fn place(words: &mut Words<'_>) -> Parsed<Option<Position>> {
    Ok(match words.eat_one(&["FIRST", "AFTER", "BEFORE", "LAST"]) {
        Some("FIRST") => Some(Position::First),
        Some("AFTER") => Some(Position::After(words.ident()?)),
        Some("BEFORE") => Some(Position::Before(words.ident()?)),
        Some(_) => Some(Position::Last),
        None => None,
    })
}

fn drop(words: &mut Words<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    words.eat_one(&["COLUMNS", "COLUMN"]);
    let columns = match words.parser.peek_token_ref().token {
        Token::LParen => words.list(Words::path)?,
        _ => vec![words.path()?],
    };
    to.extend(columns.into_iter().map(|column| Alter::DropColumn(column).into()));
    Ok(())
}

/// `[COLUMN] a b type [COMMENT 'text'] [FIRST | AFTER c]`
fn change(words: &mut Words<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    words.eat("COLUMN");
    let from = words.path()?;
    let changed = column(words)?;
    let to_place = place(words)?;
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

fn alter_column(words: &mut Words<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    words.eat("COLUMN");
    let name = words.path()?;
    let change = if words.eat_one(&["SET DATA TYPE", "TYPE"]).is_some() {
        Alter::WidenColumn { name, ty: words.column_type()? }
    } else if words.eat("DROP NOT NULL") {
        Alter::DropNotNull(name)
    } else if words.eat("COMMENT") {
        Alter::Comment { column: name, comment: Some(words.text()?) }
    } else if let Some(place) = place(words)? {
        Alter::MoveColumn { name, to: place }
    } else {
        return words.unexpected("TYPE, DROP NOT NULL, COMMENT, FIRST or AFTER");
    };
    to.push(change.into());
    Ok(())
}

/// `[OR REPLACE] BRANCH | TAG name [AS OF VERSION id] [RETAIN n DAYS]`
fn create_reference(words: &mut Words<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    let replace = words.eat("OR REPLACE");
    let branch = match words.eat_one(&["BRANCH", "TAG"]) {
        Some(kind) => kind == "BRANCH",
        None => return words.unexpected("BRANCH or TAG"),
    };
    let name = words.reference()?;
    let snapshot = if words.eat("AS OF VERSION") { Some(words.snapshot()?) } else { None };
    let max_ref_age_ms = if words.eat("RETAIN") {
        let token = words.parser.peek_token();
        let n = i64::try_from(words.whole_number()?).ok();
        let unit = match words.eat_one(&["DAYS", "DAY", "HOURS", "HOUR", "MINUTES", "MINUTE"]) {
            Some("DAYS" | "DAY") => 86_400_000,
            Some("HOURS" | "HOUR") => 3_600_000,
            Some(_) => 60_000,
            None => return words.unexpected("DAYS, HOURS or MINUTES"),
        };
        match n.and_then(|n| n.checked_mul(unit)) {
            Some(ms) => Some(ms),
            None => return Words::refused(&token, "expected a shorter time to retain"),
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

fn drop_reference(words: &mut Words<'_>, to: &mut Vec<Alteration>) -> Parsed<()> {
    if words.eat_one(&["BRANCH", "TAG"]).is_none() {
        return words.unexpected("BRANCH or TAG");
    }
    let if_exists = words.eat("IF EXISTS");
    let name = words.reference()?;
    to.push(if if_exists { Alteration::DropRefIfExists(name) } else { Alter::DropRef(name).into() });
    Ok(())
}

/// `rollback_to_snapshot(id)`, `rollback_to_timestamp(time)`, `fast_forward('branch', 'to')`
fn execute(words: &mut Words<'_>) -> Parsed<Alteration> {
    let procedure = words.eat_one(&["ROLLBACK_TO_SNAPSHOT", "ROLLBACK_TO_TIMESTAMP", "FAST_FORWARD"]);
    if procedure.is_none() {
        return words.unexpected("rollback_to_snapshot(…), rollback_to_timestamp(…) or fast_forward(…)");
    }
    words.expect_token(&Token::LParen)?;
    let done = match procedure {
        Some("ROLLBACK_TO_SNAPSHOT") => Alter::RollbackTo(words.snapshot()?).into(),
        Some("ROLLBACK_TO_TIMESTAMP") => Alteration::RollbackToTime(words.expr()?),
        _ => {
            let branch = words.text()?;
            words.expect_token(&Token::Comma)?;
            Alter::FastForward { branch, to: words.text()? }.into()
        }
    };
    words.expect_token(&Token::RParen)?;
    Ok(done)
}

impl Words<'_> {
    /// The name of a branch or tag: a word, or any text in quotes.
    fn reference(&mut self) -> Parsed<String> {
        match self.parser.peek_token_ref().token {
            Token::SingleQuotedString(_) => self.text(),
            _ => Ok(self.parser.parse_identifier()?.value),
        }
    }
}
