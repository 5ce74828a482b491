"""Backups of a deployment: what the versions of its bucket do not keep, and which of them belong together.

The bucket keeps the versions of its objects (`NoncurrentDays`; those of state documents for a day), so a backup holds no data: it says
which version each object had at one moment, and has beside it what is no object, or is not kept for long: the Glue catalog, the state
documents, the lakehouse file. A backup is one zip.

**The moment** is the turn of a second of S3's clock. The catalog is read before and after it, until both times give the same: then it
was so at that moment, too. Of the bucket the moment can be told later from the times of versions and delete markers. So catalog,
objects and state are what a stop of all functions at that moment would have left, which is what they are made to go on from. What the
streams hold is in no backup: tables hold the positions up to which they have a stream, and the batcher reads on from there, as long as
Kinesis has the records (`StreamRetentionHours`).

**A restore** goes back in the same bucket: Iceberg's metadata names its files by whole URLs. It throttles the functions, brings objects
back by copying their versions over themselves, then the state, then the catalog, and takes away what came later. That leaves versions,
too, so a restore can be undone by another one. It can be run again when it was broken off.
"""

import datetime
import email.utils
import io
import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

import stack
from lakehouse import FILE, Mistake

FORMAT = 1
# Answers of queries, which nobody asks for later.
LEFT_OUT = "results/"
STATE = "state/"
# Folders whose objects are found by listing them: what came later goes.
LISTED = ("raw/", "errors/", "quarantine/", STATE)
TABLE = (
    "Name", "Description", "Owner", "Retention", "StorageDescriptor", "PartitionKeys", "ViewOriginalText", "ViewExpandedText",
    "TableType", "Parameters", "TargetTable",
)
PARTITION = ("Values", "StorageDescriptor", "Parameters")
DATABASE = ("Name", "Description", "LocationUri", "Parameters")
# Times that the catalog is read until nothing changes meanwhile.
TRIES = 60
CALLS = 16
# S3 copies objects up to 5 GB in one piece, which keeps their entity tag.
WHOLE = TransferConfig(multipart_threshold=5 << 30)


class Deployment:
    """A stack's bucket, catalog and functions."""

    def __init__(self, account: stack.Account, name: str):
        self.account = account
        self.name = name
        self.s3 = account.s3
        self.glue = account.client("glue")
        self.outputs = stack.outputs(account, name)
        self.bucket = self.outputs["bucket"]
        parameters = (stack.describe(account, name) or {})["Parameters"]
        self.parameters = {p["ParameterKey"]: p["ParameterValue"] for p in parameters}
        self.databases = sorted(stack.names(self.parameters.get("Databases", "")))

    def now(self) -> datetime.datetime:
        """S3's clock: whole seconds."""
        headers = self.s3.head_bucket(Bucket=self.bucket)["ResponseMetadata"]["HTTPHeaders"]
        return email.utils.parsedate_to_datetime(headers["date"])

    def turn_of_a_second(self) -> datetime.datetime:
        """Waits for it. What was written before has an earlier time."""
        before = self.now()
        while self.now() <= before:
            time.sleep(0.05)
        return before + datetime.timedelta(seconds=1)

    def pages(self, client, operation: str, result: str, **arguments) -> list:
        return [item for page in client.get_paginator(operation).paginate(**arguments) for item in page.get(result, [])]

    def catalog(self) -> dict:
        """Databases, tables and partitions, as they are to be made again."""
        found = {}
        for name in self.databases:
            try:
                database = self.glue.get_database(Name=name)["Database"]
            except self.glue.exceptions.EntityNotFoundException:
                continue
            tables = self.pages(self.glue, "get_tables", "TableList", DatabaseName=name)
            found[name] = {
                "database": only(database, DATABASE),
                "tables": {table["Name"]: {"table": only(table, TABLE), "partitions": self.partitions(name, table)} for table in tables},
            }
        return found

    def partitions(self, database: str, table: dict) -> list[dict]:
        if not table.get("PartitionKeys"):
            return []
        found = self.pages(self.glue, "get_partitions", "Partitions", DatabaseName=database, TableName=table["Name"])
        return sorted((only(partition, PARTITION) for partition in found), key=lambda partition: partition["Values"])

    def versions(self) -> list[dict]:
        """All versions and delete markers of the bucket's objects; those of an object the newest first."""
        found = []
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket):
            markers = [{**marker, "gone": True} for marker in page.get("DeleteMarkers", [])]
            # Sorting keeps the order of S3 among equals; in doubt an object was there.
            found += page.get("Versions", []) + markers
        found.sort(key=lambda version: (bool(version.get("IsLatest")), version["LastModified"]), reverse=True)
        return [version for version in found if not version["Key"].startswith(LEFT_OUT)]

    def lakehouse(self) -> bytes:
        """The lakehouse file that the functions carry."""
        key = f"{self.parameters['CodePrefix']}/ingest.zip"
        zipped = self.s3.get_object(Bucket=self.parameters["CodeBucket"], Key=key)["Body"].read()
        with zipfile.ZipFile(io.BytesIO(zipped)) as opened:
            return opened.read(FILE)


