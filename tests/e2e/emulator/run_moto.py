"""Runs moto on a free port of 127.0.0.1 until standard input closes, so that it ends with whoever started it.

Prints one line when it is ready: {"endpoint": …}.
"""

import json
import os
import socket
import sys
import threading
import time
import urllib.request

from moto.server import main


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)


def announce(endpoint, result):
    while True:
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=5).read()
            break
        except OSError:
            time.sleep(0.05)
    print(json.dumps({"endpoint": endpoint}), file=result, flush=True)


if __name__ == "__main__":
    # What moto prints is not for our caller.
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    port = free_port()
    threading.Thread(target=end_with_parent, daemon=True).start()
    threading.Thread(target=announce, args=(f"http://127.0.0.1:{port}", result), daemon=True).start()
    main(["--host", "127.0.0.1", "--port", str(port)])
