"""Uploads the functions and deploys infra/template.yaml, to AWS or to the emulator: the same calls."""

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import boto3
import yaml
from botocore.exceptions import ClientError

from lakehouse import FUNCTIONS, Lakehouse, Mistake, fingerprint, with_lakehouse

TEMPLATE = Path(__file__).resolve().parents[2] / "infra" / "template.yaml"
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
# They follow from the lakehouse file, and so belong to the code that carries it.
OF_LAKEHOUSE = ("Streams", "Databases", "ReadDatabases", "Workflows")
# No route of any function: it answers 404, once it has opened the lakehouse.
KNOCK = {"version": "2.0", "rawPath": "/", "headers": {}, "requestContext": {"http": {"method": "GET", "path": "/"}}, "isBase64Encoded": False}


class Broken(Mistake):
    """What was deployed does not work."""


def say(text: str) -> None:
    """For people; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


class Account:
    """Where to deploy: a region of an account, or the emulator when `endpoint` is given."""

    def __init__(self, region: str | None, endpoint: str | None = None):
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"} if endpoint else {}
        self.session = boto3.Session(region_name=region, **keys)
        self.endpoint = endpoint
        self.region = self.session.region_name
        if not self.region:
            raise Mistake("expected a region: set REGION, AWS_REGION or the profile's `region`")
        self.pause = 0.1 if endpoint else 3.0
        self.s3 = self.client("s3")
        self.cloudformation = self.client("cloudformation")
        self.id = self.client("sts").get_caller_identity()["Account"]

    def client(self, service: str):
        return self.session.client(service, endpoint_url=self.endpoint)

    def code_bucket(self) -> str:
        return f"tarn-code-{self.id}-{self.region}"


def make_code_bucket(account: Account, bucket: str) -> None:
    """A private bucket; does nothing when it is there. Its name can be guessed, so one of another account is refused."""
    try:
        account.s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=account.id)
        return
    except ClientError as error:
        if error.response["Error"]["Code"] in ("403", "AccessDenied"):
            raise Mistake(f"expected the bucket `{bucket}` to be this account's and open to you, found neither; name another one with --code-bucket") from error
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
    place = {} if account.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": account.region}}
    account.s3.create_bucket(Bucket=bucket, **place)
    blocked = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    account.s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=blocked)


def upload(account: Account, bucket: str, stack: str, zips: Path, lakehouse: Lakehouse) -> str:
    """Puts the six zips, each with the lakehouse file, below a prefix that is named by what they hold. Gives the prefix."""
    missing = [name for name in FUNCTIONS if not (zips / f"{name}.zip").is_file()]
    if missing:
        raise Mistake(f"{zips}: expected a zip for each function (`make zips`), found none of {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        packed = [Path(folder) / f"{name}.zip" for name in FUNCTIONS]
        for path in packed:
            with_lakehouse(zips / path.name, path, lakehouse)
        prefix = f"{stack}/{fingerprint(packed)}"
        for path in packed:
            key = f"{prefix}/{path.name}"
            if not exists(account, bucket, key):
                say(f"uploading s3://{bucket}/{key} ({path.stat().st_size / 1e6:.1f} MB)")
                account.s3.upload_file(str(path), bucket, key, ExtraArgs={"ExpectedBucketOwner": account.id})
    return prefix


def exists(account: Account, bucket: str, key: str) -> bool:
    return bool(account.s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("KeyCount"))


def settings(texts: list[str]) -> dict[str, str]:
    """Parameters as the command line gives them."""
    wrong = [text for text in texts if not text.partition("=")[1]]
    if wrong:
        raise Mistake(f"expected a parameter as NAME=VALUE, found `{wrong[0]}`")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def record(account: Account, bucket: str, stack: str, parameters: dict[str, str], template: str) -> None:
    """Notes a deployment that works beside its code, for `rollback`, unless it is the newest already."""
    note = {
        "codePrefix": parameters["CodePrefix"],
        "architecture": parameters["Architecture"],
        "template": template,
        "lakehouse": {name: parameters[name] for name in OF_LAKEHOUSE},
    }
    if any({**newest, **note} == newest for newest in deployments(account, bucket, stack, most=1)):
        return
    note["at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    account.s3.put_object(Bucket=bucket, Key=f"{stack}/deployments/{time.time_ns()}.json", Body=json.dumps(note).encode(), ExpectedBucketOwner=account.id)


def deployments(account: Account, bucket: str, stack: str, most: int = 50) -> list[dict]:
    """What was deployed, newest first."""
    pages = account.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{stack}/deployments/")
    try:
        keys = sorted((o["Key"] for page in pages for o in page.get("Contents", [])), reverse=True)
    except account.s3.exceptions.NoSuchBucket:
        return []
    return [json.loads(account.s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys[:most]]


def describe(account: Account, stack: str) -> dict | None:
    """The stack, or None."""
    try:
        return account.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def rollback(account: Account, stack: str, bucket: str, to: str | None = None) -> dict:
    """Deploys the code, the lakehouse file and the template of an earlier deployment (`to`: its prefix), and gives the outputs.
    Settings stay. Streams and databases of the newer lakehouse file stay too, as what leaves the stack can't come back into it."""
    found = describe(account, stack)
    if found is None:
        raise Mistake(f"expected the stack `{stack}`, found none")
    now = {p["ParameterKey"]: p["ParameterValue"] for p in found["Parameters"]}
    earlier = [d for d in deployments(account, bucket, stack) if d["codePrefix"] != now["CodePrefix"]]
    chosen = next((d for d in earlier if to in (None, d["codePrefix"])), None)
    if chosen is None:
        raise Mistake(f"expected an earlier deployment{f' with the prefix `{to}`' if to else ''}, found none (`deploy.py list`)")
    say(f"{stack}: from {now['CodePrefix']} back to {chosen['codePrefix']} of {chosen['at']}")
    then = chosen["lakehouse"]
    both = {name: names(now.get(name, "")) | names(then[name]) for name in ("Streams", "Databases", "ReadDatabases")}
    gone = both["Streams"] - names(now.get("Streams", ""))
    if gone and now.get("MakeStorage") != "false":
        left = ", ".join(sorted(gone)).replace("U", "_")
        say(f"{stack}: streams that left the stack and stay outside: {left}. To take them back, deploy the earlier lakehouse file with ADOPT=1")
        both["Streams"] -= gone
    both["ReadDatabases"] -= both["Databases"]
    template = account.s3.get_object(Bucket=bucket, Key=chosen["template"], ExpectedBucketOwner=account.id)["Body"].read().decode()
    parameters = {
        "CodePrefix": chosen["codePrefix"],
        "Architecture": chosen["architecture"],
        "Workflows": then["Workflows"],
        **{name: ",".join(sorted(parts)) for name, parts in both.items()},
    }
    known = template_defaults(template)
    return deploy(account, stack, {name: value for name, value in parameters.items() if name in known}, bucket, template=template)


