"""One contract for all who do tasks, and one sweep that gives the same files whoever does it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from models.segment import train_segments
from sim.experiments import ray_cluster as ray_executor
from sim.experiments.executors import InProcess, WorkerDiedError
from sim.experiments.ray_cluster import RayCluster, first_line, join
from support import chores
from support.sweeps import do_sweep, files_of, write_scenario

OTHER_PROCESSES = ["pool", "ray"]
SLOW_ON_RAY = ["pool", pytest.param("ray", marks=pytest.mark.slow)]
SLOW_IN_A_POOL = [pytest.param("pool", marks=pytest.mark.slow), "ray"]  # of which a worker is killed in `make test`


@pytest.fixture(scope="module")
def executor(request):
    made = chores.EXECUTORS[request.param]()
    yield made
    made.close()


everyone = pytest.mark.parametrize("executor", list(chores.EXECUTORS), indirect=True)
of_other_processes = pytest.mark.parametrize("executor", OTHER_PROCESSES, indirect=True)


@everyone
def test_a_task_gives_its_result(executor):
    asked = [executor.submit(chores.double, number) for number in range(5)]
    assert [future.result() for future in asked] == [0, 2, 4, 6, 8]
    assert executor.num_workers == (1 if isinstance(executor, InProcess) else 2)


@everyone
@pytest.mark.parametrize("error", [ValueError("3 is too many", 3), KeyError("who"), WorkerDiedError("of a task's own")])
def test_what_a_task_raises_comes_back_as_it_was(executor, error):
    raised = executor.submit(chores.fail, error).exception()
    assert type(raised) is type(error)
    assert raised.args == error.args


@of_other_processes
@pytest.mark.parametrize(
    ("task", "words"),
    [(chores.fail_in_two_parts, "TwoPartsError: one and other"), (chores.fail_with_a_lock, "ValueError: has a lock")],
)
def test_an_error_that_cannot_be_unpickled_comes_back_as_text(executor, task, words):
    """The worker counts as alive."""
    raised = executor.submit(task).exception()
    assert type(raised) is RuntimeError
    assert str(raised) == words


@of_other_processes
def test_failed_tasks_keep_tracebacks_and_others_are_done(executor):
    cause = executor.submit(chores.fail, ValueError("no")).exception().__cause__
    assert "chores.py" in str(cause)
    assert "\x1b" not in str(cause)
    for _ in range(2):
        assert isinstance(executor.submit(chores.die).exception(), WorkerDiedError)
        assert executor.submit(chores.double, 4).result() == 8


@everyone
def test_large_parts_of_a_shared_value_are_not_copied(executor, tmp_path):
    held, mapped = np.arange(1000, dtype=np.uint16), np.arange(7, 2007, dtype=np.uint16)
    mapped.tofile(tmp_path / "tokens.bin")
    as_mapped = np.asarray(np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r"))[500:]
    shared = executor.share(chores.Text(held, as_mapped, "a text"))
    for _ in range(3):
        *found, has_copies = executor.submit(chores.look_at, shared).result()
        assert found == [held.tolist(), mapped[500:].tolist(), "a text"]
        assert has_copies == isinstance(executor, InProcess)


@pytest.mark.parametrize("executor", ["ray"], indirect=True)
def test_other_code_in_a_ray_worker_is_refused(executor, monkeypatch):
    monkeypatch.setattr(ray_executor, "fingerprint", lambda: {"churnlab": "0.0.9"})
    with pytest.raises(RuntimeError, match=r"would compute different results: it has churnlab .* instead of 0\.0\.9"):
        executor.submit(chores.double, 1).result()


# ---- a whole sweep -----------------------------------------------------------------------------

SCENARIO = """
name: tiny
workload: {num_stages: 4, num_microbatches: 4}
training:
  model: {dim: 16, num_heads: 2, num_stages: 4}
  data: {source: text, files: ["text/*.txt"]}
  sequences_per_batch: 4
  sequence_length: 16
  steps: 12
  evaluation: {interval_steps: 5, num_sequences: 8}
cluster: {device: l4}
failures: {kind: exponential}
strategies: [{kind: checkpoint, interval_iterations: 5}, checkfree_plus]
sweep: {grid: {failures.rate_per_hour: [0.3, 0.9999]}}
"""


class Deadly:
    """Hands tasks on; the third piece of training kills its worker, once."""

    def __init__(self, executor, mark):
        self.executor, self.mark, self.num_workers, self._pieces = executor, mark, executor.num_workers, count(1)

    def submit(self, task, *arguments):
        if task is train_segments and next(self._pieces) == 3:
            return self.executor.submit(chores.die_once, self.mark, task, *arguments)
        return self.executor.submit(task, *arguments)

    def share(self, value):
        return self.executor.share(value)

    def close(self):
        self.executor.close()


@pytest.fixture(scope="module")
def scenario_path(tmp_path_factory):
    return write_scenario(tmp_path_factory.mktemp("tiny"), SCENARIO)


def swept(executor, scenario_path: Path, folder: Path) -> dict[str, bytes]:
    """Every file of a sweep's runs but `run.json`, which tells when and where."""
    job = do_sweep(scenario_path, folder / "results", folder / "cache", executor, most_steps=4)
    assert not job.failures
    assert len(job.runs) == 4
    return files_of(job.folder.folder)


