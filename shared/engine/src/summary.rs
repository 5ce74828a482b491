//! SUMMARIZE: figures of each column of a table or query, found in one pass over its rows, under the names that DuckDB has for them.
//!
//! [`Summary::of`] puts one aggregation on top of the query's plan; its single row of figures becomes a row for each column in
//! [`Summary::rows`]. Distinct values are an estimate (HyperLogLog), and so are the quartiles of many values ([`quartiles`]).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Column, DataFusionError, internal_datafusion_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use futures::TryStreamExt;
use uuid::Uuid;

use super::information::declared;
use super::quartiles::quartiles;
use super::semantics::shown_name;
use shared::model::ColumnType;

const WORD: &str = "SUMMARIZE";
const DAY_MICROS: i64 = 86_400_000_000;
/// Microseconds of all times, exactly.
const MICROS: DataType = DataType::Decimal128(20, 0);
/// Hundredths of a percent in a whole.
const WHOLE: u128 = 10_000;

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// The query that is to be summed up: what follows SUMMARIZE, a table being all of its rows. `None` for another statement.
pub(super) fn query_of(tokens: &[TokenWithSpan]) -> Option<Vec<TokenWithSpan>> {
    let is_word = |token: &Token| matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(WORD));
    let said = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_));
    let at = tokens.iter().position(|t| said(&t)).filter(|at| is_word(&tokens[*at].token))?;
    let rest = &tokens[at + 1..];
    let is_query = match rest.iter().find(said).map(|t| &t.token) {
        Some(Token::Word(w)) => matches!(w.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::TABLE),
        Some(Token::LParen) => true,
        _ => false,
    };
    let mut query = Vec::new();
    if !is_query {
        let token = |token| TokenWithSpan { token, span: Span::empty() };
        query.extend([Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")].map(token));
    }
    query.extend_from_slice(rest);
    Some(query)
}

/// The columns of the answer.
pub(super) fn schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("column_name"),
        text("column_type"),
        text("min"),
        text("max"),
        Field::new("approx_unique", DataType::Int64, true),
        text("avg"),
        text("std"),
        text("q25"),
        text("q50"),
        text("q75"),
        Field::new("count", DataType::Int64, true),
        Field::new("null_percentage", DataType::Decimal128(9, 2), true),
    ]))
}

/// Which figures the plan's row has.
pub(super) struct Summary {
    columns: Vec<ColumnFigures>,
}

/// A column, and the places of its figures in the row.
struct ColumnFigures {
    name: String,
    ty: DataType,
    unique: usize,
    /// Values that are not null.
    values: usize,
    /// The least and the greatest value, of a type that has an order.
    bounds: Option<[usize; 2]>,
    /// The average, of numbers and times; of times in microseconds.
    average: Option<usize>,
    deviation: Option<usize>,
    quartiles: Option<usize>,
}

impl Summary {
    /// The figures of a query, and the plan that finds them: `count(*)` first.
    ///
    /// # Errors
    /// What the aggregate functions say of the columns' types.
    pub(super) fn of(state: &SessionState, query: LogicalPlan) -> Result<(Self, LogicalPlan)> {
        let mut figures = Figures { state, exprs: Vec::new() };
        figures.call("count", vec![lit(1_i64)])?;
        let fields: Vec<_> = query.schema().iter().map(|(of, field)| (of.cloned(), Arc::clone(field))).collect();
        let columns = fields.into_iter().enumerate().map(|(i, (of, field))| {
            let expr = Expr::Column(Column::new(of, field.name()));
            figures.of_column(&shown_name(i, field.name()), &expr, field.data_type())
        });
        let columns = columns.collect::<Result<_>>()?;
        let plan = LogicalPlanBuilder::from(query).aggregate(Vec::<Expr>::new(), figures.exprs)?.build()?;
        Ok((Self { columns }, plan))
    }

    /// A row for each column, from the plan's row.
    pub(super) fn rows(self, figures: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let told = async move {
            let batches: Vec<RecordBatch> = figures.try_collect().await?;
            let row = batches.into_iter().find(|batch| batch.num_rows() > 0);
            let row = row.ok_or_else(|| internal_datafusion_err!("expected a row of figures, found none"))?;
            self.told(&row)
        };
        Box::pin(RecordBatchStreamAdapter::new(schema(), futures::stream::once(told)))
    }

