"""Reads an Iceberg table with readers that are not ours and prints its rows as JSON, one a line.

    read_iceberg.py pyiceberg|duckdb|polars|sail PATH-OR-URL-OF-METADATA [FILTER]
    read_iceberg.py each READER PATH-OF-METADATA…    one line for each path: a list of its rows
    read_iceberg.py exact READER PATH-OF-METADATA…   the same, without Python's dates: days, microseconds, nanoseconds as numbers, uuids
    read_iceberg.py lineage PATH-OF-METADATA…        with DuckDB: [id, _row_id, _last_updated_sequence_number] of each row
    read_iceberg.py glue DATABASE.TABLE [FILTER]     with pyiceberg, through the Glue and S3 at AWS_ENDPOINT_URL

FILTER is a condition in the reader's own words, e.g. `id > 5`. Rows come in no order. Values are written as the function `query`
writes them (see functions/query/src/encode.rs), so that its answer can be compared.
Needs: pyiceberg[glue]==0.11.1, duckdb==1.5.5, duckdb-extension-iceberg==1.5.5, duckdb-extension-avro==1.5.5, polars==2.1.0,
pysail==0.7.2, pyspark-client==4.0.0.
"""

import base64
import datetime
import glob
import json
import math
import os
import shutil
import struct
import sys
import tempfile
import uuid

import pyarrow
import pyarrow.types as types

MAX_SAFE = 2**53 - 1


def pyiceberg_table(metadata, condition):
    from pyiceberg.table import StaticTable

    return scanned(StaticTable.from_metadata(metadata), condition)


def glue_table(name, condition):
    return scanned(in_glue(name), condition)


def scanned(table, condition):
    scan = table.scan(row_filter=condition) if condition else table.scan()
    return scan.to_arrow()


def in_glue(name):
    """The table `database.table` as pyiceberg finds it in Glue."""
    from pyiceberg.catalog import load_catalog

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    login = {"region": "us-east-1", "access-key-id": "test", "secret-access-key": "test"}
    properties = {"glue.endpoint": endpoint, "s3.endpoint": endpoint, "s3.path-style-access": "true"}
    properties |= {f"{service}.{key}": value for service in ("glue", "s3") for key, value in login.items()}
    return load_catalog("glue", type="glue", **properties).load_table(name)


def duckdb_table(metadata, condition, columns="*"):
    import duckdb

    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    # Each wheel carries its extension as a file; nothing is downloaded.
    for name in ("avro", "iceberg"):
        package = __import__(f"duckdb_extension_{name}")
        folder = os.path.dirname(package.__file__)
        (file,) = glob.glob(os.path.join(folder, "**", f"{name}.duckdb_extension*"), recursive=True)
        connection.execute(f"LOAD '{file}'")
    where = f" WHERE {condition}" if condition else ""
    path = metadata.removeprefix("file://")
    answer = connection.execute(f"SELECT {columns} FROM iceberg_scan('{path}'){where}")
    return answer.to_arrow_table()


def polars_table(metadata, condition):
    import polars

    # Its own planner is a package that is not here: pyiceberg plans, polars reads.
    os.environ["POLARS_ICEBERG_PLANNER"] = "pyiceberg"
    rows = polars.scan_iceberg("file://" + metadata.removeprefix("file://"))
    if condition:
        rows = rows.filter(polars.sql_expr(condition))
    return rows.collect().to_arrow()


def sail_table(metadata, condition, as_numbers=False):
    from sail import session

    # Sail takes a table's folder and reads the newest metadata there: this is a folder that has no other.
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "metadata"))
        shutil.copy(metadata.removeprefix("file://"), os.path.join(folder, "metadata"))
        rows = session().read.format("iceberg").load(folder)
        if as_numbers:
            # Spark's protocol has no time of day: Sail reads it, but can't send it.
            rows = rows.selectExpr(*(f"cast({n} AS bigint) AS {n}" if ty == "time" else n for n, ty in columns_of(metadata)))
        return (rows.filter(condition) if condition else rows).toArrow()


