"""Logic tests of SQLite and of DataFusion, answered by tarn and by DuckDB.

    python sqllogic.py --tarn target/debug/tarn --files ../shared/data/sqllogic --statements 1000 --seed 1
    python sqllogic.py --tarn target/debug/tarn --datafusion

Of SQLite's queries as many as asked for are drawn by the seed; of DataFusion's, which its test crate ships, all run. Statements that
make the tables all run. Queries for other engines alone are left out, as those that the judge refuses. What tarn refuses of SQLite's
is wrong; of DataFusion's it is counted, as they ask for much that is DataFusion's own.
"""

import argparse
import collections
import os
import pathlib
import random
import re
import subprocess
import sys

import duckdb

from fuzz import REFUSED, second_opinion
from lake import Lake, Refused, multiset

# Statements that only tell how rows are stored, or set DataFusion up.
STORAGE = re.compile(r"^\s*(CREATE (UNIQUE )?INDEX|DROP INDEX|REINDEX|PRAGMA|SET|RESET|COPY|EXPLAIN|SHOW|DESC|DESCRIBE)\b", re.IGNORECASE)
# Thousands of statements that make rows, one by one.
SLOW = ["imdb.slt"]
# What has no one right answer.
OPEN = re.compile(r"\b(random|uuid|now|current_\w+|version|arrow_typeof|approx_\w+|first_value|last_value|any_value|nth_value|array_agg|string_agg)\b|\blimit\b|\boffset\b|::|\bover\b|information_schema|\bX'", re.IGNORECASE)
# Types that each engine writes in a way of its own.
SHOWN_OTHERWISE = ("INTERVAL", "BLOB", "STRUCT", "MAP", "TIME WITH", "FLOAT", "JSON")
# Where DuckDB means something else, or is wrong.
KNOWN = re.compile(
    # Texts: positions before the first, nulls that a join of texts passes over, letters of two characters, hexadecimal digits.
    r"substr\('[^']*', (0|-1)|split_part\(|string_to_array|concat\(|reverse\('lo|to_hex|nullif\('1'|nullif\(a, b\) from t|map_extract"
    # Lists without an order, ends of series, a quotient of decimals, one by zero, operators on bits.
    r"|array_(distinct|intersect)|(range|generate_series)\(|\d\.\d/3|/0| \^ | >> |median\(c\)"
    # The inverse of -1, statistics of one row or none, times with a zone or nanoseconds, years of five digits.
    r"|percentile_cont|atanh|corr\(x, y\)|regr_(slope|count)\(1|\dZ'|^\s*select\s+time '|make_date\(10001"
    # Regular expressions: a match of the whole, references to groups.
    r"|sha256|~ 'bar'|'b\(\.\.\)'",
    re.IGNORECASE,
)
CHANGES = re.compile(r"^\s*(?:INSERT INTO|UPDATE|DELETE FROM|CREATE (?:OR REPLACE )?(?:TEMP |EXTERNAL )*(?:TABLE|VIEW)(?: IF NOT EXISTS)?|ALTER TABLE|DROP (?:TABLE|VIEW)(?: IF EXISTS)?)\s+(\w+)", re.IGNORECASE)


def datafusion_tests(root):
    """The folder of DataFusion's tests, of the version that this program is built with."""
    lock = (root / "Cargo.lock").read_text()
    version = re.search(r'name = "datafusion"\nversion = "([^"]+)"', lock).group(1)
    subprocess.run(["cargo", "info", f"datafusion-sqllogictest@{version}"], check=True, capture_output=True, cwd=root)
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    return next(home.glob(f"registry/src/*/datafusion-sqllogictest-{version}/test_files"))


def statements(sql):
    """The statement as both engines know it: `CREATE TABLE t (…) AS VALUES` is two."""
    created = re.match(r"\s*CREATE (?:OR REPLACE )?TABLE (?:IF NOT EXISTS )?(\S+?)\s*(\(.*?\))?\s*AS\s+(?:\(?\s*)?VALUES\b(.*)", sql, re.IGNORECASE | re.DOTALL)
    if created and created.group(2):
        return [f"CREATE TABLE {created.group(1)} {created.group(2)}", f"INSERT INTO {created.group(1)} VALUES {created.group(3)}"]
    return [sql]


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


def run(lake, path, share, made, lax):
    """(answered, refused, [(SQL, what is wrong)]) of one file; `lax` where what is refused is not wrong."""
    judge = duckdb.connect(config={"threads": 1})
    judge.execute("SET integer_division = true")
    judge.execute("SET default_null_order = 'nulls_last'")
    answered, refused, wrong = 0, 0, []
    # Tables that one engine changed and the other did not.
    made_tables, differ = set(), set()
    for kind, sql in ((kind, part) for kind, sql in records(path) for part in (statements(sql) if kind == "statement" else [sql])):
        changed = CHANGES.match(sql)
        if kind == "query" and (changed or made.random() > share or (lax and (OPEN.search(sql) or KNOWN.search(sql)))):
            continue
        if kind == "query" and any(re.search(rf"\b{table}\b", sql) for table in differ):
            continue
        expected = answer_of(judge, sql, kind)
        if expected is None:
            continue
        try:
            found = lake.rows(plain(sql))
        except Refused as error:
            if error.status >= 500 or not (lax or any(known in error.message.lower() for known in REFUSED)):
                wrong.append((sql, f"{error.status}: {error.message}"))
            refused += kind == "query"
            found = None
        if changed:
            made_tables.add(changed.group(1))
            if found is None:
                differ.add(changed.group(1))
        if kind == "query" and found is not None:
            answered += 1
            if multiset(found) not in (multiset(expected), second_opinion(judge, sql)):
                wrong.append((sql, f"expected {multiset(expected)[:5]}, found {multiset(found)[:5]}"))
    for table in made_tables:
        for what in ("TABLE", "VIEW"):
            try:
                lake.rows(f"DROP {what} IF EXISTS {table}")
            except Refused:
                pass
    return answered, refused, wrong


def answer_of(judge, sql, kind):
    """Rows; none for what the judge refuses or can't show."""
    try:
        cursor = judge.execute(sql)
        if kind != "query":
            return []
        if any(str(column[1]).startswith(SHOWN_OTHERWISE) for column in cursor.description):
            return None
        return cursor.fetchall()
    except Exception:  # also a value that Python can't hold
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tarn", required=True)
    parser.add_argument("--files", type=pathlib.Path)
    parser.add_argument("--datafusion", action="store_true")
    parser.add_argument("--statements", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the name of one file")
    options = parser.parse_args()
    folder = datafusion_tests(pathlib.Path(__file__).parents[2]) if options.datafusion else options.files
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".test", ".slt") and path.name not in SLOW and options.only in (None, path.name))
    if not paths:
        print(f"skipped: no SQL logic tests in {folder}")
        return
    total = sum(1 for path in paths for kind, _ in records(path) if kind == "query")
    share = 1 if options.datafusion else options.statements / total
    made = random.Random(options.seed)
    failed, answers = 0, 0
    with Lake(options.tarn) as lake:
        for path in paths:
            answered, refused, wrong = run(lake, path, share, made, lax=options.datafusion)
            answers, failed = answers + answered, failed + len(wrong)
            if answered or refused or wrong:
                print(f"{path.name}: {answered} answered, {refused} refused, {len(wrong)} wrong", flush=True)
            for sql, difference in wrong[:5]:
                print(f"  {sql}\n    {difference[:400]}")
    print(f"{answers} answered, {failed} wrong")
    sys.exit(1 if failed or answers == 0 else 0)


if __name__ == "__main__":
    main()
