"""Mutations of scenario texts, some valid and most not, and a limit on the CPU time that one of them may take."""

from __future__ import annotations

import copy
import io
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from ruamel.yaml import YAML

from sim.scenario.schema import at, below, member_of, resolved, schema
from sim.scenario.yaml_text import read_yaml

SCENARIOS = Path(__file__).parents[2] / "scenarios"
SHIPPED = sorted(SCENARIOS.rglob("*.yaml"))

TOKENS = (
    *("<<: *it", "&it ", "*it", "&a {<<: *a}", "&a\n  <<: *a", "<<: [*it, *it]", "<<: 3", "<<: {<<: {}}", "? ", "- "),
    *("!!python/object:os.system x", "!!python/tuple [1]", "!!bool maybe", "!!int x", "!!float y", "!!null 3", "!x 1"),
    *("!!set {a}", "!!omap [a: 1]", "!!binary gg", "!!timestamp x", "!!str 3", "!!map [1]", "!!seq {a: 1}", "!", "!!"),
    *("\t", "\x00", "\x07", "\u2028", "\ufeff", "\ud7ff", "é", "漢字", "\U0001f600", "---\n", "...\n", "? {a: 1}\n: 2"),
    *("%YAML 1.1\n---\n", "|\n", ">-\n  x", '"', "'", "{", "}", "[", "]", ",", ":", ": ", "#", "~", "@", "`", "="),
    *("2001-01-01", "0o17", "0x1F", "1_000", "1:30", "1e400", ".nan", "-.inf", "1e-320", "9" * 60, "x" * 3000),
    *("[" * 60, "[/red]", "%TAG ! x\n", "\\"),
)

NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 64, 1000, 10**6, 10**9, 10**15, 2**63, 10**30, -(10**9), 0.0, -0.0, 0.5, 1.0, 0.999999, 1e-6),
    *(1e-9, 1e-300, 5e-324, 1e6, 1e15, 1e300, -1.5, float("nan"), float("inf")),
)

TEXTS = (
    *("", " ", "x", "yes", "1", "1e3", "10 %", "10 %/day", "null", "none", "auto", "a" * 500, "[/b]", "checkpoint"),
    *("checkfree", "redundant", "peer", "exponential", "weibull", "never", "gcp", "t4", "medium", "1f1b", "/dev/zero"),
    *("/dev/stdin", "..", "*", "os:system", "os.path:join", "nowhere:Nothing", "a.b", "a[0]", "strategies[0]"),
)

COLLECTIONS: tuple[Any, ...] = (
    *([], {}, [[]], [0], [1, 1], ["x"], [None], [{}], [[1, 2]]),
    *({"x": 1}, {"kind": "never"}, {"preset": "t4"}, {"kind": []}),
)

VALUES = (*NUMBERS, *TEXTS, *COLLECTIONS, True, False, None)


def mutated(seed: int) -> str:
    """A shipped scenario with up to three mutations, in its text or in its structure."""
    rng = random.Random(seed)
    text = rng.choice(SHIPPED).read_text(encoding="utf-8")
    mutate = rng.choice((in_text, in_structure, in_structure))
    return mutate(rng, text, rng.choice((1, 1, 2, 3)))


def in_text(rng: random.Random, text: str, number: int) -> str:
    """A text with tokens inserted or put in place of values, lines taken away or repeated, and characters lost."""
    lines = [line for line in text.splitlines(keepends=True) if line.strip() and not line.lstrip().startswith("#")]
    for _ in range(number):
        index = rng.randrange(len(lines))
        line, token = lines[index], rng.choice(TOKENS)
        begin, end = sorted(rng.randrange(len(line) + 1) for _ in range(2))
        indent = line[: len(line) - len(line.lstrip())]
        lines[index] = rng.choice(
            (
                line[:begin] + token + line[begin:],
                line[:begin] + token + line[end:],
                line[:begin] + line[end:],
                f"{line.partition(':')[0]}: {token}\n",
                line + line,
                line + indent + token + "\n",
                " " * rng.randrange(8) + line.lstrip(),
                "",
            )
        )
    return "".join(lines)


def in_structure(rng: random.Random, text: str, number: int) -> str:
    """A text whose data has other values, fewer keys, keys of other sections, or more that its schema knows."""
    data = copy.deepcopy(data_of(text))
    for _ in range(number):
        paths = list(places(data))
        path = rng.choice(paths)
        container, key = at(data, path[:-1]), path[-1]
        change = rng.choice(
            ("value", "value", "value", "limit", "limit", "new", "new", "new", "swap", "key", "gone", "twice")
        )
        if change == "value":
            container[key] = copy.deepcopy(rng.choice(VALUES))
        elif change == "limit":
            container[key] = at_limit(rng, container[key])
        elif change == "new":
            add_known_key(rng, data, path)
        elif change == "swap":
            container[key] = copy.deepcopy(at(data, rng.choice(paths)))
        elif change == "key" and isinstance(container, dict):
            container[str(rng.choice(VALUES))] = container.pop(key)
        elif change == "twice" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif len(paths) > 1:
            del container[key]
        if not data:
            break
    written = io.StringIO()
    YAML(typ="safe", pure=True).dump(data, written)
    return written.getvalue()


@cache
def data_of(text: str) -> Any:
    """The plain data of a shipped scenario."""
    return read_yaml(text)[0]


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values below the top."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def at_limit(rng: random.Random, value: Any) -> Any:
    """A number far from the one given; any other value as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    factor = 10.0 ** rng.uniform(-6, 6)
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


def add_known_key(rng: random.Random, data: Any, path: tuple[Any, ...]) -> None:
    """Add a key that the schema knows beside a path, with its default, one of its names or any value."""
    node: dict[str, Any] = resolved(schema())
    for depth, part in enumerate(path[:-1]):
        node = below(member_of(node, at(data, path[:depth])), part)
    container = at(data, path[:-1])
    properties = member_of(node, container).get("properties", {})
    if not properties or not isinstance(container, dict):
        return
    key = rng.choice(sorted(properties))
    known = below(member_of(node, container), key)
    fitting = [known["default"]] if "default" in known else []
    fitting += [*known.get("enum", ()), *known.get("names", ())]
    fitting += [known[limit] for limit in ("minimum", "maximum", "exclusiveMinimum") if limit in known]
    container[key] = copy.deepcopy(rng.choice(fitting if fitting and rng.random() < 0.7 else list(VALUES)))


class TookTooLong(BaseException):
    """More CPU time than is allowed."""


@contextmanager
def limited(cpu_seconds: float) -> Iterator[None]:
    """Raise TookTooLong where the block takes more CPU time."""

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"more than {cpu_seconds:g} s of CPU time")

    before: Callable[[int, FrameType | None], Any] | int | None = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
