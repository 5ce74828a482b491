"""The AWS emulator: start it, deploy Tarn to it, stop it.

    emulator.py up      runs the emulator until it is stopped; prints {"endpoint", "port", "pid"} when it is ready
    emulator.py deploy  deploys infra/template.yaml to a running one; prints the outputs as JSON
    emulator.py start   both, in the background; writes out/emulator/state.json (`make emulator`)
    emulator.py url     prints the URL of the HTTP API that `start` deployed
    emulator.py down    stops what `start` started (`make emulator-down`)

Results go to standard output, everything else to standard error.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "out" / "emulator"
STATE = OUT / "state.json"
DEMO = ROOT / "localstack" / "demo"
HOST = "127.0.0.1"
REGION = "us-east-1"
# Functions see the whole environment of the emulator, so it gets no more than programs need.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "USER", "RUST_BACKTRACE", "LLVM_PROFILE_FILE")


def up(port: int, auth: bool, directory: Path | None, with_parent: bool) -> None:
    """Is the emulator from here on: one process, so that stopping it in whatever way stops it whole."""
    port = port or free_port()
    endpoint = f"http://{HOST}:{port}"
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder = str(directory or own_folder())
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    os.environ.clear()
    os.environ.update(
        kept,
        GATEWAY_PORT=str(port),
        BIND_HOST=HOST,
        MINISTACK_HOST=HOST,
        AWS_ENDPOINT_URL=endpoint,
        AWS_DEFAULT_REGION=REGION,
        IOT_MTLS_ENABLED="0",
        AUTH=str(auth).lower(),
        TMPDIR=folder,
        STATE_DIR=f"{folder}/state",
        S3_DATA_DIR=f"{folder}/s3",
    )
    tempfile.tempdir = folder
    if with_parent:
        threading.Thread(target=end_with_parent, args=(folder,), daemon=True).start()
    ready = json.dumps({"endpoint": endpoint, "port": port, "pid": os.getpid()})
    threading.Thread(target=announce, args=(endpoint, ready, result), daemon=True).start()
    # Answers to small requests wait for more to send otherwise: a warm call takes 58 ms instead of 16.
    import socketserver

    socketserver.StreamRequestHandler.disable_nagle_algorithm = True
    import ministack.app

    sys.argv = ["ministack"]
    try:
        ministack.app.main()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_folder() -> Path:
    """A folder for unpacked programs; those of emulators that were killed are removed."""
    home = Path(tempfile.gettempdir())
    for left in home.glob("tarn-emulator-*"):
        if not alive(int(left.name.rsplit("-", 1)[1])):
            shutil.rmtree(left, ignore_errors=True)
    folder = home / f"tarn-emulator-{os.getpid()}"
    folder.mkdir()
    return folder


def end_with_parent(folder: str) -> None:
    """Whoever starts us holds the other end of standard input; it closes when they end, in whatever way."""
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def announce(endpoint: str, ready: str, result) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/_ministack/ready", timeout=2) as answer:
                if answer.status == 200:
                    break
        except OSError:
            time.sleep(0.05)
    print(ready, file=result, flush=True)


def deploy(options: argparse.Namespace, endpoint: str) -> dict:
    import stack
    from lakehouse import Lakehouse

    account = stack.Account(options.region, endpoint)
    lakehouse = Lakehouse.load(options.lakehouse)
    code = account.code_bucket()
    stack.make_code_bucket(account, code)
    parameters = {
        "CodeBucket": code,
        "CodePrefix": stack.upload(account, code, options.stack, options.zips, lakehouse),
        "Architecture": "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64",
        "RequireTls": "false",
        "Authorization": "AWS_IAM" if options.auth else "NONE",
        **lakehouse.parameters(),
        **stack.settings(options.parameter),
    }
    outputs = stack.deploy(account, options.stack, parameters, code, options.adopt)
    if options.auth:
        grant_misread(account, outputs["functions"], lakehouse)
    return {"endpoint": endpoint, **outputs}


def grant_misread(account, functions: dict[str, str], lakehouse) -> None:
    """Grants what MiniStack asks for where it misreads what a call is about: it takes the name in `glue:GetDatabase` and
    `glue:DeleteDatabase` for a table's, and does not know the stream of the iterator in `kinesis:GetRecords`."""
    names = [f"arn:aws:glue:{account.region}:{account.id}:table/{name}" for name in lakehouse.databases + lakehouse.read]
    databases = {"Effect": "Allow", "Action": "glue:GetDatabase", "Resource": names}
    dropped = {"Effect": "Allow", "Action": "glue:DeleteDatabase", "Resource": names}
    records = {"Effect": "Allow", "Action": "kinesis:GetRecords", "Resource": "*"}
    grants = {"ingest": [records], "batcher": [databases, records], "query": [databases, dropped]}
    for name, function in functions.items():
        policy = json.dumps({"Version": "2012-10-17", "Statement": grants.get(name, [databases])})
        role = account.client("lambda").get_function_configuration(FunctionName=function)["Role"].split("/")[-1]
        account.client("iam").put_role_policy(RoleName=role, PolicyName="emulator", PolicyDocument=policy)