    fn told(&self, row: &RecordBatch) -> Result<RecordBatch> {
        let whole = |place: usize| -> Option<i64> {
            let value = arrow::compute::cast(row.column(place), &DataType::Int64).ok()?;
            value.is_valid(0).then(|| value.as_primitive::<Int64Type>().value(0))
        };
        let rows = whole(0).unwrap_or_default();
        let columns = || self.columns.iter();
        let values = |c: &ColumnFigures| whole(c.values).unwrap_or_default();
        let texts = |tell: &dyn Fn(&ColumnFigures) -> Result<Option<String>>| -> Result<ArrayRef> {
            Ok(Arc::new(columns().map(tell).collect::<Result<StringArray>>()?))
        };
        let bound = |at: usize| texts(&|c| c.bounds.map_or(Ok(None), |places| text(row.column(places[at]))));
        let quartile = |at: usize| texts(&|c| Ok(element(row, c.quartiles, at).and_then(|q| c.like_values(q))));
        let unique = columns().map(|c| Some(whole(c.unique).unwrap_or_default().min(values(c))));
        let nulls = columns().map(|c| percentage(rows.abs_diff(values(c)), rows.unsigned_abs()));
        let names: StringArray = columns().map(|c| Some(c.name.as_str())).collect();
        let types: StringArray = columns().map(|c| Some(type_name(&c.ty))).collect();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(names),
            Arc::new(types),
            bound(0)?,
            bound(1)?,
            Arc::new(unique.collect::<Int64Array>()),
            texts(&|c| Ok(number(row, c.average).and_then(|average| c.between_values(average))))?,
            texts(&|c| number(row, c.deviation).map_or(Ok(None), double))?,
            quartile(0)?,
            quartile(1)?,
            quartile(2)?,
            Arc::new(Int64Array::from(vec![rows; self.columns.len()])),
            Arc::new(nulls.collect::<Decimal128Array>().with_precision_and_scale(9, 2)?),
        ];
        Ok(RecordBatch::try_new(schema(), arrays)?)
    }
}

/// The aggregates that are asked for.
struct Figures<'a> {
    state: &'a SessionState,
    exprs: Vec<Expr>,
}

impl Figures<'_> {
    fn add(&mut self, expr: Expr) -> usize {
        let place = self.exprs.len();
        self.exprs.push(expr.alias(format!("figure {place}")));
        place
    }

    fn call(&mut self, name: &str, arguments: Vec<Expr>) -> Result<usize> {
        let function = self.state.aggregate_functions().get(name);
        let function =
            function.ok_or_else(|| internal_datafusion_err!("expected the function `{name}`, found none"))?;
        let call = function.call(arguments);
        Ok(self.add(call))
    }

    fn of_column(&mut self, name: &str, expr: &Expr, ty: &DataType) -> Result<ColumnFigures> {
        let (expr, ty) = match ty {
            DataType::Dictionary(_, value) => (cast(expr.clone(), value.as_ref().clone()), value.as_ref().clone()),
            ty => (expr.clone(), ty.clone()),
        };
        // Both zeros are one value.
        let counted = match ty.is_floating() {
            true => cast(cast(expr.clone(), DataType::Float64) + lit(0.0), DataType::Utf8),
            false => expr.clone(),
        };
        let bounds = match is_ordered(&ty) {
            true => Some([self.call("min", vec![expr.clone()])?, self.call("max", vec![expr.clone()])?]),
            false => None,
        };
        let measured = measured(&expr, &ty);
        let double = |expr: &Expr| cast(expr.clone(), DataType::Float64);
        // A sum of many microseconds has more digits than a double.
        let average = measured.as_ref().map(|expr| match ty.is_numeric() {
            true => double(expr),
            false => cast(expr.clone(), MICROS),
        });
        let average = average.map(|expr| self.call("avg", vec![expr])).transpose()?;
        let deviation = measured.as_ref().filter(|_| ty.is_numeric());
        let deviation = deviation.map(|expr| self.call("stddev", vec![double(expr)])).transpose()?;
        let quartiles = measured.map(|expr| self.add(quartiles(double(&expr))));
        Ok(ColumnFigures {
            name: name.to_owned(),
            unique: self.call("approx_distinct", vec![counted])?,
            values: self.call("count", vec![expr])?,
            ty,
            bounds,
            average,
            deviation,
            quartiles,
        })
    }
}

/// Whether values are before and after each other.
fn is_ordered(ty: &DataType) -> bool {
    match ty {
        DataType::Null | DataType::Map(..) | DataType::Union(..) => false,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_ordered(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().all(|field| is_ordered(field.data_type())),
        _ => true,
    }
}

/// Numbers as they are, times in microseconds.
fn measured(expr: &Expr, ty: &DataType) -> Option<Expr> {
    let micros = |ty: DataType| cast(cast(expr.clone(), ty), DataType::Int64);
    match ty {
        ty if ty.is_numeric() => Some(expr.clone()),
        DataType::Date32 | DataType::Date64 => Some(micros(DataType::Timestamp(TimeUnit::Microsecond, None))),
        DataType::Timestamp(_, zone) => Some(micros(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))),
        DataType::Time32(_) | DataType::Time64(_) => Some(micros(DataType::Time64(TimeUnit::Microsecond))),
        _ => None,
    }
}

