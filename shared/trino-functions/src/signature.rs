//! What a function takes and gives, as Trino writes it: `substr(varchar, bigint, bigint) -> varchar`.
//!
//! A type is one of [`NAMED`], `array(type)`, `map(key, value)`, `row(type, type)`, `decimal` (of any precision and scale), or a capital
//! letter that stands for whatever type is there, the same at each place: `I` for one of the integers, `N` for one of the numbers,
//! others for any. `any` is a type of its own at each place. `function(type, type, result)` is a lambda of the types before the last, which gives the last.
//! `type...` as the last argument may come any number of times. Values are converted as Trino does unasked: to a wider number, from a
//! date to a timestamp, from NULL to anything; never between text and something else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, IntervalUnit, TimeUnit};
use datafusion::common::{DataFusionError, Result};

use shared::Error;

/// Timestamps are microseconds here.
pub(crate) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Types by the name that signatures have for them.
const NAMED: &[(&str, DataType)] = &[
    ("boolean", DataType::Boolean),
    ("tinyint", DataType::Int8),
    ("smallint", DataType::Int16),
    ("integer", DataType::Int32),
    ("bigint", DataType::Int64),
    ("real", DataType::Float32),
    ("double", DataType::Float64),
    ("varchar", DataType::Utf8View),
    ("varbinary", DataType::BinaryView),
    ("date", DataType::Date32),
    ("time", DataType::Time64(TimeUnit::Microsecond)),
    ("timestamp", TIMESTAMP),
    ("interval", DataType::Interval(IntervalUnit::MonthDayNano)),
];

/// A type, or what may stand in its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Pattern {
    Type(DataType),
    /// A timestamp with time zone, of any zone.
    Zoned,
    /// A decimal of any precision and scale.
    Decimal,
    /// The same type wherever the letter stands.
    Letter(char),
    Array(Box<Pattern>),
    Map(Box<Pattern>, Box<Pattern>),
    Row(Vec<Pattern>),
    /// Any type, and not the same at each place.
    Any,
    /// A lambda: what it takes and what it gives.
    Function(Vec<Pattern>, Box<Pattern>),
}

/// What one way of calling a function takes and gives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Signature {
    /// As it was written.
    text: String,
    arguments: Vec<Pattern>,
    /// What may follow any number of times.
    rest: Option<Pattern>,
    gives: Pattern,
}

/// The type of an argument of a call with lambdas.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Value(DataType),
    /// What the lambda gives, if that is known.
    Lambda(Option<DataType>),
}

/// The types that the letters of a signature stand for.
pub(crate) type Letters = BTreeMap<char, DataType>;

/// Why arguments don't fit.
struct Unfit;