def deploy(account: Account, stack: str, parameters: dict[str, str], bucket: str, adopt: bool = False, template: str | None = None) -> dict:
    """Makes or changes the stack, calls its functions once and gives its outputs. Parameters that are not named keep their values.
    With `adopt`, bucket, streams and databases that an earlier stack left are taken over. Raises `Broken` when the stack is there and
    a function does not open."""
    template = template or TEMPLATE.read_text()
    if adopt:
        parameters = {**parameters, "MakeStorage": "false", "MakeDatabases": "false"}
    found = describe(account, stack)
    if found and found["StackStatus"] == "ROLLBACK_COMPLETE":
        say(f"{stack}: removing what is left of an attempt that failed")
        account.cloudformation.delete_stack(StackName=stack)
        settle(account, stack, "DELETE", None)
        found = None
    if found and found["StackStatus"] == "REVIEW_IN_PROGRESS":
        found = None
    known = {p["ParameterKey"]: p["ParameterValue"] for p in (found or {}).get("Parameters", [])}
    defaults = template_defaults(template)
    if unknown := sorted(set(parameters) - set(defaults)):
        raise Mistake(f"expected parameters of {TEMPLATE.name}, found `{unknown[0]}`, which it does not have")
    if not found:
        parameters = {"BucketName": f"{stack}-{account.id}-{account.region}", **parameters}
    if parameters.get("MakeDatabases", known.get("MakeDatabases")) != "false" and not_ours(account, known, parameters):
        parameters = {**parameters, "MakeDatabases": "false"}
    settled = {**{key: value for key, value in defaults.items() if value is not None}, **known, **parameters}
    settled.pop("Release", None)
    parameters = {**parameters, "Release": release(template, settled)}
    if settled["MakeStorage"] == "false":
        make_streams(account, stack, settled)
    key = keep(account, stack, bucket, template)
    chosen = [{"ParameterKey": key, "ParameterValue": value} for key, value in sorted(parameters.items())]
    chosen += [{"ParameterKey": key, "UsePreviousValue": True} for key in known if key not in parameters and key in defaults]
    change = f"{stack}-{time.time_ns()}"
    account.cloudformation.create_change_set(
        StackName=stack,
        ChangeSetName=change,
        ChangeSetType="UPDATE" if found else "CREATE",
        Parameters=chosen,
        Capabilities=CAPABILITIES,
        TemplateURL=f"{account.endpoint}/{bucket}/{key}" if account.endpoint else f"https://{bucket}.s3.{account.region}.amazonaws.com/{key}",
    )
    if ready(account, stack, change):
        before = (describe(account, stack) or {}).get("LastUpdatedTime")
        account.cloudformation.execute_change_set(StackName=stack, ChangeSetName=change)
        settle(account, stack, "UPDATE" if found else "CREATE", before)
    else:
        say(f"{stack}: nothing to change")
    made = outputs(account, stack)
    knock(account, made["functions"])
    record(account, bucket, stack, settled, key)
    return made


