"""Reads an Iceberg table by its metadata file with a third-party reader: `read_orders.py <pyiceberg|duckdb> <metadata.json>`.

Prints `[rows, distinct values of the first key column, sum of money in cents]` as JSON, for tables with `id` and `amount`, or
`day` and `revenue`.
"""

import json
import pathlib
import sys


def with_pyiceberg(metadata):
    from pyiceberg.table import StaticTable

    return StaticTable.from_metadata(metadata).scan().to_arrow()


def with_duckdb(metadata):
    import duckdb
    import duckdb_extension_avro
    import duckdb_extension_iceberg

    connection = duckdb.connect()
    for package in (duckdb_extension_avro, duckdb_extension_iceberg):
        folder = pathlib.Path(package.__file__).parent
        connection.execute(f"LOAD '{next(folder.rglob('*.duckdb_extension'))}'")
    return connection.execute(f"SELECT * FROM iceberg_scan('{metadata}')").to_arrow_table()


def main():
    reader, metadata = sys.argv[1:]
    rows = {"pyiceberg": with_pyiceberg, "duckdb": with_duckdb}[reader](metadata)
    key, money = ("id", "amount") if "id" in rows.column_names else ("day", "revenue")
    cents = sum(int(value * 100) for value in rows[money].to_pylist() if value is not None)
    print(json.dumps([rows.num_rows, len(set(rows[key].to_pylist())), cents]))


if __name__ == "__main__":
    main()
