//! Arrays and maps as ranges of their elements: how they are read, how new ones are put together, and when two elements are equal.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DynComparator, ListArray, MapArray, NullBufferBuilder, StructArray, make_comparator,
    new_empty_array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::kernels::interleave::interleave;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::common::{DataFusionError, Result};

use super::call::Call;
use super::types::type_name;
use shared::Error;

/// Where the elements of each row are.
#[derive(Debug, Clone)]
pub(crate) struct Ranges {
    offsets: OffsetBuffer<i32>,
    nulls: Option<NullBuffer>,
    constant: bool,
}

impl Ranges {
    /// The places of a row's elements; none where it is null.
    pub(crate) fn get(&self, row: usize) -> Option<Range<usize>> {
        let row = if self.constant { 0 } else { row };
        let valid = self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let place = |at: usize| usize::try_from(self.offsets[at]).unwrap_or(0);
        valid.then(|| place(row)..place(row + 1))
    }
}

/// An argument that is an array.
#[derive(Debug, Clone)]
pub(crate) struct Lists {
    pub(crate) ranges: Ranges,
    pub(crate) values: ArrayRef,
}

impl Lists {
    /// # Errors
    /// `Bug` for an argument of another type.
    pub(crate) fn of(call: &Call<'_>, at: usize) -> Result<Self> {
        Self::new(&call.arguments[at], call.constant[at])
    }

    /// # Errors
    /// `Bug` for an array of another type.
    pub(crate) fn new(array: &ArrayRef, constant: bool) -> Result<Self> {
        let list = array.as_list_opt::<i32>().ok_or_else(|| unexpected("an array", array.data_type()))?;
        let ranges = Ranges { offsets: list.offsets().clone(), nulls: list.nulls().cloned(), constant };
        Ok(Self { ranges, values: Arc::clone(list.values()) })
    }

    pub(crate) fn get(&self, row: usize) -> Option<Range<usize>> {
        self.ranges.get(row)
    }

    /// The type of the elements.
    pub(crate) fn ty(&self) -> &DataType {
        self.values.data_type()
    }
}

/// An argument that is a map.
#[derive(Debug, Clone)]
pub(crate) struct Maps {
    pub(crate) ranges: Ranges,
    pub(crate) keys: ArrayRef,
    pub(crate) values: ArrayRef,
}

impl Maps {
    /// # Errors
    /// `Bug` for an argument of another type.
    pub(crate) fn of(call: &Call<'_>, at: usize) -> Result<Self> {
        Self::new(&call.arguments[at], call.constant[at])
    }

    /// # Errors
    /// `Bug` for an array of another type.
    pub(crate) fn new(array: &ArrayRef, constant: bool) -> Result<Self> {
        let map = array.as_map_opt().ok_or_else(|| unexpected("a map", array.data_type()))?;
        let ranges = Ranges { offsets: map.offsets().clone(), nulls: map.nulls().cloned(), constant };
        Ok(Self { ranges, keys: Arc::clone(map.keys()), values: Arc::clone(map.values()) })
    }

    pub(crate) fn get(&self, row: usize) -> Option<Range<usize>> {
        self.ranges.get(row)
    }
}

/// An argument that is one value in each row, in the type of others.
#[derive(Debug, Clone)]
pub(crate) struct Single {
    pub(crate) values: ArrayRef,
    constant: bool,
}

impl Single {
    /// The argument in the type `ty`.
    ///
    /// # Errors
    /// What Arrow says of a cast.
    pub(crate) fn of(call: &Call<'_>, at: usize, ty: &DataType) -> Result<Self> {
        Ok(Self { values: cast(&call.arguments[at], ty)?, constant: call.constant[at] })
    }

    /// The place of a row's value, whether it is null or not.
    pub(crate) fn place(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }

    /// The place of a row's value; none where it is null.
    pub(crate) fn get(&self, row: usize) -> Option<usize> {
        let place = self.place(row);
        is_valid(&self.values, place).then_some(place)
    }
}

/// Whether an element is there; none of an array of the type NULL is.
pub(crate) fn is_valid(values: &ArrayRef, at: usize) -> bool {
    *values.data_type() != DataType::Null && values.is_valid(at)
}

fn unexpected(expected: &str, found: &DataType) -> DataFusionError {
    DataFusionError::from(Error::bug(format!("expected {expected}, found {}", type_name(found))))
}

/// Puts rows of elements together that are taken from arrays.
pub(crate) struct Gather {
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    /// Which array, and which of its elements.
    taken: Vec<(usize, usize)>,
}

