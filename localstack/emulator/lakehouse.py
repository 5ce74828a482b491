"""What a deployment must know of the lakehouse file: its streams, databases and workflows. And the zips that carry it."""

import hashlib
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import yaml

FUNCTIONS = ("ingest", "batcher", "crawl", "transform", "query", "insight")
FILE = "lakehouse.yaml"
SYSTEM_DATABASE = "tarn"
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
# A table with its database, as SQL names it where it reads.
READ = re.compile(r'\b(?:from|join)\s+"?([a-z_][a-z0-9_]*)"?\s*\.\s*"?[a-z_]', re.IGNORECASE)
# The same bytes make the same zip, whenever it is made.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


class Mistake(Exception):
    """Something that the user can put right; its text says what."""


@dataclass(frozen=True)
class Lakehouse:
    """A lakehouse file, as text and as what it makes necessary."""

    text: bytes
    streams: list[str]
    # Written by something in the file, and only read.
    databases: list[str]
    read: list[str]
    workflows: list[str]
    # What the streams ask for at most, None where none does.
    retention_hours: int | None
    shards: int | None

    @classmethod
    def load(cls, path: Path) -> "Lakehouse":
        try:
            text = path.read_bytes()
            file = yaml.safe_load(text)
            own = file["database"]
        except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
            raise Mistake(f"{path}: expected a lakehouse file with a `database` (check it with `tarn validate`), found: {error}") from error

        def parts(name: str) -> list[dict]:
            return list((file.get(name) or {}).values())

        jobs = [job for workflow in parts("workflows") for job in (workflow.get("jobs") or {}).values()]
        tables = [part.get("table") for part in parts("streams")] + [part.get("into") for part in jobs + parts("insights")]
        databases = {own, file.get("system_database", SYSTEM_DATABASE)}
        read = {name for part in jobs + parts("insights") for name in READ.findall(part.get("sql") or "")} - {"information_schema"}
        databases |= {location["database"] for location in parts("locations") if location.get("database")}
        databases |= {table.split(".")[0] for table in tables if table and "." in table}
        databases, read = ({name.lower() for name in names} for names in (databases, read))
        return cls(
            text=text,
            streams=sorted(file.get("streams") or {}),
            databases=sorted(databases),
            read=sorted(read - databases),
            workflows=sorted(file.get("workflows") or {}),
            retention_hours=max((hours(path, part["retention"]) for part in parts("streams") if part.get("retention")), default=None),
            shards=max((part["shards"] for part in parts("streams") if part.get("shards")), default=None),
        )

    def parameters(self) -> dict[str, str]:
        """The template's parameters that follow from the file. Its names have no capitals, so `U` can stand for `_`."""
        settings = {"StreamRetentionHours": self.retention_hours, "StreamShards": self.shards}
        return {
            "Streams": ",".join(self.streams).replace("_", "U"),
            "Workflows": ",".join(self.workflows).replace("_", "U"),
            "Databases": ",".join(self.databases),
            "ReadDatabases": ",".join(self.read),
            **{name: str(value) for name, value in settings.items() if value is not None},
        }


def hours(path: Path, text: str) -> int:
    """A time such as `7d`, in hours, rounded up."""
    parts = re.fullmatch(r"(\d+)([smhd])", str(text))
    if not parts:
        raise Mistake(f"{path}: expected a `retention` such as `24h` or `7d` (check it with `tarn validate`), found `{text}`")
    return -(-int(parts[1]) * SECONDS[parts[2]] // SECONDS["h"])


def entry(name: str, mode: int, method: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, ZIP_TIME)
    info.external_attr = (0o100000 | mode) << 16
    info.create_system = 3
    info.compress_type = method
    return info


def add_lakehouse(zipped: zipfile.ZipFile, lakehouse: Lakehouse) -> None:
    """The lakehouse file is the last entry of a zip, so that another one can take its place without packing the program anew."""
    zipped.writestr(entry(FILE, 0o644, zipfile.ZIP_STORED), lakehouse.text)


def with_lakehouse(source: Path, target: Path, lakehouse: Lakehouse) -> None:
    """Copies a function's zip, with `lakehouse` in place of the lakehouse file that it may hold."""
    shutil.copyfile(source, target)
    with zipfile.ZipFile(target, "a") as zipped:
        last = zipped.infolist()[-1]
        if last.filename == FILE:
            zipped.filelist.remove(last)
            del zipped.NameToInfo[FILE]
            zipped.start_dir = last.header_offset
        add_lakehouse(zipped, lakehouse)


def fingerprint(paths: list[Path]) -> str:
    """Names what some files hold."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
