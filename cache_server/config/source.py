"""From a file, the environment and the command line to one ServerConfig, or to all mistakes at once.

What stands nearer to the user wins: command line over environment over file over defaults. A value that
is a list replaces the whole list. Every value remembers where it came from, for the messages.
"""

import copy
import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cache_server.config.fields import Path
from cache_server.config.keys import PREFIX, keys, names_at
from cache_server.config.model import ConflictError, ServerConfig
from hotshard.core.errors import ConfigError

CONFIG_VARIABLE = "HOTSHARD_CONFIG"
"""Names the file, when no path is given."""

_CLIENT_VARIABLES = frozenset({"HOTSHARD_ADDRESS"})
# Kubernetes describes every service of the namespace to every pod; one named "hotshard" looks like ours.
_KUBERNETES = re.compile(
    r"HOTSHARD_([A-Z0-9]+_)*(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_FILE_BYTES_MAX = 1 << 20


def load(
    path: str | None, environ: Mapping[str, str], overrides: Mapping[str, object]
) -> ServerConfig:
    """Read the configuration. Reads files: not for the event loop.

    Args:
        path: the YAML file; None: the one that HOTSHARD_CONFIG names, if it names any.
        environ: the environment variables.
        overrides: dotted key -> value, from the command line. None and () mean: not given.

    Raises:
        ConfigError: lists every mistake, with where it stands and what would be right.
    """
    gathered = _Gathered(path or environ.get(CONFIG_VARIABLE) or None)
    gathered.add_file()
    gathered.add_environment(environ)
    for dotted, value in overrides.items():
        if value not in (None, ()):
            gathered.put(tuple(dotted.split(".")), value, "command line")
    gathered.add_defaults(environ, os.geteuid())
    config = gathered.validated()
    if config is None or gathered.problems:
        raise ConfigError(gathered.problems)
    return config


def default_paths(environ: Mapping[str, str], uid: int) -> tuple[str, str]:
    """The cache dir and the local socket of a server that was told neither."""
    if uid == 0:
        return "/var/lib/hotshard", "/run/hotshard/local.sock"
    home = environ.get("HOME") or f"/tmp/hotshard-{uid}"  # noqa: S108 - the last resort, named for us
    cache = environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    run = environ.get("XDG_RUNTIME_DIR") or f"/tmp/hotshard-{uid}"  # noqa: S108
    return f"{cache}/hotshard", f"{run}/hotshard/local.sock"


@dataclass(slots=True)
class _Gathered:
    """What was found so far."""

    path: str | None
    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[Path, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add_file(self) -> None:
        if self.path is None:
            return
        try:
            with open(self.path, "rb") as file:
                document = yaml.load(file.read(_FILE_BYTES_MAX), Loader=_Loader)  # noqa: S506 - safe
        except OSError as error:
            self.problems.append(f"{self.path}: cannot be read: {error.strerror}")
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            self.problems.append(f"{self.path}:{_yaml_problem(error)}")
        else:
            if isinstance(document, dict):
                self.values = document
            elif document is not None:
                self.problems.append(
                    f"{self.path}: should hold keys and values, such as origins: [...]"
                )

    def add_environment(self, environ: Mapping[str, str]) -> None:
        known = {key.variable: key for key in keys() if key.variable is not None}
        for name in sorted(environ, key=lambda name: (name.count("__"), name)):
            text = environ[name]
            if not name.startswith(PREFIX) or not text or _not_ours(name):
                continue
            key = known.get(name)
            if key is None:
                self.problems.append(f"{name}: unknown variable{_hint(name, list(known))}")
                continue
            value: object = None if text == "null" else text
            if key.structured:
                try:
                    value = yaml.load(text, Loader=_Loader)  # noqa: S506 - derived from SafeLoader
                except yaml.YAMLError as error:
                    self.problems.append(f"{name}: {_yaml_problem(error)}")
                    continue
            self.put(key.path, value, name)

    def add_defaults(self, environ: Mapping[str, str], uid: int) -> None:
        cache_dir, socket = default_paths(environ, uid)
        self.values.setdefault("cache_dirs", [cache_dir])
        section = self.values.setdefault("local_socket", {})
        if isinstance(section, dict):
            section.setdefault("path", socket)

    def put(self, path: tuple[str, ...], value: object, source: str) -> None:
        section = self.values
        for name in path[:-1]:
            if section.get(name) is None:
                section[name] = {}
            section = section[name]
            if not isinstance(section, dict):
                return  # a mistake that validation will report
        section[path[-1]] = value
        self.sources[path] = source

    def validated(self) -> ServerConfig | None:
        """Validate again and again without what was wrong, until nothing new turns up."""
        values, bad = self.values, set[Path]()
        for _ in range(4):
            try:
                return ServerConfig.model_validate(values)
            except ValidationError as error:
                fresh = [found for found in _mistakes(error) if not _touches(found[0], bad)]
            self.problems += [
                f"{self._source(paths[0])}: {_dotted(paths[0])}: {text}" for paths, text in fresh
            ]
            if not fresh:
                break
            bad |= {paths[0] for paths, _ in fresh}
            values = _without(values, bad)
        return None

    def _source(self, path: Path) -> str:
        for stop in range(len(path), 0, -1):
            if path[:stop] in self.sources:
                return self.sources[path[:stop]]
        return self.path or "configuration"


_Mistake = tuple[tuple[Path, ...], str]


def _mistakes(error: ValidationError) -> Iterator[_Mistake]:
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, ConflictError):
            for conflict in cause.found:
                yield conflict.paths, conflict.message
        else:
            yield (detail["loc"],), _words(detail, cause)


def _words(detail: ErrorDetails, cause: object) -> str:
    kind, path = detail["type"], detail["loc"]
    if kind == "missing":
        return "is required, and not given"
    if kind == "extra_forbidden":
        return f"unknown key{_hint(str(path[-1]), names_at(path[:-1]))}"
    if kind in {"model_type", "model_attributes_type"}:
        text = f"should be a section with the keys {', '.join(names_at(path))}"
    elif kind == "tuple_type":
        text = "should be a list, in brackets"
    else:
        text = str(cause or detail["msg"]).replace("Input should be", "should be")
    if not text.startswith("should"):
        return text
    given = repr(detail["input"])
    return f"{text} (it is {given if len(given) <= 80 else given[:77] + '...'})"


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(known)}" if len(known) <= 20 else ""


