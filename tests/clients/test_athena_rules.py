"""The checker finds what it is made to find."""

import copy
import unittest

import athena_rules as rules

CSV = {
    "Name": "t",
    "TableType": "EXTERNAL_TABLE",
    "Parameters": {"classification": "csv", "compressionType": "none"},
    "PartitionKeys": [{"Name": "year", "Type": "int"}],
    "StorageDescriptor": {
        "Columns": [{"Name": "a", "Type": "string"}, {"Name": "b", "Type": "string"}],
        "Location": "s3://lake/raw/t/",
        "InputFormat": rules.TEXT[0],
        "OutputFormat": rules.TEXT[1],
        "SerdeInfo": {
            "SerializationLibrary": rules.OPEN_CSV,
            "Parameters": {"separatorChar": ",", "quoteChar": '"', "escapeChar": '"'},
        },
    },
}
PARTITION = {"Values": ["2013"], "StorageDescriptor": {**CSV["StorageDescriptor"], "Location": "s3://lake/raw/t/year=2013/"}}
ICEBERG = {
    "Name": "i",
    "TableType": "EXTERNAL_TABLE",
    "Parameters": {"table_type": "ICEBERG", "metadata_location": "s3://lake/tables/i/metadata/1.metadata.json"},
    "StorageDescriptor": {"Columns": [{"Name": "a", "Type": "array<struct<x:int,y:map<string,decimal(5,2)>>>"}], "Location": "s3://lake/tables/i"},
}
KEYS = ["raw/t/year=2013/a.csv", "tables/i/metadata/1.metadata.json"]


def check(table, partition=None):
    below = lambda bucket, prefix: [key for key in KEYS if bucket == "lake" and key.startswith(prefix)]
    return rules.problems(table, [partition] if partition else [], below)


def changed(table, *path_and_value):
    *path, last, value = path_and_value
    table = copy.deepcopy(table)
    inner = table
    for step in path:
        inner = inner[step]
    inner[last] = value
    return table


class Rules(unittest.TestCase):
    def test_good_tables_have_no_problems(self):
        self.assertEqual(check(CSV, PARTITION), [])
        self.assertEqual(check(ICEBERG), [])

    def test_each_broken_rule_is_found(self):
        storage = "StorageDescriptor"
        unreadable = changed(CSV, "Parameters", {"compressionType": "none", "tarn.json": "array"})
        for table, words in [
            (changed(CSV, "TableType", "MANAGED_TABLE"), "EXTERNAL_TABLE"),
            (changed(CSV, storage, "Location", "s3://lake/raw/t"), "Location"),
            (changed(CSV, storage, "Location", "s3://lake/raw/%74/"), "no object"),
            (changed(CSV, storage, "Columns", 0, "Type", "bigint"), "expected string with OpenCSVSerde"),
            (changed(CSV, storage, "Columns", 0, "Type", "timestamptz"), "no type of Athena's"),
            (changed(CSV, storage, "Columns", 0, "Name", "A b"), "lowercase"),
            (changed(CSV, storage, "Columns", 0, "Name", "year"), "twice"),
            (changed(CSV, storage, "SerdeInfo", "Parameters", "quoteChar", ","), "three different"),
            (changed(CSV, storage, "SerdeInfo", "SerializationLibrary", rules.PARQUET_SERDE), "expected the formats"),
            (changed(CSV, storage, "SerdeInfo", "SerializationLibrary", "x.y"), "a serde of Athena's"),
            (changed(CSV, "Parameters", "compressionType", "gzip"), "endings"),
            (unreadable, "JSON that is not an object a line, but there is the serde"),
            (changed(ICEBERG, "Parameters", "metadata_location", "s3://lake/tables/i/metadata/2.metadata.json"), "expected an object"),
            (changed(ICEBERG, storage, "Columns", 0, "Type", "array<struct<x:int,y>>"), "no type of Athena's"),
        ]:
            found = check(table)
            self.assertTrue(any(words in problem for problem in found), (words, found))

    def test_each_broken_rule_of_partitions_is_found(self):
        storage = "StorageDescriptor"
        for partition, words in [
            (changed(PARTITION, "Values", ["2013", "1"]), "expected 1 values"),
            (changed(PARTITION, storage, "Location", "s3://lake/raw/u/year=2013/"), "in the table's"),
            (changed(PARTITION, storage, "Location", "s3://lake/raw/t/year=2014/"), "no object"),
            (changed(PARTITION, storage, "Columns", 0, "Type", "int"), "in the table string"),
        ]:
            found = check(CSV, partition)
            self.assertTrue(any(words in problem for problem in found), (words, found))


if __name__ == "__main__":
    unittest.main()
