"""Writes Iceberg tables with pysail (Spark's protocol, an engine in Rust that is not ours) and says what it reads from them.

    sail_iceberg.py FOLDER

Makes a folder below FOLDER for each table and prints a line of JSON for each: its name, its newest metadata file and its rows,
values as the function `query` writes them. Merge on read in format v2 makes pysail write equality and position deletes, in
format v3 deletion vectors.
Needs: pysail==0.7.2, pyspark-client==4.0.0.
"""

import glob
import json
import os
import sys

from read_iceberg import rows_of
from sail import session

MERGE_ON_READ = "'write.delete.mode'='merge-on-read', 'write.update.mode'='merge-on-read', 'write.merge.mode'='merge-on-read'"
COLUMNS = "id BIGINT, carrier STRING, at TIMESTAMP_NTZ, money DECIMAL(12,2)"
CHANGES = [
    """INSERT INTO {table} SELECT id, CASE WHEN id % 7 = 0 THEN NULL ELSE concat('c', id) END,
       CAST(date_add(DATE '1965-01-01', CAST(id AS INT)) AS TIMESTAMP_NTZ), CAST(id AS DECIMAL(12,2)) / 4 FROM range(1000)""",
    "DELETE FROM {table} WHERE id % 10 = 3",
    "INSERT INTO {table} VALUES (13, 'back', NULL, 1.5)",
    "DELETE FROM {table} WHERE carrier IS NULL AND id < 100",
    """MERGE INTO {table} t USING (SELECT 4 AS id, 'z' AS carrier UNION ALL SELECT 5000, 'new') s ON t.id = s.id
       WHEN MATCHED THEN UPDATE SET carrier = s.carrier WHEN NOT MATCHED THEN INSERT (id, carrier) VALUES (s.id, s.carrier)""",
]
TYPES = """id INT, flag BOOLEAN, single FLOAT, amount DOUBLE, money DECIMAL(38,10), day DATE, at TIMESTAMP_NTZ, seen TIMESTAMP,
    bytes BINARY, tags ARRAY<STRING>, spot STRUCT<lat: DOUBLE, names: ARRAY<STRING>>, counts MAP<STRING, BIGINT>,
    deep ARRAY<STRUCT<a: INT, b: MAP<STRING, DECIMAL(5,2)>>>"""
TYPE_ROWS = [
    """INSERT INTO {table} SELECT 1, true, CAST(0.1 AS FLOAT), 0.1D, CAST('-1234567890123456789012345678.0123456789' AS DECIMAL(38,10)),
       DATE '0001-01-01', TIMESTAMP_NTZ '0001-01-01 00:00:00.000001', TIMESTAMP '2024-02-29 23:59:59.999999', X'00FF',
       array('a', NULL, ''), named_struct('lat', 1.5D, 'names', array(NULL)), map('x', 1L, 'y', NULL),
       array(named_struct('a', 1, 'b', map('k', CAST(1.25 AS DECIMAL(5,2)))))""",
    "INSERT INTO {table} (id) VALUES (2)",
    "DELETE FROM {table} WHERE id = 3",
]


def tables():
    merged = f"TBLPROPERTIES ('format-version'='%d', {MERGE_ON_READ})"
    yield "compared", COLUMNS, merged % 2, CHANGES
    yield "vectors", COLUMNS, merged % 3, CHANGES
    yield "rewritten", COLUMNS, "PARTITIONED BY (carrier)", [CHANGES[0].replace("range(1000)", "range(20)"), *CHANGES[1:3]]
    yield "kinds", TYPES, "", TYPE_ROWS


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder, spark = sys.argv[1], session()
    for table, columns, settings, statements in tables():
        location = os.path.join(folder, table)
        clauses = settings.split("TBLPROPERTIES")
        properties = "TBLPROPERTIES" + clauses[1] if len(clauses) == 2 else ""
        spark.sql(f"CREATE TABLE {table} ({columns}) USING iceberg {clauses[0]} LOCATION '{location}' {properties}").collect()
        for statement in statements:
            spark.sql(statement.format(table=table)).collect()
        found = spark.sql(f"SELECT * FROM {table}").toArrow()
        newest = max(glob.glob(os.path.join(location, "metadata", "v*.metadata.json")), key=os.path.getmtime)
        print(json.dumps({"table": table, "metadata": newest, "rows": rows_of(found)}, allow_nan=False), flush=True)


if __name__ == "__main__":
    main()
