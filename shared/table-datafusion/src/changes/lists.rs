//! Maps as lists of their entries, so that rows with maps can be grouped: maps themselves have no order that engines agree on.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Whether values of a type hold maps at any depth.
pub(super) fn has_map(ty: &DataType) -> bool {
    match ty {
        DataType::Map(..) => true,
        DataType::List(item) => has_map(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_map(field.data_type())),
        _ => false,
    }
}

/// The values of `expr` with lists of key and value in the place of maps.
pub(super) fn as_lists(expr: Expr) -> Expr {
    ScalarUDF::from(AsLists { signature: Signature::any(1, Volatility::Immutable) }).call(vec![expr])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsLists {
    signature: Signature,
}

impl ScalarUDFImpl for AsLists {
    fn name(&self) -> &'static str {
        "maps_as_lists"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [ty] => Ok(list_type(ty)),
            _ => internal_err!("expected one argument, found {}", types.len()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [values] => Ok(ColumnarValue::Array(lists(&values.clone().into_array(args.number_rows)?)?)),
            other => internal_err!("expected one argument, found {}", other.len()),
        }
    }
}

fn list_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::clone(field).with_data_type(list_type(field.data_type())))
}

fn list_type(ty: &DataType) -> DataType {
    match ty {
        DataType::Map(entries, _) => DataType::List(list_field(entries)),
        DataType::List(item) => DataType::List(list_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(list_field).collect()),
        other => other.clone(),
    }
}

fn lists(values: &ArrayRef) -> Result<ArrayRef> {
    let ty = list_type(values.data_type());
    if let (Some(map), DataType::List(entry)) = (values.as_map_opt(), &ty) {
        let entries: ArrayRef = Arc::new(map.entries().clone());
        let list = ListArray::try_new(entry.clone(), map.offsets().clone(), lists(&entries)?, map.nulls().cloned())?;
        return Ok(Arc::new(list));
    }
    if let (Some(list), DataType::List(item)) = (values.as_list_opt::<i32>(), &ty) {
        let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
        return Ok(Arc::new(ListArray::try_new(item.clone(), offsets, lists(list.values())?, nulls)?));
    }
    if let (Some(rows), DataType::Struct(fields)) = (values.as_struct_opt(), &ty) {
        let (fields, nulls): (Fields, _) = (fields.clone(), rows.nulls().cloned());
        let columns = rows.columns().iter().map(lists).collect::<Result<Vec<_>>>()?;
        return Ok(Arc::new(StructArray::try_new_with_length(fields, columns, nulls, rows.len())?));
    }
    Ok(values.clone())
}
