"""What a backup of a deployment says of its bucket's versions."""

import datetime
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "localstack" / "emulator"))

import backup
from lakehouse import Mistake


def at(second: int) -> datetime.datetime:
    return datetime.datetime(2026, 1, 1, 0, 0, second, tzinfo=datetime.timezone.utc)


def version(key: str, number: int, second: int, **more) -> dict:
    return {"Key": key, "VersionId": str(number), "LastModified": at(second), **more}


class OfAMoment(unittest.TestCase):
    def test_each_object_has_the_version_that_it_had_at_the_moment(self):
        versions = [
            version("state/a", 4, 40), version("state/a", 3, 30), version("state/a", 2, 20),
            version("raw/gone", 2, 25, gone=True), version("raw/gone", 1, 10),
            version("raw/lost-later", 2, 35, gone=True), version("raw/lost-later", 1, 10),
            version("raw/later", 1, 31),
            version("raw/back", 3, 22), version("raw/back", 2, 15, gone=True), version("raw/back", 1, 10),
        ]
        found = {key: found["VersionId"] for key, found in backup.objects_at(versions, at(31)).items()}
        self.assertEqual(found, {"state/a": "3", "raw/lost-later": "1", "raw/back": "3"})

    def test_what_is_written_in_the_second_that_begins_is_not_of_the_moment(self):
        self.assertEqual(backup.objects_at([version("a", 2, 30), version("a", 1, 29)], at(30))["a"]["VersionId"], "1")
        self.assertEqual(backup.objects_at([version("a", 1, 30)], at(30)), {})

    def test_empty_texts_are_none(self):
        self.assertEqual(backup.only({"Name": "t", "Owner": "", "Retention": 0}, backup.TABLE), {"Name": "t", "Retention": 0})

    def test_what_is_no_backup_is_refused_by_name(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "other.zip"
            path.write_bytes(b"PK")
            with self.assertRaisesRegex(Mistake, "other.zip"):
                backup.Backup(path)


if __name__ == "__main__":
    unittest.main()
