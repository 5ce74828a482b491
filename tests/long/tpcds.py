"""The 99 queries of TPC-DS at a small scale, answered by tarn and by DuckDB.

    python tpcds.py --tarn target/debug/tarn --scale 0.01

DuckDB's extension makes the rows and gives the queries; the tables go to tarn as Parquet files of a location each.
"""

import argparse
import pathlib
import re
import sys

import duckdb

from lake import Lake, Refused, comparable, multiset

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


def are_near(types, found, expected):
    """Whether averages and quotients of decimals, which DuckDB gives as doubles, are equal to a digit or two of the decimal's last."""
    digits = [int(scale.group(1)) if (scale := re.match(r"decimal\(\d+, ?(\d+)\)", ty)) else None for ty in types]

    def key(row):
        return [("", round(float(v), d - 2)) if d is not None and v is not None else comparable(v) for v, d in zip(row, digits)]

    def near(a, b, scale):
        if scale is None or a is None or b is None:
            return comparable(a) == comparable(b)
        return abs(float(a) - float(b)) <= 1.6 * 10.0 ** -scale

    pairs = list(zip(sorted(found, key=lambda row: str(key(row))), sorted(expected, key=lambda row: str(key(row)))))
    return len(found) == len(expected) and all(near(a, b, d) for one, other in pairs for a, b, d in zip(one, other, digits))


def compared(lake, judge, sql):
    expected = judge.execute(sql).fetchall()
    try:
        types, found = lake.answer(sql, timeout=600)
    except Refused as error:
        return f"refused with {error.status}: {error.message[:300]}"
    if multiset(found) == multiset(expected) or are_near(types, found, expected):
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