impl Gather {
    pub(crate) fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, nulls: NullBufferBuilder::new(rows), taken: Vec::new() }
    }

    pub(crate) fn push(&mut self, array: usize, at: usize) {
        self.taken.push((array, at));
    }

    pub(crate) fn extend(&mut self, array: usize, range: Range<usize>) {
        self.taken.extend(range.map(|at| (array, at)));
    }

    /// Ends a row.
    ///
    /// # Errors
    /// `Limit` for more elements than an array of Arrow can have.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.offsets.push(offset(self.taken.len())?);
        self.nulls.append_non_null();
        Ok(())
    }

    /// A row that is null.
    pub(crate) fn null(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or(0));
        self.nulls.append_null();
    }

    /// The rows as arrays of elements of `arrays`, which have one type.
    ///
    /// # Errors
    /// `Bug` where `gives` is no type of arrays; what Arrow says.
    pub(crate) fn lists(mut self, arrays: &[&ArrayRef], gives: &DataType) -> Result<ArrayRef> {
        let values = taken(arrays, &self.taken)?;
        list_array(self.offsets, self.nulls.finish(), values, gives)
    }

    /// The rows as maps of keys and values at the same places of `keys` and `values`.
    ///
    /// # Errors
    /// `Bug` where `gives` is no type of maps; what Arrow says.
    pub(crate) fn maps(mut self, keys: &[&ArrayRef], values: &[&ArrayRef], gives: &DataType) -> Result<ArrayRef> {
        let (keys, values) = (taken(keys, &self.taken)?, taken(values, &self.taken)?);
        map_array(self.offsets, self.nulls.finish(), keys, values, gives)
    }
}

/// # Errors
/// `Limit` for more elements than an array of Arrow can have.
pub(crate) fn offset(elements: usize) -> Result<i32> {
    i32::try_from(elements).map_err(|_| {
        let expected = format!("expected at most {} elements in the arrays of a batch, found {elements}", i32::MAX);
        DataFusionError::from(Error::limit(expected))
    })
}

/// The elements at these places; of no arrays there are none.
fn taken(arrays: &[&ArrayRef], places: &[(usize, usize)]) -> Result<ArrayRef> {
    let arrays: Vec<&dyn Array> = arrays.iter().map(|array| array.as_ref()).collect();
    match arrays.first() {
        Some(array) if places.is_empty() => Ok(new_empty_array(array.data_type())),
        Some(array) if *array.data_type() == DataType::Null => Ok(new_null_array(&DataType::Null, places.len())),
        _ => {
            check_bytes(&arrays, places)?;
            Ok(interleave(&arrays, places)?)
        }
    }
}

/// # Errors
/// `Limit` for texts or binaries of more bytes than Arrow's offsets reach.
fn check_bytes(arrays: &[&dyn Array], places: &[(usize, usize)]) -> Result<()> {
    let offsets = |array: &&dyn Array| match array.data_type() {
        DataType::Utf8 => array.as_string_opt::<i32>().map(|texts| texts.offsets().clone()),
        DataType::Binary => array.as_binary_opt::<i32>().map(|binaries| binaries.offsets().clone()),
        _ => None,
    };
    let Some(offsets) = arrays.iter().map(offsets).collect::<Option<Vec<_>>>() else { return Ok(()) };
    let length = |(array, at): &(usize, usize)| i64::from(offsets[*array][at + 1] - offsets[*array][*at]);
    match places.iter().map(length).sum::<i64>() {
        bytes if bytes <= i64::from(i32::MAX) => Ok(()),
        bytes => Err(DataFusionError::from(Error::limit(format!(
            "expected at most {} bytes in the arrays of a batch, found {bytes}",
            i32::MAX
        )))),
    }
}

/// Arrays of elements.
///
/// # Errors
/// `Bug` where `gives` is no type of arrays; what Arrow says.
pub(crate) fn list_array(
    offsets: Vec<i32>,
    nulls: Option<NullBuffer>,
    values: ArrayRef,
    gives: &DataType,
) -> Result<ArrayRef> {
    let DataType::List(field) = gives else { return Err(unexpected("the type of an array", gives)) };
    let values = in_type(&values, field.data_type())?;
    Ok(Arc::new(ListArray::try_new(Arc::clone(field), OffsetBuffer::new(offsets.into()), values, nulls)?))
}