def _touches(paths: tuple[Path, ...], bad: set[Path]) -> bool:
    """Whether a mistake is about something that was found wrong before."""
    return any(path[: len(known)] == known for path in paths for known in bad)


def _without(values: dict[str, Any], bad: set[Path]) -> dict[str, Any]:
    """A copy without what is wrong; what is required there gets a stand-in that conflicts with nothing."""
    left: dict[str, Any] = copy.deepcopy(values)
    for path in sorted(bad, key=str):
        place, stand_in = _stand_in(path)
        holder: Any = left
        for part in place[:-1]:
            holder = holder[part]
        if stand_in is None:
            holder.pop(place[-1], None)
        else:
            holder[place[-1]] = stand_in
    return left


def _stand_in(path: Path) -> tuple[Path, object]:
    """Where to put what; None: nothing."""
    match path:
        case ("origins", int(index)) | ("origins", int(index), "prefix"):
            return path[:2], {"prefix": f"s3://stand-in-{index}/"}
        case ("cache_dirs", int(index)) | ("cache_dirs", int(index), "path"):
            return path[:2], {"path": f"/stand-in/{index}"}
        case ("cache_dirs",):
            return path, ["/stand-in"]
        case ("local_socket",) | ("local_socket", "path"):
            return path[:1], {"path": "/stand-in"}
        case _:
            return path, None


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _not_ours(name: str) -> bool:
    return name == CONFIG_VARIABLE or name in _CLIENT_VARIABLES or bool(_KUBERNETES.fullmatch(name))


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - inherited
        seen: set[str] = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode):
                if name.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {name.value!r} stands here twice", name.start_mark
                    )
                seen.add(name.value)
        return super().construct_mapping(node, deep)


def _yaml_problem(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.line + 1}:{mark.column + 1}: not valid YAML: {error.problem}"
    return f" not valid YAML: {' '.join(str(error).split())}"
