"""PromQL, as far as one has to understand it to know which series it names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<range>\[[^\]]*\])"""
    r"""|(?P<name>[a-zA-Z_:][\w:]*)|(?P<number>[\d.]+(?:e[+-]?\d+)?\w*)|(?P<other>=~|!~|!=|.)|\s+""",
    re.VERBOSE,
)
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}


@dataclass(frozen=True)
class Selector:
    """A metric that is named, and how its labels are chosen."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Named:
    """Everything one expression names."""

    selectors: tuple[Selector, ...]
    labels: frozenset[str]
    """In by (...) and the like."""


def parse(expression: str) -> Named:
    tokens = [
        (match.lastgroup, match.group())
        for match in _TOKEN.finditer(expression)
        if match.lastgroup is not None and match.group().strip()
    ]
    selectors, labels = [], set()
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind != "name":
            continue
        if text in _GROUPING and following == "(":
            while tokens[at][1] != ")":
                if tokens[at][0] == "name":
                    labels.add(tokens[at][1])
                at += 1
        elif following in {"(", "by", "without"} or text in {
            "and",
            "or",
            "unless",
            "bool",
            "offset",
            *_GROUPING,
        }:
            continue
        else:
            matchers, at = _matchers(tokens, at) if following == "{" else ((), at)
            selectors.append(Selector(text, tuple(matchers)))
    return Named(tuple(selectors), frozenset(labels))


def _matchers(tokens, at):
    found = []
    at += 1
    while tokens[at][1] != "}":
        if tokens[at][0] == "name":
            found.append((tokens[at][1], tokens[at + 1][1], tokens[at + 2][1][1:-1]))
            at += 3
        else:
            at += 1
    return found, at + 1


def labels_of(text: str) -> Iterator[str]:
    """The labels that a template of Prometheus ($labels.x) or a legend of Grafana ({{x}}) uses."""
    yield from re.findall(r"\$labels\.(\w+)", text)
    yield from re.findall(r"\{\{\s*(\w+)\s*\}\}", text)
