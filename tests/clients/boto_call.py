"""One call by boto3, as an application makes it, to the services at AWS_ENDPOINT_URL.

    boto_call.py SERVICE OPERATION JSON-OF-ARGUMENTS     e.g. kinesis put_record '{"StreamName": …, "Data": …}'

Prints the answer as JSON; bodies that are streams are read as text.
"""

import json
import sys

import boto3


def text(value):
    return value.read().decode() if hasattr(value, "read") else str(value)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    service, operation, arguments = sys.argv[1:]
    answer = getattr(boto3.client(service), operation)(**json.loads(arguments))
    print(json.dumps(answer, default=text))


if __name__ == "__main__":
    main()
