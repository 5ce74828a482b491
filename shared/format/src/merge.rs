//! Shapes of values, and the smallest shape that holds two of them.
//!
//! [`Shape::merge`] is a join: idempotent, commutative and associative (but for the order of struct fields), so the order in which
//! files are read does not matter. The order of widening: `Unknown` → everything; tinyint → smallint → int → bigint → decimal →
//! double; float → double; date → timestamp → timestamptz; structs field by field, arrays by element; anything else → string.

use std::collections::{HashMap, HashSet};

use super::unique_name;
use shared::model::ColumnType;
use shared::model::name::to_column_name;

/// What is known of a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// No value was seen.
    Unknown,
    /// A type without parts.
    Scalar(ColumnType),
    /// Numbers in quotes, of JSON: texts, unless the column has plain numbers too.
    NumberText(ColumnType),
    Array(Box<Shape>),
    Map(Box<Shape>, Box<Shape>),
    /// Fields in order of appearance.
    Struct(Vec<(String, Shape)>),
}

/// A column of a file or table: its name and what is known of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampledColumn {
    /// An identifier, as the table's column is named.
    pub name: String,
    /// The name in the file, of formats whose columns are found by name.
    pub source: String,
    pub shape: Shape,
}

impl Shape {
    pub const STRING: Self = Self::Scalar(ColumnType::String);

    /// The smallest shape that holds the values of both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, shape) | (shape, Self::Unknown) => shape,
            (Self::Scalar(a), Self::Scalar(b)) => Self::Scalar(wider(a, b)),
            (Self::NumberText(a), Self::NumberText(b)) => Self::NumberText(wider(a, b)),
            (Self::NumberText(a), Self::Scalar(b)) | (Self::Scalar(b), Self::NumberText(a)) if number(&b).is_some() => {
                Self::Scalar(wider(a, b))
            }
            (Self::Array(a), Self::Array(b)) => Self::Array(Box::new(a.merge(*b))),
            (Self::Map(ka, va), Self::Map(kb, vb)) => Self::Map(Box::new(ka.merge(*kb)), Box::new(va.merge(*vb))),
            (Self::Struct(a), Self::Struct(b)) => Self::Struct(merge_fields(a, b)),
            _ => Self::STRING,
        }
    }

    /// The type of a column that holds such values; text where nothing was seen.
    pub fn column_type(&self) -> ColumnType {
        match self {
            Self::Unknown | Self::NumberText(_) => ColumnType::String,
            Self::Scalar(ty) => ty.clone(),
            Self::Array(item) => ColumnType::Array(Box::new(item.column_type())),
            Self::Map(key, value) => ColumnType::Map(Box::new(key.column_type()), Box::new(value.column_type())),
            Self::Struct(fields) => {
                ColumnType::Struct(fields.iter().map(|(name, shape)| (name.clone(), shape.column_type())).collect())
            }
        }
    }

    /// Whether the shape has no parts and is no text, so that text of another kind can't be stored in it.
    pub fn is_typed_scalar(&self) -> bool {
        matches!(self, Self::Scalar(ty) if *ty != ColumnType::String)
    }
}

impl From<&ColumnType> for Shape {
    fn from(ty: &ColumnType) -> Self {
        match ty {
            ColumnType::Array(item) => Self::Array(Box::new(Self::from(item.as_ref()))),
            ColumnType::Map(key, value) => {
                Self::Map(Box::new(Self::from(key.as_ref())), Box::new(Self::from(value.as_ref())))
            }
            ColumnType::Struct(fields) => {
                Self::Struct(fields.iter().map(|(name, ty)| (name.clone(), Self::from(ty))).collect())
            }
            scalar => Self::Scalar(scalar.clone()),
        }
    }
}

/// Fields by name: those of `a` in their order, then those that only `b` has.
fn merge_fields(a: Vec<(String, Shape)>, b: Vec<(String, Shape)>) -> Vec<(String, Shape)> {
    let mut merged = a;
    for (name, shape) in b {
        match merged.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = std::mem::replace(known, Shape::Unknown).merge(shape),
            None => merged.push((name, shape)),
        }
    }
    merged
}

