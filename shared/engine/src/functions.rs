//! Functions that Athena and Presto users know and DataFusion lacks, rewritten into what it has before planning.
//!
//! A name and a number of arguments have an expression that stands for them, in [`TEMPLATES`] or in the list of
//! [`trino_functions`]. Arguments keep their place in the text, so errors still point at them. What no expression can say is in [`super::dates`]. Literals and casts of types
//! that tables have and DataFusion's SQL lacks are rewritten too.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use arrow::array::timezone::Tz;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, Select, SelectItem, TimezoneInfo, TypedString, Value,
    ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::{date_format, fields, lambdas, queries, semantics};
use shared::{Error, Result};

/// Name, number of arguments, and what stands for the call; `$1` is its first argument.
pub(super) const TEMPLATES: &[(&str, usize, &str)] = &[
    ("if", 2, "CASE WHEN $1 THEN $2 END"),
    ("if", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("count_if", 1, "count(*) FILTER (WHERE $1)"),
    ("every", 1, "bool_and($1)"),
    ("arbitrary", 1, "first_value($1) FILTER (WHERE $1 IS NOT NULL)"),
    ("any_value", 1, "first_value($1) FILTER (WHERE $1 IS NOT NULL)"),
    ("max_by", 2, "last_value($1 ORDER BY $2) FILTER (WHERE $2 IS NOT NULL)"),
    ("min_by", 2, "first_value($1 ORDER BY $2) FILTER (WHERE $2 IS NOT NULL)"),
    ("approx_percentile", 2, "approx_percentile_cont($2) WITHIN GROUP (ORDER BY $1)"),
    ("now", 0, "arrow_cast(date_trunc('millisecond', now()), 'Timestamp(Microsecond, Some(\"UTC\"))')"),
    ("current_timestamp", 0, "arrow_cast(date_trunc('millisecond', now()), 'Timestamp(Microsecond, Some(\"UTC\"))')"),
    ("localtimestamp", 0, "arrow_cast(date_trunc('millisecond', now()), 'Timestamp(Microsecond, None)')"),
    ("localtime", 0, "arrow_cast(date_trunc('millisecond', now()), 'Time64(Microsecond)')"),
    ("concat", 2, "$1 || $2"),
];

/// The expressions of the list of functions, by name and number of arguments.
static LISTED: LazyLock<BTreeMap<(&str, usize), &str>> = LazyLock::new(|| {
    let functions = trino_functions::functions();
    let calls = functions.iter().flat_map(|function| function.rewritten().iter().map(|call| (function.name, *call)));
    calls.map(|(name, call)| ((name, call.arguments()), call.template)).collect()
});

/// Rewrites every call of a function in the list.
///
/// # Errors
/// `Invalid` for a JSON path or a date format that can't be translated.
pub(super) fn rewrite(statement: &mut Parsed) -> Result<()> {
    queries::rewrite(statement)?;
    lambdas::check(statement)?;
    fields::name(statement);
    semantics::distinct_names(statement);
    calls(statement)
}

fn calls(statement: &mut Parsed) -> Result<()> {
    match statement {
        Parsed::Statement(inner) => match inner.as_mut().visit(&mut Rewrite::default()) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        },
        Parsed::Explain(explain) => calls(explain.statement.as_mut()),
        _ => Ok(()),
    }
}

/// Parts of expressions that stand for calls, all together: some name an argument several times, and calls stand in calls.
const MAX_PARTS: usize = 200_000;

#[derive(Default)]
struct Rewrite {
    /// Parts that were written so far.
    parts: usize,
    /// Of each SELECT list around, what its columns without an alias were written as.
    written: Vec<Vec<Option<String>>>,
}

impl VisitorMut for Rewrite {
    type Break = Error;