/// Maps of keys and values.
///
/// # Errors
/// `Bug` where `gives` is no type of maps; what Arrow says.
pub(crate) fn map_array(
    offsets: Vec<i32>,
    nulls: Option<NullBuffer>,
    keys: ArrayRef,
    values: ArrayRef,
    gives: &DataType,
) -> Result<ArrayRef> {
    let DataType::Map(field, sorted) = gives else { return Err(unexpected("the type of a map", gives)) };
    let DataType::Struct(fields) = field.data_type() else { return Err(unexpected("the type of a map", gives)) };
    let columns = vec![in_type(&keys, fields[0].data_type())?, in_type(&values, fields[1].data_type())?];
    let entries = StructArray::try_new_with_length(fields.clone(), columns, None, keys.len())?;
    let offsets = OffsetBuffer::new(offsets.into());
    Ok(Arc::new(MapArray::try_new(Arc::clone(field), offsets, entries, nulls, *sorted)?))
}

/// The array in another type of the same values.
///
/// # Errors
/// What Arrow says of a cast.
pub(crate) fn in_type(array: &ArrayRef, ty: &DataType) -> Result<ArrayRef> {
    Ok(if array.data_type() == ty { Arc::clone(array) } else { cast(array, ty)? })
}

/// The floating point numbers within as they are compared: one zero, one NaN.
pub(crate) fn comparable(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Float64 => {
            let of = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(of))
        }
        DataType::Float32 => {
            let of = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(of))
        }
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let values = comparable(list.values())?;
            Arc::new(ListArray::try_new(Arc::clone(field), list.offsets().clone(), values, list.nulls().cloned())?)
        }
        DataType::Struct(fields) => {
            let rows = array.as_struct();
            let columns = rows.columns().iter().map(comparable).collect::<Result<Vec<_>>>()?;
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, rows.nulls().cloned(), rows.len())?)
        }
        DataType::Map(field, sorted) => {
            let maps = array.as_map();
            let entries: ArrayRef = Arc::new(maps.entries().clone());
            let entries = comparable(&entries)?.as_struct().clone();
            let (offsets, nulls) = (maps.offsets().clone(), maps.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(field), offsets, entries, nulls, *sorted)?)
        }
        _ => Arc::clone(array),
    })
}

/// The elements of arrays of one type as bytes: two have the same where they are not distinct, nulls among them.
///
/// # Errors
/// What Arrow says of types that have no such bytes.
pub(crate) fn identities<const N: usize>(arrays: [&ArrayRef; N]) -> Result<[Rows; N]> {
    let ty = arrays.first().map_or(DataType::Null, |array| array.data_type().clone());
    let converter = RowConverter::new(vec![SortField::new(ty)])?;
    let rows = arrays.iter().map(|array| Ok(converter.convert_columns(&[comparable(array)?])?));
    let rows: Vec<Rows> = rows.collect::<Result<_>>()?;
    rows.try_into().map_err(|_| DataFusionError::from(Error::bug("expected rows of each array, found fewer")))
}

/// The order of the elements of two arrays of one type; nulls are after all others.
///
/// # Errors
/// `Invalid` for types that have no order.
pub(crate) fn order(left: &ArrayRef, right: &ArrayRef) -> Result<DynComparator> {
    if *left.data_type() == DataType::Null {
        return Ok(Box::new(|_, _| std::cmp::Ordering::Equal));
    }
    let options = SortOptions { descending: false, nulls_first: false };
    make_comparator(comparable(left)?.as_ref(), comparable(right)?.as_ref(), options).map_err(|_| {
        let expected = format!("expected elements that have an order, found `{}`", type_name(left.data_type()));
        DataFusionError::from(Error::invalid(expected))
    })
}

/// When elements of two arrays of one type are equal, as SQL has it: unknown where a null decides.
pub(crate) enum Equality {
    /// Nothing is known of nulls.
    Unknown,
    Values {
        compare: DynComparator,
        nulls: [Option<NullBuffer>; 2],
    },
    Lists {
        lists: Box<[Lists; 2]>,
        elements: Box<Equality>,
    },
    Rows {
        nulls: [Option<NullBuffer>; 2],
        fields: Vec<Equality>,
    },
    Maps {
        maps: Box<[Maps; 2]>,
        keys: Box<[Rows; 2]>,
        values: Box<Equality>,
    },
}

