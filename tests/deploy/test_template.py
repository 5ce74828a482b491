"""Deploys infra/template.yaml to the emulator, with a stand-in for each function that notes what it is called with. Signatures and
each role's grants are enforced."""

import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "localstack" / "emulator"
sys.path.insert(0, str(TOOLS))

from lakehouse import FUNCTIONS, Lakehouse, Mistake, entry, with_lakehouse  # noqa: E402

REGION = "us-east-1"
LAKEHOUSE = """
version: 1
database: shop
streams:
  orders: {schema: []}
  order_lines: {schema: [], table: mart.lines}
locations:
  customers: {database: crm}
workflows:
  daily_sums: {jobs: {sums: {sql: 'SELECT a.b FROM crm.people AS a JOIN "geo" . places ON true', into: Sums.daily}}}
insights:
  next: {into: ai.forecast}
"""
STAND_IN = """#!{python}
import json, os, urllib.request
base = f"http://{{os.environ['AWS_LAMBDA_RUNTIME_API']}}/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(base + "next") as call:
        event, id = json.loads(call.read()), call.headers["Lambda-Runtime-Aws-Request-Id"]
    note = {{"function": os.environ["AWS_LAMBDA_FUNCTION_NAME"], "event": event, "files": sorted(os.listdir(os.environ["LAMBDA_TASK_ROOT"])),
            "settings": {{name: value for name, value in os.environ.items() if name.startswith("TARN_")}}}}
    with open({log!r}, "a") as log:
        log.write(json.dumps(note) + "\\n")
    answer = json.dumps({{"statusCode": 200, "body": note["function"]}}).encode()
    urllib.request.urlopen(urllib.request.Request(base + id + "/response", answer)).read()
# {mark}
"""
ROUTES = {
    "ingest": ["GET /streams", "POST /streams/orders/records", "PUT /files/customers/2024/c.csv", "POST /uploads/customers/a/c.csv", "GET /status/ingest"],
    "batcher": ["POST /streams/orders/flush", "GET /streams/orders/errors", "POST /streams/orders/errors/replay", "POST /streams/orders/errors/discard", "POST /plan", "GET /status/batcher"],
    "crawl": ["POST /crawl", "GET /crawls", "GET /status/crawl"],
    "transform": ["POST /workflows/daily_sums/runs", "GET /workflows/daily_sums/runs", "GET /runs/1", "POST /runs/1/resume", "POST /runs/1/cancel", "GET /workflows/daily_sums/quarantine", "POST /workflows/daily_sums/quarantine/replay", "POST /workflows/daily_sums/quarantine/discard",
                  "POST /check", "GET /status/transform"],
    "query": ["POST /query"],
    "insight": ["POST /insight", "POST /insights/next", "GET /status/insight"],
}
# What each role may do in the bucket: r(ead), w(rite), l(ist).
OBJECTS = {
    "ingest": {"raw": "rwl", "errors": "w", "state": "rwl"},
    "batcher": {"tables": "rwl", "errors": "rwl", "state": "rwl"},
    "crawl": {"raw": "rl", "state": "rwl"},
    # It may remove stored answers, not read them: an erasure does.
    "transform": {"raw": "rwl", "tables": "rwl", "errors": "rwl", "quarantine": "rwl", "results": "l", "erasures": "rw", "state": "rwl"},
    "query": {"raw": "rl", "tables": "rwl", "results": "rwl"},
    "insight": {"raw": "rl", "tables": "rwl", "state": "rwl"},
}
FOLDERS = ["raw", "tables", "errors", "quarantine", "results", "erasures", "state", "project"]
# They read tables of the catalog and write them.
TABLE_USERS = {"batcher", "crawl", "transform", "query", "insight"}


