"""Objects against the API of each version of Kubernetes; custom resources against what they need."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema
from referencing import Registry, Resource

Object = dict[str, Any]


def open_object(**properties: Any) -> Object:
    """Its required properties; others may be there."""
    return {"type": "object", "required": list(properties), "properties": properties}


TEXT = {"type": "string", "minLength": 1}
SELECTOR = {"type": "object", "minProperties": 1}
ISSUER = {**open_object(name=TEXT, kind=TEXT, group=TEXT), "additionalProperties": False}
ENDPOINT = {
    **open_object(port=TEXT, path={"const": "/metrics"}, interval={"pattern": "^[0-9]+[smh]$"}),
    "additionalProperties": False,
}
ENDPOINT["properties"] |= {"relabelings": {"type": "array"}}
RULE = {
    "oneOf": [
        {"required": ["alert", "expr"], "not": {"required": ["record"]}},
        {"required": ["record", "expr"], "not": {"required": ["alert"]}},
    ]
}
GROUP = open_object(name=TEXT, rules={"type": "array", "minItems": 1, "items": RULE})
CUSTOM: dict[str, Object] = {
    "monitoring.coreos.com/v1/PodMonitor": open_object(
        selector=SELECTOR, podMetricsEndpoints={"type": "array", "minItems": 1, "items": ENDPOINT}
    ),
    "monitoring.coreos.com/v1/ServiceMonitor": open_object(
        selector=SELECTOR, endpoints={"type": "array", "minItems": 1, "items": ENDPOINT}
    ),
    "monitoring.coreos.com/v1/PrometheusRule": open_object(
        groups={"type": "array", "minItems": 1, "items": GROUP}
    ),
    "cert-manager.io/v1/Issuer": {
        "oneOf": [open_object(selfSigned={}), open_object(ca=open_object(secretName=TEXT))]
    },
    "cert-manager.io/v1/Certificate": open_object(
        secretName=TEXT, issuerRef=ISSUER, duration=TEXT, privateKey={"type": "object"}
    ),
    "argoproj.io/v1alpha1/Workflow": open_object(
        entrypoint=TEXT, templates={"type": "array", "items": open_object(name=TEXT)}
    ),
}


def problems(found: Object, version: str) -> list[str]:
    """What is wrong with an object for one version of Kubernetes, e.g. `1.30`."""
    key = f"{found['apiVersion']}/{found['kind']}"
    if key in CUSTOM:
        custom = jsonschema.Draft202012Validator(open_object(spec=CUSTOM[key]))
        return _messages(custom, found)
    return _messages(_validator(version, found["apiVersion"], found["kind"]), found)


def _messages(validator: Any, found: Object) -> list[str]:
    name = found["metadata"].get("name", found["kind"])
    return [f"{name}: {each.json_path}: {each.message}" for each in validator.iter_errors(found)]


@cache
def _validator(version: str, api_version: str, kind: str) -> Any:
    group, _, api = api_version.rpartition("/")
    short = f"{group.partition('.')[0]}-{api}" if group else api
    schema = _load(version, f"{kind.lower()}-{short}.json")
    return jsonschema.Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> Any:
    return Resource.from_contents(_load(version, "_definitions.json")) @ Registry()


def _load(version: str, name: str) -> Any:
    place = files("kubernetes_validate") / "kubernetes-json-schema"
    (directory,) = (
        each
        for each in place.iterdir()
        if each.name.startswith(f"v{version}.") and each.name.endswith("-local-strict")
    )
    return json.loads((directory / name).read_text())
