"""Reads an Iceberg table with readers that are not ours and prints its rows as JSON, one a line.

    read_iceberg.py pyiceberg|duckdb PATH-OR-URL-OF-METADATA [FILTER]

FILTER is a condition in the reader's own words, e.g. `id > 5`. Rows come in no order.
Needs: pyiceberg[pyarrow]==0.11.1, duckdb==1.5.5, duckdb-extension-iceberg==1.5.5, duckdb-extension-avro==1.5.5.
"""

import glob
import json
import os
import sys


def pyiceberg_rows(metadata, condition):
    from pyiceberg.table import StaticTable

    table = StaticTable.from_metadata(metadata)
    scan = table.scan(row_filter=condition) if condition else table.scan()
    return scan.to_arrow().to_pylist()


def duckdb_rows(metadata, condition):
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
    answer = connection.execute(f"SELECT * FROM iceberg_scan('{path}'){where}")
    return answer.to_arrow_table().to_pylist()


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in READERS:
        sys.exit(__doc__)
    condition = sys.argv[3] if len(sys.argv) == 4 else None
    for row in READERS[sys.argv[1]](sys.argv[2], condition):
        print(json.dumps(row, default=str, sort_keys=True))


READERS = {"pyiceberg": pyiceberg_rows, "duckdb": duckdb_rows}

if __name__ == "__main__":
    main()