def write_zips(folder: Path, log: Path, mark: str, broken: str = "") -> Path:
    """Zips of stand-ins; the one of `broken` ends before it takes an event."""
    folder.mkdir()
    for name in FUNCTIONS:
        text = STAND_IN.format(python=sys.executable, log=str(log), mark=mark)
        if name == broken:
            text = f"#!{sys.executable}\nraise SystemExit('expected a lakehouse')\n"
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as zipped:
            zipped.writestr(entry("bootstrap", 0o755, zipfile.ZIP_DEFLATED), text)
    return folder


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.file = self.folder / "lakehouse.yaml"

    def test_streams_databases_and_workflows_follow_from_the_lakehouse_file(self):
        self.file.write_text(LAKEHOUSE)
        parameters = Lakehouse.load(self.file).parameters()
        expected = {"Streams": "orderUlines,orders", "Workflows": "dailyUsums", "Databases": "ai,crm,mart,shop,sums,tarn", "ReadDatabases": "geo"}
        self.assertEqual(parameters, expected)

    def test_streams_are_made_as_the_one_that_asks_for_most(self):
        def parameters(*streams: str) -> tuple:
            self.file.write_text("\n".join(["version: 1", "database: shop", "streams:", *streams]))
            made = Lakehouse.load(self.file).parameters()
            return made.get("StreamRetentionHours"), made.get("StreamShards")

        self.assertEqual(parameters("  a: {schema: []}"), (None, None))
        self.assertEqual(parameters("  a: {retention: 7d, shards: 2}", "  b: {retention: 90000s}", "  c: {shards: 4}"), ("168", "4"))
        self.assertEqual(parameters("  a: {retention: 90000s}"), ("25", None))
        with self.assertRaisesRegex(Mistake, "retention.*`a week`"):
            parameters("  a: {retention: a week}")

    def test_two_lakehouses_of_one_account_can_keep_their_runs_apart(self):
        self.file.write_text("version: 1\ndatabase: shop\nsystem_database: shop_system\n")
        self.assertEqual(Lakehouse.load(self.file).parameters()["Databases"], "shop,shop_system")

    def test_a_file_that_is_no_lakehouse_is_refused_with_its_path(self):
        for text in ("[1]", "streams: {}", "a: [", ""):
            self.file.write_text(text)
            with self.assertRaisesRegex(Mistake, str(self.file)):
                Lakehouse.load(self.file)

    def test_another_lakehouse_file_takes_the_place_of_the_one_in_a_zip(self):
        zips = write_zips(self.folder / "zips", self.folder / "log", "")
        source, target = zips / "query.zip", self.folder / "query.zip"
        for text in ("version: 1\ndatabase: a\n", "version: 1\ndatabase: something_longer\n", "database: b\n"):
            self.file.write_text(text)
            with_lakehouse(source, target, Lakehouse.load(self.file))
            with zipfile.ZipFile(target) as zipped:
                self.assertIsNone(zipped.testzip())
                self.assertEqual(zipped.namelist(), ["bootstrap", "lakehouse.yaml"])
                self.assertEqual(zipped.read("lakehouse.yaml").decode(), text)
            target.replace(source)


class OnEmulator(unittest.TestCase):
    AUTH: list[str] = []

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.log = cls.folder / "calls.ndjson"
        cls.log.touch()
        cls.lakehouse = cls.folder / "lakehouse.yaml"
        cls.lakehouse.write_text(LAKEHOUSE)
        cls.zips = write_zips(cls.folder / "zips", cls.log, "first")
        up = [sys.executable, str(TOOLS / "emulator.py"), "up", *cls.AUTH, "--directory", str(cls.folder)]
        with (cls.folder / "emulator.log").open("wb") as log:
            emulator = subprocess.Popen(up, stdout=subprocess.PIPE, stderr=log)
        cls.addClassCleanup(emulator.wait)
        cls.addClassCleanup(emulator.stdout.close)
        cls.addClassCleanup(emulator.kill)
        cls.endpoint = json.loads(emulator.stdout.readline())["endpoint"]

    @classmethod
    def client(cls, service: str, role: str | None = None):
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        if role:
            given = cls.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
            keys = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"]}
            keys["aws_session_token"] = given["SessionToken"]
        return boto3.client(service, endpoint_url=cls.endpoint, region_name=REGION, **keys)


