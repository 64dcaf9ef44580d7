"""`kill -9` at random moments, of workers and of the sweep itself: nothing lost, nothing corrupt, nothing different."""

import contextlib
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from support.commands import COMMAND
from support.sweeps import TINY, do_sweep, files_of, write_scenario

SWEEP = [*COMMAND, "sweep", "tiny.yaml", "--jobs", "2"]


def longer(num_steps: int) -> str:
    """A sweep that trains for some seconds."""
    text = TINY.replace("steps: 24", f"steps: {num_steps}").replace("iterations_per_step: 40", "iterations_per_step: 4")
    return text.replace("interval_steps: 6", "interval_steps: 60")


MOST_SECONDS = 300.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The sweep, in a process group of its own."""
    environment = {**os.environ, "CHURNLAB_CACHE": str(folder / "cache")}
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(SWEEP, cwd=folder, env=environment, stdout=output, stderr=output)


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that a sweep has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = status.read_text().partition(" (")
            if rest.rpartition(") ")[2].split()[1] == str(process.pid):
                found.append(int(pid))
    return found


def require_sound(cache: Path) -> None:
    """The store is whole: the database, and every state that it speaks of."""
    with contextlib.closing(sqlite3.connect(cache / "trajectory.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for file, sha256 in database.execute("SELECT file, sha256 FROM keyframes"):
            assert hashlib.sha256((cache / "keyframes" / file).read_bytes()).hexdigest() == sha256


def killed_until_done(folder: Path, chance: random.Random, most_kills: int) -> int:
    """Do a sweep under that many kills at most; how many there were."""
    num_kills, ends_at = 0, time.monotonic() + MOST_SECONDS
    process = start(folder)
    while True:
        assert time.monotonic() < ends_at, (folder / "output").read_text()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.2, 7.0) if num_kills < most_kills else MOST_SECONDS)
        if process.poll() is not None:
            if process.returncode == 0:
                return num_kills
            assert process.returncode == -signal.SIGKILL, (folder / "output").read_text()
        else:
            workers = workers_of(process)
            victim = chance.choice(workers) if workers and chance.random() < 0.5 else process.pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                num_kills += 1
            if victim != process.pid:
                continue
            process.wait()
        if (folder / "cache" / "trajectory.sqlite").is_file():
            require_sound(folder / "cache")
        process = start(folder)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers in /proc")
@pytest.mark.slow  # one kill at a time: tests of resumption and of executors
@pytest.mark.parametrize(("num_kills", "num_steps", "seed"), [(1, 180, 4), (50, 480, 1)])
def test_killed_sweeps_end_as_undisturbed_ones(tmp_path, num_kills, num_steps, seed):
    """Sweeps, one after another, until there were that many kills."""
    chance = random.Random(seed)
    calm = tmp_path / "calm"
    text = longer(num_steps)
    done = do_sweep(write_scenario(calm, text), calm / "results", calm / "cache")
    expected = files_of(done.folder.folder, but=("run.json", "scenario.yaml"))
    assert len(expected) == 12 * 5
    number = 0
    while num_kills > 0:
        folder = tmp_path / f"disturbed{number}"
        write_scenario(folder, text)
        num_kills -= killed_until_done(folder, chance, num_kills)
        assert files_of(folder / "results" / "tiny", but=("run.json", "scenario.yaml")) == expected
        assert not (folder / "results" / "tiny" / "failed").exists()
        require_sound(folder / "cache")
        number += 1
