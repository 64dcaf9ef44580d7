"""An executor on a Ray cluster (`pip install 'churnlab[ray]'`): one started on this machine, or an existing one.

Ray moves tasks, results and, once per node, shared values. It repeats no task: the scheduler does.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from sim.experiments.executors import WorkerDiedError, call, relayed
from sim.experiments.versions import SOURCE_HASH

PROBE_SECONDS, NODE_SECONDS = 5.0, 120.0

QUIET = {"log_to_driver": False, "logging_level": "ERROR"}

LONGEST_FOLDER = 12
"""Letters of a folder for temporary files in which the names of Ray's sockets stay below the system's limit of 107."""


class RayCluster:
    """Workers of a Ray cluster, one CPU and one task each at a time.

    address: None starts a cluster on this machine, until `close`; "auto" or "host:port" joins an existing one, to which
    this machine belongs. num_workers: tasks at a time, None: as many as there are CPUs. trains: whether any model is
    trained. ValueError if Ray is not installed, there is no cluster, or a node has other code or versions. A process
    can have one at a time. The code of nodes that join later is compared at their first task; that of plug-ins is not.
    """

    def __init__(self, address: str | None, num_workers: int | None, trains: bool = False) -> None:
        self._ray = ray = imported_ray()
        self._under_way: set[Future[Any]] = set()
        try:
            if address is None:
                start(ray, num_workers)
            else:
                join(ray, address)
            num_cpus = int(ray.cluster_resources().get("CPU", 0))
            if not num_cpus:
                raise ValueError(f"the Ray cluster at {address} has no CPUs: add nodes with CPUs")
            self.num_workers = num_workers or num_cpus
            if address is not None:
                require_equal_nodes(ray, trains)
            self._call = ray.remote(num_cpus=1, max_retries=0)(call_if_equal)
        except BaseException:
            self.close()
            raise

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Submit a task to the next free CPU."""
        future = relayed(self._call.remote(fingerprint(), task, *arguments).future(), own)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def share(self, value: Any) -> Any:
        """A placeholder for a value that is sent to each node once; its arrays are not copied there."""
        return self._ray.put(value)

    def close(self) -> None:
        """Stop all tasks under way, and the cluster too if it was started here."""
        self._ray.shutdown()  # Ray ends the workers of a process that leaves
        for future in list(self._under_way):
            with suppress(InvalidStateError):
                future.set_exception(WorkerDiedError("its worker was stopped"))


def imported_ray() -> Any:
    """The package. ValueError if it is not installed, or in use in this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # no warning about GPUs
    try:
        import ray
    except ImportError as error:
        raise ValueError("a sweep on Ray needs the extra: pip install 'churnlab[ray]'") from error
    if ray.is_initialized():
        raise ValueError("this process already uses a Ray cluster: call ray.shutdown() first")
    return ray


def start(ray: Any, num_workers: int | None) -> None:
    """Start a cluster on this machine whose workers find the modules of this process. ValueError if Ray cannot."""
    if len(tempfile.gettempdir()) > LONGEST_FOLDER:
        os.environ.setdefault("RAY_TMPDIR", "/tmp")
    modules = os.pathsep.join(dict.fromkeys(os.path.abspath(place) for place in sys.path))
    environment = {"env_vars": {"PYTHONPATH": modules}}
    try:
        ray.init(address="local", num_cpus=num_workers, include_dashboard=False, runtime_env=environment, **QUIET)
    except Exception as error:
        raise ValueError(f"cannot start a Ray cluster on this machine: {first_line(error)}") from error


def join(ray: Any, address: str) -> None:
    """Connect this process to a cluster. ValueError if there is none, or it refuses the connection."""
    where = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if "://" in where:
        raise ValueError(f"Ray address {where}: give auto or host:port, on a machine that belongs to the cluster")
    host, _, port = where.rpartition(":")
    if where != "auto":
        if not (host and port.isdecimal()):
            raise ValueError(f"Ray address {where}: expected auto or host:port, as 10.0.0.5:6379")
        try:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ValueError(f"cannot reach a Ray cluster at {where}: {error}") from error
    try:
        ray.init(address=address, **QUIET)
    except Exception as error:
        text = f"{error} {error.__cause__}"
        if "Could not find any running Ray instance" in text:
            raise ValueError("no Ray cluster runs on this machine: `ray start --head` starts one") from error
        wants_token = "AuthToken" in text or "AuthenticationError" in text
        why = "it requires a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" if wants_token else first_line(error)
        raise ValueError(f"cannot use the Ray cluster at {where}: {why}") from error


def require_equal_nodes(ray: Any, trains: bool) -> None:
    """ValueError, naming the node, if one has other code or versions than this process."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(difference_here)
    asked = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            asked[name] = ask.options(scheduling_strategy=there).remote(fingerprint(trains), trains)
    for name, answer in asked.items():
        try:
            difference = ray.get(answer, timeout=NODE_SECONDS)
        except Exception as error:
            raise ValueError(
                f"node {name} of the Ray cluster cannot run churnlab {version('churnlab')}: {first_line(own(error))}; "
                "install the same version there"
            ) from error
        if difference:
            raise ValueError(f"node {name} of the Ray cluster would compute different results: it has {difference}")


@lru_cache
def fingerprint(trains: bool = False) -> dict[str, str]:
    """Versions and a hash of the code of this process; trains: with all that decides training's bits."""
    found = {name: version(name) for name in ("numpy", "simpy", "torch")}
    found |= {"Python": platform.python_version(), "churnlab": f"{version('churnlab')} (sources {SOURCE_HASH})"}
    if trains:
        from models.trajectory import environment_key

        found["training environment"] = environment_key()
    return found


def difference_here(expected: Mapping[str, str], trains: bool = False) -> str:
    """Description of what differs between this process's fingerprint and the expected one; empty if nothing does."""
    here = fingerprint(trains)
    names = [name for name in expected if here.get(name) != expected[name]]
    return ", ".join(f"{name} {here.get(name, 'unknown')} instead of {expected[name]}" for name in names)


def call_if_equal(expected: Mapping[str, str], task: Callable[..., Any], *arguments: Any) -> Any:
    """Do a task in a worker. RuntimeError if the worker's code is not that of the sweep's process."""
    if difference := difference_here(expected):
        raise RuntimeError(
            f"the Ray worker on {socket.gethostname()} would compute different results: it has {difference}"
        )
    return call(task, arguments)


def own(error: BaseException) -> BaseException:
    """The error that a task raised, with Ray's traceback; WorkerDiedError if its worker died; else RuntimeError."""
    from ray import exceptions as of_ray

    if isinstance(error, of_ray.RayTaskError):
        cause = own(error.cause)
        cause.__cause__ = RuntimeError(re.sub("\x1b\\[[0-9;]*m", "", f"in a Ray worker:\n{error}"))
        return cause
    losses = of_ray.NodeDiedError, of_ray.LocalRayletDiedError, of_ray.ObjectLostError, of_ray.OutOfMemoryError
    if isinstance(error, (of_ray.WorkerCrashedError, *losses)):
        return WorkerDiedError(first_line(error))
    return RuntimeError(f"Ray: {first_line(error)}") if isinstance(error, of_ray.RayError) else error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
