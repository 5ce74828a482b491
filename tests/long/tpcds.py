"""The 99 queries of TPC-DS at a small scale, answered by tarn and by DuckDB.

    python tpcds.py --tarn target/debug/tarn --scale 0.01

DuckDB's extension makes the rows and gives the queries; the tables go to tarn as Parquet files of a location each.
"""

import argparse
import pathlib
import re
import sys

import duckdb

from lake import Lake, Refused, multiset

# Queries whose answer is cut where rows may tie, so that two right answers may differ.
TIES = re.compile(r"\blimit\b", re.IGNORECASE)


def connect(scale):
    """A connection with the tables, or None where the extension is not installed."""
    try:
        import duckdb_extension_tpcds
    except ImportError:
        return None
    folder = pathlib.Path(duckdb_extension_tpcds.__file__).parent
    judge = duckdb.connect()
    judge.execute(f"LOAD '{next(folder.rglob('*.duckdb_extension'))}'")
    judge.execute("SET default_null_order = 'nulls_last'")
    judge.execute(f"CALL dsdgen(sf = {scale})")
    return judge


def load(lake, judge, tables):
    for table in tables:
        folder = lake.raw / table
        folder.mkdir(parents=True, exist_ok=True)
        judge.execute(f"COPY {table} TO '{folder}/part-0.parquet' (FORMAT parquet)")
        lake.crawl(table)


def compared(lake, judge, sql):
    expected = judge.execute(sql).fetchall()
    try:
        found = lake.rows(sql, timeout=600)
    except Refused as error:
        return f"refused with {error.status}: {error.message[:300]}"
    if multiset(found) == multiset(expected):
        return None
    if TIES.search(sql) and len(found) == len(expected) == 100:
        # The same query without its limit has one right answer.
        whole = re.sub(r"\blimit\s+\d+", "", sql, flags=re.IGNORECASE)
        return compared(lake, judge, whole) if whole != sql else None
    return f"expected {len(expected)} rows {multiset(expected)[:3]}, found {len(found)} rows {multiset(found)[:3]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tarn", required=True)
    parser.add_argument("--scale", type=float, default=0.01)
    parser.add_argument("--only", type=int, nargs="*")
    options = parser.parse_args()
    judge = connect(options.scale)
    if judge is None:
        print("skipped: DuckDB's extension `tpcds` is not installed")
        return
    tables = [table for (table,) in judge.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
    wrong = 0
    with Lake(options.tarn, 4 << 30, tables) as lake:
        load(lake, judge, tables)
        for number, sql in judge.execute("SELECT query_nr, query FROM tpcds_queries() ORDER BY 1").fetchall():
            if options.only and number not in options.only:
                continue
            difference = compared(lake, judge, sql.strip().rstrip(";"))
            wrong += difference is not None
            print(f"query {number}: {difference or 'equal'}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
