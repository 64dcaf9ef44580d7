"""Components (strategies, failure processes) that a scenario names by their `kind`: their lookup, and such a field.

A kind is the name of a built-in class, else of an entry point of an installed package, or `package.module:Class` for
any class that Python can import: installed, on PYTHONPATH, or, where `--plugins` asks for it, in a folder.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Annotated, Any, ClassVar, Generic, NoReturn, TypeVar, Union, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from models import spec
from sim.core.presets import mapping_with, presets, resolved
from sim.core.text import FOLDER_NAME, FOLDER_NAME_IN_WORDS, shortened, suggestion

MODULE_AND_CLASS = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"

FOLDER_VARIABLE, NO_PLUGINS = "CHURNLAB_PLUGINS", "none"
"""Environment variable with the folder from which modules are also imported, or `none`: no module is."""

MAX_REASON_CHARACTERS = 300


class Component(ABC):
    """A class that a scenario names by its `kind`, by default that of its Config, and configures by its `Config`.

    The Config of a class from outside leaves the field `kind` to its base class.
    """

    kind: ClassVar[str]
    Config: ClassVar[type[spec.Config]]

    def __init_subclass__(cls) -> None:
        """Take the kind from a Config that states one."""
        config = vars(cls).get("Config")
        if isinstance(config, type) and issubclass(config, spec.Config) and "kind" not in vars(cls):
            kind = config.model_fields["kind"].default
            if isinstance(kind, str):
                cls.kind = kind


Found = TypeVar("Found", bound=Component)


class PluginError(ValueError):
    """A class from outside that cannot be used, with the reason in one line."""


@dataclass(frozen=True)
class Plugins(Generic[Found]):
    """Components of one sort from outside: subclasses of `base` whose Config is a subclass of `config`.

    group: the entry-point group that gives them plain names. needs: a class attribute that has to be true.
    """

    group: str
    base: type[Any]
    config: type[spec.Config]
    needs: str | None = None

    def installed(self) -> tuple[str, ...]:
        """Plain names that installed packages register, in alphabetical order. Imports nothing."""
        return _names(self.group, tuple(map(_state, sys.path)))

    def offers(self, kind: str) -> bool:
        """Whether a kind can only mean a class from outside, usable or not."""
        return ":" in kind or kind in self.installed()

    def find(self, kind: str) -> type[Found]:
        """Import the class of a kind; that of a notebook or script as it was defined last. Raises PluginError."""
        return (_find.__wrapped__ if kind.startswith("__main__:") else _find)(self, kind)  # type: ignore[no-any-return]

    def known(self) -> dict[str, type[Found] | PluginError]:
        """All installed classes by their plain names; the error in place of a class that cannot be used."""
        found: dict[str, type[Found] | PluginError] = {}
        for name in self.installed():
            try:
                found[name] = self.find(name)
            except PluginError as error:
                found[name] = error
        return found


@lru_cache(maxsize=8)
def _names(group: str, path: tuple[tuple[str, int], ...]) -> tuple[str, ...]:  # noqa: ARG001
    """Names of the entry points of a group; read again when a folder of the path changes, as importlib does."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def _state(folder: str) -> tuple[str, int]:
    try:
        return folder, os.stat(folder or os.curdir).st_mtime_ns
    except OSError:
        return folder, 0


@cache
def _find(plugins: Plugins[Found], kind: str) -> Any:
    """The class of a kind, whose target is the kind itself or that of its entry point. Raises PluginError."""
    if re.match(MODULE_AND_CLASS, kind):
        return _checked_class(plugins, kind, kind)
    entries = {entry.value: entry for entry in entry_points(group=plugins.group, name=kind)}  # equal targets count once
    if not entries:
        raise PluginError("write package.module:Class, or the name of an installed one")
    if len(entries) > 1:
        raise PluginError(f"several packages give this name: {' and '.join(sorted(entries))}; write the one you mean")
    (entry,) = entries.values()
    try:
        return _checked_class(plugins, kind, f"{entry.module}:{entry.attr}")
    except PluginError as error:
        package = entry.dist.name if entry.dist else "a package"
        raise PluginError(f"{entry.value}, {plugins.group} of {package}: {error}") from None


def _checked_class(plugins: Plugins[Found], kind: str, target: str) -> Any:
    """The class at `package.module:Class`, imported and checked. Raises PluginError."""
    module_name, _, name = target.partition(":")
    module, base = _import(module_name), plugins.base
    found = getattr(module, name, None)
    if found is None:
        own = [key for key, item in vars(module).items() if _is_subclass(item, base) and item.__module__ == module_name]
        hint = suggestion(name, own) if own else f", and no {base.__name__} at all"
        raise PluginError(f"module '{module_name}' has no '{name}'{hint}")
    if not _is_subclass(found, base):
        raise PluginError(f"'{name}' is not a {base.__name__}: make it a subclass of {base.__module__}.{base.__name__}")
    _check_contract(plugins, kind, found)
    return found