def columns_of(metadata):
    with open(metadata.removeprefix("file://")) as file:
        table = json.load(file)
    (schema,) = (s for s in table["schemas"] if s["schema-id"] == table["current-schema-id"])
    return [(field["name"], field["type"]) for field in schema["fields"]]


def exact(column):
    """Days, microseconds (nanoseconds of columns that have them) and uuids, for years that Python's dates don't have."""
    kind = column.type
    if types.is_date(kind):
        column = column.cast(pyarrow.int32())
    elif types.is_time(kind):
        column = column.cast(pyarrow.time64("us")).cast(pyarrow.int64())
    elif types.is_timestamp(kind):
        column = column.cast(pyarrow.int64())
    values = column.to_pylist()
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        values = [value and uuid.UUID(bytes=value) for value in values]
    return [str(v) if isinstance(v, uuid.UUID) or isinstance(v, int) and abs(v) > MAX_SAFE else v for v in values]


def exact_rows(reader, metadata):
    table = sail_table(metadata, None, as_numbers=True) if reader == "sail" else READERS[reader](metadata, None)
    columns = {name: exact(table[name]) for name in table.column_names}
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def shown(value, kind):
    """A value of an Arrow type as `query` writes it in JSON."""
    if value is None or types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind):
        return value
    if types.is_integer(kind):
        return value if abs(value) <= MAX_SAFE else str(value)
    if types.is_floating(kind):
        return number(value, single=types.is_float32(kind))
    if types.is_decimal(kind):
        return format(value, "f")
    if types.is_date(kind):
        return value.isoformat()
    if types.is_timestamp(kind):
        return moment(value)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return base64.b64encode(value).decode()
    if types.is_list(kind) or types.is_large_list(kind):
        return [shown(item, kind.value_type) for item in value]
    if types.is_struct(kind):
        return {field.name: shown(value[field.name], field.type) for field in kind}
    if types.is_map(kind):
        return {str(key): shown(item, kind.item_type) for key, item in value}
    raise TypeError(f"no way to show a value of the type {kind}: {value!r}")


def number(value, single):
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if not single:
        return value
    bits = struct.pack("f", value)
    # The shortest digits that read back as the same number.
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    return float(next(text for text in texts if struct.pack("f", float(text)) == bits))


def moment(value):
    zone = ""
    if value.tzinfo is not None:
        value, zone = value.astimezone(datetime.timezone.utc).replace(tzinfo=None), "Z"
    micros = value.microsecond
    unit = "seconds" if micros == 0 else "milliseconds" if micros % 1000 == 0 else "microseconds"
    return value.isoformat(timespec=unit) + zone


def main():
    if sys.argv[1:2] == ["each"] and len(sys.argv) > 3:
        for metadata in sys.argv[3:]:
            print(json.dumps(rows_of(READERS[sys.argv[2]](metadata, None)), allow_nan=False), flush=True)
        return
    if sys.argv[1:2] == ["exact"] and len(sys.argv) > 3:
        for metadata in sys.argv[3:]:
            print(json.dumps(exact_rows(sys.argv[2], metadata)), flush=True)
        return
    if sys.argv[1:2] == ["lineage"] and len(sys.argv) > 2:
        for metadata in sys.argv[2:]:
            rows = duckdb_table(metadata, None, "id, _row_id, _last_updated_sequence_number").to_pylist()
            print(json.dumps([list(row.values()) for row in rows]), flush=True)
        return
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in READERS:
        sys.exit(__doc__)
    condition = sys.argv[3] if len(sys.argv) == 4 else None
    table = READERS[sys.argv[1]](sys.argv[2], condition)
    for row in rows_of(table):
        print(json.dumps(row, allow_nan=False))


def rows_of(table):
    return [{field.name: shown(row[field.name], field.type) for field in table.schema} for row in table.to_pylist()]


READERS = {"pyiceberg": pyiceberg_table, "duckdb": duckdb_table, "polars": polars_table, "sail": sail_table, "glue": glue_table}

if __name__ == "__main__":
    main()
