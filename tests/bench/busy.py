"""How long 64 light queries at once, and `GET /health`, take on one `tarn up` while heavy queries compute, beside a quiet server."""

import concurrent.futures
import contextlib
import http.client
import json
import statistics
import subprocess
import threading
import time
import urllib.error
import urllib.request

from measure import fresh

AT_ONCE = 64
ROUNDS = 5
# Computes for minutes without giving a row; and one that holds all the memory that it may have.
HEAVY = [
    "SELECT count(*) FROM generate_series(1, 4000000) a JOIN generate_series(1, 400000) b ON a.value + b.value < 0",
    "SELECT count(*) FROM (SELECT DISTINCT a.value * 7919 % 1000003, b.value FROM generate_series(1, 40000) a CROSS JOIN generate_series(1, 4000) b)",
]
LIGHT = "SELECT k, count(*), sum(v) FROM light WHERE v % 2 = 0 GROUP BY k ORDER BY k"
ABOUT = f"""One `tarn up`, {AT_ONCE} clients at once, {ROUNDS} rounds, each a query that groups 10,000 rows of an Iceberg table; `GET /health` every
10 ms meanwhile. Heavy: a join that computes for minutes and a DISTINCT of 160 million rows, side by side."""


def times(target, work):
    """Rows of milliseconds: without and beside heavy queries."""
    folder = fresh(work / "busy")
    (folder / "lakehouse.yaml").write_text("version: 1\ndatabase: busy\n")
    command = [target / "tarn", "up", "--data", folder / "data", "--project", folder / "lakehouse.yaml", "--port", "0", "--output", "json"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        url = json.loads(process.stdout.readline())["url"]
        ask(url, "CREATE TABLE light AS SELECT value % 10 AS k, value AS v FROM generate_series(1, 10000)")
        quiet = {"what": "quiet", **rounds(url)}
        heavy = [threading.Thread(target=compute, args=(url, sql), daemon=True) for sql in HEAVY]
        for thread in heavy:
            thread.start()
        time.sleep(3)
        loaded = {"what": "beside the heavy ones", **rounds(url)}
        if not all(thread.is_alive() for thread in heavy):
            raise SystemExit("a heavy query ended before the light ones: nothing was measured")
        return [quiet, loaded]
    finally:
        process.terminate()
        process.wait()


def rounds(url):
    stop, health = threading.Event(), []

    def look():
        while not stop.wait(0.01):
            began = time.perf_counter()
            urllib.request.urlopen(f"{url}/health", timeout=60).read()
            health.append(time.perf_counter() - began)

    looking = threading.Thread(target=look)
    looking.start()
    light = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as clients:
        for _ in range(ROUNDS):
            light += clients.map(lambda _: ask(url, LIGHT), range(AT_ONCE))
    stop.set()
    looking.join()
    return {"light": light, "health": health}


def compute(url, sql):
    # The server ends before the query does.
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        ask(url, sql, 300)


def ask(url, sql, seconds=60):
    """Seconds that the answer took."""
    body = json.dumps({"sql": sql, "timeoutSeconds": seconds}).encode()
    request = urllib.request.Request(f"{url}/query", body, {"content-type": "application/json"})
    began = time.perf_counter()
    try:
        urllib.request.urlopen(request, timeout=seconds + 60).read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{sql}: {error.read().decode()}") from error
    return time.perf_counter() - began


def table(rows):
    lines = ["| server | light query, median | p99 | slowest | `/health`, median | p99 | slowest |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        cells = [cell for samples in (row["light"], row["health"]) for cell in of(samples)]
        lines.append(f"| {row['what']} | " + " | ".join(f"{1000 * cell:.0f} ms" for cell in cells) + " |")
    return "\n".join(lines)


def of(samples):
    """Median, 99th percentile, maximum."""
    return statistics.median(samples), statistics.quantiles(samples, n=100)[98], max(samples)
