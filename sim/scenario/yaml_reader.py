"""YAML text as built-in mappings, lists and scalars, with the line of each."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from sim.core.text import format_value, shortened

Location = tuple[str | int, ...]
"""The path of a value: keys and list indices from the top."""

MAX_DIGITS = 40

SYNTAX = {
    "found another document": "a second document ('---'): only one can be read",
    "character '\\t'": "a tab: indent with spaces",
    "mapping values are not allowed": "an unexpected ':': check the indentation, or put the text in quotes",
    "could not find expected ':'": "a line without ':' that continues nothing",
    "expected <block end>": "a line that does not fit in: check the indentation",
}

OPENED = {
    "while parsing a flow sequence": "the list [...]",
    "while parsing a flow mapping": "the mapping {...}",
    "while scanning a quoted scalar": "the quoted text",
}


class YamlTextError(ValueError):
    """A text that is not one YAML document; `line` counts from 1, None where it is not known."""

    def __init__(self, line: int | None, message: str) -> None:
        self.line = line
        super().__init__(f"not valid YAML: {message}")


class PlainConstructor(RoundTripConstructor):
    """Reads dates as texts, and rejects whole numbers of too many digits."""

    def construct_yaml_int(self, node: Any) -> Any:
        """A whole number. Raises ConstructorError, with its line, where it is invalid or far too large."""
        try:
            number = super().construct_yaml_int(node)
        except ValueError:
            number = None
        if number is None or abs(number) >= 10**MAX_DIGITS:
            problem = f"a whole number of at most {MAX_DIGITS} digits is expected, found {shortened(node.value)}"
            raise ConstructorError(None, None, problem, node.start_mark)
        return number


PlainConstructor.add_constructor("tag:yaml.org,2002:int", PlainConstructor.construct_yaml_int)
PlainConstructor.add_constructor("tag:yaml.org,2002:timestamp", PlainConstructor.construct_scalar)


def read_yaml(text: str) -> tuple[Any, dict[Location, int]]:
    """The data of a YAML text, with keys as texts, and the line of each key and list entry. Raises YamlTextError."""
    yaml = YAML(typ="rt")
    yaml.Constructor = PlainConstructor
    lines: dict[Location, int] = {}
    try:
        return plain(yaml.load(io.StringIO(text)), (), lines), lines
    except RecursionError:
        raise YamlTextError(None, "nested too deeply, or an anchor that holds itself") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlTextError(line, f"the character U+{error.character:04X} is not allowed") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlTextError(mark.line + 1 if mark else None, describe_syntax_error(error)) from None
    except (YAMLError, ValueError) as error:
        raise YamlTextError(None, shortened(str(error))) from None


def describe_syntax_error(error: MarkedYAMLError) -> str:
    """The message of a syntax error."""
    problem = str(error.problem).split("\n")[0]
    if isinstance(error, DuplicateKeyError):
        problem = f"the key {problem.split(' with value ')[0].removeprefix('found duplicate key ')} is given twice"
    problem = next((words for known, words in SYNTAX.items() if known in problem), problem)
    if error.context in OPENED:
        problem += f", in {OPENED[error.context]} that begins in line {error.context_mark.line + 1}"
    return problem


def plain(value: Any, path: Location, lines: dict[Location, int]) -> Any:
    """Built-in data for that of ruamel, except values with a tag; the line of each key and entry goes into `lines`."""
    if isinstance(value, CommentedMap):
        data = {}
        for key, item in value.items():
            name = format_value(key) if key is None or isinstance(key, bool) else str(key)
            if key in (value.lc.data or ()):  # keys of a merge (`<<`) stand elsewhere
                lines[(*path, name)] = value.lc.data[key][0] + 1
            data[name] = plain(item, (*path, name), lines)
        return data
    if isinstance(value, CommentedSeq):
        lines.update({(*path, index): value.lc.item(index)[0] + 1 for index in range(len(value))})
        return [plain(item, (*path, index), lines) for index, item in enumerate(value)]
    return next((kind(value) for kind in (bool, int, float, str) if isinstance(value, kind)), value)
