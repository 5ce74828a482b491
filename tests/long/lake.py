"""A lakehouse of its own for a run of the long suite, and rows in a form in which two engines can be compared."""

import datetime
import decimal
import http.client
import json
import math
import os
import pathlib
import subprocess
import tempfile


class Refused(Exception):
    """An answer that is an error; `status` is that of HTTP."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


class Lake:
    """`tarn up` in a folder that goes when the lake is closed."""

    def __init__(self, tarn, memory=1 << 30, locations=()):
        self.folder = tempfile.TemporaryDirectory(prefix="tarn-long-")
        root = pathlib.Path(self.folder.name)
        project = root / "lakehouse.yaml"
        declared = "".join(f"  {name}: {{table: {name}}}\n" for name in locations)
        project.write_text("version: 1\ndatabase: db\n" + (f"locations:\n{declared}" if declared else ""))
        self.raw = root / "data" / "objects" / "raw"
        self.log = open(root / "log", "w")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TARN")} | {"TARN_MEMORY": f"{memory >> 20}MiB"}
        command = [tarn, "up", "--port", "0", "--output", "json", "--data", root / "data", "--project", project]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=environment, cwd=root)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the lakehouse did not start:\n" + (root / "log").read_text())
        self.address = json.loads(line)["url"].rstrip("/").removeprefix("http://")
        self.connection = None
        self.rows("CREATE DATABASE IF NOT EXISTS db")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        self.folder.cleanup()

    def rows(self, sql, timeout=120):
        """Rows of the answer, each value in the type of its column."""
        return self.answer(sql, timeout)[1]

    def answer(self, sql, timeout=120):
        """The types of the columns, and the rows."""
        status, answer = self.post("/query", {"sql": sql}, timeout)
        if status != 200:
            raise Refused(status, answer["error"]["message"] if isinstance(answer, dict) else str(answer))
        if answer.get("truncated"):
            raise Refused(413, "the answer was truncated")
        types = [column["type"].lower() for column in answer["columns"]]
        return types, [[valued(value, ty) for value, ty in zip(row, types)] for row in answer["rows"]]

    def crawl(self, location):
        """Registers the files of a location, which lie in its folder below `raw`."""
        status, answer = self.post("/crawl", {"location": location}, 120)
        if status != 200:
            raise Refused(status, str(answer))

    def post(self, path, body, timeout):
        for attempt in (0, 1):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(self.address, timeout=timeout)
                self.connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
                response = self.connection.getresponse()
                text = response.read()
                return response.status, json.loads(text)
            except (http.client.HTTPException, ConnectionError):
                # The server may close a connection between requests, once.
                self.connection = None
                if attempt or self.process.poll() is not None:
                    raise
            except ValueError:
                return response.status, text.decode(errors="replace")

    def peak_bytes(self):
        """The most memory that the process had, where the system says so."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return 0
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


def valued(value, ty):
    """The value of a JSON answer: decimals, large integers, times, NaN and infinities come as texts."""
    if isinstance(value, str) and ty == "timestamp":
        return datetime.datetime.fromisoformat(value)
    if isinstance(value, str) and ty.startswith(("decimal", "tinyint", "smallint", "int(", "integer", "bigint", "uint")) or ty == "int":
        return None if value is None else decimal.Decimal(value)
    if isinstance(value, str) and any(word in ty for word in ("double", "float")):
        return float(value.replace("Infinity", "inf"))
    return value


def comparable(value):
    """Equal for equal values of both engines: numbers by nine digits, times as texts."""
    if value is None or isinstance(value, bool):
        return (str(value),)
    if isinstance(value, (int, float, decimal.Decimal)):
        number = float(value)
        if math.isnan(number) or math.isinf(number):
            return ("number", str(number))
        if not isinstance(value, float) and abs(value) >= 1 << 53 and value == int(value):
            return ("number", str(int(value)))
        return ("number", f"{number + 0.0:.9g}".replace("-0", "0") if number == 0 else f"{number:.9g}")
    if isinstance(value, datetime.datetime):
        # Engines differ in whether a date and an interval are a date.
        return ("text", value.isoformat().removesuffix("T00:00:00"))
    if isinstance(value, (datetime.date, datetime.time)):
        return ("text", value.isoformat())
    if isinstance(value, (list, tuple)):
        return ("list", tuple(comparable(unquoted(item)) for item in value))
    return ("text", str(value))


def unquoted(item):
    """A number that stands as a text in a list of a JSON answer."""
    for of in (int, float):
        try:
            return of(item) if isinstance(item, str) else item
        except ValueError:
            pass
    return item


def multiset(rows):
    """Rows without an order."""
    return sorted(tuple(comparable(value) for value in row) for row in rows)