impl Signature {
    /// # Errors
    /// `Bug` for a text that is no signature.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bug = || DataFusionError::from(Error::bug(format!("expected `name(types) -> type`, found `{text}`")));
        let (call, gives) = text.split_once(" -> ").ok_or_else(bug)?;
        let (_, arguments) = call.split_once('(').ok_or_else(bug)?;
        let mut arguments: Vec<&str> = parts(arguments.strip_suffix(')').ok_or_else(bug)?);
        let rest = arguments.last().and_then(|last| last.strip_suffix("..."));
        let rest = rest.map(|rest| Pattern::parse(rest).ok_or_else(bug)).transpose()?;
        if rest.is_some() {
            arguments.pop();
        }
        let arguments = arguments.into_iter().map(|ty| Pattern::parse(ty).ok_or_else(bug)).collect::<Result<_>>()?;
        Ok(Self { text: text.to_owned(), arguments, rest, gives: Pattern::parse(gives).ok_or_else(bug)? })
    }

    /// What stands before the bracket.
    pub(crate) fn name(&self) -> &str {
        self.text.split('(').next().unwrap_or_default()
    }

    /// How many arguments it has, without those that may come any number of times.
    pub(crate) fn arguments(&self) -> usize {
        self.arguments.len()
    }

    /// The types that arguments of these types are converted to, and how far away they are; none where one can't be.
    pub(crate) fn fits(&self, types: &[DataType]) -> Option<(Vec<DataType>, u32)> {
        if types.len() < self.arguments.len() || (self.rest.is_none() && types.len() > self.arguments.len()) {
            return None;
        }
        let patterns = self.arguments.iter().chain(self.rest.iter().cycle()).take(types.len());
        let pairs: Vec<(&Pattern, &DataType)> = patterns.zip(types).collect();
        let mut letters = Letters::new();
        for (pattern, ty) in &pairs {
            pattern.bind(ty, &mut letters).ok()?;
        }
        let mut costs = 0;
        let mut converted = Vec::with_capacity(types.len());
        for (pattern, ty) in &pairs {
            let to = pattern.target(ty, &letters)?;
            costs += cost(ty, &to)?;
            converted.push(to);
        }
        Some((converted, costs))
    }

    /// The types that the arguments which are no lambdas are converted to; none where one can't be.
    pub(crate) fn fits_values(&self, types: &[DataType]) -> Option<Vec<DataType>> {
        let patterns: Vec<&Pattern> = self.arguments.iter().filter(|pattern| !pattern.is_lambda()).collect();
        if patterns.len() != types.len() {
            return None;
        }
        let mut letters = Letters::new();
        patterns.iter().zip(types).try_for_each(|(pattern, ty)| pattern.bind(ty, &mut letters)).ok()?;
        let converted = patterns.iter().zip(types).map(|(pattern, ty)| {
            let to = pattern.target(ty, &letters)?;
            cost(ty, &to).map(|_| to)
        });
        converted.collect()
    }

    /// What the letters stand for in a call with lambdas, as far as the types of the arguments and of what the lambdas give say it.
    pub(crate) fn letters(&self, arguments: &[Given]) -> Option<Letters> {
        if self.arguments.len() != arguments.len() {
            return None;
        }
        let mut letters = Letters::new();
        for (pattern, given) in self.arguments.iter().zip(arguments) {
            match given {
                Given::Value(ty) if !pattern.is_lambda() => {
                    pattern.bind(ty, &mut letters).ok()?;
                    pattern.each_letter(&mut |letter| {
                        letters.entry(letter).or_insert(DataType::Null);
                    });
                }
                Given::Lambda(_) if pattern.is_lambda() => {}
                _ => return None,
            }
        }
        for (pattern, given) in self.arguments.iter().zip(arguments) {
            if let (Pattern::Function(_, gives), Given::Lambda(Some(ty))) = (pattern, given) {
                let before = letters.clone();
                gives.bind(ty, &mut letters).ok()?;
                for (letter, ty) in &mut letters {
                    let is_wider = before.get(letter).is_some_and(|before| before != ty);
                    // A sum of decimals has more digits than its parts, and so on: it is given all that there are at once.
                    if let DataType::Decimal128(precision, _) = ty
                        && is_wider
                    {
                        *precision = DECIMAL128_MAX_PRECISION;
                    }
                }
                let to = gives.target(ty, &letters)?;
                cost(ty, &to)?;
            }
        }
        Some(letters)
    }

    /// The types of each lambda's parameters; none where they aren't known yet.
    pub(crate) fn parameters(&self, letters: &Letters) -> Vec<Option<Vec<DataType>>> {
        let of = |pattern: &Pattern| match pattern {
            Pattern::Function(takes, _) => Some(takes.iter().map(|takes| takes.known(letters)).collect()),
            _ => None,
        };
        self.arguments.iter().filter_map(of).collect()
    }

    /// The types that what each lambda gives is converted to.
    pub(crate) fn results(&self, letters: &Letters) -> Vec<Option<DataType>> {
        let of = |pattern: &Pattern| match pattern {
            Pattern::Function(_, gives) => Some(gives.known(letters)),
            _ => None,
        };
        self.arguments.iter().filter_map(of).collect()
    }

    /// The types that the arguments which are no lambdas are converted to.
    pub(crate) fn values(&self, letters: &Letters) -> Option<Vec<DataType>> {
        self.arguments.iter().filter(|pattern| !pattern.is_lambda()).map(|pattern| pattern.known(letters)).collect()
    }

    /// The type of the result.
    pub(crate) fn result(&self, letters: &Letters) -> Option<DataType> {
        self.gives.known(letters)
    }

    /// Whether a lambda takes what a lambda gives.
    pub(crate) fn is_recursive(&self) -> bool {
        let (mut taken, mut given) = (Vec::new(), Vec::new());
        for pattern in &self.arguments {
            if let Pattern::Function(takes, gives) = pattern {
                takes.iter().for_each(|takes| takes.each_letter(&mut |letter| taken.push(letter)));
                gives.each_letter(&mut |letter| given.push(letter));
            }
        }
        given.iter().any(|letter| taken.contains(letter))
    }

    /// How many parameters the lambda at this place has; none where there is no lambda.
    pub(crate) fn lambda_at(&self, at: usize) -> Option<usize> {
        match self.arguments.get(at) {
            Some(Pattern::Function(takes, _)) => Some(takes.len()),
            _ => None,
        }
    }

    /// The type of the result for arguments that were converted.
    pub(crate) fn gives(&self, types: &[DataType]) -> Option<DataType> {
        let mut letters = Letters::new();
        let patterns = self.arguments.iter().chain(self.rest.iter().cycle());
        for (pattern, ty) in patterns.zip(types) {
            pattern.bind(ty, &mut letters).ok()?;
        }
        self.gives.target(&DataType::Null, &letters)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some((_, ty)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Some(Self::Type(ty.clone()));
        }
        let inner = |prefix: &str| text.strip_prefix(prefix)?.strip_suffix(')');
        if let Some(element) = inner("array(") {
            return Some(Self::Array(Box::new(Self::parse(element)?)));
        }
        if let Some(entry) = inner("map(") {
            let [key, value] = parts(entry)[..] else { return None };
            return Some(Self::Map(Box::new(Self::parse(key)?), Box::new(Self::parse(value)?)));
        }
        let all = |texts: Vec<&str>| texts.into_iter().map(Self::parse).collect::<Option<Vec<_>>>();
        if let Some(fields) = inner("row(") {
            return Some(Self::Row(all(parts(fields))?));
        }
        if let Some(types) = inner("function(") {
            let mut types = all(parts(types))?;
            let gives = types.pop()?;
            return Some(Self::Function(types, Box::new(gives)));
        }
        match text {
            "any" => Some(Self::Any),
            "decimal" => Some(Self::Decimal),
            "timestamp with time zone" => Some(Self::Zoned),
            text if text.len() == 1 => text.chars().next().filter(char::is_ascii_uppercase).map(Self::Letter),
            _ => None,
        }
    }

    /// Learns from an argument's type what the letters stand for.
    fn bind(&self, ty: &DataType, letters: &mut Letters) -> std::result::Result<(), Unfit> {
        match (self, ty) {
            (Self::Letter(_), DataType::Null) => Ok(()),
            (Self::Letter(letter), ty) => {
                let plain = plain(ty);
                let known = letters.get(letter).cloned();
                let common = known.map_or(Some(plain.clone()), |known| common(&known, &plain)).ok_or(Unfit)?;
                letters.insert(*letter, common);
                Ok(())
            }
            (Self::Array(element), ty) => match element_of(ty) {
                Some(found) => element.bind(found, letters),
                None => Ok(()),
            },
            (Self::Map(key, value), DataType::Map(entries, _)) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 => {
                    key.bind(fields[0].data_type(), letters)?;
                    value.bind(fields[1].data_type(), letters)
                }
                _ => Err(Unfit),
            },
            (Self::Row(patterns), DataType::Struct(fields)) => {
                if patterns.len() != fields.len() {
                    return Err(Unfit);
                }
                patterns.iter().zip(fields).try_for_each(|(pattern, field)| pattern.bind(field.data_type(), letters))
            }
            _ => Ok(()),
        }
    }

    fn is_lambda(&self) -> bool {
        matches!(self, Self::Function(..))
    }

    /// The letters within, but those of lambdas.
    fn each_letter(&self, f: &mut impl FnMut(char)) {
        match self {
            Self::Letter(letter) => f(*letter),
            Self::Array(element) => element.each_letter(f),
            Self::Map(key, value) => {
                key.each_letter(f);
                value.each_letter(f);
            }
            Self::Row(fields) => fields.iter().for_each(|field| field.each_letter(f)),
            Self::Type(_) | Self::Zoned | Self::Decimal | Self::Any | Self::Function(..) => {}
        }
    }

    /// The type that this is, where all of its letters are known.
    fn known(&self, letters: &Letters) -> Option<DataType> {
        let mut known = true;
        self.each_letter(&mut |letter| known &= letters.contains_key(&letter));
        known.then(|| self.target(&DataType::Null, letters)).flatten()
    }

    /// The type that an argument of this one is converted to.
    fn target(&self, ty: &DataType, letters: &Letters) -> Option<DataType> {
        match self {
            Self::Type(DataType::Utf8View) => Some(if is_text(ty) { ty.clone() } else { DataType::Utf8View }),
            Self::Type(DataType::BinaryView) => Some(if is_binary(ty) { ty.clone() } else { DataType::BinaryView }),
            Self::Type(to) => Some(to.clone()),
            Self::Zoned => match ty {
                DataType::Timestamp(_, Some(zone)) => {
                    Some(DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))))
                }
                _ => Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            },
            Self::Decimal => match ty {
                DataType::Decimal128(..) => Some(ty.clone()),
                DataType::Null => Some(DataType::Decimal128(1, 0)),
                ty => integer_digits(ty).map(|digits| DataType::Decimal128(digits, 0)),
            },
            Self::Letter(letter) => {
                let to = letters.get(letter).cloned().unwrap_or(DataType::Null);
                let takes = match letter {
                    'I' => integer_digits(&to).is_some() || to == DataType::Null,
                    'N' => is_number(&to) || to == DataType::Null,
                    _ => true,
                };
                takes.then_some(to)
            }
            Self::Array(element) => {
                let found = element_of(ty).unwrap_or(&DataType::Null);
                Some(array_of(element.target(found, letters)?))
            }
            Self::Map(key, value) => {
                let (key_ty, value_ty) = match ty {
                    DataType::Map(entries, _) => match entries.data_type() {
                        DataType::Struct(fields) if fields.len() == 2 => (fields[0].data_type(), fields[1].data_type()),
                        _ => return None,
                    },
                    _ => (&DataType::Null, &DataType::Null),
                };
                Some(map_of(key.target(key_ty, letters)?, value.target(value_ty, letters)?))
            }
            Self::Row(patterns) => {
                let found = match ty {
                    DataType::Struct(fields) if fields.len() == patterns.len() => Some(fields),
                    _ => None,
                };
                let field = |(i, pattern): (usize, &Self)| {
                    let field = found.map(|fields| &fields[i]);
                    let ty = pattern.target(field.map_or(&DataType::Null, |field| field.data_type()), letters)?;
                    Some((field.map_or_else(|| format!("field{i}"), |field| field.name().clone()), ty))
                };
                Some(row_of(patterns.iter().enumerate().map(field).collect::<Option<Vec<_>>>()?))
            }
            Self::Any => Some(plain(ty)),
            Self::Function(..) => None,
        }
    }
}

