"""Writes Iceberg tables with pyiceberg, through the Glue and S3 at AWS_ENDPOINT_URL unless it says otherwise.

    write_iceberg.py append DATABASE.TABLE FILTER COLUMN VALUE   adds copies of the rows that FILTER finds, with another COLUMN
    write_iceberg.py delete DATABASE.TABLE FILTER                deletes the rows that FILTER finds
    write_iceberg.py tag DATABASE.TABLE NAME VALUE               sets a property of the table
    write_iceberg.py old FOLDER                                  makes a table of near and far years without a catalog
    write_iceberg.py named FOLDER COLUMN PARTITION               makes a table partitioned by a text column, under these names

Prints how many rows were added or are left, or the properties, or the table's metadata file.
"""

import json
import sys
import uuid

import pyarrow as pa
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import update_table_metadata
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, LongType, NestedField, StringType, TimestampType, TimestamptzType, TimeType, UUIDType
from read_iceberg import in_glue


def append(name, condition, column, value):
    table = in_glue(name)
    rows = table.scan(row_filter=condition).to_arrow()
    place = rows.schema.get_field_index(column)
    field = rows.schema.field(place)
    changed = pa.array([json.loads(value)] * len(rows), field.type)
    table.append(rows.set_column(place, field, changed))
    print(len(rows))


def delete(name, condition):
    in_glue(name).delete(condition)
    print(in_glue(name).scan().count())


def tag(name, key, value):
    table = in_glue(name)
    with table.transaction() as transaction:
        transaction.set_properties(**{key: value})
    print(json.dumps(dict(in_glue(name).properties)))


OLD = Schema(
    NestedField(1, "id", LongType()),
    NestedField(2, "u", UUIDType()),
    NestedField(3, "d", DateType()),
    NestedField(4, "at", TimestampType()),
    NestedField(5, "seen", TimestamptzType()),
    NestedField(6, "t", TimeType()),
)
DAY = 86_400_000_000
# The 15th of March of the year -44, two days of the years 0 and 1, the day before 1970, the last day of the year 9999.
DAYS = [-735525, -719528, -719162, -1, 2932896, None]


class Folder(NoopCatalog):
    """Each commit is a file of metadata."""

    def commit_table(self, table, requirements, updates):
        metadata = update_table_metadata(table.metadata, updates)
        location = f"{table.metadata.location}/metadata/{metadata.last_sequence_number:05d}-{uuid.uuid4()}.metadata.json"
        with table.io.new_output(location).create() as file:
            file.write(metadata.model_dump_json().encode())
        return CommitTableResponse(metadata=metadata, metadata_location=location)


def old(folder):
    # pyiceberg 0.11 takes its bounds from Python's dates, which begin with the year 1: it fails at earlier ones unless it takes none.
    metadata = new_table_metadata(
        OLD, UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, folder, {"write.metadata.metrics.default": "none"}
    )
    table = Table(("lab", "old"), metadata, "", PyArrowFileIO(), Folder("folder"))
    micros = pa.array([day and day * DAY + 1 for day in DAYS], pa.int64())
    rows = {
        "id": pa.array(range(len(DAYS)), pa.int64()),
        "u": pa.array([*(bytes([50 * i] * 16) for i in range(len(DAYS) - 1)), None], pa.binary(16)),
        "d": pa.array(DAYS, pa.int32()).cast(pa.date32()),
        "at": micros.cast(pa.timestamp("us")),
        "seen": micros.cast(pa.timestamp("us", "UTC")),
        "t": pa.array([0, 1, DAY - 1, DAY // 24, 5, None], pa.int64()).cast(pa.time64("us")),
    }
    table.append(pa.table(rows))
    print(table.metadata_location)


def named(folder, column, partition):
    schema = Schema(NestedField(1, "id", LongType()), NestedField(2, column, StringType()))
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), partition))
    metadata = new_table_metadata(schema, spec, UNSORTED_SORT_ORDER, folder, {})
    table = Table(("lab", "named"), metadata, "", PyArrowFileIO(), Folder("folder"))
    table.append(pa.table({"id": pa.array([1, 2, 3], pa.int64()), column: pa.array(["x", "y", None], pa.string())}))
    print(table.metadata_location)


def main():
    commands = {"append": (append, 4), "delete": (delete, 2), "tag": (tag, 3), "old": (old, 1), "named": (named, 3)}
    name, *arguments = sys.argv[1:] or [""]
    command, expected = commands.get(name, (None, None))
    if len(arguments) != expected:
        sys.exit(__doc__)
    command(*arguments)


if __name__ == "__main__":
    main()