def only(found: dict, names: tuple[str, ...]) -> dict:
    """Some fields: an empty text is as none, which is how Glue wants it back."""
    return {name: found[name] for name in names if found.get(name, "") != ""}


def plain(value):
    """As JSON gives it back: two of these can be compared."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


def take(account: stack.Account, name: str, folder: Path) -> dict:
    """Writes a backup of the deployment into `folder`; what it holds."""
    deployment = Deployment(account, name)
    catalog, at = settled(deployment)
    objects = objects_at(deployment.versions(), at)
    documents = {key: version for key, version in objects.items() if key.startswith(STATE)}
    head = {
        "format": FORMAT,
        "stack": name,
        "bucket": deployment.bucket,
        "at": at.isoformat(),
        "parameters": deployment.parameters,
        "release": deployment.outputs["release"],
    }

    def document(key: str) -> tuple[str, bytes]:
        return key, account.s3.get_object(Bucket=deployment.bucket, Key=key, VersionId=documents[key]["VersionId"])["Body"].read()

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{at.strftime('%Y-%m-%dT%H-%M-%SZ')}.zip"
    draft = path.with_suffix(".draft")
    try:
        with ThreadPoolExecutor(CALLS) as calls, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr("backup.json", json.dumps(head, indent=2))
            zipped.writestr("catalog.json", json.dumps(catalog, indent=1))
            zipped.writestr("objects.ndjson", "".join(json.dumps(listed(key, version)) + "\n" for key, version in sorted(objects.items())))
            zipped.writestr(FILE, deployment.lakehouse())
            for key, body in calls.map(document, documents):
                zipped.writestr(key, body)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    tables = sum(len(database["tables"]) for database in catalog.values())
    size = sum(version["Size"] for version in objects.values())
    return {"backup": str(path), "at": head["at"], "tables": tables, "documents": len(documents), "objects": len(objects), "bytes": size}


def listed(key: str, version: dict) -> dict:
    return {"key": key, "version": version["VersionId"], "etag": version["ETag"], "size": version["Size"]}


def settled(deployment: Deployment) -> tuple[dict, datetime.datetime]:
    """The catalog at a moment, and the moment."""
    for _ in range(TRIES):
        before = plain(deployment.catalog())
        at = deployment.turn_of_a_second()
        after = plain(deployment.catalog())
        if before == after:
            return after, at
    busy = [f"{d}.{t}" for d in after for t in after[d]["tables"] if after[d]["tables"][t] != before.get(d, {}).get("tables", {}).get(t)]
    raise Mistake(f"{deployment.name}: expected a second in which no table changes, found none in {TRIES}; these change: {', '.join(busy)}")


def objects_at(versions: list[dict], at: datetime.datetime) -> dict[str, dict]:
    """The version that each object had at a moment. `versions` has those of an object the newest first."""
    found: dict[str, dict] = {}
    for version in versions:
        if version["LastModified"] < at:
            found.setdefault(version["Key"], version)
    return {key: version for key, version in found.items() if not version.get("gone")}


class Backup:
    """A backup that was taken."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as zipped:
                if damaged := zipped.testzip():
                    raise Mistake(f"{path}: expected a whole backup, found `{damaged}` damaged")
                self.head = json.loads(zipped.read("backup.json"))
                if self.head["format"] > FORMAT:
                    raise Mistake(f"{path}: expected a backup of format {FORMAT} or older, found format {self.head['format']}")
                self.catalog = json.loads(zipped.read("catalog.json"))
                self.objects = {line["key"]: line for line in map(json.loads, zipped.read("objects.ndjson").splitlines())}
                self.documents = {key: zipped.read(key) for key in zipped.namelist() if key.startswith(STATE)}
        except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
            raise Mistake(f"{path}: expected a backup that `deploy.py backup` wrote, found: {error}") from error


