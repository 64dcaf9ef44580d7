"""The command line: in this process, or in one of its own where it is to be interrupted or killed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from sim.cli import main as cli

COMMAND = [sys.executable, "-c", "from sim.cli.main import main; main()"]


class Ended(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def churnlab(*arguments: object, folder: Path | None = None) -> Ended:
    """Call the command in this process, in a folder and with a cache in it."""
    folder = folder or Path.cwd()
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.dict(os.environ, CHURNLAB_CACHE=str(folder / "cache")),
        patch.object(sys, "argv", ["churnlab", *map(str, arguments)]),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())
