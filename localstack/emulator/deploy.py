"""Deploys Tarn to an AWS account, with the credentials of the environment or the profile.

    deploy.py deploy     uploads the zips below a prefix named by what they hold, deploys infra/template.yaml
    deploy.py rollback   deploys the code and the lakehouse file of the deployment before; settings stay as they are
    deploy.py list       the deployments of a stack, newest first
    deploy.py backup     writes down catalog, state, lakehouse file, and which versions of objects belong to them
    deploy.py restore    brings a deployment back to the moment of a backup

The outputs are printed as JSON.
"""

import argparse
import json
import sys
from pathlib import Path

import botocore.exceptions

import backup
import stack
from lakehouse import Lakehouse, Mistake

ROOT = Path(__file__).resolve().parents[2]


def deploy(options: argparse.Namespace, account: stack.Account, code: str) -> dict:
    lakehouse = Lakehouse.load(options.lakehouse)
    stack.plan(account, options.stack, lakehouse.text, options.allow)
    stack.make_code_bucket(account, code)
    parameters = {
        "CodeBucket": code,
        "CodePrefix": stack.upload(account, code, options.stack, options.zips or ROOT / "out/zips/release" / options.arch, lakehouse),
        "Architecture": options.arch,
        **lakehouse.parameters(),
        **stack.settings(options.parameter),
    }
    try:
        return stack.deploy(account, options.stack, parameters, code, options.adopt)
    except stack.Broken as broken:
        stack.say(f"error: {broken}")
        try:
            back = stack.rollback(account, options.stack, code)
        except Mistake as none:
            raise Mistake(f"{broken}\n{none}") from broken
        raise Mistake(f"{options.stack}: what was deployed does not work; went back to release {back['release']}\n{broken}") from broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("deploy", "rollback", "list", "backup", "restore"):
        command = commands.add_parser(name)
        command.add_argument("--stack", required=True)
        command.add_argument("--region")
        command.add_argument("--endpoint", help="of an emulator")
        command.add_argument("--code-bucket", help="default: tarn-code-<account>-<region>, made when it is missing")
        if name == "deploy":
            command.add_argument("--lakehouse", type=Path, required=True)
            command.add_argument("--arch", choices=["arm64", "x86_64"], default="arm64")
            command.add_argument("--zips", type=Path, help="default: out/zips/release/<arch>")
            command.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="of infra/template.yaml")
            command.add_argument("--allow", action="store_true", help="though something of a changed lakehouse file stays behind")
            command.add_argument("--adopt", action="store_true", help="take over the data that a deleted stack of this name left")
        if name == "backup":
            command.add_argument("--to", type=Path, required=True, help="a folder, where a zip is written")
        if name == "restore":
            command.add_argument("--from", type=Path, required=True, dest="zip", help="the zip of a backup")
        if name == "rollback":
            command.add_argument("--to", help="a CodePrefix (default: the one before)")
    options = parser.parse_args()
    try:
        account = stack.Account(options.region, options.endpoint)
        code = options.code_bucket or account.code_bucket()
        if options.command == "deploy":
            result = deploy(options, account, code)
        elif options.command == "rollback":
            result = stack.rollback(account, options.stack, code, options.to)
        elif options.command == "backup":
            result = backup.take(account, options.stack, options.to)
        elif options.command == "restore":
            result = backup.restore(account, options.stack, options.zip)
        else:
            result = stack.deployments(account, code, options.stack)
        print(json.dumps(result, indent=2))
    except (Mistake, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