    /// A column without an alias keeps the name that the query gives it.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        semantics::bracketed(select);
        let written = |item: &SelectItem| match item {
            SelectItem::UnnamedExpr(expr) => Some(expr.to_string()),
            _ => None,
        };
        self.written.push(select.projection.iter().map(written).collect());
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        let written = self.written.pop().unwrap_or_default();
        for (item, written) in select.projection.iter_mut().zip(written) {
            let (SelectItem::UnnamedExpr(expr), Some(written)) = (&*item, written) else { continue };
            if expr.to_string() != written {
                let (expr, alias) = (expr.clone(), Ident::with_quote('"', written));
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => {
                ControlFlow::Break(Error::invalid(format!("expected a value, found the parameter `{name}`")))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let new = match semantics::literals(expr) {
            Ok(None) => self.stands_for(expr),
            literal => literal,
        };
        match new {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(new)) => {
                // Of literals there may be many, and none holds another.
                let is_literal = matches!(expr, Expr::Value(_) | Expr::TypedString(_));
                *expr = new;
                self.parts += if is_literal { 0 } else { parts(expr) };
                if self.parts > MAX_PARTS {
                    let found = self.parts;
                    return ControlFlow::Break(Error::limit(format!(
                        "expected calls that stand for at most {MAX_PARTS} parts of expressions, found {found}: nest fewer"
                    )));
                }
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn parts(expr: &Expr) -> usize {
    struct Count(usize);
    impl Visitor for Count {
        type Break = ();

        fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Continue(())
        }
    }
    let mut count = Count(0);
    let _ = expr.visit(&mut count);
    count.0
}

impl Rewrite {
    /// What stands for a call, a literal or a cast.
    fn stands_for(&self, expr: &mut Expr) -> Result<Option<Expr>> {
        match expr {
            Expr::Function(call) => replacement(call),
            Expr::TypedString(TypedString { data_type, value, .. }) => literal(value, data_type),
            Expr::AtTimeZone { timestamp, time_zone } => zoned(timestamp, time_zone),
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, .. } => {
                converted(expr, data_type)
            }
            Expr::Substring { expr, substring_from: Some(from), substring_for, .. } => {
                let args: Vec<Expr> =
                    [expr, from].into_iter().chain(substring_for).map(|arg| Expr::clone(arg)).collect();
                // In quotes, as without them it would be the same syntax again.
                let template = if args.len() == 2 { r#""substr"($1, $2)"# } else { r#""substr"($1, $2, $3)"# };
                filled(template, &args).map(Some)
            }
            // Monday is 1 and Sunday 7, as for the function.
            Expr::Extract { field, expr, .. } if is_day_of_week(field) => {
                filled("CAST(date_part('isodow', $1) AS bigint)", std::slice::from_ref(expr.as_ref())).map(Some)
            }
            Expr::Position { expr, r#in } => {
                filled("strpos($2, $1)", &[Expr::clone(expr), Expr::clone(r#in)]).map(Some)
            }
            _ => Ok(None),
        }
    }
}

fn is_day_of_week(field: &DateTimeField) -> bool {
    match field {
        DateTimeField::Dow | DateTimeField::DayOfWeek => true,
        DateTimeField::Custom(name) => name.value.eq_ignore_ascii_case("day_of_week"),
        _ => false,
    }
}

/// A literal whose type is not what DataFusion makes of it.
fn literal(value: &ValueWithSpan, ty: &DataType) -> Result<Option<Expr>> {
    let text = value.clone().into_string().unwrap_or_default();
    let quoted = Expr::Value(value.clone());
    match ty {
        // Digits past the sixth are not lost unsaid: such a time fits no column.
        DataType::Time(..) if text.rsplit_once('.').is_some_and(|(_, digits)| digits.len() > 6) => Ok(None),
        ty if semantics::is_timestamp(ty) => semantics::timestamp(&text),
        DataType::Decimal(info) | DataType::Numeric(info) | DataType::Dec(info) => Ok(semantics::decimal(&text, info)),
        ty => converted(&quoted, ty),
    }
}

/// The value in the types that tables have and SQL here does not: times of day in microseconds, uuids.
///
/// # Errors
/// `Invalid` for a literal with a leap second, which no time of day here has.
fn converted(value: &Expr, ty: &DataType) -> Result<Option<Expr>> {
    let is_leap = |text: &&str| text.split(':').nth(2).is_some_and(|seconds| seconds.starts_with("60"));
    if let Some(text) = text_of(value).filter(is_leap).filter(|_| matches!(ty, DataType::Time(..))) {
        return Err(Error::invalid(format!("expected a time of day up to 23:59:59.999999, found `{text}`")));
    }
    let template = match ty {
        DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            "arrow_cast($1, 'Time64(Microsecond)')"
        }
        DataType::Uuid => "arrow_cast(decode(replace($1, '-', ''), 'hex'), 'FixedSizeBinary(16)')",
        _ => return Ok(None),
    };
    filled(template, std::slice::from_ref(value)).map(Some)
}

/// # Errors
/// `Invalid` for a zone that is none.
fn checked_zone(zone: &str) -> Result<()> {
    let expected = || format!("expected a time zone such as `Europe/Berlin` or `+02:00`, found `{zone}`");
    zone.parse::<Tz>().map(|_| ()).map_err(|e| Error::invalid(expected()).with_source(e))
}

/// The instant in a time zone; a time without one is in UTC, the session's. DataFusion takes it for the zone's wall time.
fn zoned(time: &Expr, zone: &Expr) -> Result<Option<Expr>> {
    let Some(zone) = text_of(zone) else { return Ok(None) };
    checked_zone(zone)?;
    let template = format!(
        "arrow_cast(arrow_cast($1, 'Timestamp(Microsecond, Some(\"UTC\"))'), 'Timestamp(Microsecond, Some(\"{zone}\"))')"
    );
    filled(&template, std::slice::from_ref(time)).map(Some)
}

fn replacement(call: &Function) -> Result<Option<Expr>> {
    let (Some(name), Some(args)) = (plain_name(call), plain_args(call)) else { return Ok(None) };
    let replaced = match (name.as_str(), args.as_slice()) {
        ("json_extract_scalar", [json, path]) => {
            let (text, whole) = (json_call("json_as_text", json, path)?, json_call("json_get_json", json, path)?);
            filled("CASE WHEN left($2, 1) NOT IN ('{', '[') THEN $1 END", &[text, whole])?
        }
        ("concat", [first, rest @ ..]) if rest.len() > 1 => {
            let joined = rest.iter().try_fold(first.clone(), |left, right| filled("$1 || $2", &[left, right.clone()]));
            joined?
        }
        // The form of Unicode is a word, not a column.
        ("normalize", [text, Expr::Identifier(form)]) => {
            let form = Expr::Value(Value::SingleQuotedString(form.value.clone()).into());
            filled("\"normalize\"($1, $2)", &[text.clone(), form])?
        }
        ("nullif", [Expr::Value(ValueWithSpan { value: Value::Null, .. }), _]) => args[0].clone(),
        ("at_timezone", [time, zone]) => match zoned(time, zone)? {
            Some(zoned) => zoned,
            None => return Ok(None),
        },
        ("from_unixtime", [seconds, zone]) => {
            let instant = filled("from_unixtime($1)", std::slice::from_ref(seconds))?;
            match zoned(&instant, zone)? {
                Some(zoned) => zoned,
                None => return Ok(None),
            }
        }
        ("with_timezone", [time, zone]) => {
            let Some(name) = text_of(zone) else { return Ok(None) };
            checked_zone(name)?;
            let template = format!(
                "arrow_cast(arrow_cast($1, 'Timestamp(Microsecond, None)'), 'Timestamp(Microsecond, Some(\"{name}\"))')"
            );
            filled(&template, std::slice::from_ref(time))?
        }
        // Of DataFusion's, nulls are passed over.
        ("greatest" | "least", [first, rest @ ..]) => {
            let is_null = rest.iter().try_fold(filled("$1 IS NULL", std::slice::from_ref(first))?, |nulls, arg| {
                filled("$1 OR $2 IS NULL", &[nulls, arg.clone()])
            })?;
            let call = Expr::Function(call.clone());
            filled("CASE WHEN NOT ($1) THEN $2 END", &[is_null, call])?
        }
        ("json_extract", [json, path]) => json_call("json_get_json", json, path)?,
        ("date_format", [time, format]) => with_format(date_format::FORMAT, time, format)?,
        ("date_parse", [text, format]) => with_format(date_format::PARSE, text, format)?,
        _ => match TEMPLATES.iter().find(|(known, arity, _)| *known == name && *arity == args.len()) {
            Some((_, _, template)) => filled(template, &args)?,
            None => match LISTED.get(&(name.as_str(), args.len())) {
                Some(template) => filled(template, &args)?,
                None => return Ok(None),
            },
        },
    };
    Ok(Some(with_clauses(replaced, call)))
}

fn plain_name(call: &Function) -> Option<String> {
    match call.name.0.as_slice() {
        [part] => part.as_ident().map(|ident| ident.value.to_ascii_lowercase()),
        _ => None,
    }
}

/// The arguments of a call that has nothing but expressions in its brackets.
fn plain_args(call: &Function) -> Option<Vec<Expr>> {
    let list = match &call.args {
        FunctionArguments::List(list) => list,
        FunctionArguments::None => return Some(Vec::new()),
        FunctionArguments::Subquery(_) => return None,
    };
    let FunctionArgumentList { duplicate_treatment: None, args, clauses } = list else { return None };
    if !clauses.is_empty() {
        return None;
    }
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    args.iter().map(plain).collect()
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// FILTER and OVER of the call go to the function that stands for it.
fn with_clauses(replaced: Expr, call: &Function) -> Expr {
    let Expr::Function(mut function) = replaced else { return replaced };
    function.over.clone_from(&call.over);
    function.filter = match (function.filter, call.filter.clone()) {
        (Some(own), Some(asked)) => {
            let (left, right) = (Box::new(Expr::Nested(own)), Box::new(Expr::Nested(asked)));
            Some(Box::new(Expr::BinaryOp { left, op: BinaryOperator::And, right }))
        }
        (own, asked) => own.or(asked),
    };
    Expr::Function(function)
}

/// The template with the arguments in their places.
pub(super) fn filled(template: &str, args: &[Expr]) -> Result<Expr> {
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(template).and_then(|mut parser| parser.parse_expr());
    let mut expr = parsed.map_err(|e| Error::bug(format!("`{template}` is no expression")).with_source(e))?;
    fill(&mut expr, args);
    Ok(expr)
}

/// Puts the arguments into the places `$1`, `$2`, ….
pub(super) fn fill(node: &mut impl VisitMut, args: &[Expr]) {
    struct Fill<'a>(&'a [Expr]);
    impl VisitorMut for Fill<'_> {
        type Break = ();

        /// Afterwards, as what is put in is not looked through again: it may hold places of its own.
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Value(value) = expr
                && let Value::Placeholder(name) = &value.value
                && let Some(arg) = name[1..].parse::<usize>().ok().and_then(|n| self.0.get(n - 1))
            {
                *expr = match arg {
                    Expr::Value(_) | Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Function(_) => {
                        arg.clone()
                    }
                    other => Expr::Nested(Box::new(other.clone())),
                };
            }
            ControlFlow::Continue(())
        }
    }
    let _ = node.visit(&mut Fill(args));
}

/// A call with the steps of a JSON path such as `$.a.b[0]` as arguments.
fn json_call(function: &str, json: &Expr, path: &Expr) -> Result<Expr> {
    let text = text_of(path)
        .ok_or_else(|| Error::invalid(format!("expected a JSON path in quotes such as `'$.a[0]'`, found `{path}`")))?;
    let steps = json_steps(text)
        .ok_or_else(|| Error::invalid(format!("expected a JSON path such as `$.a.b[0]`, found `{text}`")))?;
    let template = format!("{function}($1{})", steps.iter().map(|s| format!(", {s}")).collect::<String>());
    filled(&template, std::slice::from_ref(json))
}

/// The steps as SQL literals: names in quotes, positions as numbers. `None` for what is no simple path.
fn json_steps(path: &str) -> Option<Vec<String>> {
    let mut rest = path.trim().strip_prefix('$')?;
    let mut steps = Vec::new();
    let quoted = |name: &str| format!("'{}'", name.replace('\'', "''"));
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let name = &after[..end];
            if name.is_empty() || name.contains('*') {
                return None;
            }
            steps.push(quoted(name));
            rest = &after[end..];
        } else {
            let inside = rest.strip_prefix('[')?;
            let end = inside.find(']')?;
            let step = &inside[..end];
            let name = step.strip_prefix(['"', '\'']).and_then(|s| s.strip_suffix(['"', '\'']));
            steps.push(match name {
                Some(name) => quoted(name),
                None => step.parse::<u32>().ok()?.to_string(),
            });
            rest = &inside[end + 1..];
        }
    }
    Some(steps)
}

fn with_format(function: &str, value: &Expr, format: &Expr) -> Result<Expr> {
    let Some(text) = text_of(format) else {
        return Err(Error::invalid(format!("expected a date format in quotes such as `'%Y-%m-%d'`, found `{format}`")));
    };
    let translated = chrono_format(text)?;
    // Read with as many digits of a second as there are.
    let translated = if function == date_format::PARSE { translated.replace(".%3f000", "%.f") } else { translated };
    let literal = Expr::Value(Value::SingleQuotedString(translated).into());
    filled(&format!("\"{function}\"($1, $2)"), &[value.clone(), literal])
}

/// MySQL's date format, which Presto took over, in chrono's letters.
fn chrono_format(format: &str) -> Result<String> {
    let mut translated = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            translated.push(c);
            continue;
        }
        let letter = chars.next();
        translated.push_str(match letter {
            Some('Y') => "%Y",
            Some('y') => "%y",
            Some('m') => "%m",
            Some('c') => "%-m",
            Some('M') => "%B",
            Some('b') => "%b",
            Some('d') => "%d",
            Some('e') => "%-d",
            Some('j') => "%j",
            Some('W') => "%A",
            Some('a') => "%a",
            Some('H') => "%H",
            Some('k') => "%-H",
            Some('h' | 'I') => "%I",
            Some('l') => "%-I",
            Some('i') => "%M",
            Some('s' | 'S') => "%S",
            // To the millisecond, in six digits.
            Some('f') => "%3f000",
            Some('p') => "%p",
            Some('T') => "%H:%M:%S",
            Some('r') => "%I:%M:%S %p",
            Some('v') => "%V",
            Some('x') => "%G",
            Some('%') => "%%",
            other => {
                let found = other.map_or_else(|| "%".to_owned(), |c| format!("%{c}"));
                return Err(Error::invalid(format!("expected a date format of MySQL's letters, found `{found}`")));
            }
        });
    }
    Ok(translated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::parser::DFParser;

    fn rewritten(sql: &str) -> String {
        let mut statement = DFParser::parse_sql(sql).unwrap().pop_front().unwrap();
        rewrite(&mut statement).unwrap();
        statement.to_string()
    }

    #[test]
    fn calls_become_what_datafusion_knows_and_keep_their_column_name() {
        assert_eq!(
            rewritten("SELECT year(d), if(a > 1, 'x') AS y FROM t GROUP BY year(d)"),
            "SELECT CAST(date_part('year', d) AS BIGINT) AS \"year(d)\", CASE WHEN (a > 1) THEN 'x' END AS y FROM t \
             GROUP BY CAST(date_part('year', d) AS BIGINT)"
        );
        assert_eq!(
            rewritten("SELECT max_by(a, b + 1) FILTER (WHERE c) AS m FROM t"),
            "SELECT last_value(a ORDER BY (b + 1)) FILTER (WHERE ((b + 1) IS NOT NULL) AND (c)) AS m FROM t"
        );
        assert_eq!(rewritten("SELECT f(a), year(a, b) FROM t"), "SELECT f(a), year(a, b) FROM t");
    }

    #[test]
    fn every_template_is_an_expression() {
        let args = vec![Expr::Identifier(Ident::new("x")); 3];
        for (name, arity, template) in TEMPLATES {
            let text = filled(template, &args).unwrap().to_string();
            assert!((*arity == 0 || text.contains('x')) && !text.contains('$'), "{name}/{arity}: {text}");
        }
    }

    #[test]
    fn json_paths_become_steps() {
        assert_eq!(json_steps("$.a.b[0]").unwrap(), ["'a'", "'b'", "0"]);
        assert_eq!(json_steps("$['it''s'].x").unwrap(), ["'it''''s'", "'x'"]);
        for bad in ["a.b", "$..a", "$.a[*]", "$.a[", "$.*"] {
            assert!(json_steps(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn mysql_letters_are_translated_and_unknown_ones_refused() {
        assert_eq!(chrono_format("%Y-%m-%d %H:%i:%s").unwrap(), "%Y-%m-%d %H:%M:%S");
        assert!(chrono_format("%Q").is_err());
        assert!(chrono_format("100%").is_err());
    }
}