def plan(account: Account, stack: str, lakehouse: bytes, allow: bool) -> None:
    """Has the functions that run say what the lakehouse file would change and which of its SQL can't be planned, and refuses one that they
    can't follow. Functions of an earlier version, and a stack that is not there yet, say nothing."""
    changes = changes_of(account, stack, "batcher", "/plan", lakehouse) + changes_of(account, stack, "transform", "/check", lakehouse)
    for change in changes:
        say(f"{change['effect']}: {change['subject']} `{change['name']}`, {change['what']}: {change['then']}")
    effects = {change["effect"] for change in changes}
    if "impossible" in effects:
        raise Mistake(f"{stack}: the tables that exist can't follow the lakehouse file; nothing was deployed")
    if "needs_allow" in effects and not allow:
        raise Mistake(f"{stack}: something would stay behind or fail; nothing was deployed. ALLOW=1 deploys it nevertheless")


def changes_of(account: Account, stack: str, function: str, path: str, lakehouse: bytes) -> list[dict[str, str]]:
    """What a function that runs says of a lakehouse file; nothing when it can't."""
    client = account.client("lambda")
    http = {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "deploy"}
    event = {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": {"content-type": "application/yaml"},
        "requestContext": {"http": http, "requestId": "plan", "accountId": "", "apiId": "", "stage": "$default", "time": "", "timeEpoch": 0},
        "body": lakehouse.decode(), "isBase64Encoded": False,
    }
    try:
        called = client.invoke(FunctionName=f"{stack}-{function}:live", Payload=json.dumps(event).encode())
    except (client.exceptions.ResourceNotFoundException, client.exceptions.TooManyRequestsException):
        return []
    answer = json.loads(called["Payload"].read())
    try:
        body = json.loads(answer.get("body") or "{}")
    except ValueError:
        body = {}
    if "changes" not in body:
        told = body.get("error", {}).get("message", "no plan")
        say(f"{stack}: what `POST {path}` would say of the lakehouse file is not known: {told}")
        return []
    return body["changes"]


def knock(account: Account, functions: dict[str, str]) -> None:
    """Calls each function once, so that one that can't open its lakehouse is found now and not by its users."""
    client = account.client("lambda")
    for function in functions.values():
        try:
            answer = client.invoke(FunctionName=f"{function}:live", Payload=json.dumps(KNOCK).encode())
        except client.exceptions.TooManyRequestsException:
            say(f"{function}: not tried, as there is no concurrency for it")
            continue
        found = answer["Payload"].read().decode()
        if "FunctionError" in answer:
            raise Broken(f"{function}: expected an answer to a request, found {answer['FunctionError']}: {found[:1000]}")


def not_ours(account: Account, known: dict[str, str], parameters: dict[str, str]) -> list[str]:
    """Databases that the stack would make and that are there: another's, or its own of old, which it can't take back."""
    glue = account.client("glue")
    found = []
    for name in sorted(names(parameters.get("Databases", "")) - names(known.get("Databases", ""))):
        try:
            glue.get_database(Name=name)
            found.append(name)
        except glue.exceptions.EntityNotFoundException:
            pass
    if found:
        say(f"databases that are there already: {', '.join(found)}; from now on none belongs to the stack, and the functions make those that are missing")
    return found


def names(text: str) -> set[str]:
    return {name for name in text.split(",") if name}


