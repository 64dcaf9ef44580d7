"""The type of a scenario field that holds one of several configurations, discriminated by `kind`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from sim.core.plugins import MODULE_AND_CLASS, PluginError, Plugins, in_one_line
from sim.core.presets import mapping_with, presets, resolved


def choice(configs: Sequence[Any], plugins: Plugins[Any] | None = None, preset_kind: str | None = None) -> Any:
    """The type of a field that holds one of `configs`, discriminated by `kind`.

    `checkpoint` is short for `{kind: checkpoint}`. With `plugins` the field also accepts kinds from outside; with
    `preset_kind` a preset's name, or a mapping whose `preset:` names the figures that its other keys change.
    """
    kinds = tuple(config.model_fields["kind"].default for config in configs)
    members: Any = Annotated[Union[tuple(configs)], Field(discriminator="kind")]  # noqa: UP007
    return Annotated[members, _Choice(kinds, plugins, preset_kind)]


@dataclass(frozen=True)
class _Choice:
    """Annotation that adds plain names, presets and classes from outside to a union discriminated by `kind`."""

    kinds: tuple[str, ...]
    plugins: Plugins[Any] | None
    preset_kind: str | None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Each config is serialised as its own class, so that a plug-in's options are not lost.
        whole = core_schema.wrap_serializer_function_ser_schema(
            lambda value, inner: inner(value), schema=core_schema.any_schema()
        )
        return core_schema.no_info_wrap_validator_function(self._validated, handler(source), serialization=whole)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        members = handler(schema)
        installed = [name for name in (self.plugins.installed() if self.plugins else ()) if name not in self.kinds]
        known = self._presets()
        forms: list[dict[str, Any]] = [{"enum": [*self.kinds, *installed, *known]}, members]
        if known:
            forms.append(mapping_with("preset", {"enum": known}, title=self.preset_kind))
        if self.plugins:
            elsewhere = {"type": "string", "pattern": MODULE_AND_CLASS}
            kind = {"anyOf": [{"enum": installed}, elsewhere]} if installed else elsewhere
            forms += [elsewhere, mapping_with("kind", kind, title=self.plugins.group)]
        return {"anyOf": forms}

    def _presets(self) -> list[str]:
        """Names of presets whose kind is one of those to choose from."""
        known = presets(self.preset_kind) if self.preset_kind else {}
        return [name for name, options in known.items() if options["kind"] in self.kinds]

    def _validated(self, value: Any, members: Callable[[Any], Any]) -> Any:
        """Validate a name, a preset, a mapping or a configuration object; `members` validates built-in kinds."""
        if isinstance(value, str):
            value = {"preset" if value in self._presets() and value not in self.kinds else "kind": value}
        if self.preset_kind and isinstance(value, dict) and "preset" in value:
            value = resolved(self.preset_kind, value, self._presets())
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        if self.plugins is None or not isinstance(kind, str) or kind in self.kinds or not self.plugins.offers(kind):
            return members(value)
        return self._from_outside(self.plugins, kind, value)

    def _from_outside(self, plugins: Plugins[Any], kind: str, value: Any) -> Any:
        try:
            found = plugins.find(kind)
            if ":" in kind and isinstance(value, dict) and "label" in found.Config.model_fields:
                value = {**value, "label": value.get("label") or found.kind}  # outputs need a short name
            return found.Config.model_validate(value)
        except ValidationError:
            raise  # pydantic adds the place
        except Exception as error:
            reason = str(error) if isinstance(error, PluginError) else f"its Config fails: {in_one_line(error)}"
            raise PydanticCustomError("plugin", "{reason}", {"reason": reason}) from None
