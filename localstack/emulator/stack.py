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
# CloudFormation takes a longer template only from S3.
INLINE_TEMPLATE = 51_200


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
    """A private bucket; does nothing when it is there."""
    try:
        account.s3.head_bucket(Bucket=bucket)
        return
    except ClientError as error:
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
                account.s3.upload_file(str(path), bucket, key)
    return prefix


def exists(account: Account, bucket: str, key: str) -> bool:
    return bool(account.s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("KeyCount"))


def settings(texts: list[str]) -> dict[str, str]:
    """Parameters as the command line gives them."""
    wrong = [text for text in texts if not text.partition("=")[1]]
    if wrong:
        raise Mistake(f"expected a parameter as NAME=VALUE, found `{wrong[0]}`")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def record(account: Account, bucket: str, stack: str, parameters: dict[str, str]) -> None:
    """Notes a deployment beside its code, for `rollback`."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    note = {"at": at, "codePrefix": parameters["CodePrefix"], "architecture": parameters["Architecture"]}
    account.s3.put_object(Bucket=bucket, Key=f"{stack}/deployments/{time.time_ns()}.json", Body=json.dumps(note).encode())


def deployments(account: Account, bucket: str, stack: str) -> list[dict]:
    """What was deployed, newest first."""
    pages = account.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{stack}/deployments/")
    keys = sorted((o["Key"] for page in pages for o in page.get("Contents", [])), reverse=True)
    return [json.loads(account.s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys[:50]]


def describe(account: Account, stack: str) -> dict | None:
    """The stack, or None."""
    try:
        return account.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def deploy(account: Account, stack: str, parameters: dict[str, str], bucket: str, adopt: bool = False) -> dict:
    """Makes or changes the stack and gives its outputs. Parameters that are not named keep their values. With `adopt`, bucket,
    streams and databases that an earlier stack left are taken over."""
    template = TEMPLATE.read_text()
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
    if not found:
        parameters = {"BucketName": f"{stack}-{account.id}-{account.region}", **parameters}
    settled = {**{key: value for key, value in defaults.items() if value is not None}, **known, **parameters}
    settled.pop("Release", None)
    parameters = {**parameters, "Release": release(template, settled)}
    chosen = [{"ParameterKey": key, "ParameterValue": value} for key, value in sorted(parameters.items())]
    chosen += [{"ParameterKey": key, "UsePreviousValue": True} for key in known if key not in parameters and key in defaults]
    change = f"{stack}-{time.time_ns()}"
    account.cloudformation.create_change_set(
        StackName=stack,
        ChangeSetName=change,
        ChangeSetType="UPDATE" if found else "CREATE",
        Parameters=chosen,
        Capabilities=CAPABILITIES,
        **body(account, stack, bucket, template),
    )
    if not ready(account, stack, change):
        say(f"{stack}: nothing to change")
        return outputs(account, stack)
    before = (describe(account, stack) or {}).get("LastUpdatedTime")
    account.cloudformation.execute_change_set(StackName=stack, ChangeSetName=change)
    settle(account, stack, "UPDATE" if found else "CREATE", before)
    record(account, bucket, stack, settled)
    return outputs(account, stack)


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


def body(account: Account, stack: str, bucket: str, template: str) -> dict:
    if len(template.encode()) <= INLINE_TEMPLATE:
        return {"TemplateBody": template}
    key = f"{stack}/template-{hashlib.sha256(template.encode()).hexdigest()[:16]}.yaml"
    account.s3.put_object(Bucket=bucket, Key=key, Body=template.encode())
    return {"TemplateURL": f"https://{bucket}.s3.{account.region}.amazonaws.com/{key}"}


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
    names = [name for name in values.get("StreamNames", "").replace("U", "_").split(",") if name]
    local = f"{account.endpoint}/_aws/execute-api/{values['ApiId']}/$default" if account.endpoint else None
    return {
        "stack": stack,
        "region": account.region,
        "apiUrl": local or values["ApiUrl"],
        "bucket": values["Bucket"],
        "streams": {name: f"{stack}-{name}" for name in names},
        "functions": {name: values[f"{name.capitalize()}Function"] for name in FUNCTIONS},
        "release": values["Release"],
        "deadLetters": values["DeadLetters"],
        "alarms": values["AlarmTopic"],
        "dashboard": values["DashboardUrl"],
    }