def _import(name: str) -> ModuleType:
    """Import a module, also from the folder asked for (last in the path, so that it hides nothing installed)."""
    folder = os.environ.get(FOLDER_VARIABLE, "")
    if folder == NO_PLUGINS and name != "__main__":
        raise PluginError(f"module '{name}' is not imported: --no-plugins is given")
    if folder and os.path.abspath(folder) not in sys.path:
        sys.path.append(os.path.abspath(folder))
    importlib.invalidate_caches()
    try:
        with without_exits():
            return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            where = f", on PYTHONPATH or in {shortened(folder)}" if folder else " or on PYTHONPATH"
            first, here = name.partition(".")[0], os.getcwd()
            is_here = any(os.path.exists(os.path.join(here, found)) for found in (f"{first}.py", first))
            hint = "; to import from the current folder, give --plugins ." if is_here and not folder else ""
            raise PluginError(f"there is no module '{error.name}', installed{where}{hint}") from None
        raise PluginError(f"module '{name}' cannot be imported: {in_one_line(error)}") from None


@contextmanager
def without_exits() -> Iterator[None]:
    """While a module is imported, `os._exit` is an error: it would end the command without a word, with any code."""

    def refused(status: int) -> NoReturn:
        raise RuntimeError(f"it calls os._exit({status})")

    before, os._exit = os._exit, refused
    try:
        yield
    finally:
        os._exit = before


def _check_contract(plugins: Plugins[Found], kind: str, found: Any) -> None:
    """Raise PluginError where a class lacks something that its base asks for, or has an unusable kind or Config."""
    name, config = found.__name__, plugins.config
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise PluginError(f"'{name}' lacks the method{'s'[: len(missing) - 1]} {', '.join(missing)}")
    declared = [*inspect.get_annotations(Component).items(), *inspect.get_annotations(plugins.base).items()]
    required = dict.fromkeys(key for key, what in declared if "ClassVar" in str(what))
    if missing := [key for key in required if not hasattr(found, key)]:
        raise PluginError(f"'{name}' lacks the attribute{'s'[: len(missing) - 1]} {', '.join(missing)}")
    names = [found.kind] if ":" in kind else [found.kind, kind]
    if bad := [short for short in names if not isinstance(short, str) or not re.match(FOLDER_NAME, short)]:
        raise PluginError(f"the kind {shortened(repr(bad[0]))} of '{name}' is not a name {FOLDER_NAME_IN_WORDS}")
    if not _is_subclass(found.Config, config):
        raise PluginError(f"the Config of '{name}' is not a subclass of {config.__module__}.{config.__name__}")
    kinds = found.Config.model_fields["kind"].annotation
    if kinds is not str and kind not in get_args(kinds):
        raise PluginError(f"the Config of '{name}' allows other kinds only: leave the field 'kind' out of it")
    if plugins.needs and not getattr(found, plugins.needs, False):
        raise PluginError(f"'{name}' cannot be used here: its '{plugins.needs}' is not True")


def _is_subclass(found: Any, base: type) -> bool:
    return isinstance(found, type) and issubclass(found, base)


def in_one_line(error: BaseException) -> str:
    """An exception's name and text on one line, shortened."""
    return shortened(" ".join(f"{type(error).__name__}: {error}".split()), MAX_REASON_CHARACTERS)


def choice(configs: Sequence[Any], plugins: Plugins[Any], preset_kind: str | None = None) -> Any:
    """The type of a field that holds one of `configs`, discriminated by `kind`, or a class from outside.

    `checkpoint` is short for `{kind: checkpoint}`. With `preset_kind` the field also accepts a preset's name, or a
    mapping whose `preset:` names the figures that its other keys change.
    """
    kinds = tuple(config.model_fields["kind"].default for config in configs)
    members: Any = Annotated[Union[tuple(configs)], Field(discriminator="kind")]  # noqa: UP007
    return Annotated[members, _Choice(kinds, plugins, preset_kind)]


@dataclass(frozen=True)
class _Choice:
    """Annotation that adds plain names, presets and classes from outside to a union discriminated by `kind`."""

    kinds: tuple[str, ...]
    plugins: Plugins[Any]
    preset_kind: str | None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Each config is serialised as its own class, so that a plug-in's options are not lost.
        whole = core_schema.wrap_serializer_function_ser_schema(
            lambda value, inner: inner(value), schema=core_schema.any_schema()
        )
        return core_schema.no_info_wrap_validator_function(self._validated, handler(source), serialization=whole)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        members = handler(schema)
        installed = [name for name in self.plugins.installed() if name not in self.kinds]
        known = self._presets()
        forms: list[dict[str, Any]] = [{"enum": [*self.kinds, *installed, *known]}, members]
        if known:
            forms.append(mapping_with("preset", {"enum": known}, title=self.preset_kind))
        elsewhere = {"type": "string", "pattern": MODULE_AND_CLASS}
        kind = {"anyOf": [{"enum": installed}, elsewhere]} if installed else elsewhere
        return {"anyOf": [*forms, elsewhere, mapping_with("kind", kind, title=self.plugins.group)]}

    def _presets(self) -> list[str]:
        """Names of presets whose kind is one of those to choose from."""
        known = presets(self.preset_kind) if self.preset_kind else {}
        return [name for name, options in known.items() if options["kind"] in self.kinds]

    def _validated(self, value: Any, members: Callable[[Any], Any]) -> Any:
        """Validate a name, a preset, a mapping or a configuration object; `members` validates built-in kinds."""
        if isinstance(value, str):
            value = {"preset" if value not in self.kinds and value in self._presets() else "kind": value}
        if self.preset_kind and isinstance(value, dict) and "preset" in value:
            value = resolved(self.preset_kind, value, self._presets())
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        if not isinstance(kind, str) or kind in self.kinds or not self.plugins.offers(kind):
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