/// The parts between commas that stand in no bracket; none of an empty text.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        parts.push(text[from..].trim());
    }
    parts
}

/// An array of elements that may be null.
pub(crate) fn array_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(nested(element), true)))
}

/// Within others, texts and binaries are not views: DataFusion's functions of arrays and maps know none.
fn nested(ty: DataType) -> DataType {
    match ty {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        ty => ty,
    }
}

/// A map whose values may be null.
pub(crate) fn map_of(key: DataType, value: DataType) -> DataType {
    let entries = vec![Field::new("key", nested(key), false), Field::new("value", nested(value), true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false)
}

/// A row of fields that may be null.
pub(crate) fn row_of(fields: impl IntoIterator<Item = (String, DataType)>) -> DataType {
    DataType::Struct(fields.into_iter().map(|(name, ty)| Field::new(name, nested(ty), true)).collect())
}

/// The type of an array's elements.
pub(crate) fn element_of(ty: &DataType) -> Option<&DataType> {
    match ty {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(field.data_type())
        }
        _ => None,
    }
}

fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

fn is_binary(ty: &DataType) -> bool {
    matches!(ty, DataType::Binary | DataType::BinaryView | DataType::LargeBinary)
}

pub(crate) fn is_number(ty: &DataType) -> bool {
    integer_digits(ty).is_some() || matches!(ty, DataType::Float32 | DataType::Float64 | DataType::Decimal128(..))
}

