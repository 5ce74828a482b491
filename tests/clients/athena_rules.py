"""Holds the tables in Glue, at AWS_ENDPOINT_URL, against what Athena asks of them.

    athena_rules.py DATABASE…

Prints {"tables": {name: {kind, partitions}}, "problems": [text]}. Quoted names are pages of Athena's user guide.
"""

import json
import re
import sys

TEXT = ("org.apache.hadoop.mapred.TextInputFormat", "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat")
PARQUET = (
    "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
)
LAZY = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"
OPEN_CSV = "org.apache.hadoop.hive.serde2.OpenCSVSerde"
JSON = "org.openx.data.jsonserde.JsonSerDe"
PARQUET_SERDE = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
# "Choose a SerDe for your data": the library and the formats that go with it.
SERDES = {LAZY: TEXT, OPEN_CSV: TEXT, JSON: TEXT, PARQUET_SERDE: PARQUET}
# "Data types in Amazon Athena".
SIMPLE = "boolean|tinyint|smallint|int|integer|bigint|float|double|string|binary|date|timestamp"
SIZED = r"decimal\(\d+,\d+\)|char\(\d+\)|varchar\(\d+\)"
# "Name databases, tables, and columns".
NAME = re.compile(r"[a-z0-9_]{1,255}")
# "Use compression in Athena": known by the name's extension.
COMPRESSED = {"none": None, "gzip": (".gz", ".gzip"), "bzip2": (".bz2",), "zstd": (".zst", ".zstd")}


def is_type(text: str) -> bool:
    """Whether Athena's DDL has the type; nested ones are peeled from outside."""
    if re.fullmatch(f"{SIMPLE}|{SIZED}", text):
        return True
    outer = re.fullmatch(r"(array|map|struct)<(.*)>", text)
    if not outer:
        return False
    parts = split(outer[2])
    if outer[1] == "array":
        return len(parts) == 1 and is_type(parts[0])
    if outer[1] == "map":
        return len(parts) == 2 and re.fullmatch(f"{SIMPLE}|{SIZED}", parts[0]) is not None and is_type(parts[1])
    fields = [part.partition(":") for part in parts]
    return all(colon and name and is_type(ty) for name, colon, ty in fields)


