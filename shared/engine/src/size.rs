//! How large a statement may be: counted before it is parsed or planned, as what it unfolds to takes stack, time and memory that
//! no limit of running queries bounds.
//!
//! | counted | why |
//! |---|---|
//! | operators in a row | each is a level of the expression: the passes over it go as deep |
//! | relations, after common table expressions are put in their places | each is planned anew: 17 that name the one before twice are 131,072 |
//! | grouping sets | each row is grouped once for each |

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, GroupByWithModifier, ObjectName, Query, Select, Visit, Visitor,
};

use shared::{Error, Result};

/// Relations of a statement's plan.
const MAX_RELATIONS: u64 = 2_500;
/// Grouping sets of one SELECT.
const MAX_GROUPING_SETS: u64 = 1_024;

/// Checks what a query unfolds to.
///
/// # Errors
/// `Limit`, with the count.
pub(super) fn check_query(query: &Query) -> Result<()> {
    let mut count = Count { queries: vec![Scope::default()], tables: HashMap::new() };
    match query.visit(&mut count) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => within(count.queries.first().map_or(0, |whole| whole.relations)),
    }
}

fn within(relations: u64) -> Result<()> {
    if relations <= MAX_RELATIONS {
        return Ok(());
    }
    Err(Error::limit(format!(
        "expected a statement that reads at most {MAX_RELATIONS} tables with its common table expressions put in their places, \
         found {relations}: write the ones that are read often into a table first"
    )))
}

/// Counts the relations of nested queries, the innermost last.
struct Count {
    queries: Vec<Scope>,
    /// Queries of common table expressions, by their place in memory, with their names.
    tables: HashMap<*const Query, String>,
}

#[derive(Default)]
struct Scope {
    relations: u64,
    /// What the common table expressions of this query unfold to.
    tables: HashMap<String, u64>,
}

impl Visitor for Count {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.tables.insert(std::ptr::from_ref(table.query.as_ref()), table.alias.name.value.to_lowercase());
        }
        self.queries.push(Scope::default());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let relations = self.queries.pop().map_or(0, |scope| scope.relations);
        let table = self.tables.remove(&std::ptr::from_ref(query));
        if let Some(outer) = self.queries.last_mut() {
            match table {
                Some(name) => drop(outer.tables.insert(name, relations.max(1))),
                None => outer.relations = outer.relations.saturating_add(relations),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Error> {
        let name = match relation.0.as_slice() {
            [part] => part.as_ident().map(|ident| ident.value.to_lowercase()),
            _ => None,
        };
        let unfolded = name.and_then(|name| self.queries.iter().rev().find_map(|scope| scope.tables.get(&name)));
        let relations = unfolded.copied().unwrap_or(1);
        if let Some(query) = self.queries.last_mut() {
            query.relations = query.relations.saturating_add(relations);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        let sets = grouping_sets(&select.group_by);
        if sets <= MAX_GROUPING_SETS {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Error::limit(format!(
            "expected a GROUP BY of at most {MAX_GROUPING_SETS} grouping sets, found {sets}: a CUBE of n columns has 2^n"
        )))
    }
}

/// The grouping sets of a GROUP BY: those of its parts multiplied.
fn grouping_sets(group_by: &GroupByExpr) -> u64 {
    let (exprs, modifiers) = match group_by {
        GroupByExpr::All(modifiers) => (&[][..], modifiers),
        GroupByExpr::Expressions(exprs, modifiers) => (exprs.as_slice(), modifiers),
    };
    let whole = modifiers.iter().map(|modifier| match modifier {
        GroupByWithModifier::Cube => cube(exprs.len()),
        GroupByWithModifier::Rollup => exprs.len() as u64 + 1,
        GroupByWithModifier::Totals => 2,
        GroupByWithModifier::GroupingSets(sets) => sets_of(sets),
    });
    exprs.iter().map(sets_of).chain(whole).fold(1, u64::saturating_mul)
}

fn sets_of(expr: &Expr) -> u64 {
    match expr {
        Expr::Cube(columns) => cube(columns.len()),
        Expr::Rollup(columns) => columns.len() as u64 + 1,
        Expr::GroupingSets(sets) => {
            let of_set = |set: &Vec<Expr>| set.iter().map(sets_of).fold(1, u64::saturating_mul);
            sets.iter().map(of_set).fold(0, u64::saturating_add).max(1)
        }
        _ => 1,
    }
}

fn cube(columns: usize) -> u64 {
    u32::try_from(columns).ok().and_then(|columns| 1_u64.checked_shl(columns)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::{DFParser, Statement as Parsed};
    use datafusion::sql::sqlparser::ast::Statement;

    use super::*;
    use shared::ErrorKind;

    fn query(sql: &str) -> Box<Query> {
        match DFParser::parse_sql(sql).unwrap().pop_front().unwrap() {
            Parsed::Statement(statement) => match *statement {
                Statement::Query(query) => query,
                other => panic!("{other}"),
            },
            other => panic!("{other}"),
        }
    }

    fn relations(sql: &str) -> u64 {
        let mut count = Count { queries: vec![Scope::default()], tables: HashMap::new() };
        let _ = query(sql).visit(&mut count);
        count.queries[0].relations
    }

    #[test]
    fn a_common_table_expression_counts_where_it_is_named() {
        assert_eq!(relations("SELECT * FROM a, b WHERE x IN (SELECT x FROM c)"), 3);
        assert_eq!(relations("WITH w AS (SELECT * FROM a, b) SELECT 1"), 0);
        assert_eq!(relations("WITH w AS (SELECT * FROM a, b) SELECT * FROM w, W JOIN c ON true"), 5);
        assert_eq!(relations("WITH w AS (SELECT * FROM a) SELECT * FROM (WITH w AS (SELECT 1) SELECT * FROM w, w)"), 2);
        assert_eq!(relations("WITH RECURSIVE w AS (SELECT 1 UNION SELECT * FROM w) SELECT * FROM w"), 1);
    }

    #[test]
    fn doubling_is_found_out_before_it_is_planned() {
        let doubled = |levels: usize| {
            let steps: String = (1..=levels).map(|n| format!(", c{n} AS (SELECT * FROM c{0}, c{0})", n - 1)).collect();
            format!("WITH c0 AS (SELECT 1 AS x){steps} SELECT count(*) FROM c{levels}")
        };
        assert!(check_query(&query(&doubled(11))).is_ok());
        for levels in [12, 17, 200] {
            assert_eq!(check_query(&query(&doubled(levels))).unwrap_err().kind(), ErrorKind::Limit, "{levels}");
        }
    }

    #[test]
    fn grouping_sets_multiply() {
        let sets = |group_by: &str| {
            let query = query(&format!("SELECT 1 FROM t GROUP BY {group_by}"));
            grouping_sets(&query.body.as_select().unwrap().group_by)
        };
        for (group_by, expected) in [
            ("a, b", 1),
            ("CUBE (a, b, c)", 8),
            ("ROLLUP (a, b)", 3),
            ("a, CUBE (b, c), ROLLUP (d)", 8),
            ("GROUPING SETS ((a), (b), ())", 3),
        ] {
            assert_eq!(sets(group_by), expected, "{group_by}");
        }
        let columns = |n: usize| (0..n).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
        let cube = |n| check_query(&query(&format!("SELECT count(*) FROM t GROUP BY CUBE ({})", columns(n))));
        assert!(cube(10).is_ok());
        for columns in [11, 12, 64, 70] {
            assert_eq!(cube(columns).unwrap_err().kind(), ErrorKind::Limit, "{columns}");
        }
    }
}