@pytest.fixture(scope="module")
def expected(scenario_path, tmp_path_factory):
    files = swept(InProcess(), scenario_path, tmp_path_factory.mktemp("serial"))
    assert len(files) == 4 * 6
    return files


@pytest.mark.parametrize("executor", SLOW_IN_A_POOL, indirect=True)
def test_a_sweep_gives_the_same_files_on_every_executor(executor, scenario_path, expected, tmp_path):
    assert swept(executor, scenario_path, tmp_path) == expected


@pytest.mark.parametrize("executor", SLOW_ON_RAY, indirect=True)
def test_a_sweep_gives_the_same_files_when_a_worker_is_killed(executor, scenario_path, expected, tmp_path):
    assert swept(Deadly(executor, tmp_path / "died"), scenario_path, tmp_path) == expected
    assert (tmp_path / "died").exists()


# ---- ends --------------------------------------------------------------------------------------

AT_WORK = """
import os, sys, time
from pathlib import Path
from support import chores
executor = chores.EXECUTORS[sys.argv[1]]()
executor.share(__import__("numpy").arange(10))
folder = Path(sys.argv[2])
futures = [executor.submit(chores.stay, folder) for _ in range(3)]
while len(list(folder.iterdir())) < 2:
    time.sleep(0.05)
if sys.argv[3] == "killed":
    chores.die()
executor.close()
print(*(type(future.exception()).__name__ for future in futures))
"""


def is_there(process: int) -> bool:
    """Whether a process runs: one that has ended may stay a while in the table of an idle init."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def leftovers() -> set[Path]:
    return {path for place in ("/tmp", os.environ.get("TMPDIR", "/tmp")) for path in Path(place).glob("churnlab-*")}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("end", ["killed", pytest.param("closed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SLOW_ON_RAY)
def test_nothing_is_left_of_tasks_under_way(name, end, tmp_path):
    (tmp_path / "at_work").mkdir()
    (tmp_path / "tmp").mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path / "tmp")}
    before = leftovers()
    command = [sys.executable, "-c", AT_WORK, name, str(tmp_path / "at_work"), end]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if end == "closed":
        assert done.stdout.split() == 3 * ["WorkerDiedError"]
    workers = [int(path.name) for path in (tmp_path / "at_work").iterdir()]
    assert len(workers) == 2
    while any(map(is_there, workers)) or leftovers() - before or list((tmp_path / "tmp").glob("churnlab-*")):
        time.sleep(0.05)


HALF_SENT = """
import sys, time
from pathlib import Path
from support import chores

executor, folder = chores.EXECUTORS["pool"](), Path(sys.argv[1])
futures = [executor.submit(chores.stay_with, folder, bytes(4_000_000)) for _ in range(8)]
while len(list(folder.iterdir())) < 2:
    time.sleep(0.05)
executor.close()
print("closed")
"""


def test_a_pool_closes_while_a_large_task_is_half_sent(tmp_path):
    """Without a worker that reads the rest of it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HALF_SENT, str(tmp_path)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert done.stdout == "closed\n"


def test_an_interrupt_of_the_terminal_does_not_reach_workers():
    """A worker interrupted while it sends a result would leave half of it in the pipe."""
    with contextlib.closing(chores.EXECUTORS["pool"]()) as pool:
        for process in {pool.submit(chores.process).result() for _ in range(4)}:
            os.kill(process, signal.SIGINT)
        assert pool.submit(chores.double, 4).result() == 8


# ---- clusters that are there, or are not -------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "Ray address nonsense: expected auto or host:port, as 10.0.0.5:6379"),
        ("ray://head:10001", "Ray address ray://head:10001: give auto or host:port, on a machine that belongs to the"),
        ("127.0.0.1:1", "cannot reach a Ray cluster at 127.0.0.1:1: "),
        ("127.0.0.1:99999", "cannot reach a Ray cluster at 127.0.0.1:99999: "),
    ],
)
def test_an_address_without_a_cluster_is_reported_in_a_line(address, words):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        join(None, address)
    assert str(error.value).startswith(words)


def test_without_ray_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'churnlab\[ray\]'"):
        RayCluster(None, 2)
    assert first_line(ValueError()) == "ValueError"  # an error without message has its name
    assert first_line(ValueError("\nfirst\nsecond")) == "first"


JOINING = """
import os, sys
from support import chores
from sim.experiments import ray_cluster as ray_executor
from sim.experiments.ray_cluster import RayCluster
cluster = RayCluster(sys.argv[1], None)
print(cluster.num_workers, cluster.submit(chores.double, 21).result())
cluster.close()
ray_executor.SOURCE_HASH = "0123"
ray_executor.fingerprint.cache_clear()
try:
    RayCluster(sys.argv[1], 3)
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_running_cluster_is_joined_unless_its_code_differs(tmp_path):
    ray = Path(sys.executable).with_name("ray")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # names of sockets are short
    environment = os.environ | {"RAY_TMPDIR": folder, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    start = [ray, "start", "--head", "--num-cpus=2", "--port=0", "--include-dashboard=false", "--block"]
    head = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (Path(folder) / "ray" / "ray_current_cluster").is_file():
            assert head.poll() is None
            time.sleep(0.1)
        command = [sys.executable, "-c", JOINING, "auto"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    finally:
        head.terminate()
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)
    first, second = done.stdout.splitlines()
    assert first == "2 42"
    assert "of the Ray cluster would compute different results: it has churnlab" in second
    assert "(sources 0123)" in second
