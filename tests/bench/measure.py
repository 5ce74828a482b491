"""One measurement: processes side by side, and the row that says how they did."""

import json
import os
import shutil
import subprocess
import sys
import time


def measure(command, env=None):
    """Runs a command that prints one JSON line; adds its peak memory in MiB."""
    before = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "TARN_LOG": "error", **(env or {})})
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command[0]} failed with {process.returncode}: {output.decode()[-2000:]}")
    figures = json.loads(output.decode().strip().splitlines()[-1])
    figures["peak_mib"] = usage.ru_maxrss / 1024
    figures["wall"] = time.perf_counter() - before
    return figures


def best_of(runs, sides):
    """Runs every side in turn, `runs` times, and keeps each side's fastest run."""
    best = {}
    for _ in range(runs):
        for name, run in sides.items():
            figures = run()
            if name not in best or figures["seconds"] < best[name]["seconds"]:
                best[name] = figures
    return best


def peer(source, *values):
    """A peer's workload: Python source that leaves its seconds in `seconds`; `values` are its argv."""
    script = (
        "import json, sys, time\nvalues = sys.argv[1:]\nstarted = time.perf_counter()\n"
        + source
        + "\nprint(json.dumps({'seconds': time.perf_counter() - started}))\n"
    )
    return lambda: measure([sys.executable, "-c", script, *map(str, values)])


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def row(what, best, other, say):
    return {
        "what": what,
        "tarn": say(best["tarn"]),
        "peer": f"{other} {say(best[other])}",
        "ratio": f"{best['tarn']['seconds'] / best[other]['seconds']:.3g}",
        "memory": f"{best['tarn']['peak_mib']:.0f} / {best[other]['peak_mib']:.0f} MiB",
    }