/// The digits that an integer type may have.
pub(crate) fn integer_digits(ty: &DataType) -> Option<u8> {
    match ty {
        DataType::Int8 => Some(3),
        DataType::Int16 => Some(5),
        DataType::Int32 => Some(10),
        DataType::Int64 => Some(19),
        _ => None,
    }
}

/// The type without what is only another way of storing it; unsigned integers, which counts have, are bigints.
fn plain(ty: &DataType) -> DataType {
    match ty {
        DataType::Dictionary(_, value) => plain(value),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        ty => ty.clone(),
    }
}

/// The type that values of both can be converted to.
pub(crate) fn common(left: &DataType, right: &DataType) -> Option<DataType> {
    match (left, right) {
        (left, right) if left == right => Some(left.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (left, right) if is_text(left) && is_text(right) => Some(DataType::Utf8View),
        (left, right) if is_binary(left) && is_binary(right) => Some(DataType::BinaryView),
        (DataType::Decimal128(..), other) | (other, DataType::Decimal128(..)) if decimal_of(other).is_some() => {
            let (p1, s1) = decimal_of(left)?;
            let (p2, s2) = decimal_of(right)?;
            let scale = s1.max(s2);
            let digits = (i16::from(p1) - i16::from(s1)).max(i16::from(p2) - i16::from(s2)) + i16::from(scale);
            let precision = u8::try_from(digits).unwrap_or(DECIMAL128_MAX_PRECISION).min(DECIMAL128_MAX_PRECISION);
            Some(DataType::Decimal128(precision, scale))
        }
        (left, right) if element_of(left).is_some() && element_of(right).is_some() => {
            Some(array_of(common(element_of(left)?, element_of(right)?)?))
        }
        (left, right) if cost(left, right).is_some() => Some(right.clone()),
        (left, right) if cost(right, left).is_some() => Some(left.clone()),
        _ => None,
    }
}

/// Precision and scale of a decimal, or of the decimal that holds an integer.
fn decimal_of(ty: &DataType) -> Option<(u8, i8)> {
    match ty {
        DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
        ty => integer_digits(ty).map(|digits| (digits, 0)),
    }
}

/// How far a conversion goes that nobody asked for; none for one that Trino does not make.
fn cost(from: &DataType, to: &DataType) -> Option<u32> {
    let rank = |ty: &DataType| match ty {
        DataType::Int8 => Some(0_u32),
        DataType::Int16 => Some(1),
        DataType::Int32 => Some(2),
        DataType::Int64 => Some(3),
        DataType::Decimal128(..) => Some(4),
        DataType::Float32 => Some(5),
        DataType::Float64 => Some(6),
        _ => None,
    };
    match (&plain(from), to) {
        (from, to) if from == to => Some(0),
        (DataType::Null, _) => Some(1),
        (from, to) if is_text(from) && is_text(to) => Some(0),
        (from, to) if is_binary(from) && is_binary(to) => Some(0),
        (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) => {
            let digits = |p: u8, s: i8| i16::from(p) - i16::from(s);
            (s2 >= s1 && digits(*p2, *s2) >= digits(*p1, *s1)).then_some(1)
        }
        (DataType::Date32 | DataType::Date64, DataType::Date32) => Some(0),
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(_, None)) => Some(1),
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(_, Some(_))) => Some(2),
        (DataType::Timestamp(_, None), DataType::Timestamp(_, None)) => Some(0),
        (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => Some(1),
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, Some(_))) => Some(0),
        (DataType::Time32(_) | DataType::Time64(_), DataType::Time64(_)) => Some(0),
        (DataType::Interval(_) | DataType::Duration(_), DataType::Interval(_)) => Some(0),
        (from, to) if element_of(from).is_some() && element_of(to).is_some() => {
            cost(element_of(from)?, element_of(to)?)
        }
        (DataType::Map(from, _), DataType::Map(to, _)) => match (from.data_type(), to.data_type()) {
            (DataType::Struct(from), DataType::Struct(to)) if from.len() == 2 && to.len() == 2 => {
                Some(cost(from[0].data_type(), to[0].data_type())? + cost(from[1].data_type(), to[1].data_type())?)
            }
            _ => None,
        },
        (DataType::Struct(from), DataType::Struct(to)) if from.len() == to.len() => {
            from.iter().zip(to).map(|(from, to)| cost(from.data_type(), to.data_type())).sum()
        }
        (from, to) => rank(to)?.checked_sub(rank(from)?).filter(|far| *far > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(signature: &str, types: &[DataType]) -> Option<Vec<DataType>> {
        Signature::parse(signature).unwrap().fits(types).map(|(types, _)| types)
    }

    #[test]
    fn numbers_widen_and_texts_do_not_become_numbers() {
        let taken = fits("f(double, bigint) -> double", &[DataType::Decimal128(3, 1), DataType::Int8]);
        assert_eq!(taken, Some(vec![DataType::Float64, DataType::Int64]));
        assert_eq!(fits("f(bigint) -> bigint", &[DataType::Float64]), None);
        assert_eq!(fits("f(bigint) -> bigint", &[DataType::Utf8]), None);
        assert_eq!(fits("f(varchar) -> bigint", &[DataType::Int64]), None);
        assert_eq!(fits("f(varchar) -> bigint", &[DataType::Utf8]), Some(vec![DataType::Utf8]));
        assert_eq!(fits("f(timestamp) -> bigint", &[DataType::Date32]), Some(vec![TIMESTAMP]));
    }

    #[test]
    fn a_letter_is_the_same_type_at_each_place() {
        let list = |ty| array_of(ty);
        let taken = fits("f(array(T), T) -> array(T)", &[list(DataType::Int32), DataType::Int64]);
        assert_eq!(taken, Some(vec![list(DataType::Int64), DataType::Int64]));
        assert_eq!(fits("f(array(T), T) -> T", &[list(DataType::Int32), DataType::Utf8]), None);
        let signature = Signature::parse("f(map(K, V), K) -> array(V)").unwrap();
        let given = [map_of(DataType::Utf8, DataType::Boolean), DataType::Utf8];
        assert_eq!(signature.gives(&given), Some(list(DataType::Boolean)));
        assert_eq!(fits("f(I) -> I", &[DataType::Float64]), None);
        assert_eq!(fits("f(N) -> N", &[DataType::Decimal128(5, 2)]), Some(vec![DataType::Decimal128(5, 2)]));
    }

    #[test]
    fn the_last_argument_may_come_often() {
        assert_eq!(fits("f(varchar, bigint...) -> bigint", &[DataType::Utf8]).map(|t| t.len()), Some(1));
        assert_eq!(
            fits("f(varchar, bigint...) -> bigint", &[DataType::Utf8, DataType::Int8, DataType::Null]).map(|t| t.len()),
            Some(3)
        );
        assert_eq!(fits("f(varchar) -> bigint", &[DataType::Utf8, DataType::Int8]), None);
        assert_eq!(fits("f() -> double", &[]), Some(vec![]));
    }
}