class Deployed(OnEmulator):
    AUTH = ["--auth"]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stack = cls.deploy()

    @classmethod
    def deploy(cls, *more: str, zips: Path | None = None) -> dict:
        command = [sys.executable, str(TOOLS / "emulator.py"), "deploy", "--endpoint", cls.endpoint, "--auth", "--stack", "shop"]
        command += ["--lakehouse", str(cls.lakehouse), "--zips", str(zips or cls.zips), "--parameter", "TickState=DISABLED", *more]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(done.stderr)
        return json.loads(done.stdout)

    def live(self, function: str) -> dict:
        return self.client("lambda").get_function_configuration(FunctionName=self.stack["functions"][function], Qualifier="live")

    def call(self, route: str, signed: bool = True) -> tuple[int, str]:
        method, path = route.split(" ")
        request = AWSRequest(method, self.stack["apiUrl"] + path)
        if signed:
            SigV4Auth(Credentials("test", "test"), "execute-api", REGION).add_auth(request)
        try:
            with urllib.request.urlopen(urllib.request.Request(request.url, headers=dict(request.headers), method=method)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def calls_of(self, function: str, wanted) -> list[dict]:
        """The events that the function was called with, once one of them is `wanted`."""
        for _ in range(200):
            notes = [json.loads(line) for line in self.log.read_text().splitlines()]
            events = [note["event"] for note in notes if note["function"] == f"shop-{function}"]
            if any(wanted(event) for event in events):
                return events
            time.sleep(0.1)
        raise AssertionError(f"{function} was not called as expected, but with {events}")

    def test_each_route_reaches_its_function_and_only_with_a_signature(self):
        for function, routes in ROUTES.items():
            for route in routes:
                with self.subTest(route):
                    self.assertEqual(self.call(route), (200, f"shop-{function}"))
                    self.assertEqual(self.call(route, signed=False)[0], 403)
        self.assertEqual(self.call("GET /nothing")[0], 404)

    def test_a_function_finds_its_lakehouse_file_and_settings(self):
        self.call("POST /query")
        notes = [json.loads(line) for line in self.log.read_text().splitlines()]
        query = next(note for note in notes if note["function"] == "shop-query")
        self.assertEqual(query["files"], ["bootstrap", "lakehouse.yaml"])
        expected = {
            "TARN_PORTS": "aws",
            "TARN_WAREHOUSE": f"s3://{self.stack['bucket']}/",
            "TARN_STREAM_PREFIX": "shop-",
            "TARN_DATA": "/tmp/tarn",
            "TARN_SPILL": "/tmp/spill",
            "TARN_SPILL_LIMIT": "3840MiB",
            "TARN_MEMORY": "1804MiB",
            "TARN_LOG": "info",
            "TARN_METRICS_NAMESPACE": "shop",
        }
        self.assertEqual(query["settings"], expected)

    def objects_of_crawl(self, wanted) -> list[dict]:
        """What the queue told the crawler, once `wanted` is among it."""

        def told(event: dict) -> list[dict]:
            records = event.get("Records", [])
            self.assertTrue(all(record["eventSource"] == "aws:sqs" for record in records), records)
            return [note for record in records for note in json.loads(record["body"]).get("Records", [])]

        return [note for event in self.calls_of("crawl", lambda event: any(map(wanted, told(event)))) for note in told(event)]

    def test_an_object_of_the_raw_zone_calls_the_crawler_and_no_other_object_does(self):
        s3 = self.client("s3")
        for key in ("tables/shop/t/x", "state/x", "raw/customers/new.csv"):
            s3.put_object(Bucket=self.stack["bucket"], Key=key, Body=b"x")
        s3.delete_object(Bucket=self.stack["bucket"], Key="raw/customers/new.csv")

        notes = self.objects_of_crawl(lambda note: note["eventName"].startswith("ObjectRemoved"))
        keys = {note["s3"]["object"]["key"] for note in notes}
        self.assertTrue(all(key.startswith("raw/") for key in keys), keys)
        self.assertIn("raw/customers/new.csv", keys)

    def test_a_record_of_each_stream_calls_the_batcher(self):
        for name, stream in self.stack["streams"].items():
            self.client("kinesis").put_record(StreamName=stream, Data=name.encode(), PartitionKey="k")
            self.calls_of("batcher", lambda event: any(r.get("eventSourceARN", "").endswith(f":stream/shop-{name}") for r in event.get("Records", [])))

    def test_each_tick_is_allowed_to_call_the_alias(self):
        for function in ("batcher", "crawl", "transform", "insight"):
            rule = f"shop-{function}-tick"
            alias = f"{self.live(function)['FunctionArn'].rsplit(':', 1)[0]}:live"
            targets = self.client("events").list_targets_by_rule(Rule=rule)["Targets"]
            self.assertEqual([target["Arn"] for target in targets], [alias])
            policy = json.loads(self.client("lambda").get_policy(FunctionName=f"shop-{function}", Qualifier="live")["Policy"])
            allowed = [s["Condition"]["ArnLike"]["AWS:SourceArn"] for s in policy["Statement"] if s["Principal"] == {"Service": "events.amazonaws.com"}]
            self.assertEqual([arn.rsplit("/", 1)[1] for arn in allowed], [rule])

    def test_alarms_watch_what_the_functions_and_streams_and_workflows_tell(self):
        alarms = self.client("cloudwatch").describe_alarms(AlarmNamePrefix="shop-")["MetricAlarms"]
        own = {(a["MetricName"], a["Dimensions"][0]["Name"], a["Dimensions"][0]["Value"]) for a in alarms if a["Namespace"] == "shop"}
        told = [(metric, "stream", name) for metric in ("RecordsRejected", "RecordsFailed", "LagMilliseconds") for name in ("orders", "order_lines")]
        self.assertEqual(own, {*told, ("RunsFailed", "workflow", "daily_sums")})
        watched = {(a["MetricName"], a["Dimensions"][0]["Value"]) for a in alarms if a["Namespace"] == "AWS/Lambda"}
        expected = {(metric, f"shop-{name}") for metric in ("Errors", "Throttles", "Duration") for name in FUNCTIONS}
        self.assertEqual(watched, {*expected, ("IteratorAge", "shop-batcher")})
        watched = {(a["MetricName"], a["Dimensions"][0]["Value"]) for a in alarms if a["Namespace"] in ("AWS/SQS", "AWS/ApiGateway")}
        api = self.stack["apiUrl"].split("/execute-api/")[1].split("/")[0]
        expected = {("ApproximateNumberOfMessagesVisible", "shop-dead-letters"), ("ApproximateAgeOfOldestMessage", "shop-raw-events"), ("5xx", api)}
        self.assertEqual(watched, expected)
        self.assertTrue(all(a["AlarmActions"] == [self.stack["alarms"]] for a in alarms))

    def may(self, call, **arguments) -> bool:
        """Whether the call is allowed, be it of use or not."""
        try:
            call(**arguments)
        except ClientError as error:
            return error.response["Error"]["Code"] not in ("AccessDenied", "AccessDeniedException")
        return True

    def granted(self, role: str, action: str, resource: str) -> bool:
        arns = [f"arn:aws:glue:{REGION}:000000000000:{resource}"]
        answer = self.client("iam").simulate_principal_policy(PolicySourceArn=role, ActionNames=[action], ResourceArns=arns)
        return [result["EvalDecision"] for result in answer["EvaluationResults"]] == ["allowed"]

    def test_each_role_may_do_what_its_function_does_and_nothing_else(self):
        bucket, stream = self.stack["bucket"], self.stack["streams"]["orders"]
        for function in FUNCTIONS:
            role = self.live(function)["Role"]
            s3, glue, kinesis = (self.client(service, role) for service in ("s3", "glue", "kinesis"))
            for folder in FOLDERS:
                found = "r" if self.may(s3.get_object, Bucket=bucket, Key=f"{folder}/x") else ""
                found += "w" if self.may(s3.put_object, Bucket=bucket, Key=f"{folder}/x", Body=b"x") else ""
                found += "l" if self.may(s3.list_objects_v2, Bucket=bucket, Prefix=f"{folder}/") else ""
                self.assertEqual(found, OBJECTS[function].get(folder, ""), f"{function} in {folder}/")
            # Without it S3 would not tell the function that an object is not there (see the template).
            self.assertTrue(self.may(s3.list_objects_v2, Bucket=bucket), function)
            self.assertFalse(self.may(s3.list_objects_v2, Bucket=bucket, Prefix="elsewhere/"), function)
            for database in ("shop", "tarn", "geo", "foreign"):
                uses = function in TABLE_USERS and database != "foreign"
                writes = uses and database != "geo"
                self.assertEqual(self.may(glue.get_database, Name=database), uses, f"{function}: database {database}")
                self.assertEqual(self.may(glue.get_table, DatabaseName=database, Name="t"), uses, f"{function}: table of {database}")
                self.assertEqual(self.may(glue.create_table, DatabaseName=database, TableInput={"Name": function}), writes, f"{function}: {database}")
                drops = function == "query" and database in ("shop", "tarn")
                self.assertEqual(self.granted(role, "glue:DeleteDatabase", f"database/{database}"), drops, f"{function}: {database}")
            self.assertEqual(self.may(kinesis.list_shards, StreamName=stream), function in ("ingest", "batcher"), function)
            self.assertEqual(self.may(kinesis.put_record, StreamName=stream, Data=b"x", PartitionKey="k"), function == "ingest", function)
            for call, more in ((kinesis.list_shards, {}), (kinesis.put_record, {"Data": b"x", "PartitionKey": "k"})):
                self.assertFalse(self.may(call, StreamName="shop-prod-orders", **more), function)

    def test_what_a_function_gives_up_goes_to_the_dead_letters_which_its_role_may_send_to(self):
        queue = self.stack["deadLetters"]
        arn = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        for function in FUNCTIONS:
            given_up = self.client("lambda").get_function_event_invoke_config(FunctionName=f"shop-{function}", Qualifier="live")
            self.assertEqual(given_up["DestinationConfig"]["OnFailure"], {"Destination": arn}, function)
            self.assertTrue(self.may(self.client("sqs", self.live(function)["Role"]).send_message, QueueUrl=queue, MessageBody=function))
        for source in self.client("lambda").list_event_source_mappings(FunctionName="shop-batcher:live")["EventSourceMappings"]:
            self.assertEqual(source["DestinationConfig"]["OnFailure"], {"Destination": arn})

    def test_a_key_of_the_users_own_is_granted_to_each_role_and_no_other_is(self):
        def granted(function: str) -> list[dict]:
            policy = self.client("iam").get_role_policy(RoleName=self.live(function)["Role"].rsplit("/", 1)[1], PolicyName="run")
            return [s for s in policy["PolicyDocument"]["Statement"] if "kms:Decrypt" in s["Action"]]

        for refused in ("alias/own", "arn:aws:kms:us-east-1:000000000000:alias/own"):
            with self.assertRaisesRegex(AssertionError, "KmsKeyArn"):
                self.deploy("--parameter", f"KmsKeyArn={refused}")
        self.assertEqual([granted(function) for function in FUNCTIONS], [[]] * len(FUNCTIONS))
        key = self.client("kms").create_key()["KeyMetadata"]["Arn"]
        self.deploy("--parameter", f"KmsKeyArn={key}")
        for function in FUNCTIONS:
            [statement] = granted(function)
            self.assertEqual((statement["Effect"], statement["Resource"]), ("Allow", key))
        self.deploy("--parameter", "KmsKeyArn=")

    def test_a_setting_and_new_code_reach_the_alias_and_both_can_be_taken_back(self):
        before = self.live("query")
        self.assertEqual(self.deploy()["release"], self.stack["release"], "nothing changed")
        self.assertEqual(self.live("query")["Version"], before["Version"])

        self.deploy("--parameter", "QueryMemory=4096")
        larger = self.live("query")
        self.assertEqual((larger["MemorySize"], larger["Environment"]["Variables"]["TARN_MEMORY"]), (4096, "2457MiB"))

        self.deploy(zips=write_zips(self.folder / "second", self.log, "second"))
        newer = self.live("query")
        self.assertNotEqual(newer["CodeSha256"], before["CodeSha256"])
        self.assertEqual(newer["MemorySize"], 4096, "a parameter that is not given keeps its value")

        self.deploy("--parameter", "QueryMemory=3008")
        self.assertEqual((self.live("query")["CodeSha256"], self.live("query")["MemorySize"]), (before["CodeSha256"], 3008))

    def test_data_outlives_the_stack_and_another_one_takes_it_over(self):
        s3, cloudformation = self.client("s3"), self.client("cloudformation")
        s3.put_object(Bucket=self.stack["bucket"], Key="tables/shop/kept/x", Body=b"kept")
        self.client("kinesis").put_record(StreamName="shop-orders", Data=b"kept", PartitionKey="k")
        cloudformation.delete_stack(StackName="shop")
        cloudformation.get_waiter("stack_delete_complete").wait(StackName="shop", WaiterConfig={"Delay": 1})
        self.assertEqual(self.client("lambda").list_functions()["Functions"], [])
        self.assertEqual(s3.get_object(Bucket=self.stack["bucket"], Key="tables/shop/kept/x")["Body"].read(), b"kept")

        self.log.write_text("")
        type(self).stack = self.deploy("--adopt")
        data = "a2VwdA=="
        self.calls_of("batcher", lambda event: any(r["kinesis"]["data"] == data for r in event.get("Records", [])))
        s3.put_object(Bucket=self.stack["bucket"], Key="raw/customers/again.csv", Body=b"x")
        self.objects_of_crawl(lambda note: note["s3"]["object"]["key"] == "raw/customers/again.csv")

        more = self.folder / "more.yaml"
        more.write_text(LAKEHOUSE.replace("streams:", "streams:\n  returns: {schema: [], retention: 2d}"))
        streams = self.deploy("--lakehouse", str(more))["streams"]
        self.assertEqual(sorted(streams), ["order_lines", "orders", "returns"])
        made = self.client("kinesis").describe_stream_summary(StreamName="shop-returns")["StreamDescriptionSummary"]
        self.assertEqual((made["StreamStatus"], made["RetentionPeriodHours"], made["EncryptionType"]), ("ACTIVE", 48, "KMS"))

    def test_an_open_api_must_be_asked_for_and_jwt_needs_an_issuer(self):
        with self.assertRaisesRegex(AssertionError, "JwtIssuer"):
            self.deploy("--parameter", "Authorization=JWT")

    def test_subnets_need_a_security_group(self):
        with self.assertRaisesRegex(AssertionError, "SubnetIds needs SecurityGroupIds"):
            self.deploy("--parameter", "SubnetIds=subnet-1")


class WayBack(OnEmulator):
    """`deploy.py`, as `make deploy` and `make rollback` call it."""

    def run_script(self, command: str, *more: str) -> subprocess.CompletedProcess:
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        line = [sys.executable, str(TOOLS / "deploy.py"), command, "--stack", "shop", "--region", REGION, "--endpoint", self.endpoint, *more]
        return subprocess.run(line, capture_output=True, text=True, env={**os.environ, **keys})

    def deploy(self, zips: Path, lakehouse: str) -> subprocess.CompletedProcess:
        self.lakehouse.write_text(lakehouse)
        more = ["--parameter", "RequireTls=false", "--parameter", "TickState=DISABLED", "--arch", "x86_64"]
        return self.run_script("deploy", "--zips", str(zips), "--lakehouse", str(self.lakehouse), *more)

    def made(self, done: subprocess.CompletedProcess):
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def parameters(self) -> dict[str, str]:
        [stack] = self.client("cloudformation").describe_stacks(StackName="shop")["Stacks"]
        return {p["ParameterKey"]: p["ParameterValue"] for p in stack["Parameters"]}

    def test_the_way_back_by_hand_and_by_itself(self):
        with self.subTest("nothing is there yet"):
            self.assertIn("expected the stack `shop`, found none", self.run_script("rollback").stderr)
            self.assertEqual(self.made(self.run_script("list")), [])
            broken = write_zips(self.folder / "never", self.log, "never", broken="insight")
            refused = self.deploy(broken, LAKEHOUSE)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("shop-insight: expected an answer to a request", refused.stderr)
            self.assertIn("expected an earlier deployment, found none", refused.stderr)
            again = self.deploy(broken, LAKEHOUSE)
            self.assertIn("nothing to change", again.stderr)
            self.assertIn("shop-insight: expected an answer to a request", again.stderr, "it is as broken as before")
            self.assertEqual(self.made(self.run_script("list")), [])

        first = self.made(self.deploy(self.zips, LAKEHOUSE))
        self.made(self.deploy(self.zips, LAKEHOUSE))
        self.assertEqual(len(self.made(self.run_script("list"))), 1, "the second changed nothing")
        misspelt = self.run_script("deploy", "--zips", str(self.zips), "--lakehouse", str(self.lakehouse), "--parameter", "QueryMemmory=512")
        self.assertIn("found `QueryMemmory`, which it does not have", misspelt.stderr)
        # The newer lakehouse has one more stream and writes no `crm`.
        newer = LAKEHOUSE.replace("streams:", "streams:\n  returns: {schema: []}").replace("database: crm", "database: people")
        second_zips = write_zips(self.folder / "second", self.log, "second")
        self.made(self.deploy(second_zips, newer))
        after = self.parameters()
        self.assertEqual((after["Streams"], after["ReadDatabases"]), ("orderUlines,orders,returns", "crm,geo"))

        with self.subTest("by hand"):
            back = self.made(self.run_script("rollback"))
            now = self.parameters()
            # What is there stays, what the older file writes may be written again.
            self.assertEqual((now["Streams"], now["ReadDatabases"]), ("orderUlines,orders,returns", "geo"))
            self.assertTrue({"crm", "people"} <= set(now["Databases"].split(",")), now["Databases"])
            self.assertEqual(sorted(back["streams"]), ["order_lines", "orders", "returns"])
            self.assertTrue(now["CodePrefix"] in [d["codePrefix"] for d in self.made(self.run_script("list"))])

        with self.subTest("by itself"):
            broken = write_zips(self.folder / "third", self.log, "third", broken="query")
            refused = self.deploy(broken, LAKEHOUSE)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("shop: what was deployed does not work; went back to release", refused.stderr, refused.stderr)
            self.assertIn("shop-query: expected an answer to a request", refused.stderr)
            # The newest that worked had a stream that this one did not name.
            self.assertIn("streams that left the stack and stay outside: returns", refused.stderr)
            answer = self.client("lambda").invoke(FunctionName="shop-query:live", Payload=b"{}")
            self.assertNotIn("FunctionError", answer)
            self.assertEqual(first["bucket"], self.parameters()["BucketName"])


if __name__ == "__main__":
    unittest.main()
