"""Measures Tarn beside its peers in one run and writes the table of docs/benchmarks.md.

Every workload runs as a fresh process on both sides, in turn, on the same files; the figure is the best of the runs, and the
ratio is Tarn's time over the peer's (below 1: Tarn is faster). Data is made here, the same in every run.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys

import duckdb

import busy
import iceberg
import starts
from measure import best_of, fresh, measure, peer, row

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
EVENTS = 1_000_000
CSV_FILES = 1_000
CSV_ROWS = 200
EVENT_COLUMNS = [
    ("id", "bigint"),
    ("at", "timestamp"),
    ("carrier", "string"),
    ("origin", "string"),
    ("delay", "double"),
    ("distance", "int"),
    ("cancelled", "boolean"),
    ("note", "string"),
]
DUCKDB_TYPES = {"string": "VARCHAR", "bigint": "BIGINT", "int": "INTEGER", "double": "DOUBLE", "boolean": "BOOLEAN", "timestamp": "TIMESTAMP"}


def main():
    options = arguments()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    bench = options.target / "bench"
    rows = []
    wanted = set(options.only.split(",")) if options.only else {"json", "crawl", "tpch", "iceberg", "start", "busy"}
    if "json" in wanted:
        rows += json_to_table(bench, work, options.runs)
    if "crawl" in wanted:
        rows += crawl(bench, work, options.runs)
    if "tpch" in wanted:
        rows += tpch(bench, work, options.runs, options.scale)
    if "iceberg" in wanted:
        rows += iceberg.rows(bench, work, options.runs)
    started = starts.times(options.target, work) if "start" in wanted else []
    beside = busy.times(options.target, work) if "busy" in wanted else []
    if options.only:
        if rows:
            print(table(rows))
        if started:
            print(starts.table(started))
        if beside:
            print(busy.table(beside))
    else:
        write(rows, started, beside, options)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=pathlib.Path, required=True, help="folder of the release binaries")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "out" / "bench", help="folder for the data (kept)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", default="1", help="TPC-H scale factor")
    parser.add_argument("--only", help="some of json,crawl,tpch,iceberg,start,busy: print, don't write the document")
    return parser.parse_args()


# --- JSON to table ---------------------------------------------------------------------------------------------------


def json_to_table(bench, work, runs):
    file = work / "events.ndjson"
    if not file.exists():
        duckdb.execute(
            f"""COPY (SELECT i AS id, strftime(TIMESTAMP '2013-01-01' + INTERVAL (i * 31) SECOND, '%Y-%m-%dT%H:%M:%S') AS at,
                 ['UA','B6','EV','DL','AA','MQ','US','9E'][(i * 7919) % 8 + 1] AS carrier,
                 ['EWR','JFK','LGA'][(i * 104729) % 3 + 1] AS origin,
                 CASE WHEN i % 41 = 0 THEN NULL ELSE round((i * 48271 % 20000) / 100.0 - 30, 2) END AS delay,
                 (i * 16807 % 4983)::INTEGER AS distance, i % 97 = 0 AS cancelled,
                 'flight ' || (i * 69621 % 99991) || ' of the day' AS note
               FROM range({EVENTS}) t(i)) TO '{file}' (FORMAT json)"""
        )
    megabytes = file.stat().st_size / 1e6
    columns = json.dumps([{"name": n, "type": t} for n, t in EVENT_COLUMNS])
    types = "{" + ", ".join(f"'{n}': '{DUCKDB_TYPES[t]}'" for n, t in EVENT_COLUMNS) + "}"
    best = best_of(runs, {
        "tarn": lambda: measure([bench, "json-to-table", fresh(work / "json"), file, columns]),
        "DuckDB": peer(
            "import duckdb\nduckdb.execute('SET threads = 2')\n"
            f"duckdb.execute(\"COPY (SELECT * FROM read_json('{file}', format = 'newline_delimited', columns = {types})) "
            f"TO '{work}/duckdb.parquet' (FORMAT parquet, COMPRESSION zstd)\")"
        ),
        "pyarrow": peer(
            "import pyarrow.json, pyarrow.parquet\n"
            f"pyarrow.parquet.write_table(pyarrow.json.read_json('{file}'), '{work}/pyarrow.parquet', compression='zstd')"
        ),
    })
    say = lambda f: f"{megabytes / f['seconds']:.0f} MB/s"
    name = f"JSON → table, {megabytes:.0f} MB ({EVENTS:,} records): Iceberg commit beside Parquet file"
    return [row(name, best, other, say) for other in ("DuckDB", "pyarrow")]


# --- crawl -----------------------------------------------------------------------------------------------------------


def crawl(bench, work, runs):
    source = work / "csv"
    if len(list(source.glob("*.csv"))) != CSV_FILES:
        fresh(source)
        for f in range(CSV_FILES):
            lines = [f"{f * CSV_ROWS + r},2013-01-{r % 28 + 1:02d},{(r * 37 % 1000) / 10},station {r % 50}" for r in range(CSV_ROWS)]
            (source / f"{f:04d}.csv").write_text("id,day,temperature,station\n" + "\n".join(lines) + "\n")

    def ours():
        data = fresh(work / "crawl")
        raw = data / "objects" / "raw" / "files"
        raw.parent.mkdir(parents=True)
        shutil.copytree(source, raw)
        figures = measure([bench, "crawl", data])
        if figures["status"] != 200:
            sys.exit(f"the crawl failed: {figures['report']}")
        return figures

    best = best_of(runs, {
        "tarn": ours,
        "DuckDB": peer(
            "import duckdb\nduckdb.execute('SET threads = 2')\n"
            f"duckdb.execute(\"DESCRIBE SELECT * FROM read_csv('{source}/*.csv', union_by_name = true)\").fetchall()"
        ),
        "pyarrow": peer(
            "import pyarrow.dataset\n"
            f"d = pyarrow.dataset.dataset('{source}', format='csv')\n"
            "import pyarrow\npyarrow.unify_schemas([f.physical_schema for f in d.get_fragments()])"
        ),
    })
    say = lambda f: f"{f['seconds'] * 1000:.0f} ms"
    name = f"Crawl of {CSV_FILES:,} CSV files: every file's schema, merged"
    rows = [row(name, best, other, say) for other in ("DuckDB", "pyarrow")]
    again = {"tarn": {**best["tarn"], "seconds": best["tarn"]["again_seconds"]}, "DuckDB": best["DuckDB"]}
    return rows + [row("Second crawl, nothing new (DuckDB reads all again)", again, "DuckDB", say)]


# --- TPC-H -----------------------------------------------------------------------------------------------------------


def tpch(bench, work, runs, scale):
    tables = work / f"tpch-{scale}"
    if not (tables / "lineitem" / "part-0.parquet").exists():
        flat = fresh(work / "tpch-flat")
        generate = pathlib.Path(sys.executable).parent / "tpchgen-cli"
        subprocess.run([generate, "parquet", "-s", scale, "--output-dir", flat], check=True)
        for file in flat.glob("*.parquet"):
            (tables / file.stem).mkdir(parents=True, exist_ok=True)
            file.rename(tables / file.stem / "part-0.parquet")
    queries = fresh(work / "queries")
    connection = duckdb.connect()
    load_tpch(connection)
    for number, text in connection.execute("SELECT query_nr, query FROM tpch_queries()").fetchall():
        (queries / f"{number}.sql").write_text(text)
    views = "; ".join(f"CREATE VIEW {t.name} AS SELECT * FROM read_parquet('{t}/part-0.parquet')" for t in sorted(tables.iterdir()))
    duck = peer(
        "import duckdb, pathlib\nc = duckdb.connect()\nc.execute('SET threads = 2')\nc.execute(values[0])\nbest = {}\n"
        "for n in range(1, 23):\n"
        "    sql = (pathlib.Path(values[1]) / f'{n}.sql').read_text()\n"
        "    for run in range(int(values[2]) + 1):\n"
        "        t = time.perf_counter(); c.execute(sql).fetchall(); t = time.perf_counter() - t\n"
        "        if run: best[str(n)] = min(t, best.get(str(n), t))\n"
        "print(json.dumps({'seconds': best})); sys.exit()",
        views, queries, runs,
    )
    ours = measure([bench, "tpch", fresh(work / "tpch-data"), tables, queries, str(runs)])
    theirs = duck()
    ratios = {n: ours["seconds"][n] / theirs["seconds"][n] for n in theirs["seconds"]}
    total = lambda f: sum(f["seconds"].values())
    mean = statistics.geometric_mean(ratios.values())
    worst = sorted(ratios, key=ratios.get, reverse=True)[:4]
    return [{
        "what": f"TPC-H SF{scale}, 22 queries over Parquet, hot, 2 threads (geometric mean of ratios; "
        + "worst: " + ", ".join(f"Q{n} {ratios[n]:.1f}×" for n in worst) + ")",
        "tarn": f"{total(ours):.1f} s",
        "peer": f"DuckDB {total(theirs):.1f} s",
        "ratio": f"{mean:.2f}",
        "memory": f"{ours['peak_mib']:.0f} / {theirs['peak_mib']:.0f} MiB",
    }]


def load_tpch(connection):
    """Loads DuckDB's TPC-H extension (its query texts) from the wheel `duckdb-extension-tpch`."""
    import duckdb_extension_tpch

    folder = pathlib.Path(duckdb_extension_tpch.__file__).parent
    connection.execute(f"LOAD '{next(folder.rglob('*.duckdb_extension'))}'")


# --- the document ----------------------------------------------------------------------------------------------------


def table(rows):
    lines = ["| workload | Tarn | peer | time ratio (Tarn / peer) | peak memory (Tarn / peer) |", "|---|---|---|---|---|"]
    lines += [f"| {r['what']} | {r['tarn']} | {r['peer']} | {r['ratio']} | {r['memory']} |" for r in rows]
    return "\n".join(lines)


def write(rows, started, beside, options):
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench` (`tests/bench`): both sides of a row ran in turn in the same run, on the same files, each as a process",
        f"of its own; figures are the best of {options.runs} runs. A ratio below 1 means that Tarn needs less time.",
        "",
        f"Machine: {os.cpu_count()} cores ({cpu}), {memory:.0f} GiB; {datetime.date.today().isoformat()}; DuckDB {duckdb.__version__}, pyarrow {version('pyarrow')}.",
        "",
        table(rows),
        "",
        "## Start of a function",
        "",
        starts.ABOUT,
        "",
        starts.table(started),
        "",
        "## Light queries beside heavy ones",
        "",
        busy.ABOUT,
        "",
        busy.table(beside),
    ]
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def version(package):
    from importlib.metadata import version as of

    return of(package)


if __name__ == "__main__":
    main()