def make_streams(account: Account, stack: str, parameters: dict[str, str]) -> None:
    """Makes streams that are missing: a stack that took its storage over makes none."""
    kinesis = account.client("kinesis")
    mode = parameters["StreamMode"]
    for name in sorted(names(parameters["Streams"].replace("U", "_"))):
        stream = f"{stack}-{name}"
        try:
            kinesis.describe_stream_summary(StreamName=stream)
            continue
        except kinesis.exceptions.ResourceNotFoundException:
            say(f"making the stream {stream}")
        shards = {"ShardCount": int(parameters["StreamShards"])} if mode == "PROVISIONED" else {}
        kinesis.create_stream(StreamName=stream, StreamModeDetails={"StreamMode": mode}, **shards)
        ready = kinesis.get_waiter("stream_exists")
        ready.wait(StreamName=stream, WaiterConfig={"Delay": 1})
        if int(parameters["StreamRetentionHours"]) > 24:
            kinesis.increase_stream_retention_period(StreamName=stream, RetentionPeriodHours=int(parameters["StreamRetentionHours"]))
            ready.wait(StreamName=stream, WaiterConfig={"Delay": 1})
        kinesis.start_stream_encryption(StreamName=stream, EncryptionType="KMS", KeyId=parameters["KmsKeyArn"] or "alias/aws/kinesis")


def template_defaults(template: str) -> dict[str, str | None]:
    """The template's parameters with their defaults, None where there is none."""

    class Untagged(yaml.SafeLoader):
        pass

    Untagged.add_multi_constructor("!", lambda _loader, _suffix, _node: None)
    declared = yaml.load(template, Untagged)["Parameters"]
    return {name: str(parameter["Default"]) if "Default" in parameter else None for name, parameter in declared.items()}


def release(template: str, parameters: dict[str, str]) -> str:
    """Names what is deployed: another template, code or setting is another release."""
    text = json.dumps([template, parameters], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def keep(account: Account, stack: str, bucket: str, template: str) -> str:
    """Stores the template, which is too long for a request, where it stays for `rollback`. Gives its key."""
    key = f"{stack}/template-{hashlib.sha256(template.encode()).hexdigest()[:16]}.yaml"
    account.s3.put_object(Bucket=bucket, Key=key, Body=template.encode(), ExpectedBucketOwner=account.id)
    return key


def ready(account: Account, stack: str, change: str) -> bool:
    """Waits until the change set can be carried out; false when it changes nothing."""
    while True:
        found = account.cloudformation.describe_change_set(StackName=stack, ChangeSetName=change)
        if found["Status"] == "CREATE_COMPLETE":
            return True
        if found["Status"] == "FAILED":
            reason = found.get("StatusReason", "")
            account.cloudformation.delete_change_set(StackName=stack, ChangeSetName=change)
            if "didn't contain changes" in reason or "No updates are to be performed" in reason:
                return False
            raise Mistake(f"{stack}: expected a change set that can be carried out, found: {reason}")
        time.sleep(account.pause)


def settle(account: Account, stack: str, doing: str, before) -> None:
    """Waits for the end, and says what went wrong first. `before` is when the stack was last changed before this."""
    began = time.time()
    while True:
        found = describe(account, stack) or {"StackStatus": "DELETE_COMPLETE"}
        # For a moment the stack may still have the status of its last change.
        fresh = doing != "UPDATE" or found.get("LastUpdatedTime") != before or time.time() - began > 60
        if not found["StackStatus"].endswith("_IN_PROGRESS") and fresh:
            break
        time.sleep(account.pause)
    if found["StackStatus"] != f"{doing}_COMPLETE":
        raise Mistake(f"{stack}: expected {doing}_COMPLETE, found {found['StackStatus']}\n" + failures(account, stack, began))
    say(f"{stack}: {found['StackStatus']}")


def failures(account: Account, stack: str, began: float) -> str:
    events = account.cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    # The clocks of two machines differ.
    failed = [e for e in reversed(events) if e["ResourceStatus"].endswith("_FAILED") and e["Timestamp"].timestamp() >= began - 60]
    return "\n".join(f"  {e['LogicalResourceId']} ({e['ResourceType']}): {e.get('ResourceStatusReason', '')}" for e in failed[:10])


def outputs(account: Account, stack: str) -> dict:
    """The stack's outputs, named as programs want them."""
    found = describe(account, stack)
    if found is None:
        raise Mistake(f"expected the stack `{stack}`, found none")
    values = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])}
    streams = sorted(names(values.get("StreamNames", "").replace("U", "_")))
    local = f"{account.endpoint}/_aws/execute-api/{values['ApiId']}/$default" if account.endpoint else None
    return {
        "stack": stack,
        "region": account.region,
        "apiUrl": local or values["ApiUrl"],
        "bucket": values["Bucket"],
        "streams": {name: f"{stack}-{name}" for name in streams},
        "functions": {name: values[f"{name.capitalize()}Function"] for name in FUNCTIONS},
        "release": values["Release"],
        "deadLetters": values["DeadLetters"],
        "alarms": values["AlarmTopic"],
        "dashboard": values["DashboardUrl"],
    }