def restore(account: stack.Account, name: str, path: Path) -> dict:
    """Brings a deployment back to what it was at the moment of a backup; what it did."""
    kept = Backup(path)
    deployment = Deployment(account, name)
    if kept.head["bucket"] != deployment.bucket:
        raise Mistake(f"{path}: expected a backup of the bucket `{deployment.bucket}`, found one of `{kept.head['bucket']}`: tables name their files by whole URLs")
    check_versions(deployment, kept)
    with Throttled(deployment):
        done = {"objects": bring_back(deployment, kept), "documents": restore_state(deployment, kept)}
        done["tables"] = restore_catalog(deployment, kept.catalog)
        done["removed"] = remove_later(deployment, kept)
        found = plain(deployment.catalog())
        differ = [d for d in kept.catalog if found.get(d, {}).get("tables") != kept.catalog[d]["tables"]]
        if differ:
            raise Mistake(f"{name}: expected the catalog of the backup, found another one in {', '.join(differ)}: somebody wrote meanwhile; run it again")
    return {"backup": str(path), "at": kept.head["at"], **done}


def current(deployment: Deployment) -> dict[str, dict]:
    found = deployment.pages(deployment.s3, "list_objects_v2", "Contents", Bucket=deployment.bucket)
    return {item["Key"]: item for item in found if not item["Key"].startswith(LEFT_OUT)}


def is_as(item: dict | None, wanted: dict) -> bool:
    return item is not None and (item["ETag"], item["Size"]) == (wanted["etag"], wanted["size"])


def check_versions(deployment: Deployment, kept: Backup) -> None:
    """Before anything is changed: whether all objects can be brought back. State documents are in the backup."""
    now = current(deployment)
    wanted = {key: item for key, item in kept.objects.items() if not key.startswith(STATE) and not is_as(now.get(key), item)}
    known = {(version["Key"], version["VersionId"]) for version in deployment.versions() if not version.get("gone")}
    lost = sorted(key for key, item in wanted.items() if (key, item["version"]) not in known)
    if lost:
        days = deployment.parameters.get("NoncurrentDays", "some")
        raise Mistake(f"{kept.path}: {len(lost)} objects are gone with the version of then, such as `{lost[0]}`: versions are kept for {days} days. Bring them back from another backup of the bucket first, then run it again")


def bring_back(deployment: Deployment, kept: Backup) -> int:
    now = current(deployment)
    wanted = [item for key, item in kept.objects.items() if not key.startswith(STATE) and not is_as(now.get(key), item)]

    def copy(item: dict) -> None:
        source = {"Bucket": deployment.bucket, "Key": item["key"], "VersionId": item["version"]}
        deployment.s3.copy(source, deployment.bucket, item["key"], Config=WHOLE)

    in_parallel(copy, wanted)
    return len(wanted)