fn wider(a: ColumnType, b: ColumnType) -> ColumnType {
    use ColumnType as T;
    if a == b {
        return a;
    }
    match (number(&a), number(&b)) {
        (Some(a), Some(b)) => return wider_number(a, b),
        (None, None) => {}
        _ => return T::String,
    }
    match (instant(&a), instant(&b)) {
        (Some(rank_a), Some(rank_b)) => {
            if rank_a > rank_b {
                a
            } else {
                b
            }
        }
        _ => T::String,
    }
}

/// Dates and times, each holding those below it.
fn instant(ty: &ColumnType) -> Option<u8> {
    match ty {
        ColumnType::Date => Some(0),
        ColumnType::Timestamp => Some(1),
        ColumnType::TimestampTz => Some(2),
        _ => None,
    }
}

/// Numbers by what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    /// Digits at most, before the point.
    Integer(u8),
    /// Digits before and after the point.
    Decimal(u8, u8),
    Float,
    Double,
}

fn number(ty: &ColumnType) -> Option<Number> {
    Some(match ty {
        ColumnType::TinyInt => Number::Integer(3),
        ColumnType::SmallInt => Number::Integer(5),
        ColumnType::Int => Number::Integer(10),
        ColumnType::BigInt => Number::Integer(19),
        ColumnType::Decimal(precision, scale) => {
            let scale = scale.unsigned_abs();
            Number::Decimal(precision.saturating_sub(scale), scale)
        }
        ColumnType::Float => Number::Float,
        ColumnType::Double => Number::Double,
        _ => return None,
    })
}

fn wider_number(a: Number, b: Number) -> ColumnType {
    match (a, b) {
        (Number::Integer(a), Number::Integer(b)) => match a.max(b) {
            3 => ColumnType::TinyInt,
            5 => ColumnType::SmallInt,
            10 => ColumnType::Int,
            _ => ColumnType::BigInt,
        },
        (Number::Integer(digits), Number::Decimal(whole, scale))
        | (Number::Decimal(whole, scale), Number::Integer(digits)) => decimal(whole.max(digits), scale),
        (Number::Decimal(whole_a, scale_a), Number::Decimal(whole_b, scale_b)) => {
            decimal(whole_a.max(whole_b), scale_a.max(scale_b))
        }
        (Number::Float, Number::Float) => ColumnType::Float,
        _ => ColumnType::Double,
    }
}

/// The decimal with so many digits on both sides; past 38 together only a double is wide enough.
fn decimal(whole: u8, scale: u8) -> ColumnType {
    match (whole.saturating_add(scale), i8::try_from(scale)) {
        (precision @ 1..=38, Ok(scale)) => ColumnType::Decimal(precision, scale),
        _ => ColumnType::Double,
    }
}

/// Columns by what the files call them: those of `a` in their order, then those that only `b` has. A column of `b` is that of `a`
/// with the same source, else one that differs in case or in what names can't hold and that `b` does not have besides; of others with
/// the same name the later one is numbered. For formats whose columns are found by their names in each file.
pub fn merge_by_source(a: Vec<SampledColumn>, b: Vec<SampledColumn>) -> Vec<SampledColumn> {
    let of_b: HashSet<String> = b.iter().map(|column| column.source.clone()).collect();
    let mut by_source: HashMap<String, usize> =
        a.iter().enumerate().map(|(at, column)| (column.source.clone(), at)).collect();
    let mut merged = a;
    for mut column in b {
        let plain = to_column_name(&column.source);
        let alike = |known: &SampledColumn| {
            !of_b.contains(&known.source) && (known.name == column.name || to_column_name(&known.source) == plain)
        };
        let found = by_source.get(&column.source).copied().or_else(|| merged.iter().position(alike));
        match found {
            Some(at) => {
                let known = &mut merged[at].shape;
                *known = std::mem::replace(known, Shape::Unknown).merge(column.shape);
            }
            None => {
                column.name = unique_name(&plain, |name| merged.iter().any(|known| known.name == name));
                by_source.insert(column.source.clone(), merged.len());
                merged.push(column);
            }
        }
    }
    merged
}

