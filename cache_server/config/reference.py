"""docs/CONFIGURATION.md, made from the models: `python -m cache_server.config` prints it."""

import inspect
import textwrap
from collections.abc import Iterator

from cache_server.config.fields import Section
from cache_server.config.keys import Key, keys

_WIDTH = 108

_INTRODUCTION = """\
# Configuration

<!-- Made by `python -m cache_server.config > docs/CONFIGURATION.md`; a test compares. Edit the models. -->

The server runs with no configuration at all, but then has nothing to serve. The least that is useful:

```yaml
origins:
  - s3://my-bucket/train/
```

A node with two disks, a second origin, and a service that other machines reach:

```yaml
origins:
  - prefix: s3://my-bucket/train/
    immutable: true
  - prefix: file:///fsx/
    metadata_ttl_s: 10
cache_dirs:
  - path: /nvme0/hotshard
    capacity_bytes: 80%
  - path: /nvme1/hotshard
    capacity_bytes: 500GiB
grpc:
  listen: 0.0.0.0:7070
admin:
  listen: 0.0.0.0:7072
```

`hotshard serve --config hotshard.yaml` starts it, `hotshard config check hotshard.yaml` only checks. All
mistakes are reported at once, each with its place and with what would be right.

## Precedence

1. the command line (`--origin`, `--cache-dir`, ...)
2. environment variables: `HOTSHARD_` and the key in capitals, `__` between the levels
3. the YAML file: `--config`, or the one that `HOTSHARD_CONFIG` names
4. the defaults

A variable holds the plain text of the value (`HOTSHARD_FETCH__CONCURRENCY=64`); for a list or a section
it holds YAML or JSON (`HOTSHARD_ORIGINS='[s3://my-bucket/train/]'`). A list replaces the whole list of the
layer below. An empty variable counts as not set, and `null` takes a value back. An unknown key or variable
is a mistake.

Sizes are numbers of bytes, or text: `512MiB`, `10GiB` (powers of 1024), `100GB` (powers of 1000). Keys that
end in `_s` are seconds.
"""


def reference() -> str:
    """The whole document."""
    everything = list(keys())
    lines = [_INTRODUCTION, "## Keys", ""]
    for key in everything:
        if len(key.path) == 1 and key.section is None:
            lines += _entry(key)
    for key in everything:
        model = key.section or key.item
        if model is not None:
            lines += ["", *_section(key, model), ""]
            lines += [
                line
                for inner in everything
                if inner.path[:-1] == key.path and inner.section is None
                for line in _entry(inner)
            ]
    return "\n".join(lines) + "\n"


def _section(key: Key, model: type[Section]) -> Iterator[str]:
    yield f"### {'Each of ' if key.item else ''}`{key.dotted}`"
    yield ""
    yield inspect.cleandoc(model.__doc__ or "")
    if key.section is not None and key.field.description:
        yield ""
        yield " ".join(key.field.description.split())


def _entry(key: Key) -> list[str]:
    facts = [key.type_words]
    if key.field.is_required():
        facts.append(_REQUIRED.get(key.dotted, "required"))
    else:
        facts.append(f"default `{key.default_words}`")
    if key.variable is not None:
        facts.append(f"`{key.variable}`")
    text = f"- **`{key.path[-1]}`** ({'; '.join(facts)}). {' '.join((key.field.description or '').split())}"
    return textwrap.wrap(
        text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


_REQUIRED = {
    "cache_dirs": "default `[/var/lib/hotshard]` as root, else `[$XDG_CACHE_HOME/hotshard]`",
    "local_socket.path": (
        "default `/run/hotshard/local.sock` as root, else `$XDG_RUNTIME_DIR/hotshard/local.sock`"
    ),
}