def split(text: str) -> list[str]:
    """The parts between the commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "<(") - (character in ">)")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def kind(table: dict) -> str:
    parameters = table.get("Parameters", {})
    if parameters.get("table_type", "").upper() == "ICEBERG":
        return "iceberg"
    library = serde(table).get("SerializationLibrary")
    return library.rsplit(".", 1)[-1] if library else "unreadable"


def serde(table: dict) -> dict:
    return table.get("StorageDescriptor", {}).get("SerdeInfo", {})


def problems(table: dict, partitions: list[dict], keys_below) -> list[str]:
    """What Athena would refuse or misread. `keys_below(bucket, prefix)` lists objects."""
    found = list(of_every_table(table))
    if kind(table) == "iceberg":
        found += of_iceberg(table, keys_below)
    else:
        found += of_files(table, keys_below)
        for partition in partitions:
            found += of_partition(table, partition, keys_below)
    return found


def of_every_table(table: dict):
    # "CREATE TABLE": a table is external; other types are views.
    if table.get("TableType") != "EXTERNAL_TABLE":
        yield f"TableType: expected EXTERNAL_TABLE, found {table.get('TableType')}"
    storage = table["StorageDescriptor"]
    columns, keys = storage.get("Columns", []), table.get("PartitionKeys", [])
    if not columns:
        yield "no columns"
    for column in columns + keys:
        if not NAME.fullmatch(column["Name"]):
            yield f"column `{column['Name']}`: expected lowercase letters, digits and underscores"
        if not is_type(column["Type"]):
            yield f"column `{column['Name']}`: `{column['Type']}` is no type of Athena's"
    # "Partition your data": a partition column can't have the name of a column.
    names = [column["Name"] for column in columns + keys]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"the column `{name}` is there twice"
    for key in keys:
        if not re.fullmatch(SIMPLE + "|" + SIZED, key["Type"]):
            yield f"partition key `{key['Name']}`: `{key['Type']}` is no simple type"


def place(location: str) -> tuple[str, str]:
    """Bucket and key; a location holds the key as it is, not as a URL has it."""
    parts = re.fullmatch(r"s3://([^/]+)/(.*)", location)
    return (parts[1], parts[2]) if parts else ("", "")


def of_iceberg(table: dict, keys_below):
    # "Query Apache Iceberg tables", and Iceberg's own page on Glue.
    metadata = table["Parameters"].get("metadata_location", "")
    location = table["StorageDescriptor"].get("Location", "")
    bucket, key = place(metadata)
    if not bucket or key not in keys_below(bucket, key):
        yield f"metadata_location: expected an object, found `{metadata}`"
    if not location.startswith("s3://") or not metadata.startswith(location.rstrip("/") + "/"):
        yield f"Location: expected the folder of `{metadata}`, found `{location}`"
    if table.get("PartitionKeys"):
        yield "expected no partition keys: Iceberg's are in its metadata"


def of_location(location: str, keys_below):
    # "Specify a table location in Amazon S3": a folder, with a final slash, no glob, no dots.
    bucket, key = place(location)
    if not bucket or not key.endswith("/"):
        yield f"Location: expected `s3://bucket/folder/`, found `{location}`"
    elif not [k for k in keys_below(bucket, key) if not k.endswith("/")]:
        yield f"Location: no object lies in `{location}`"


def of_files(table: dict, keys_below):
    storage, parameters = table["StorageDescriptor"], table.get("Parameters", {})
    library, given = serde(table).get("SerializationLibrary"), serde(table).get("Parameters", {})
    yield from of_location(storage.get("Location", ""), keys_below)
    why = why_unreadable(parameters)
    if why or "tarn.athena" in parameters:
        # A table that can't be read has to say so: Athena refuses one without a SerDe and an input format.
        if library or storage.get("InputFormat"):
            yield f"{why or 'it says that it is unreadable'}, but there is the serde `{library}`"
        if not (why and parameters.get("tarn.athena", "").startswith("unreadable: ")):
            yield f"expected `tarn.athena` to say why it is unreadable ({why}), found {parameters.get('tarn.athena')}"
        return
    if library not in SERDES:
        yield f"expected a serde of Athena's, found `{library}`"
        return
    formats = (storage.get("InputFormat"), storage.get("OutputFormat"))
    if formats != SERDES[library]:
        yield f"expected the formats {SERDES[library]} for `{library}`, found {formats}"
    if parameters.get("skip.header.line.count", "0") not in ("0", "1"):
        yield f"skip.header.line.count: found {parameters['skip.header.line.count']}"
    endings = COMPRESSED.get(parameters.get("compressionType", "none"))
    bucket, key = place(storage.get("Location", ""))
    names = [k for k in keys_below(bucket, key) if not k.endswith("/")]
    if endings and library != PARQUET_SERDE and not all(name.endswith(endings) for name in names):
        yield f"compressed files are known by the endings {endings}, found {names[:3]}"
    yield from {LAZY: of_lazy, OPEN_CSV: of_open_csv, JSON: of_json}.get(library, lambda *_: ())(storage, given)


def why_unreadable(parameters: dict) -> str | None:
    # "JSON SerDe libraries": data has to be on a single line, records end with a new line.
    if parameters.get("tarn.json") in ("array", "stream"):
        return "JSON that is not an object a line"
    # "Open CSV SerDe for processing CSV": no embedded line breaks.
    if parameters.get("tarn.newlines") == "true":
        return "CSV with line breaks in fields"
    if parameters.get("compressionType", "none") not in COMPRESSED:
        return "compression " + parameters["compressionType"]
    return None


def of_lazy(storage: dict, given: dict):
    # "Lazy Simple SerDe for CSV, TSV, and custom-delimited files".
    if len(given.get("field.delim", "")) != 1:
        yield f"field.delim: expected one character, found {given.get('field.delim')!r}"
    if given.get("serialization.format") != given.get("field.delim"):
        yield "serialization.format: expected that of field.delim"


def of_open_csv(storage: dict, given: dict):
    # "Open CSV SerDe for processing CSV": other types than string fail at empty fields, dates and times are numbers there.
    for column in storage["Columns"]:
        if column["Type"] != "string":
            yield f"column `{column['Name']}`: expected string with OpenCSVSerde, found {column['Type']}"
    characters = [given.get(name, "") for name in ("separatorChar", "quoteChar", "escapeChar")]
    # Hive's OpenCSVSerde takes the escape `"` for none; otherwise opencsv refuses characters that are the same.
    distinct = characters[:2] if characters[2] == '"' else characters
    if any(len(character) != 1 for character in characters) or len(set(distinct)) < len(distinct):
        yield f"separatorChar, quoteChar, escapeChar: expected three different characters, found {characters}"


def of_json(storage: dict, given: dict):
    # "OpenX JSON SerDe": a mapping leads from a column to the key in the file.
    columns = {column["Name"] for column in storage["Columns"]}
    for name in given:
        if name.startswith("mapping.") and name.removeprefix("mapping.") not in columns:
            yield f"{name}: there is no such column"


def of_partition(table: dict, partition: dict, keys_below):
    # "Partition your data" and "ALTER TABLE ADD PARTITION".
    values, keys = partition["Values"], table.get("PartitionKeys", [])
    if len(values) != len(keys):
        yield f"partition {values}: expected {len(keys)} values"
    storage = partition["StorageDescriptor"]
    if not storage["Location"].startswith(table["StorageDescriptor"]["Location"]):
        yield f"partition {values}: expected a location in the table's, found `{storage['Location']}`"
    for problem in of_location(storage["Location"], keys_below):
        yield f"partition {values}: {problem}"
    own, whole = storage.get("SerdeInfo", {}), serde(table)
    if own.get("SerializationLibrary") != whole.get("SerializationLibrary"):
        yield f"partition {values}: the serde `{own.get('SerializationLibrary')}` is not the table's"
    # "Partition schema mismatch errors".
    types = {column["Name"]: column["Type"] for column in table["StorageDescriptor"]["Columns"]}
    for column in storage.get("Columns", []):
        if types.get(column["Name"]) != column["Type"]:
            yield f"partition {values}: column `{column['Name']}` is {column['Type']}, in the table {types.get(column['Name'])}"


def main():
    import boto3

    glue, s3 = boto3.client("glue"), boto3.client("s3")

    def keys_below(bucket, prefix):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    tables, found = {}, []
    for database in sys.argv[1:]:
        for page in glue.get_paginator("get_tables").paginate(DatabaseName=database):
            for table in page["TableList"]:
                name = f"{database}.{table['Name']}"
                pages = glue.get_paginator("get_partitions").paginate(DatabaseName=database, TableName=table["Name"])
                partitions = [partition for page in pages for partition in page["Partitions"]]
                tables[name] = {"kind": kind(table), "partitions": len(partitions)}
                found += [f"{name}: {problem}" for problem in problems(table, partitions, keys_below)]
    print(json.dumps({"tables": tables, "problems": found}))


if __name__ == "__main__":
    main()