/// Columns by name: those of `a` in their order, then those that only `b` has. For CSV files, whose names are the table's.
pub fn merge_by_name(a: Vec<SampledColumn>, b: Vec<SampledColumn>) -> Vec<SampledColumn> {
    let mut merged = a;
    for column in b {
        match merged.iter_mut().find(|known| known.name == column.name) {
            Some(known) => known.shape = std::mem::replace(&mut known.shape, Shape::Unknown).merge(column.shape),
            None => merged.push(column),
        }
    }
    merged
}

/// Columns by position: the longer list's names, where one's place has a made-up name the other's. For formats whose columns are
/// found by position. `None` when names at one place differ: a reader would mix the columns up.
pub fn merge_by_position(a: Vec<SampledColumn>, b: Vec<SampledColumn>) -> Option<Vec<SampledColumn>> {
    let (mut longer, shorter) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    for (position, column) in shorter.into_iter().enumerate() {
        let known = &mut longer[position];
        if known.name != column.name {
            let made_up = positional_name(position);
            if known.name == made_up {
                known.name = column.name;
                known.source = column.source;
            } else if column.name != made_up {
                return None;
            }
        }
        known.shape = std::mem::replace(&mut known.shape, Shape::Unknown).merge(column.shape);
    }
    Some(longer)
}

