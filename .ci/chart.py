"""Writes what the chart says twice: the reference of its values, and the schema of the server's keys.

    python .ci/chart.py [--check]

`values.yaml` is the source of descriptions and defaults, `values.schema.json` of types; the models of the
server's configuration are the source of everything below `origins` and `config`. Written are the table in
the chart's README.md, and in the schema the descriptions and the definitions that begin with `server`. With
--check nothing is written: the exit code says whether something would be.
"""

import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "hotshard"
BEGIN, END = "<!-- values: made by .ci/chart.py -->\n", "<!-- values: end -->"
Schema = dict[str, Any]

MANAGED = {
    *("origins", "cache_dirs", "grpc.listen", "grpc.tls", "grpc.advertise"),
    *("bulk.listen", "bulk.tls", "bulk.secret_file", "admin.listen", "local_socket.path"),
    *(f"cluster.{key}" for key in ("provider", "service", "port", "port_name")),
    *(f"cluster.{key}" for key in ("members", "namespace", "refresh_s")),
}
"""Keys of the server that the chart sets itself, or that have no meaning in a pod."""
_TYPES: dict[str, Schema] = {
    "uri prefix": {"type": "string", "pattern": "^(s3|file)://.+"},
    "absolute path": {"$ref": "#/$defs/path"},
    "host:port": {"type": "string", "pattern": ":[0-9]+$"},
    "octal text": {"type": "string", "pattern": "^0?[0-7]{3}$"},
    "size or percentage": {"$ref": "#/$defs/amount"},
    "size": {"$ref": "#/$defs/size"},
    "size, or auto": {"$ref": "#/$defs/sizeOrAuto"},
}
"""Of values that the server parses itself, by the name that CONFIGURATION.md has for them."""


def main(*, check: bool) -> int:
    """Write, or compare; the exit code."""
    values_text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    comments = described(values_text, schema)
    schema["$defs"] = {
        name: found for name, found in schema["$defs"].items() if not name.startswith("server")
    } | server_definitions()
    for path, comment in comments.items():
        node(schema, path)["description"] = comment
    readme = (CHART / "README.md").read_text()
    before, _, rest = readme.partition(BEGIN)
    table = "".join(rows(yaml.safe_load(values_text), schema, comments))
    written = {
        "values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        "README.md": f"{before}{BEGIN}{table}{END}{rest.partition(END)[2]}",
    }
    stale = [name for name, text in written.items() if (CHART / name).read_text() != text]
    for name in stale:
        if check:
            print(f"helm/hotshard/{name} is out of date: run python .ci/chart.py", file=sys.stderr)
        else:
            (CHART / name).write_text(written[name])
    return 1 if check and stale else 0


def leaves(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The values that are not only groups of others, in the order of the schema."""
    properties = node(schema, path).get("properties") if path else schema["properties"]
    if properties is None:
        yield path
        return
    for name in properties:
        yield from leaves(schema, (*path, name))


def node(schema: Schema, path: tuple[str, ...]) -> Schema:
    """The schema of one value."""
    found = schema
    for name in path:
        found = found["properties"][name]
    return found


def described(text: str, schema: Schema) -> dict[tuple[str, ...], str]:
    """The comment above each value in values.yaml."""
    wanted = set(leaves(schema))
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
            continue
        key = re.match(r"( *)([A-Za-z_]\w*):", line)
        if key is not None:
            path[len(key[1]) // 2 :] = [key[2]]
            if comment and tuple(path) in wanted:
                found[tuple(path)] = " ".join(comment)
        comment = []
    return found


def rows(values: Any, schema: Schema, comments: dict[tuple[str, ...], str]) -> Iterator[str]:
    """The table of values."""
    yield "\n| value | default | |\n|---|---|---|\n"
    for path in leaves(schema):
        default = values
        for name in path:
            default = default[name]
        shown = json.dumps(default, ensure_ascii=False)
        shown = f"`{shown}`" if len(shown) <= 60 else "see values.yaml"
        comment = comments.get(path, "").replace("|", "\\|")
        yield f"| `{'.'.join(path)}` | {shown} | {comment} |\n"
    yield "\n"


def server_definitions() -> dict[str, Schema]:
    """What `config` and `origins` may hold: the server's own keys, less those of the chart."""
    from cache_server.config.keys import keys
    from cache_server.config.model import ServerConfig

    everything = list(keys())
    models: dict[tuple[str, ...], Any] = {(): ServerConfig}
    models |= {key.path: key.section or key.item for key in everything}

    def section(path: tuple[str, ...]) -> Schema:
        with warnings.catch_warnings():  # defaults of our own types are no JSON; they are not used
            warnings.simplefilter("ignore")
            plain = models[path].model_json_schema()["properties"]
        properties = {}
        for key in everything:
            if key.path[:-1] == path and key.dotted not in MANAGED:
                found = value(key, plain[key.path[-1]])
                if found is not None:
                    properties[key.path[-1]] = found
        return {"type": "object", "additionalProperties": False, "properties": properties}

    def value(key: Any, plain: Schema) -> Schema | None:
        if key.section is not None:
            found = section(key.path)
            return found if found["properties"] else None
        if key.item is not None:
            return items(key)
        known = _TYPES.get(key.type_words)
        found = dict(known or {k: v for k, v in plain.items() if k not in ("title", "default")})
        return {**found, "description": " ".join((key.field.description or "").split())}

    def items(key: Any) -> Schema:
        first = next(each for each in everything if each.path[:-1] == key.path)
        one = {**section(key.path), "required": [first.path[-1]]}
        short = _TYPES[first.type_words]
        return {"type": "array", "items": {"if": {"type": "object"}, "then": one, "else": short}}

    origins = next(key for key in everything if key.path == ("origins",))
    return {"serverConfig": section(()), "serverOrigins": items(origins)}


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
