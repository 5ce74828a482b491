//! Names of types: as `CREATE TABLE` takes them, and as Athena's `information_schema` has them.

use std::borrow::Cow;

use shared::model::ColumnType;

/// The type as a statement of ours declares it, in Athena's words where Athena has the type.
pub(crate) fn declared(ty: &ColumnType) -> String {
    match ty {
        ColumnType::TimestampTz => "timestamp with time zone".into(),
        ColumnType::TimestampNs => "timestamp(9)".into(),
        ColumnType::TimestampTzNs => "timestamp(9) with time zone".into(),
        ColumnType::Time => "time(6)".into(),
        ColumnType::Array(item) => format!("array<{}>", declared(item)),
        ColumnType::Map(key, value) => format!("map<{},{}>", declared(key), declared(value)),
        ColumnType::Struct(fields) => {
            let field = |(name, ty): &(String, ColumnType)| format!("{}:{}", field_name(name, '`'), declared(ty));
            format!("struct<{}>", fields.iter().map(field).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// The type in the words that Athena's `information_schema` uses.
pub(super) fn presto(ty: &ColumnType) -> String {
    match ty {
        ColumnType::Int => "integer".into(),
        ColumnType::Float => "real".into(),
        ColumnType::String => "varchar".into(),
        ColumnType::Binary => "varbinary".into(),
        ColumnType::Timestamp => "timestamp(6)".into(),
        ColumnType::TimestampTz => "timestamp(6) with time zone".into(),
        ColumnType::TimestampNs => "timestamp(9)".into(),
        ColumnType::TimestampTzNs => "timestamp(9) with time zone".into(),
        ColumnType::Time => "time(6)".into(),
        ColumnType::Array(item) => format!("array({})", presto(item)),
        ColumnType::Map(key, value) => format!("map({}, {})", presto(key), presto(value)),
        ColumnType::Struct(fields) => {
            let field = |(name, ty): &(String, ColumnType)| format!("{} {}", field_name(name, '"'), presto(ty));
            format!("row({})", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A field's name, in quotes when it is no identifier.
fn field_name(name: &str, quote: char) -> Cow<'_, str> {
    if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(text: &str) -> ColumnType {
        text.parse().unwrap()
    }

    #[test]
    fn types_are_written_as_athena_writes_them() {
        assert_eq!(presto(&ty("struct<a:int,b:array<string>>")), "row(a integer, b array(varchar))");
        assert_eq!(presto(&ty("struct<`http-method`:string>")), "row(\"http-method\" varchar)");
    }

    #[test]
    fn types_are_written_as_statements_declare_them() {
        for (ours, said) in [
            ("map<string,timestamptz>", "map<string,timestamp with time zone>"),
            ("struct<`a-b`:time,c:uuid>", "struct<`a-b`:time(6),c:uuid>"),
            ("timestamptz_ns", "timestamp(9) with time zone"),
            ("decimal(10,2)", "decimal(10,2)"),
        ] {
            assert_eq!(declared(&ty(ours)), said);
        }
    }
}
