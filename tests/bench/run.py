"""Measures Tarn beside its peers in one run and writes the table of docs/benchmarks.md.

Every workload runs as a fresh process on both sides, in turn, on the same files; the figure is the best of the runs, and the
ratio is Tarn's time over the peer's (below 1: Tarn is faster). Data is made here, the same in every run.
"""

import argparse
import datetime
import http.server
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

import duckdb

import iceberg
from measure import best_of, fresh, measure, peer, row

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FUNCTIONS = ["ingest", "batcher", "crawl", "transform", "query", "insight"]
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
    wanted = set(options.only.split(",")) if options.only else {"json", "crawl", "tpch", "iceberg", "start"}
    if "json" in wanted:
        rows += json_to_table(bench, work, options.runs)
    if "crawl" in wanted:
        rows += crawl(bench, work, options.runs)
    if "tpch" in wanted:
        rows += tpch(bench, work, options.runs, options.scale)
    if "iceberg" in wanted:
        rows += iceberg.rows(bench, work, options.runs)
    starts = start_times(options.target, work) if "start" in wanted else []
    if options.only:
        print(table(rows))
        print(json.dumps(starts, indent=1))
    else:
        write(rows, starts, options)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=pathlib.Path, required=True, help="folder of the release binaries")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "out" / "bench", help="folder for the data (kept)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", default="1", help="TPC-H scale factor")
    parser.add_argument("--only", help="some of json,crawl,tpch,iceberg,start: print, don't write the document")
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


# --- start -----------------------------------------------------------------------------------------------------------


def start_times(target, work):
    """From the start of each function's process to its first request for work, as Lambda's runtime API sees it, and to its first answer."""
    lakehouse = work / "lakehouse.yaml"
    lakehouse.write_text(LAKEHOUSE)
    results = []
    for name in FUNCTIONS:
        samples = [start_once(target / name, lakehouse) for _ in range(9)]
        results.append({
            "function": name,
            "ready_ms": statistics.median(s["ready_ms"] for s in samples),
            "answer_ms": statistics.median(s["answer_ms"] for s in samples),
            "peak_mib": max(s["mib"] for s in samples),
            "binary_mb": (target / name).stat().st_size / 1e6,
            "zipped_mb": zipped_size(target / name) / 1e6,
        })
    return results


LAKEHOUSE = """version: 1
database: bench
streams:
  events:
    schema:
      - {name: id, type: bigint}
locations:
  files: {table: files}
"""
DAYS = ", ".join(f"(DATE '2024-01-{day:02}', {day % 7 * 10.0})" for day in range(1, 31))
# What a function is asked first: a small request that makes it do its work, or the tick of its schedule.
FIRST_REQUESTS = {
    "ingest": ("/streams/events/records", '{"id": 1}'),
    "crawl": ("/crawl", "{}"),
    "query": ("/query", json.dumps({"sql": f"SELECT count(*), sum(v) FROM (VALUES {DAYS}) t(d, v)"})),
    "insight": (
        "/insight",
        json.dumps({"kind": "narrative", "sql": f"SELECT d, v FROM (VALUES {DAYS}) t(d, v)", "date": "d", "value": "v"}),
    ),
}


def first_event(name):
    if name not in FIRST_REQUESTS:
        return {
            "version": "0", "id": "bench", "detail-type": "Scheduled Event", "source": "aws.events", "account": "123456789012",
            "time": "2024-01-01T00:00:00Z", "region": "us-east-1", "resources": [], "detail": {},
        }
    path, body = FIRST_REQUESTS[name]
    request = {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "bench"}
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "isBase64Encoded": False,
        "headers": {"content-type": "application/json"}, "body": body, "requestContext": {"requestId": "bench", "http": request},
    }


def zipped_size(binary):
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zipped:
            zipped.write(binary, "bootstrap")
        return file.tell()


def start_once(binary, lakehouse):
    answered = threading.Event()
    seen = {}
    event = first_event(binary.name)

    class Runtime(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if "ready" in seen:
                time.sleep(0.5)
                return
            seen["ready"] = time.perf_counter()
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            seen["kib"] = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            payload = json.dumps(event).encode()
            self.send_response(200)
            self.send_header("lambda-runtime-aws-request-id", "bench")
            self.send_header("lambda-runtime-deadline-ms", str(int((time.time() + 60) * 1000)))
            self.send_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:bench")
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def do_POST(self):
            seen["answered"] = time.perf_counter()
            seen["answer"] = self.rfile.read(int(self.headers["content-length"] or 0))
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()
            answered.set()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Runtime)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    data = tempfile.mkdtemp(prefix="tarn-start-")
    env = {
        **os.environ,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": binary.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_LOG_GROUP_NAME": "bench",
        "AWS_LAMBDA_LOG_STREAM_NAME": "bench",
        "TARN_DATA": data,
        "TARN_PROJECT": str(lakehouse),
        "TARN_LOG": "off",
    }
    started = time.perf_counter()
    process = subprocess.Popen([binary], env=env)
    try:
        if not answered.wait(20):
            sys.exit(f"{binary.name} did not answer its first request within 20 s")
        answer = json.loads(seen["answer"])
        if "errorType" in answer or answer.get("statusCode", 200) != 200:
            sys.exit(f"{binary.name} answered its first request with {answer}")
        return {
            "ready_ms": (seen["ready"] - started) * 1000,
            "answer_ms": (seen["answered"] - started) * 1000,
            "mib": seen["kib"] / 1024,
        }
    finally:
        process.kill()
        process.wait()
        server.shutdown()
        server.server_close()
        shutil.rmtree(data, ignore_errors=True)


# --- the document ----------------------------------------------------------------------------------------------------


def table(rows):
    lines = ["| workload | Tarn | peer | time ratio (Tarn / peer) | peak memory (Tarn / peer) |", "|---|---|---|---|---|"]
    lines += [f"| {r['what']} | {r['tarn']} | {r['peer']} | {r['ratio']} | {r['memory']} |" for r in rows]
    return "\n".join(lines)


def write(rows, starts, options):
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
        "From the start of the process to its first request for work (`GET …/invocation/next`), and to its answer to a small first",
        "request; median of 9, with the embedded ports.",
        "",
        "| function | ready | first answer | peak memory when ready | binary | zipped |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s['function']} | {s['ready_ms']:.0f} ms | {s['answer_ms']:.0f} ms | {s['peak_mib']:.0f} MiB | {s['binary_mb']:.0f} MB | {s['zipped_mb']:.0f} MB |"
        for s in starts
    ]
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def version(package):
    from importlib.metadata import version as of

    return of(package)


if __name__ == "__main__":
    main()
