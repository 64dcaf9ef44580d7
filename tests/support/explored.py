"""A served page to explore, of a scenario whose losses are a curve, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from support.commands import COMMAND
from support.sweeps import ALONE, write_scenario

CURVE = ALONE.replace("training:\n", "training:\n  learner: curve\n")


class Served(NamedTuple):
    """The process of the command, and the address that it printed."""

    process: subprocess.Popen[str]
    address: str

    def interrupted(self) -> tuple[int, str]:
        """The exit code after Ctrl-C, and all that was printed."""
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """Serve the page until the context ends."""
    write_scenario(folder, CURVE)
    process = subprocess.Popen(
        [*COMMAND, "explore", "tiny.yaml", "--no-browser", *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "CHURNLAB_CACHE": str(folder / "cache")},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    assert process.stdout is not None
    try:
        lines = []
        while not (found := re.match(r"Serving (http://\S+)", line := process.stdout.readline())):
            lines.append(line)
            assert line, "".join(lines)
        yield Served(process, found[1])
    finally:
        process.kill()
        process.wait()


def asked(address: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and content of an answer; body: of a POST, encoded as JSON unless it is text."""
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    request = urllib.request.Request(address, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            status, text = reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    return status, json.loads(text) if text.startswith("{") else text
