"""Whether to compile the loop over arrays, and where its machine code is kept."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sim.core.files import user_cache
from sim.workload.arrays import calendar, loop, messages

COMPILED_MODULES = calendar, messages, loop
"""The modules whose functions numba compiles; all their names differ."""

PLAIN_SECONDS_PER_VISIT: Final = 1.2e-5
LOADING_SECONDS: Final = 0.6
COMPILING_SECONDS: Final = 20.0
"""Of CPU: of a visit in plain Python; of loading the compiled loop, and of compiling it where that was never done."""


class Compilation:
    """Whether to compile, by the seconds that this process has spent in plain Python."""

    def __init__(self) -> None:
        self.plain_seconds = 0.0
        self.has_machine_code = False

    def pays(self, num_visits: int) -> bool:
        """Whether an iteration of so many visits is better run by the compiled loop."""
        expected_seconds = self.plain_seconds + num_visits * PLAIN_SECONDS_PER_VISIT
        if expected_seconds <= LOADING_SECONDS or not is_numba_installed():
            return False
        if (folder := machine_code_folder()) is None:
            return False
        if not self.has_machine_code:  # once it is there it stays, and a look at the disk takes as long as a small loop
            self.has_machine_code = any(folder.rglob("*.nbi"))
        return (expected_seconds > COMPILING_SECONDS or self.has_machine_code) and is_writable(folder)


COMPILATION = Compilation()


@cache
def is_numba_installed() -> bool:
    """Whether numba is installed, and not switched off by NUMBA_DISABLE_JIT."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0") and importlib.util.find_spec("numba") is not None


@cache
def machine_code_folder() -> Path | None:
    """Folder of the compiled loop, by all that it is made of: numba notices no change in functions of other modules.

    None for a user without a home folder.
    """
    if (folder := user_cache()) is None:
        return None
    made_of = [version("numba").encode(), *(Path(str(one.__file__)).read_bytes() for one in COMPILED_MODULES)]
    return folder / "churnlab" / "compiled" / hashlib.sha256(b"".join(made_of)).hexdigest()[:16]


@cache
def is_writable(folder: Path) -> bool:
    """Whether machine code can be kept in a folder, which is made; numba compiles nothing that it cannot keep."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