def start(options: argparse.Namespace) -> None:
    """Starts the emulator in the background, unless it runs already, and deploys to it."""
    log = OUT / "emulator.log"
    state = json.loads(STATE.read_text()) if STATE.exists() else None
    if not state or not alive(state["pid"]):
        state = launch(options, log)
    state.update(deploy(options, state["endpoint"]))
    STATE.write_text(json.dumps(state, indent=2) + "\n")
    seeded = seed(state, options.lakehouse)
    print(f"endpoint   {state['endpoint']}   (pid {state['pid']}, log {log})")
    print(f"HTTP API   {state['apiUrl']}")
    print(f"warehouse  s3://{state['bucket']}/")
    print(f"functions  {', '.join(state['functions'].values())}")
    if seeded:
        print(f"seeded     {seeded} files of the demo below s3://{state['bucket']}/raw/: the crawler makes tables of them")
    print(f"\nAWS_ENDPOINT_URL={state['endpoint']} AWS_DEFAULT_REGION={REGION} AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test aws s3 ls")
    print("run the demo through it with `make emulator-demo`, stop it with `make emulator-down`")


def seed(state: dict, lakehouse: Path) -> int:
    """Puts the files that `tarn demo` begins with where its lakehouse file expects them; gives their number. Other lakehouses get none."""
    if not lakehouse.samefile(DEMO / "lakehouse.yaml"):
        return 0
    import boto3

    s3 = boto3.client("s3", endpoint_url=state["endpoint"], region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")
    files = [DEMO / "data" / name for name in ("planes.ndjson", "airports.csv", "airlines.json")]
    files += sorted((DEMO / "data" / "weather").glob("*/*.csv.gz"))[:6]
    for file in files:
        # The dimensions lie in a folder each, named as they are.
        place = file.relative_to(DEMO / "data")
        key = place if place.parts[0] == "weather" else Path(file.stem) / place
        s3.upload_file(str(file), state["bucket"], f"raw/{key}")
    return len(files)


def launch(options: argparse.Namespace, log: Path) -> dict:
    OUT.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "up", "--port", str(options.port), *(["--auth"] if options.auth else [])]
    command += ["--directory", str(options.directory)] if options.directory else []
    with log.open("wb") as errors:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, start_new_session=True)
    line = server.stdout.readline()
    if not line:
        sys.exit(f"the emulator did not start: see {log}")
    STATE.write_bytes(line)
    return json.loads(line)


def alive(pid: int) -> bool:
    """Whether the process is an emulator of ours; a number may have been given to another process since."""
    command = subprocess.run(["ps", "-p", str(pid), "-o", "args="], capture_output=True, text=True).stdout
    return "emulator.py up" in command


def started() -> dict:
    """What `start` wrote down."""
    if not STATE.exists():
        sys.exit(f"no emulator was started: expected {STATE}")
    return json.loads(STATE.read_text())


def down() -> None:
    pid = started()["pid"]
    if alive(pid):
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            if not alive(pid):
                break
            time.sleep(0.1)
        else:
            os.kill(pid, signal.SIGKILL)
    STATE.unlink()
    print(f"stopped the emulator (pid {pid})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "start", "deploy", "url", "down"):
        command = commands.add_parser(name)
        if name in ("up", "start"):
            command.add_argument("--port", type=int, default=0, help="0: any that is free")
            command.add_argument("--directory", type=Path, help="for temporary files (default: one of its own)")
        if name not in ("url", "down"):
            command.add_argument("--auth", action="store_true", help="enforce signatures and policies")
        if name == "up":
            command.add_argument("--with-parent", action="store_true", help="end when standard input closes")
        if name in ("deploy", "start"):
            command.add_argument("--zips", type=Path, required=True, help="folder of the six zips")
            command.add_argument("--lakehouse", type=Path, default=DEMO / "lakehouse.yaml")
            command.add_argument("--stack", default="tarn")
            command.add_argument("--region", default=REGION)
            command.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="of infra/template.yaml")
            command.add_argument("--adopt", action="store_true", help="take over data that a deleted stack left")
        if name == "deploy":
            command.add_argument("--endpoint", required=True)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.command == "up":
        up(options.port, options.auth, options.directory, options.with_parent)
    elif options.command == "url":
        print(started()["apiUrl"])
    elif options.command == "down":
        down()
    else:
        from botocore.exceptions import BotoCoreError, ClientError

        from lakehouse import Mistake

        try:
            if options.command == "start":
                start(options)
            else:
                print(json.dumps(deploy(options, options.endpoint)))
        except (Mistake, BotoCoreError, ClientError) as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
