"""SQLite's logic tests, answered by tarn and by DuckDB.

    python sqllogic.py --tarn target/debug/tarn --files ../shared/data/sqllogic --statements 1000 --seed 1

Of the queries of all files as many as asked for are drawn by the seed; statements that make the tables all run. Queries for other
engines alone are left out, as those that the judge refuses.
"""

import argparse
import collections
import pathlib
import random
import re
import sys

import duckdb

from fuzz import REFUSED
from lake import Lake, Refused, multiset

# Statements that only tell how rows are stored.
STORAGE = re.compile(r"^\s*(CREATE (UNIQUE )?INDEX|DROP INDEX|REINDEX|PRAGMA)", re.IGNORECASE)


def records(path):
    """(kind, SQL) of each statement and query that DuckDB's dialect has."""
    for block in re.split(r"\n\s*\n", path.read_text().replace("\r", "")):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        conditions = [line.split() for line in lines if line.startswith(("skipif", "onlyif"))]
        lines = [line for line in lines if not line.startswith(("skipif", "onlyif"))]
        if not lines or any(c[0] == "onlyif" for c in conditions) or ["skipif", "postgresql"] in [c[:2] for c in conditions]:
            continue
        kind = lines[0].split()[0]
        if kind == "statement" and lines[0].split()[1] == "ok" or kind == "query":
            sql = "\n".join(lines[1:]).split("\n----")[0]
            if not STORAGE.match(sql):
                yield kind, sql


def plain(sql):
    """CREATE TABLE without keys, which tables of files don't have, in types that they have."""
    if not sql.lstrip().upper().startswith("CREATE TABLE"):
        return sql
    return re.sub(r"\bTEXT\b", "VARCHAR", re.sub(r"\b(PRIMARY KEY|UNIQUE)\b", "", sql))


def run(lake, path, share, made):
    """(answered, [(SQL, what is wrong)]) of one file."""
    judge = duckdb.connect(config={"threads": 1})
    judge.execute("SET integer_division = true")
    judge.execute("SET default_null_order = 'nulls_last'")
    made_tables, answered, wrong = set(), 0, []
    for kind, sql in records(path):
        if kind == "query" and made.random() > share:
            continue
        try:
            cursor = judge.execute(sql)
            expected = cursor.fetchall() if kind == "query" else None
        except duckdb.Error:
            continue
        created = re.match(r"\s*CREATE TABLE (\w+)", sql, re.IGNORECASE)
        if created:
            made_tables.add(created.group(1))
        try:
            found = lake.rows(plain(sql))
        except Refused as error:
            if not any(known in error.message.lower() for known in REFUSED):
                wrong.append((sql, f"refused: {error.message}"))
            continue
        if kind == "query":
            answered += 1
            if multiset(found) != multiset(expected):
                wrong.append((sql, f"expected {multiset(expected)[:5]}, found {multiset(found)[:5]}"))
    for table in made_tables:
        lake.rows(f"DROP TABLE IF EXISTS {table}")
    return answered, wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tarn", required=True)
    parser.add_argument("--files", type=pathlib.Path, required=True)
    parser.add_argument("--statements", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    paths = sorted(options.files.glob("*.test"))
    if not paths:
        print(f"skipped: no SQL logic tests in {options.files}")
        return
    total = sum(1 for path in paths for kind, _ in records(path) if kind == "query")
    made = random.Random(options.seed)
    wrong, answered = collections.defaultdict(list), 0
    with Lake(options.tarn) as lake:
        for path in paths:
            count, found = run(lake, path, options.statements / total, made)
            answered += count
            wrong[path.name] = found
            print(f"{path.name}: {count} answered, {len(found)} wrong", flush=True)
            for sql, difference in found[:5]:
                print(f"  {sql}\n    {difference[:400]}")
    sys.exit(1 if any(wrong.values()) or answered == 0 else 0)


if __name__ == "__main__":
    main()
