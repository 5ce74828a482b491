"""Writes to an Iceberg table with pyiceberg, through the Glue and S3 at AWS_ENDPOINT_URL.

    write_iceberg.py append DATABASE.TABLE FILTER COLUMN VALUE   adds copies of the rows that FILTER finds, with another COLUMN
    write_iceberg.py delete DATABASE.TABLE FILTER                deletes the rows that FILTER finds
    write_iceberg.py tag DATABASE.TABLE NAME VALUE               sets a property of the table

Prints how many rows were added or are left, or the properties.
"""

import json
import sys

import pyarrow as pa
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


def main():
    commands = {"append": (append, 4), "delete": (delete, 2), "tag": (tag, 3)}
    name, *arguments = sys.argv[1:] or [""]
    command, expected = commands.get(name, (None, None))
    if len(arguments) != expected:
        sys.exit(__doc__)
    command(*arguments)


if __name__ == "__main__":
    main()