/// The name of a column that has none, as Glue makes it up.
pub fn positional_name(position: usize) -> String {
    format!("col{position}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scalar() -> impl Strategy<Value = ColumnType> {
        use ColumnType as T;
        prop_oneof![
            prop::sample::select(vec![
                T::Boolean,
                T::TinyInt,
                T::SmallInt,
                T::Int,
                T::BigInt,
                T::Float,
                T::Double,
                T::String,
                T::Binary,
                T::Date,
                T::Timestamp,
                T::TimestampTz,
            ]),
            (0u8..=38, 0u8..=38)
                .prop_filter("decimal", |(whole, scale)| (1..=38).contains(&(whole + scale)))
                .prop_map(|(whole, scale)| T::Decimal(whole + scale, i8::try_from(scale).unwrap())),
        ]
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let quoted = prop::sample::select(vec![ColumnType::BigInt, ColumnType::Decimal(38, 0), ColumnType::Double]);
        let leaf = prop_oneof![
            1 => Just(Shape::Unknown),
            1 => quoted.prop_map(Shape::NumberText),
            6 => scalar().prop_map(Shape::Scalar),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|item| Shape::Array(Box::new(item))),
                (inner.clone(), inner.clone()).prop_map(|(k, v)| Shape::Map(Box::new(k), Box::new(v))),
                prop::collection::btree_map("[a-d]", inner, 1..4)
                    .prop_map(|fields| Shape::Struct(fields.into_iter().collect())),
            ]
        })
    }

    /// The same shape with struct fields in order of name: their order is the one thing that depends on who comes first.
    fn sorted(shape: Shape) -> Shape {
        match shape {
            Shape::Array(item) => Shape::Array(Box::new(sorted(*item))),
            Shape::Map(key, value) => Shape::Map(Box::new(sorted(*key)), Box::new(sorted(*value))),
            Shape::Struct(fields) => {
                let mut fields: Vec<_> = fields.into_iter().map(|(name, shape)| (name, sorted(shape))).collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                Shape::Struct(fields)
            }
            other => other,
        }
    }

    proptest! {
        #[test]
        fn merging_with_itself_changes_nothing(a in shape()) {
            prop_assert_eq!(a.clone().merge(a.clone()), a);
        }

        #[test]
        fn the_order_of_two_shapes_does_not_matter(a in shape(), b in shape()) {
            prop_assert_eq!(sorted(a.clone().merge(b.clone())), sorted(b.merge(a)));
        }

        #[test]
        fn the_grouping_of_three_shapes_does_not_matter(a in shape(), b in shape(), c in shape()) {
            let left = a.clone().merge(b.clone()).merge(c.clone());
            let right = a.merge(b.merge(c));
            prop_assert_eq!(sorted(left), sorted(right));
        }

        #[test]
        fn a_merged_type_survives_its_text(a in shape(), b in shape()) {
            let ty = a.merge(b).column_type();
            prop_assert_eq!(ty.to_string().parse::<ColumnType>().unwrap(), ty);
        }
    }

    #[test]
    fn types_widen_as_documented() {
        for (a, b, wide) in [
            ("int", "bigint", "bigint"),
            ("bigint", "double", "double"),
            ("date", "timestamp", "timestamp"),
            ("timestamp", "timestamptz", "timestamptz"),
            ("boolean", "bigint", "string"),
            ("bigint", "decimal(38,0)", "decimal(38,0)"),
            ("int", "decimal(5,2)", "decimal(12,2)"),
            ("decimal(38,0)", "decimal(38,38)", "double"),
            ("float", "int", "double"),
            ("struct<a:int>", "struct<a:double,b:string>", "struct<a:double,b:string>"),
            ("array<int>", "array<string>", "array<string>"),
            ("array<int>", "int", "string"),
            ("date", "int", "string"),
        ] {
            let parse = |text: &str| Shape::from(&text.parse::<ColumnType>().unwrap());
            assert_eq!(parse(a).merge(parse(b)).column_type().to_string(), wide, "{a} and {b}");
        }
    }

    fn columns(names: &[&str]) -> Vec<SampledColumn> {
        let column = |name: &&str| SampledColumn {
            name: (*name).to_owned(),
            source: (*name).to_owned(),
            shape: Shape::Scalar(ColumnType::BigInt),
        };
        names.iter().map(column).collect()
    }

    #[test]
    fn columns_by_position_may_only_grow_at_the_end() {
        let names = |columns: Vec<SampledColumn>| columns.into_iter().map(|c| c.name).collect::<Vec<_>>();
        assert_eq!(merge_by_position(columns(&["a", "b"]), columns(&["a"])).map(names).unwrap(), ["a", "b"]);
        assert_eq!(merge_by_position(columns(&["a"]), columns(&["a", "b"])).map(names).unwrap(), ["a", "b"]);
        assert_eq!(merge_by_position(columns(&["a", "col1"]), columns(&["a", "b"])).map(names).unwrap(), ["a", "b"]);
        assert!(merge_by_position(columns(&["a", "b"]), columns(&["b", "a"])).is_none());
    }

    #[test]
    fn columns_by_source_are_kept_apart_when_one_file_has_both() {
        let merged = |a: &[&str], b: &[&str]| {
            let sourced = |names: &[&str]| {
                let mut columns = columns(names);
                columns.iter_mut().for_each(|column| column.name = to_column_name(&column.source));
                super::super::unique_names(columns, &mut Vec::new())
            };
            let merged = merge_by_source(sourced(a), sourced(b));
            merged.into_iter().map(|c| format!("{}={}", c.name, c.source)).collect::<Vec<_>>()
        };
        assert_eq!(merged(&["userId"], &["userid", "b"]), ["userid=userId", "b=b"]);
        assert_eq!(merged(&["a.b"], &["a_b"]), ["a_b=a.b"]);
        assert_eq!(merged(&["a.b"], &["a_b", "a.b"]), ["a_b=a.b", "a_b_2=a_b"]);
        assert_eq!(merged(&["ID", "id"], &["id", "ID"]), ["id_2=ID", "id=id"]);
    }

    #[test]
    fn columns_by_name_may_come_in_any_order() {
        let merged = merge_by_name(columns(&["a", "b"]), columns(&["b", "c", "a"]));
        assert_eq!(merged.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
