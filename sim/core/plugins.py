"""A choice between components by their `kind`, for fields of a scenario: built-in ones, and classes from outside.

`kind: package.module:Class` names any class that Python can import: installed, on PYTHONPATH, or in the current
folder, which is looked at last. An installed package can give its class a plain name by an entry point: `kind: name`.
A built-in kind comes before an entry point of its name.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from models.spec import Config
from sim.core.presets import presets, resolved
from sim.core.text import FOLDER_NAME, FOLDER_NAME_IN_WORDS, shortened, suggestion

Component = TypeVar("Component")

MODULE_AND_CLASS = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"

NOTEBOOK = "__main__:"
"""How kinds begin that are classes of a notebook, or of the script that runs."""

MAX_REASON = 300


class PluginError(ValueError):
    """A class from outside that cannot be used; says why in one line."""


@dataclass(frozen=True)
class Plugins(Generic[Component]):
    """Components of one sort from outside: subclasses of `base` whose Config is a subclass of `config`."""

    group: str
    """Entry points of this group give them plain names."""
    base: type[Any]
    config: type[Config]
    needs: str | None = None
    """A class attribute that has to be true, where not all will do."""

    def installed(self) -> tuple[str, ...]:
        """Plain names that installed packages give, in order of the alphabet. Imports nothing."""
        return tuple(sorted({entry.name for entry in entry_points(group=self.group)}))

    def offers(self, kind: str) -> bool:
        """Whether a kind can only mean a class from outside, be it usable or not."""
        return ":" in kind or kind in self.installed()

    def find(self, kind: str) -> type[Component]:
        """The class of a kind, imported; one of a notebook as its cell was last run. Raises PluginError."""
        found: type[Component] = (_find.__wrapped__ if kind.startswith(NOTEBOOK) else _find)(self, kind)
        return found

    def known(self) -> dict[str, type[Component] | PluginError]:
        """Classes of all that is installed by their plain names; for one that cannot be used, why."""
        found: dict[str, type[Component] | PluginError] = {}
        for name in self.installed():
            try:
                found[name] = self.find(name)
            except PluginError as error:
                found[name] = error
        return found


@cache
def _find(plugins: Plugins[Component], kind: str) -> type[Component]:
    if re.match(MODULE_AND_CLASS, kind):
        module_name, _, class_name = kind.partition(":")
        whence = ""
    else:
        entry = _entry_point(plugins.group, kind)
        module_name, class_name = entry.module, entry.attr
        whence = f"{entry.value}, {plugins.group} of {entry.dist.name if entry.dist else 'a package'}: "
    try:
        module = _imported(module_name)
        return _usable(plugins, kind, getattr(module, class_name, None), module, class_name)
    except PluginError as error:
        raise PluginError(f"{whence}{error}") from None


def _entry_point(group: str, name: str) -> EntryPoint:
    """What an entry point's name stands for; the same written down twice counts once."""
    found = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not found:
        raise PluginError("write package.module:Class, or the name of an installed one")
    if len(found) > 1:
        raise PluginError(f"several packages give this name: {' and '.join(sorted(found))}; write the one you mean")
    return next(iter(found.values()))


def _imported(name: str) -> ModuleType:
    """A module, also from the current folder, as `python -m` has it (but last: nothing installed is hidden by it)."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            where = "installed, on PYTHONPATH or in the current folder"
            raise PluginError(f"there is no module '{error.name}', {where}") from None
        raise PluginError(f"module '{name}' cannot be imported: {in_one_line(error)}") from None


def _usable(plugins: Plugins[Component], kind: str, found: Any, module: ModuleType, name: str) -> type[Component]:
    """The class, if it is one that keeps to the contract. Raises PluginError."""
    base, config = plugins.base, plugins.config
    if found is None:
        own = [key for key, item in vars(module).items() if _is_a(item, base) and item.__module__ == module.__name__]
        hint = suggestion(name, own) if own else f", and no {base.__name__} at all"
        raise PluginError(f"module '{module.__name__}' has no '{name}'{hint}")
    if not _is_a(found, base):
        raise PluginError(f"'{name}' is no {base.__name__}: make it a subclass of {base.__module__}.{base.__name__}")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise PluginError(f"'{name}' lacks the method{'s'[: len(missing) - 1]} {', '.join(missing)}")
    if missing := [
        key
        for key, what in inspect.get_annotations(base).items()
        if "ClassVar" in str(what) and not hasattr(found, key)
    ]:
        raise PluginError(f"'{name}' lacks the attribute{'s'[: len(missing) - 1]} {', '.join(missing)}")
    names = [found.kind] if ":" in kind else [found.kind, kind]
    if bad := [short for short in names if not isinstance(short, str) or not re.match(FOLDER_NAME, short)]:
        raise PluginError(f"the kind {shortened(repr(bad[0]))} of '{name}' is no name {FOLDER_NAME_IN_WORDS}")
    if not _is_a(found.Config, config):
        raise PluginError(f"the Config of '{name}' is no subclass of {config.__module__}.{config.__name__}")
    kinds = found.Config.model_fields["kind"].annotation
    if kinds is not str and kind not in get_args(kinds):
        raise PluginError(f"the Config of '{name}' allows other kinds only: leave the field 'kind' out of it")
    if plugins.needs and not getattr(found, plugins.needs, False):
        raise PluginError(f"'{name}' cannot be used here: its '{plugins.needs}' is not True")
    return found  # type: ignore[no-any-return]


def _is_a(found: Any, base: type) -> bool:
    return isinstance(found, type) and issubclass(found, base)


def in_one_line(error: BaseException) -> str:
    """An exception's name and text on one line of bearable length."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 3]}..."


