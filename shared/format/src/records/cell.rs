//! Cells of CSV files into columns.

use super::column::{Buffer, Values};
use shared::model::ColumnType;
use shared::text::{self, Misfit};
use shared::{Error, Result};

/// # Errors
/// `Invalid` for a type whose values no cell holds.
pub(crate) fn check_cell_type(name: &str, ty: &ColumnType) -> Result<()> {
    match ty {
        ColumnType::Binary
        | ColumnType::Uuid
        | ColumnType::TimestampNs
        | ColumnType::TimestampTzNs
        | ColumnType::Array(_)
        | ColumnType::Map(..)
        | ColumnType::Struct(_) => {
            Err(Error::invalid(format!("expected a type that CSV files hold in column `{name}`, found `{ty}`")))
        }
        _ => Ok(()),
    }
}

impl Buffer {
    /// Adds the value of a cell. `inferred`: the type is what a crawl saw in the values, so that a number with leading zeros or a
    /// plus sign, which none of them had, is a text.
    pub(crate) fn push_cell(&mut self, cell: &[u8], inferred: bool) -> Result<(), Misfit> {
        let unsigned = cell.strip_prefix(b"+").or_else(|| cell.strip_prefix(b"-")).unwrap_or(cell);
        let is_code = cell.starts_with(b"+") && unsigned.iter().all(u8::is_ascii_digit);
        let is_text = is_code || matches!(unsigned, [b'0', b'0'..=b'9', ..]);
        let number = matches!(
            self.values,
            Values::TinyInt(_)
                | Values::SmallInt(_)
                | Values::Int(_)
                | Values::BigInt(_)
                | Values::Double(_)
                | Values::Float(_)
                | Values::Decimal(_)
        );
        if inferred && is_text && number {
            return Err(Misfit::Form);
        }
        let whole = || text::integer(cell);
        match (&mut self.values, &self.ty) {
            (Values::Bytes(ends, data), _) => {
                if std::str::from_utf8(cell).is_err() {
                    return Err(Misfit::Form);
                }
                data.extend_from_slice(cell);
                ends.push(data.len());
            }
            (Values::TinyInt(v), _) => v.push(narrow(whole()?)?),
            (Values::SmallInt(v), _) => v.push(narrow(whole()?)?),
            (Values::Int(v), _) => v.push(narrow(whole()?)?),
            (Values::BigInt(v), _) => v.push(whole()?),
            (Values::Double(v), _) => v.push(text::double(cell)?),
            (Values::Float(v), _) => v.push(float(cell)?),
            (Values::Decimal(v), ColumnType::Decimal(precision, scale)) => {
                v.push(text::decimal(cell, *precision, *scale)?);
            }
            (Values::Boolean(v), _) => v.append(text::boolean(cell)?),
            (Values::Date(v), _) => v.push(text::date(cell)?),
            (Values::Timestamp(v), _) => v.push(text::timestamp(cell)?),
            (Values::Time(v), _) => v.push(text::time(cell)?),
            (Values::Decimal(_) | Values::Array(..) | Values::Map(..) | Values::Struct(..), _) => {
                return Err(Misfit::Form);
            }
        }
        self.mark_valid();
        Ok(())
    }

    /// Whether values are texts, of which every one is a value.
    pub(crate) fn is_text(&self) -> bool {
        self.ty == ColumnType::String
    }
}

fn narrow<T: TryFrom<i64>>(value: i64) -> Result<T, Misfit> {
    T::try_from(value).map_err(|_| Misfit::Range)
}

fn float(cell: &[u8]) -> Result<f32, Misfit> {
    let double = text::double(cell)?;
    // The nearest float of the text is not always that of the nearest double.
    let value = std::str::from_utf8(cell).ok().and_then(|text| text.parse::<f32>().ok());
    match value {
        Some(value) if value.is_infinite() && double.is_finite() => Err(Misfit::Range),
        Some(value) => Ok(value),
        None => Err(Misfit::Form),
    }
}
