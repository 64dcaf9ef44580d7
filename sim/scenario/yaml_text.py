"""A YAML text as plain data with the line of each key and entry, or an error with its line."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from sim.core.text import format_tag, format_value, shortened

Location = tuple[str | int, ...]  # the path of a value: keys and list indices from the top

MAX_DIGITS = 40
MAX_DEPTH = 100
MAX_VALUES = 2_000_000
"""Values of a text, those behind an alias counted each time it is used."""

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

STANDARD = "tag:yaml.org,2002:"
TAGS = {
    MappingNode: {f"{STANDARD}map"},
    SequenceNode: {f"{STANDARD}seq"},
    ScalarNode: {STANDARD + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")},
}
"""The tags that a node may have; all but those of texts and numbers are what it has without a tag."""


class YamlTextError(ValueError):
    """A text that is not one YAML document; `line` counts from 1, None where it is not known."""

    def __init__(self, line: int | None, message: str) -> None:
        self.line = line
        super().__init__(f"not valid YAML: {message}")


class PlainConstructor(RoundTripConstructor):
    """Reads dates as texts. Rejects, with a line, what ruamel would read as an object or cannot read."""

    def construct_document(self, node: Any) -> Any:
        """The data of the document. Raises ConstructorError."""
        check_nodes(node)
        return super().construct_document(node)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """The data of a node. Raises ConstructorError."""
        if not isinstance(node, ScalarNode):
            return super().construct_object(node, deep)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError):
            what = f"{format_value(str(node.value))} is not a value of the type {format_tag(node.tag)}"
            raise ConstructorError(None, None, what, node.start_mark) from None

    def construct_yaml_int(self, node: Any) -> Any:
        """A whole number. Raises ConstructorError, with its line, where it is invalid or far too large."""
        try:
            number = super().construct_yaml_int(node)
        except (ValueError, LookupError):
            number = None
        if number is None or abs(number) >= 10**MAX_DIGITS:
            problem = f"a whole number of at most {MAX_DIGITS} digits is expected, found {shortened(node.value)}"
            raise ConstructorError(None, None, problem, node.start_mark)
        return number


PlainConstructor.add_constructor(f"{STANDARD}int", PlainConstructor.construct_yaml_int)
PlainConstructor.add_constructor(f"{STANDARD}timestamp", PlainConstructor.construct_scalar)


def check_nodes(root: Any) -> None:
    """Raise ConstructorError for a node that holds itself, a key given twice, a tag without meaning, or too much."""
    num_values: dict[int, int] = {}
    above: set[int] = set()

    def values_of(node: Any) -> int:
        known = num_values.get(id(node))
        if known is not None:
            return known
        if id(node) in above:
            raise ConstructorError(None, None, "an anchor that holds itself", node.start_mark)
        if len(above) > MAX_DEPTH:
            raise ConstructorError(None, None, f"nested more than {MAX_DEPTH} levels deep", node.start_mark)
        check_tag(node)
        number = 1
        if not isinstance(node, ScalarNode):
            above.add(id(node))
            if isinstance(node, MappingNode):
                check_keys(node)
            number += sum(map(values_of, parts_of(node)))
            above.remove(id(node))
        if number > MAX_VALUES:
            message = f"with its aliases it stands for more than {MAX_VALUES:,} values"
            raise ConstructorError(None, None, message, node.start_mark)
        num_values[id(node)] = number
        return number

    if root is not None:
        values_of(root)


def parts_of(node: Any) -> list[Any]:
    """The nodes directly below a list or a mapping."""
    return [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else list(node.value)


def check_tag(node: Any) -> None:
    """Raise ConstructorError for a list or mapping with a tag, which would be read as an object."""
    kind = next(kind for kind in TAGS if isinstance(node, kind))
    if kind is not ScalarNode and node.tag is not None and str(node.tag) not in TAGS[kind]:
        what = "list" if kind is SequenceNode else "mapping"
        raise ConstructorError(None, None, f"the tag {format_tag(node.tag)} of a {what}: leave it out", node.start_mark)


def check_keys(node: Any) -> None:
    """Raise ConstructorError where a mapping has a key twice, with both lines."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            raise ConstructorError(None, None, "a key that is a list or a mapping: write a name", key.start_mark)
        name = (str(key.tag), str(key.value))
        if name in lines:
            line = key.start_mark.line + 1
            where = f", in lines {lines[name]} and {line}" if lines[name] != line else ""
            message = f"the key {shortened(name[1])} is given twice{where}"
            raise ConstructorError(None, None, message, key.start_mark)
        lines[name] = key.start_mark.line + 1


def read_yaml(text: str) -> tuple[Any, dict[Location, int]]:
    """The data of a YAML text, with keys as texts, and the line of each key and list entry. Raises YamlTextError."""
    yaml = YAML(typ="rt")
    yaml.Constructor = PlainConstructor
    lines: dict[Location, int] = {}
    try:
        return plain(yaml.load(io.StringIO(text)), (), lines), lines
    except RecursionError:
        raise YamlTextError(None, f"nested more than {MAX_DEPTH} levels deep") from None
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
    if isinstance(error, DuplicateKeyError):  # two spellings of one number
        problem = f"the key {problem.split(' with value ')[0].removeprefix('found duplicate key ')} is given twice"
    problem = next((words for known, words in SYNTAX.items() if known in problem), problem)
    if error.context in OPENED:
        problem += f", in {OPENED[error.context]} that begins on line {error.context_mark.line + 1}"
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
