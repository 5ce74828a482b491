"""Iceberg tables: commits, changes of rows, scans and planning, beside DuckDB, DataFusion and pyiceberg."""

import json

import duckdb

from measure import best_of, fresh, measure, peer, row

ROWS = 10_000_000
CHANGED = 100_000
COMMITS = 160
PLANNED_FILES = 100_000
# Queries over the table: all of it, and what analysts ask.
SUM = "SELECT category, count(*), sum(amount), max(placed) FROM t GROUP BY category"
ALL = "SELECT * FROM t"


def rows(bench, work, runs):
    data = source(work)
    return commits(bench, work, runs) + changes(bench, work, runs, data) + scans(bench, work, runs, data) + planning(bench, work, runs)


def source(work):
    """10 million rows, and those to merge: half of the keys are in the table, half are new."""
    file, merged = work / "rows.parquet", work / "merged.parquet"
    if not merged.exists():
        columns = """i AS id, (i * 7919 % 1000)::INTEGER AS category, (i * 48271 % 1000003) / 100.0 AS amount,
            TIMESTAMP '2024-01-01' + INTERVAL (i) SECOND AS placed, 'note ' || (i * 69621 % 99991) AS note"""
        keys = f"(SELECT CASE WHEN n % 2 = 0 THEN n * {ROWS // CHANGED} ELSE {ROWS} + n END AS i FROM range({CHANGED}) t(n))"
        duckdb.execute(f"COPY (SELECT {columns} FROM range({ROWS}) t(i)) TO '{file}' (FORMAT parquet, COMPRESSION zstd)")
        duckdb.execute(f"COPY (SELECT {columns} FROM {keys}) TO '{merged}' (FORMAT parquet, COMPRESSION zstd)")
    return file, merged


def commits(bench, work, runs):
    """The same number of commits by one writer and by 16 at once, as tasks and as processes; what is compared with is one writer."""
    write = lambda how, writers: lambda: measure([bench, how, fresh(work / "commits"), str(writers), str(COMMITS // writers)])
    sides = {"one writer": write("commits", 1), "tasks": write("commits", 16), "processes": write("commits-apart", 16)}
    best = best_of(runs, sides)
    say = lambda f: f"{f['commits'] / f['seconds']:.0f} commits/s"
    beside = lambda side: {"tarn": best[side], "one writer": best["one writer"]}
    what = "Commits of one row to one table: 16 writers at once"
    return [
        row(f"{what} in one process beside one", beside("tasks"), "one writer", say),
        row(f"{what} in 16 processes beside one", beside("processes"), "one writer", say),
    ]


def changes(bench, work, runs, data):
    file, merged = data
    merge = (
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET category = s.category, amount = s.amount, placed = s.placed, note = s.note "
        "WHEN NOT MATCHED THEN INSERT (id, category, amount, placed, note) VALUES (s.id, s.category, s.amount, s.placed, s.note)"
    )
    cases = [
        (f"MERGE of {CHANGED:,} rows into {ROWS:,}", merge),
        (f"DELETE of every 100th row of {ROWS:,}", "DELETE FROM t WHERE id % 100 = 0"),
        (f"DELETE of a range of {ROWS // 100:,} rows of {ROWS:,}", f"DELETE FROM t WHERE id BETWEEN {ROWS // 2} AND {ROWS // 2 + ROWS // 100 - 1}"),
    ]
    made = []
    for what, sql in cases:
        duck = peer(
            "import duckdb, pathlib\npathlib.Path(values[0]).unlink(missing_ok=True)\nc = duckdb.connect(values[0])\nc.execute('SET threads = 2')\n"
            f"c.execute(\"CREATE TABLE t AS FROM '{file}'\"); c.execute('CHECKPOINT')\n"
            f"c.execute(\"CREATE TEMP TABLE s AS FROM '{merged}'\")\n"
            "started = time.perf_counter()\nc.execute(values[1]); c.execute('CHECKPOINT')",
            work / "changes.duckdb", sql,
        )
        for mode in ("copy-on-write", "merge-on-read"):
            best = best_of(runs, {"tarn": lambda: change(bench, work, file, merged, sql, mode), "DuckDB": duck})
            made.append(row(f"{what} ({mode}; DuckDB in its own storage)", best, "DuckDB", lambda f: f"{f['seconds']:.2f} s"))
    return made


def change(bench, work, file, merged, sql, mode):
    data, script = fresh(work / "changes"), work / "changes.sql"
    measure([bench, "load", data, file])
    measure([bench, "load", data, merged, "s"])
    modes = ", ".join(f"'write.{kind}.mode' = '{mode}'" for kind in ("delete", "update", "merge"))
    script.write_text(f"ALTER TABLE t SET TBLPROPERTIES ({modes})\n")
    measure([bench, "statements", data, script])
    script.write_text(sql + "\n")
    return measure([bench, "statements", data, script])


def scans(bench, work, runs, data):
    lake = fresh(work / "scan")
    metadata = measure([bench, "load", lake, data[0]])["metadata"]
    files = next(lake.rglob("*.parquet")).parent
    made = []
    for what, sql in (("every row and column", ALL), ("an aggregate by group", SUM)):
        ours = lambda: measure([bench, "query", lake, sql, str(runs)])
        best = best_of(2, {"tarn": ours, "DataFusion": lambda: measure([bench, "bare", files, sql, str(runs)])})
        say = lambda f: f"{f['seconds'] * 1000:.0f} ms"
        made.append(row(f"Scan of {ROWS:,} rows, {what}, hot: Iceberg table beside DataFusion on its bare files", best, "DataFusion", say))
        if sql == ALL:
            best["pyiceberg"] = peer(
                "from pyiceberg.table import StaticTable\nt = StaticTable.from_metadata(values[0])\n"
                "started = time.perf_counter()\nsum(b.num_rows for b in t.scan().to_arrow_batch_reader())",
                metadata,
            )()
            made.append(row(f"Scan of {ROWS:,} rows, {what}", best, "pyiceberg", say))
    return made


def planning(bench, work, runs):
    """A query that keeps one file of very many, planned by a process that has planned it before."""
    lake, known = work / "planning", work / "planning.json"
    if not known.exists():
        known.write_text(json.dumps(measure([bench, "many-files", fresh(lake), str(PLANNED_FILES)])))
    metadata = json.loads(known.read_text())["metadata"]
    best = best_of(1, {
        "tarn": lambda: measure([bench, "query", lake, f"EXPLAIN SELECT id FROM t WHERE part = {PLANNED_FILES // 2}", str(runs)]),
        "pyiceberg": peer(
            "from pyiceberg.table import StaticTable\nt = StaticTable.from_metadata(values[0])\n"
            f"plan = lambda: len(list(t.scan(row_filter='part = {PLANNED_FILES // 2}').plan_files()))\n"
            "assert plan() == 1\nstarted = time.perf_counter()\nassert plan() == 1",
            metadata,
        ),
    })
    return [row(f"Planning a scan of one file out of {PLANNED_FILES:,}, warm", best, "pyiceberg", lambda f: f"{f['seconds'] * 1000:.0f} ms")]
