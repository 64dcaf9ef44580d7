"""`run_iteration` compiled by numba. Import this module only where numba is installed.

numba passes a tuple of arrays by value, with a reference count for each. So every tuple becomes a record on the heap
with the same fields, which is passed as one pointer: that makes the loop five times as fast.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FunctionType
from typing import Any, Final, get_args, get_type_hints

import numba
import numpy as np
from filelock import FileLock
from numba.experimental import structref

from sim.core.files import atomic_write
from sim.workload.arrays.calendar import Calendar
from sim.workload.arrays.compilation import COMPILED_MODULES, machine_code_folder
from sim.workload.arrays.loop import Messages, Tables, Work
from sim.workload.arrays.messages import Paths, Traffic

types: Any = numba.types

FOLDER: Final = Path(str(machine_code_folder()))

ARGUMENTS: Final = {"t": Tables, "messages": Messages, "paths": Paths, "work": Work, "traffic": Traffic}

FIELDS: Final[dict[type, dict[str, Any]]] = {made: get_type_hints(made) for made in (*ARGUMENTS.values(), Calendar)}
"""Types of the fields of each named tuple."""

SCALARS: Final = {int: types.int64, float: types.float64, bool: types.boolean}

NUMBA_TYPES: Final[dict[Any, Any]] = {
    **SCALARS,
    **{kind[scalar]: of[::1] for kind in (Sequence, MutableSequence) for scalar, of in SCALARS.items()},
    list[tuple[float, float, int, int]]: types.List(types.Tuple([types.float64] * 2 + [types.int64] * 2)),
    list[tuple[int, int]]: types.List(types.UniTuple(types.int64, 2)),
}
"""By the type that a field declares."""


@structref.register
class Record(types.StructRef):  # type: ignore[misc]
    """A record on the heap."""


def constructors() -> tuple[str, dict[str, Record]]:
    """Source of a function that makes the record of each named tuple, and the records' types."""
    lines, kinds = [], {}
    for made in FIELDS:
        fields = [(field, NUMBA_TYPES[hint]) for field, hint in FIELDS[made].items()]
        kinds[f"{made.__name__}Record"] = Record(fields)
        from_fields = made is Calendar  # which `run_iteration` makes; the others are given
        parameters = ", ".join(field for field, _ in fields) if from_fields else "given"
        lines += [f"def {made.__name__}({parameters}):", f"    record = new({made.__name__}Record)"]
        lines += [f"    record.{field} = {'' if from_fields else 'given.'}{field}" for field, _ in fields]
        lines.append("    return record")
    return "\n".join(lines), kinds


def kept(source: str) -> str:
    """The file of a source, in the folder of its machine code: so numba finds that code again from any installation."""
    file = FOLDER / "entry.py"
    if not file.is_file() or file.read_text("utf-8") != source:
        atomic_write(file, source)
    return str(file)


def compile_loop() -> Any:
    """The function of all `ARGUMENTS` and the clock; it is compiled, or loaded, when it is first called."""
    names: dict[str, Any] = {"__name__": __name__, "new": structref.new}
    for module in COMPILED_MODULES:
        names |= {name: value for name, value in vars(module).items() if not name.startswith("__")}
    source, kinds = constructors()
    names |= kinds
    records = ", ".join(f"{made.__name__}({name})" for name, made in ARGUMENTS.items())
    source += f"\ndef entry({', '.join(ARGUMENTS)}, clock):\n    return run_iteration({records}, clock)"
    exec(compile(source, kept(source), "exec"), names)
    for name, value in list(names.items()):
        if isinstance(value, FunctionType):
            names[name] = numba.njit(FunctionType(value.__code__, names, name), cache=name == "entry")
    return names["entry"]


numba.config.CACHE_DIR = str(FOLDER)
_ENTRY = compile_loop()


def run_compiled(
    t: Tables, messages: Messages, paths: Paths, work: Work, traffic: Traffic
) -> tuple[float, Work, Traffic]:
    """Seconds of an iteration, and its state at the end, as arrays."""
    records = [as_arrays(record) for record in (t, messages, paths, work, traffic)]
    with nullcontext() if _ENTRY.signatures else FileLock(FOLDER / "entry.lock"):  # one worker compiles, others load
        seconds = _ENTRY(*records, np.zeros(3))
    return seconds, records[3], records[4]


def as_arrays(record: Any) -> Any:
    """A named tuple with an array of the declared type in place of each sequence."""
    return type(record)(
        *(
            value if hint in SCALARS else np.ascontiguousarray(value, get_args(hint)[0])
            for value, hint in zip(record, FIELDS[type(record)].values(), strict=True)
        )
    )
