"""How long a function's process takes from its start to its first request for work, as Lambda's runtime API sees it, and to its first
answer."""

import contextlib
import http.server
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

import boto3

ROOT = pathlib.Path(__file__).resolve().parents[2]
FUNCTIONS = ["ingest", "batcher", "crawl", "transform", "query", "insight"]
RUNS = 9
ABOUT = f"""From the start of the process to its first request for work (`GET …/invocation/next`), and to its answer to a small first
request; median of {RUNS}. First with the embedded ports, then with those of AWS (S3, Glue, Kinesis over HTTP, against the emulator, whose own
time is part of the first answer)."""


def times(target, work):
    """A row for each function: medians of milliseconds with either kind of ports, MiB, MB."""
    lakehouse = work / "lakehouse.yaml"
    lakehouse.write_text(LAKEHOUSE)
    with emulator(work) as aws:
        return [row(target / name, lakehouse, aws) for name in FUNCTIONS]


def row(binary, lakehouse, aws):
    embedded, on_aws = ([start_once(binary, lakehouse, ports) for _ in range(RUNS)] for ports in ({}, aws))

    def median(samples, what):
        return statistics.median(s[what] for s in samples)

    return {
        "function": binary.name,
        "ready_ms": median(embedded, "ready_ms"),
        "answer_ms": median(embedded, "answer_ms"),
        "aws_ready_ms": median(on_aws, "ready_ms"),
        "aws_answer_ms": median(on_aws, "answer_ms"),
        "peak_mib": max(s["mib"] for s in on_aws),
        "binary_mb": binary.stat().st_size / 1e6,
        "zipped_mb": zipped_size(binary) / 1e6,
    }


@contextlib.contextmanager
def emulator(work):
    """Runs the AWS emulator with what the lakehouse needs; gives a function's settings for it."""
    command = [ROOT / ".venv-emulator/bin/python", ROOT / "localstack/emulator/emulator.py", "up", "--with-parent"]
    with (work / "emulator.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    try:
        endpoint = json.loads(process.stdout.readline())["endpoint"]
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint}
        session = boto3.Session("test", "test", region_name="us-east-1")
        session.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bench")
        session.client("kinesis", endpoint_url=endpoint).create_stream(StreamName="bench-events", ShardCount=1)
        yield {**keys, "TARN_PORTS": "aws", "TARN_WAREHOUSE": "s3://bench/", "TARN_STREAM_PREFIX": "bench-"}
    finally:
        process.stdin.close()
        process.wait()


def table(rows):
    lines = [
        "| function | ready | first answer | ready, ports of AWS | first answer, ports of AWS | peak memory when ready | binary | zipped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['function']} | {r['ready_ms']:.0f} ms | {r['answer_ms']:.0f} ms | {r['aws_ready_ms']:.0f} ms | {r['aws_answer_ms']:.0f} ms "
        f"| {r['peak_mib']:.0f} MiB | {r['binary_mb']:.0f} MB | {r['zipped_mb']:.0f} MB |"
        for r in rows
    ]
    return "\n".join(lines)


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


def start_once(binary, lakehouse, ports):
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
        **ports,
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
