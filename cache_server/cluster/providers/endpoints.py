"""EndpointSlices of a Kubernetes service, put together to one list of members.

A service has several slices; an endpoint may be in two of them while it moves. Pure.

    condition     absent means    what it is to us
    ready         true            gets everything
    serving       as `ready`      while terminating: serves what it has
    terminating   false           gets nothing new
"""

from collections.abc import Iterable, Mapping
from typing import Any

from hotshard.core.members import Candidate

Slice = Mapping[str, Any]


class BadSlice(ValueError):
    """What the API server sent is no EndpointSlice."""


class Endpoints:
    """The slices of one service, as they are now."""

    def __init__(self, port_name: str, port: int) -> None:
        self._port_name = port_name
        self._port = port
        self._slices: dict[str, tuple[Candidate, ...]] = {}

    def replace(self, slices: Iterable[Slice]) -> None:
        """Begin anew from a list.

        Raises:
            BadSlice: nothing was changed.
        """
        self._slices = {_name(each): self._candidates(each) for each in slices}

    def apply(self, kind: str, changed: Slice) -> None:
        """ADDED, MODIFIED or DELETED.

        Raises:
            BadSlice: nothing was changed.
        """
        name = _name(changed)
        if kind == "DELETED":
            self._slices.pop(name, None)
        else:
            self._slices[name] = self._candidates(changed)

    def candidates(self) -> list[Candidate]:
        """Every endpoint once; where two slices disagree, the one that lets it serve is right."""
        found: dict[str, Candidate] = {}
        for candidates in self._slices.values():
            for each in candidates:
                known = found.get(each.address)
                if known is None or (each.serving and not known.serving):
                    found[each.address] = each
        return [found[address] for address in sorted(found)]

    def _candidates(self, found: Slice) -> tuple[Candidate, ...]:
        try:
            port = self._port_of(found.get("ports") or ())
            return tuple(
                Candidate(
                    f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                    serving=_ready(conditions),
                    zone=endpoint.get("zone") or "",
                    node=endpoint.get("nodeName") or "",
                )
                for endpoint in found.get("endpoints") or ()
                if _reachable(conditions := endpoint.get("conditions") or {})
                for host in endpoint["addresses"][:1]  # the API says: only the first one counts
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadSlice(f"not an EndpointSlice: {error!r}") from error

    def _port_of(self, ports: Iterable[Mapping[str, Any]]) -> int:
        for each in ports:
            if each.get("name") == self._port_name and each.get("port"):
                return int(each["port"])
        return self._port


def _name(found: Slice) -> str:
    try:
        return str(found["metadata"]["name"])
    except (KeyError, TypeError) as error:
        raise BadSlice("an object without a name") from error


def _ready(conditions: Mapping[str, Any]) -> bool:
    return conditions.get("ready") is not False and not conditions.get("terminating")


def _reachable(conditions: Mapping[str, Any]) -> bool:
    """Whether it answers at all; who is starting up does not yet, and is found when it does."""
    serving = conditions.get("serving")
    return not conditions.get("terminating") or serving is not False
