//! Rows as JSON from which the same rows can be made again, by [`format::records::RecordSchema`]: numbers that JSON lacks are the texts
//! `NaN`, `Infinity`, `-Infinity`, binary is base64.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::LineDelimited;
use arrow::json::writer::NullableEncoder;
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, WriterBuilder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shared::{Error, Result};

/// The number of this form, in lines of the quarantine. In the first one, lines without a number, binary was hexadecimal and numbers
/// that JSON lacks were null.
pub const FORM: u32 = 2;

/// Each row as a JSON object, nulls too.
///
/// # Errors
/// `Invalid` for a type that has no JSON form, such as a map whose keys are no text.
pub fn json_objects(batch: &RecordBatch) -> Result<Vec<String>> {
    let builder = WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Exact));
    let mut writer = builder.build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let text =
        String::from_utf8(writer.into_inner()).map_err(|e| Error::bug("JSON that is not UTF-8").with_source(e))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[derive(Debug)]
struct Exact;

impl EncoderFactory for Exact {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let nulls = array.nulls().cloned();
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float16 => Box::new(Floats { values: cast(array, &DataType::Float64)?, short: true }),
            DataType::Float32 => Box::new(Floats { values: cast(array, &DataType::Float64)?, short: true }),
            DataType::Float64 => Box::new(Floats { values: cast(array, &DataType::Float64)?, short: false }),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Box::new(Base64(cast(array, &DataType::Binary)?.as_binary().clone()))
            }
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, nulls)))
    }
}

struct Floats {
    values: ArrayRef,
    /// Whether they come from 32 bits or fewer, whose shortest text is shorter.
    short: bool,
}

impl Encoder for Floats {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.values.as_primitive::<Float64Type>().value(row);
        let text = match value {
            v if v.is_nan() => "\"NaN\"".to_owned(),
            f64::INFINITY => "\"Infinity\"".to_owned(),
            f64::NEG_INFINITY => "\"-Infinity\"".to_owned(),
            #[allow(clippy::cast_possible_truncation)] // It was one.
            v if self.short => serde_json::Value::from(v as f32).to_string(),
            v => serde_json::Value::from(v).to_string(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

struct Base64(BinaryArray);

impl Encoder for Base64 {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(STANDARD.encode(self.0.value(row)).as_bytes());
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Decimal128Array, Float32Array, Float64Array, Int64Array, ListArray, StringArray, StructArray,
        TimestampMicrosecondArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;
    use format::records::RecordSchema;
    use proptest::prelude::*;
    use shared::model::types::columns_of;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)))
            .unwrap()
    }

    fn through(batch: &RecordBatch) -> RecordBatch {
        let lines = json_objects(batch).unwrap();
        let schema = RecordSchema::of_table(&columns_of(&batch.schema()).unwrap()).unwrap();
        let decoded = schema.decode(lines.iter().map(String::as_bytes)).unwrap();
        assert_eq!((&decoded.errors[..], decoded.ignored.len()), (&[][..], 0), "{lines:?}");
        decoded.batch
    }

    /// Doubles with their bits: NaN is equal to itself.
    fn same(one: &ArrayRef, other: &ArrayRef) -> bool {
        format!("{one:?}") == format!("{other:?}")
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were(
            ints in proptest::collection::vec(proptest::option::of(any::<i64>()), 1..5),
            double in any::<f64>(), float in any::<f32>(), decimal in -10i128.pow(37)..10i128.pow(37),
            micros in -60_000_000_000_000_000i64..250_000_000_000_000_000, text in ".*",
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let rows = ints.len();
            let doubles = Arc::new(Float64Array::from(vec![double; rows])) as ArrayRef;
            let names: Vec<Option<String>> = ints.iter().map(|int| int.map(|_| text.clone())).collect();
            let binary = BinaryArray::from_iter(ints.iter().map(|int| int.map(|_| bytes.clone())));
            let decimals = Decimal128Array::from(vec![decimal; rows]).with_precision_and_scale(38, 9).unwrap();
            let times = TimestampMicrosecondArray::from(vec![micros; rows]);
            let nested = StructArray::from(vec![
                (Arc::new(Field::new("d", DataType::Float64, true)), doubles.clone()),
                (Arc::new(Field::new("b", DataType::Binary, true)), Arc::new(binary.clone()) as ArrayRef),
            ]);
            let item = Arc::new(Field::new("element", DataType::Float64, true));
            let list = ListArray::new(item, OffsetBuffer::from_lengths(vec![1; rows]), doubles.clone(), None);
            let batch = batch(vec![
                ("i", Arc::new(Int64Array::from(ints))),
                ("d", doubles),
                ("f", Arc::new(Float32Array::from(vec![float; rows]))),
                ("n", Arc::new(decimals)),
                ("t", Arc::new(times.clone())),
                ("z", Arc::new(times.with_timezone("+00:00"))),
                ("s", Arc::new(StringArray::from(names))),
                ("b", Arc::new(binary)),
                ("struct", Arc::new(nested)),
                ("list", Arc::new(list)),
            ]);
            let back = through(&batch);
            for (field, (one, other)) in batch.schema().fields().iter().zip(batch.columns().iter().zip(back.columns())) {
                prop_assert!(same(one, other), "{}: {one:?} {other:?}", field.name());
            }
        }
    }

    #[test]
    fn numbers_that_json_lacks_are_texts() {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE, f64::MAX];
        let batch = batch(vec![("d", Arc::new(Float64Array::from(values.to_vec())))]);
        assert_eq!(
            json_objects(&batch).unwrap()[..3],
            [r#"{"d":"NaN"}"#, r#"{"d":"Infinity"}"#, r#"{"d":"-Infinity"}"#]
        );
        assert!(same(batch.column(0), through(&batch).column(0)));
    }
}