@dataclass(frozen=True)
class _Choice:
    """What a choice adds to a union told apart by `kind`: names alone, presets, and classes from outside."""

    kinds: tuple[str, ...]
    plugins: Plugins[Any] | None
    preset_kind: str | None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Each config is written out as the class it is of, so that a plug-in's options are not lost.
        whole = core_schema.wrap_serializer_function_ser_schema(
            lambda value, inner: inner(value), schema=core_schema.any_schema()
        )
        return core_schema.no_info_wrap_validator_function(self.validated, handler(source), serialization=whole)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        members = handler(schema)
        installed = [name for name in (self.plugins.installed() if self.plugins else ()) if name not in self.kinds]
        known = self.presets()
        forms: list[dict[str, Any]] = [{"enum": [*self.kinds, *installed, *known]}, members]
        if known:
            forms.append(_mapping_with("preset", {"enum": known}, title=self.preset_kind))
        if self.plugins:
            elsewhere = {"type": "string", "pattern": MODULE_AND_CLASS}
            kind = {"anyOf": [{"enum": installed}, elsewhere]} if installed else elsewhere
            forms += [elsewhere, _mapping_with("kind", kind, title=self.plugins.group)]
        return {"anyOf": forms}

    def presets(self) -> list[str]:
        """Names of presets of the kinds to choose from."""
        known = presets(self.preset_kind) if self.preset_kind else {}
        return [name for name, options in known.items() if options["kind"] in self.kinds]

    def validated(self, value: Any, members: Callable[[Any], Any]) -> Any:
        """A component's configuration, from a name, a preset, a mapping, or one that is made already."""
        if isinstance(value, str):
            value = {"preset" if value in self.presets() and value not in self.kinds else "kind": value}
        if self.preset_kind and isinstance(value, dict) and "preset" in value:
            value = resolved(self.preset_kind, value, self.presets())
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        if self.plugins is None or not isinstance(kind, str) or kind in self.kinds or not self.plugins.offers(kind):
            return members(value)
        try:
            found = self.plugins.find(kind)
            if ":" in kind and isinstance(value, dict) and "label" in found.Config.model_fields:
                value = {**value, "label": value.get("label") or found.kind}  # outputs need a short name
            return found.Config.model_validate(value)
        except ValidationError:
            raise  # pydantic adds the place
        except Exception as error:
            reason = str(error) if isinstance(error, PluginError) else f"its Config fails: {in_one_line(error)}"
            raise PydanticCustomError("plugin", "{reason}", {"reason": reason}) from None


def _mapping_with(key: str, value: Any, title: str | None) -> dict[str, Any]:
    """The JSON Schema of a mapping of which nothing but one key is known."""
    return {"type": "object", "title": title, "properties": {key: value}, "required": [key]}


def choice(configs: Sequence[Any], plugins: Plugins[Any] | None = None, preset_kind: str | None = None) -> Any:
    """The type of a field that holds one of some configurations, told apart by their `kind`.

    `checkpoint` is short for `{kind: checkpoint}`. With `plugins` it can be one from outside; with `preset_kind` a
    preset's name, or a mapping whose `preset:` names what its other keys change.
    """
    kinds = tuple(config.model_fields["kind"].default for config in configs)
    members: Any = Annotated[Union[tuple(configs)], Field(discriminator="kind")]  # noqa: UP007
    return Annotated[members, _Choice(kinds, plugins, preset_kind)]
