"""Every key of the configuration: where it stands, its variable, its type and default in words.

Derived from the models, so that the environment, the error messages and the reference cannot disagree
with them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from cache_server.config.fields import Path, Section, Shown
from cache_server.config.model import ServerConfig

PREFIX = "HOTSHARD_"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. Those inside a list have no position in their path: ("origins", "prefix")."""

    path: tuple[str, ...]
    field: FieldInfo
    section: type[Section] | None
    """The model of its value, if it is a section."""
    item: type[Section] | None
    """The model of its items, if it is a list of sections."""
    inside_list: bool

    @property
    def dotted(self) -> str:
        """The key as messages write it."""
        return ".".join(self.path)

    @property
    def variable(self) -> str | None:
        """Its environment variable; keys inside a list have none."""
        return None if self.inside_list else PREFIX + "__".join(self.path).upper()

    @property
    def structured(self) -> bool:
        """Whether a variable for it holds YAML, and not just the text of the value."""
        return self.section is not None or tuple in _origins(self.field.annotation)

    @property
    def type_words(self) -> str:
        """What a value looks like."""
        for meta in self.field.metadata:
            if isinstance(meta, Shown):
                return meta.name
        if self.item is not None:
            return "list of sections"
        if self.section is not None:
            return "section"
        return _type_words(self.field.annotation) + _bounds(self.field.metadata)

    @property
    def default_words(self) -> str:
        """The default as one would write it, or "" where there is none, or it is not a single value."""
        value = self.field.default
        if self.field.is_required() or self.section is not None:
            return ""
        for meta in self.field.metadata:
            if isinstance(meta, Shown):
                return meta.write(value)
        if isinstance(value, tuple):
            return "[]"
        if isinstance(value, bool) or value is None:
            return {True: "true", False: "false", None: "null"}[value]
        return f"{value:g}" if isinstance(value, float) else str(value)


def keys(
    model: type[Section] = ServerConfig, path: tuple[str, ...] = (), *, inside_list: bool = False
) -> Iterator[Key]:
    """All keys, each section before its own keys, in the order of the models."""
    for name, field in model.model_fields.items():
        here = (*path, name)
        section, item = _section(field.annotation), _item(field.annotation)
        yield Key(here, field, section, item, inside_list)
        if section is not None:
            yield from keys(section, here, inside_list=inside_list)
        if item is not None:
            yield from keys(item, here, inside_list=True)


def names_at(path: Path) -> list[str]:
    """The keys that the section at a path knows."""
    section = tuple(part for part in path if isinstance(part, str))
    return [key.path[-1] for key in keys() if key.path[:-1] == section]


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union without None; otherwise the type itself."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return tuple(part for part in get_args(annotation) if part is not type(None))
    return (annotation,)


def _origins(annotation: Any) -> set[Any]:
    return {get_origin(part) for part in _alternatives(annotation)}


def _section(annotation: Any) -> type[Section] | None:
    for part in _alternatives(annotation):
        if isinstance(part, type) and issubclass(part, Section):
            return part
    return None


def _item(annotation: Any) -> type[Section] | None:
    for part in _alternatives(annotation):
        if get_origin(part) is tuple:
            return _section(get_args(part)[0])
    return None


def _type_words(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        shown = [meta.name for meta in metadata if isinstance(meta, Shown)]
        return shown[0] if shown else _type_words(inner)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        return f"list of {_type_words(get_args(annotation)[0])}s"
    if len(parts := _alternatives(annotation)) == 1 and parts[0] is not annotation:
        return _type_words(parts[0])
    return {bool: "`true` or `false`", int: "integer", float: "number", str: "text"}[annotation]


def _bounds(metadata: list[Any]) -> str:
    words = []
    for meta in metadata:
        if isinstance(meta, Ge):
            words.append(f"from {meta.ge}")
        elif isinstance(meta, Gt):
            words.append(f"more than {meta.gt}")
        elif isinstance(meta, Le):
            words.append(f"at most {meta.le}")
        elif isinstance(meta, Lt):
            words.append(f"less than {meta.lt}")
    return f" {', '.join(words)}" if words else ""