def restore_state(deployment: Deployment, kept: Backup) -> int:
    now = current(deployment)
    wanted = [key for key in kept.documents if not is_as(now.get(key), kept.objects[key])]
    in_parallel(lambda key: deployment.s3.put_object(Bucket=deployment.bucket, Key=key, Body=kept.documents[key]), wanted)
    return len(wanted)


def remove_later(deployment: Deployment, kept: Backup) -> int:
    """Objects that came after the moment, where somebody would find them. Their versions stay."""
    later = [key for key in current(deployment) if key.startswith(LISTED) and key not in kept.objects]
    in_parallel(lambda key: deployment.s3.delete_object(Bucket=deployment.bucket, Key=key), later)
    return len(later)


def in_parallel(call, items: list) -> None:
    with ThreadPoolExecutor(CALLS) as calls:
        for _ in calls.map(call, items):
            pass


def restore_catalog(deployment: Deployment, catalog: dict) -> list[str]:
    """Makes the catalog what it was; the tables that were another."""
    glue, changed = deployment.glue, []
    now = plain(deployment.catalog())
    for database, kept in catalog.items():
        if database not in now:
            glue.create_database(DatabaseInput=kept["database"])
        found = now.get(database, {}).get("tables", {})
        for name in found.keys() - kept["tables"].keys():
            glue.delete_table(DatabaseName=database, Name=name)
            changed.append(f"{database}.{name}")
        for name, wanted in kept["tables"].items():
            if found.get(name) == wanted:
                continue
            if name not in found:
                glue.create_table(DatabaseName=database, TableInput=wanted["table"])
            elif found[name]["table"] != wanted["table"]:
                glue.update_table(DatabaseName=database, TableInput=wanted["table"])
            restore_partitions(glue, {"DatabaseName": database, "TableName": name}, found.get(name, {}).get("partitions", []), wanted["partitions"])
            changed.append(f"{database}.{name}")
    return changed


def restore_partitions(glue, table: dict, found: list[dict], wanted: list[dict]) -> None:
    def by_values(partitions: list[dict]) -> dict:
        return {tuple(partition["Values"]): partition for partition in partitions}

    found, wanted = by_values(found), by_values(wanted)
    # Those that differ are made anew.
    gone = [values for values in found if wanted.get(values) != found[values]]
    new = [partition for values, partition in wanted.items() if found.get(values) != partition]
    for some in chunks(gone, 25):
        failed(glue.batch_delete_partition(**table, PartitionsToDelete=[{"Values": list(values)} for values in some]))
    for some in chunks(new, 100):
        failed(glue.batch_create_partition(**table, PartitionInputList=some))


def chunks(items: list, size: int) -> list[list]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def failed(answer: dict) -> None:
    if answer.get("Errors"):
        raise Mistake(f"expected partitions to be restored, found: {answer['Errors'][0]}")


class Throttled:
    """Throttles the functions: no call begins. Calls under way go on; what they write is found in the end."""

    def __init__(self, deployment: Deployment):
        self.deployment = deployment
        self.client = deployment.account.client("lambda")
        self.before: dict[str, int | None] = {}

    def __enter__(self) -> None:
        try:
            for name, function in self.deployment.outputs["functions"].items():
                found = self.client.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions")
                # What a restore left that was broken off is not what was meant.
                self.before[function] = found or self.meant(name)
                self.client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
        except ClientError:
            self.__exit__()
            raise

    def meant(self, function: str) -> int | None:
        value = self.deployment.parameters.get(f"{function.capitalize()}Concurrency", "")
        return int(value) if value.isdigit() else None

    def __exit__(self, *_error) -> None:
        for function, before in self.before.items():
            try:
                if before is None:
                    self.client.delete_function_concurrency(FunctionName=function)
                else:
                    self.client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=before)
            except ClientError as error:
                stack.say(f"{function}: still throttled (`aws lambda delete-function-concurrency`): {error}")