impl Equality {
    /// # Errors
    /// `Invalid` for types that can't be compared.
    pub(crate) fn new(left: &ArrayRef, right: &ArrayRef) -> Result<Self> {
        let nulls = [left.nulls().cloned(), right.nulls().cloned()];
        Ok(match left.data_type() {
            DataType::Null => Self::Unknown,
            DataType::List(_) => {
                let lists = Box::new([Lists::new(left, false)?, Lists::new(right, false)?]);
                let elements = Box::new(Self::new(&lists[0].values, &lists[1].values)?);
                Self::Lists { lists, elements }
            }
            DataType::Struct(_) => {
                let columns = left.as_struct().columns().iter().zip(right.as_struct().columns());
                Self::Rows { nulls, fields: columns.map(|(l, r)| Self::new(l, r)).collect::<Result<_>>()? }
            }
            DataType::Map(..) => {
                let maps = Box::new([Maps::new(left, false)?, Maps::new(right, false)?]);
                let values = Box::new(Self::new(&maps[0].values, &maps[1].values)?);
                let keys = Box::new(identities([&maps[0].keys, &maps[1].keys])?);
                Self::Maps { maps, keys, values }
            }
            _ => Self::Values { compare: order(left, right)?, nulls },
        })
    }

    /// Whether two elements are equal; none where it is unknown.
    pub(crate) fn equal(&self, left: usize, right: usize) -> Option<bool> {
        let both = |nulls: &[Option<NullBuffer>; 2]| {
            let valid = |nulls: &Option<NullBuffer>, at| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at));
            valid(&nulls[0], left) && valid(&nulls[1], right)
        };
        match self {
            Self::Unknown => None,
            Self::Values { compare, nulls } => both(nulls).then(|| compare(left, right).is_eq()),
            Self::Lists { lists, elements } => {
                let (l, r) = (lists[0].get(left)?, lists[1].get(right)?);
                if l.len() != r.len() {
                    return Some(false);
                }
                all(l.zip(r).map(|(l, r)| elements.equal(l, r)))
            }
            Self::Rows { nulls, fields } => {
                if !both(nulls) {
                    return None;
                }
                all(fields.iter().map(|field| field.equal(left, right)))
            }
            Self::Maps { maps, keys, values } => {
                let (l, r) = (maps[0].get(left)?, maps[1].get(right)?);
                if l.len() != r.len() {
                    return Some(false);
                }
                let places: HashMap<OwnedRow, usize> = r.map(|at| (keys[1].row(at).owned(), at)).collect();
                all(l.map(|at| match places.get(&keys[0].row(at).owned()) {
                    Some(other) => values.equal(at, *other),
                    None => Some(false),
                }))
            }
        }
    }
}

/// Whether all are true: false where one is, unknown where one is and none is false.
fn all(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = Some(true);
    for part in parts {
        match part {
            Some(false) => return Some(false),
            Some(true) => {}
            None => known = None,
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, ListBuilder, PrimitiveBuilder};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn lists(rows: &[&[Option<i64>]]) -> ArrayRef {
        let mut lists = ListBuilder::new(PrimitiveBuilder::<Int64Type>::new());
        for row in rows {
            lists.append_value(row.iter().copied());
        }
        Arc::new(lists.finish())
    }

    #[test]
    fn arrays_are_equal_unequal_or_unknown() {
        let left = lists(&[&[Some(1), None], &[Some(1), None], &[Some(1), None], &[Some(1)], &[Some(1)]]);
        let right = lists(&[&[Some(1), None], &[Some(2), None], &[Some(1)], &[Some(1)], &[Some(2)]]);
        let equality = Equality::new(&left, &right).unwrap();
        let found: Vec<Option<bool>> = (0..5).map(|at| equality.equal(at, at)).collect();
        assert_eq!(found, [None, Some(false), Some(false), Some(true), Some(false)]);
    }

    #[test]
    fn slices_keep_their_elements() {
        let sliced = lists(&[&[Some(9)], &[Some(1), Some(2)], &[Some(3)]]).slice(1, 2);
        let lists = Lists::new(&sliced, false).unwrap();
        let values = lists.values.as_primitive::<Int64Type>();
        assert_eq!(lists.get(0).unwrap().map(|at| values.value(at)).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(lists.get(1).unwrap().map(|at| values.value(at)).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn both_zeros_and_all_nans_are_one_number() {
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        let [rows] = identities([&numbers]).unwrap();
        assert!(rows.row(0) == rows.row(1) && rows.row(2) == rows.row(3) && rows.row(0) != rows.row(2));
    }

    #[test]
    fn rows_are_gathered_of_several_arrays() {
        let (a, b): (ArrayRef, ArrayRef) =
            (Arc::new(Int64Array::from(vec![1, 2])), Arc::new(Int64Array::from(vec![3])));
        let mut gather = Gather::new(2);
        gather.extend(0, 0..2);
        gather.push(1, 0);
        gather.end().unwrap();
        gather.null();
        let made = gather.lists(&[&a, &b], lists(&[]).data_type()).unwrap();
        assert_eq!(made.as_list::<i32>().value(0).as_primitive::<Int64Type>().values(), &[1, 2, 3]);
        assert!(made.is_null(1));
    }
}
