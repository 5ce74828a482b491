"""Types into a program as a person does at a terminal: shell.py COMMAND… < lines.json

The lines are a JSON list of [what to wait for, what to type]; null is typed to end the program with `kill -9`. Prints all that the
terminal showed, as JSON. Fails when something does not show up within 30 seconds, or the program does not end by itself after the
last line.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

PATIENCE = 30
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


def main():
    lines = json.load(sys.stdin)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        os.execv(sys.argv[1], sys.argv[1:])
    shown, at = "", 0
    try:
        for awaited, typed in lines:
            until = time.monotonic() + PATIENCE
            while (found := clean(shown).find(awaited, at)) < 0:
                part = read(terminal, until)
                if part is None:
                    sys.exit(f"expected `{awaited}`, found `{clean(shown)[at:]}`")
                shown += part
            at = found + len(awaited)
            if typed is None:
                os.kill(pid, signal.SIGKILL)
            else:
                os.write(terminal, typed.encode())
        until = time.monotonic() + PATIENCE
        while (part := read(terminal, until)) is not None:
            shown += part
        for _ in range(100):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                print(json.dumps({"shown": clean(shown), "exit": os.waitstatus_to_exitcode(status)}))
                return
            time.sleep(0.1)
        sys.exit(f"expected the program to end, found `{clean(shown)[at:]}`")
    finally:
        os.close(terminal)


def clean(shown):
    return ESCAPES.sub("", shown)


def read(terminal, until):
    """What the terminal shows next; None at its end, or when nothing comes in time."""
    ready, _, _ = select.select([terminal], [], [], max(0, until - time.monotonic()))
    if not ready:
        return None
    try:
        return os.read(terminal, 65536).decode(errors="replace") or None
    except OSError:
        return None


if __name__ == "__main__":
    main()
