//! The tables that a job's SQL reads. Pure.

use std::collections::BTreeSet;

use datafusion::sql::parser::DFParser;
use datafusion::sql::resolve::resolve_table_references;
use shared::model::TableName;

/// The tables that `sql` names, names of its own subqueries apart. SQL that does not parse reads nothing here: running it says
/// what is wrong with it.
pub fn of(sql: &str, database: &str) -> BTreeSet<TableName> {
    let statements = DFParser::parse_sql(sql).unwrap_or_default();
    let references = statements.iter().filter_map(|statement| resolve_table_references(statement, true).ok());
    let names = references
        .flat_map(|(tables, _)| tables)
        .filter_map(|table| TableName::new(table.schema().unwrap_or(database), table.table()).ok());
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_wherever_they_stand() {
        let sql = "WITH c AS (SELECT * FROM a.one) SELECT (SELECT max(x) FROM two) FROM c JOIN Three ON c.i IN (SELECT i FROM four)";
        let found: Vec<String> = of(sql, "nyc").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a.one", "nyc.four", "nyc.three", "nyc.two"]);
        assert!(of("SELEC", "nyc").is_empty());
    }
}
