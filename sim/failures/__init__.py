"""Failure processes: when nodes are lost, as pure iterators on named random streams.

Belongs here: one file for each process or family of laws, one line each in the table of `registry.py`.
Does not belong here: strategies, the cluster, the event loop.
"""

from sim.failures.base import FailureProcess as FailureProcess
from sim.failures.base import ProcessConfig as ProcessConfig
from sim.failures.registry import PLUGINS as PLUGINS
from sim.failures.registry import PROCESSES as PROCESSES
from sim.failures.registry import known_processes as known_processes
from sim.failures.registry import process_choice as process_choice
from sim.failures.registry import process_class as process_class
from sim.failures.registry import processes as processes
