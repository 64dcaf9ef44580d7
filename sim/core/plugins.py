"""Plug-in lookup: components (strategies, failure processes) that a scenario names by their `kind`.

A kind is the name of a built-in class, a name that an installed package registers by an entry point, or
`package.module:Class` for any class that Python can import: installed, on PYTHONPATH, or in the current folder, which
is searched last. A built-in kind takes precedence over an entry point of the same name.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from abc import ABC
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, ClassVar, Generic, TypeVar, get_args

from models import spec
from sim.core.text import FOLDER_NAME, FOLDER_NAME_IN_WORDS, shortened, suggestion

MODULE_AND_CLASS = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"

MAX_REASON = 300


class Component(ABC):
    """A class that a scenario names by its `kind` and configures by its `Config`."""

    kind: ClassVar[str]
    """The name in a scenario; by default the one that the field `kind` of its Config has as its default."""

    Config: ClassVar[type[spec.Config]]
    """Its options. Those of a class from outside leave the field `kind` to the base class."""

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
    """Components of one sort from outside: subclasses of `base` whose Config is a subclass of `config`."""

    group: str
    """The entry-point group that gives them plain names."""
    base: type[Any]
    config: type[spec.Config]
    needs: str | None = None
    """A class attribute that has to be true, where not every component will do."""

    def installed(self) -> tuple[str, ...]:
        """Plain names that installed packages register, in alphabetical order. Imports nothing."""
        return tuple(sorted({entry.name for entry in entry_points(group=self.group)}))

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
    """Import a module, also from the current folder (last in the path, so that it hides nothing installed)."""
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
    """An exception's name and text on one line, cut to MAX_REASON characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 3]}..."
