"""Size of a checkout: files and lines, layers of the import contract, longest file and function, long signatures.

    python -m benchmarks.size [CHECKOUT]

The product is sim/ and models/, without sim/paper, where older checkouts have the study that is now benchmarks/paper.
Commands in sim/cli have one parameter per option and are left out of long signatures.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOST_PARAMETERS = 7


class Function(NamedTuple):
    """A function of the product. num_parameters: without self and cls."""

    place: str
    num_lines: int
    num_parameters: int


def functions_of(file: Path, name: str) -> Iterator[Function]:
    """All functions and methods of a file, nested ones included."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            parameters = [one for one in every if one is not None and one.arg not in ("self", "cls")]
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Function(f"{name}:{node.lineno} {node.name}", num_lines, len(parameters))


def layers_of(checkout: Path) -> list[str]:
    """Layers of the import contract, top first."""
    settings = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    return next(contract["layers"] for contract in contracts if contract["type"] == "layers")


def main(checkout: Path) -> None:
    lines: dict[str, int] = {}
    functions: list[Function] = []
    for package in ("sim", "models", "tests"):
        files = {file.relative_to(checkout).as_posix(): file for file in sorted((checkout / package).rglob("*.py"))}
        own = {name: file for name, file in files.items() if not name.startswith("sim/paper/")}
        counts = {name: len(file.read_text("utf-8").splitlines()) for name, file in own.items()}
        print(f"{package}: {len(counts)} files, {sum(counts.values()):,} lines")
        if package != "tests":
            lines |= counts
            functions += [function for name, file in own.items() for function in functions_of(file, name)]
    print(f"sim and models: {len(lines)} files, {sum(lines.values()):,} lines")
    layers = layers_of(checkout)
    print(f"import contract: {len(layers)} layers ({' > '.join(layers)})")
    longest_file = max(lines, key=lines.__getitem__)
    print(f"longest file: {longest_file}, {lines[longest_file]} lines")
    longest = max(functions, key=lambda function: function.num_lines)
    print(f"longest function: {longest.place}, {longest.num_lines} lines")
    wide = [one for one in functions if one.num_parameters > MOST_PARAMETERS and not one.place.startswith("sim/cli/")]
    print(f"functions of more than {MOST_PARAMETERS} parameters outside sim/cli: {len(wide)}")
    for function in wide:
        print(f"  {function.place}: {function.num_parameters}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]))