impl ColumnFigures {
    /// A figure between values: of dates it is a time.
    fn between_values(&self, figure: f64) -> Option<String> {
        match &self.ty {
            ty if ty.is_numeric() => double(figure).ok().flatten(),
            DataType::Date32 | DataType::Date64 => self.time(figure, &DataType::Timestamp(TimeUnit::Microsecond, None)),
            ty => self.time(figure, ty),
        }
    }

    /// A figure as a value of the column, rounded where the type asks for it.
    fn like_values(&self, figure: f64) -> Option<String> {
        match &self.ty {
            ty if ty.is_floating() => double(figure).ok().flatten(),
            ty if ty.is_integer() => Some(format!("{:.0}", figure.round() + 0.0)),
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => {
                Some(format!("{figure:.*}", usize::try_from(*scale).unwrap_or_default()))
            }
            ty => self.time(figure, ty),
        }
    }

    /// Microseconds as a time of that type.
    fn time(&self, micros: f64, ty: &DataType) -> Option<String> {
        // Microseconds of all years that times have fit a double's digits and 64 bits.
        #[expect(clippy::cast_possible_truncation, reason = "cut off at the ends, which no time reaches")]
        let micros = micros.round() as i64;
        let array: ArrayRef = match ty {
            DataType::Timestamp(_, zone) => {
                Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone_opt(zone.clone()))
            }
            DataType::Date32 | DataType::Date64 => {
                Arc::new(Date32Array::from(vec![i32::try_from(micros.div_euclid(DAY_MICROS)).ok()?]))
            }
            DataType::Time32(_) | DataType::Time64(_) => Arc::new(Time64MicrosecondArray::from(vec![micros])),
            _ => return None,
        };
        text(&array).ok().flatten()
    }
}

/// The number in that place, if it has one.
fn number(row: &RecordBatch, place: Option<usize>) -> Option<f64> {
    let column = arrow::compute::cast(row.column(place?), &DataType::Float64).ok()?;
    column.is_valid(0).then(|| column.as_primitive::<Float64Type>().value(0))
}

/// The double at a place of the list in that place.
fn element(row: &RecordBatch, place: Option<usize>, at: usize) -> Option<f64> {
    let list = row.column(place?).as_list_opt::<i32>()?;
    let values = list.is_valid(0).then(|| list.value(0))?;
    values.as_primitive_opt::<Float64Type>()?.values().get(at).copied()
}

fn double(value: f64) -> Result<Option<String>> {
    let array: ArrayRef = Arc::new(Float64Array::from(vec![value]));
    text(&array)
}

/// The first value, as text.
fn text(array: &ArrayRef) -> Result<Option<String>> {
    if array.is_null(0) {
        return Ok(None);
    }
    if *array.data_type() == DataType::FixedSizeBinary(16)
        && let Ok(uuid) = Uuid::from_slice(array.as_fixed_size_binary().value(0))
    {
        return Ok(Some(uuid.to_string()));
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    Ok(Some(formatter.value(0).try_to_string()?))
}

/// In hundredths; none of no rows.
fn percentage(part: u64, rows: u64) -> Option<i128> {
    let rows = u128::from(rows);
    let hundredths = (u128::from(part) * WHOLE + rows / 2).checked_div(rows)?;
    i128::try_from(hundredths).ok()
}

fn type_name(ty: &DataType) -> String {
    ColumnType::from_arrow(ty).map_or_else(|_| ty.to_string(), |ty| declared(&ty))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(sql: &str) -> Option<String> {
        let tokens = crate::guard::tokens(sql).unwrap();
        query_of(&tokens).map(|query| query.iter().map(|t| format!("{} ", t.token)).collect::<String>())
    }

    #[test]
    fn a_table_stands_for_all_of_its_rows() {
        let words = |sql: &str| query(sql).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(words("summarize db.t").unwrap(), "SELECT * FROM db . t");
        assert_eq!(words("  SUMMARIZE SELECT 1").unwrap(), "SELECT 1");
        assert_eq!(words("SUMMARIZE (SELECT 1)").unwrap(), "( SELECT 1 )");
        assert_eq!(words("SELECT 1"), None);
        assert_eq!(words("\"summarize\" t"), None);
    }

    #[test]
    fn percentages_are_rounded_and_of_no_rows_there_is_none() {
        assert_eq!([percentage(1, 3), percentage(2, 3), percentage(0, 7)], [Some(3333), Some(6667), Some(0)]);
        assert_eq!(percentage(0, 0), None);
    }
}
