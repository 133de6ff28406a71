"""Members of a cluster: what they say of themselves, what they must have in common, what is refused.

A member that drains, or is lost, keeps its slots for a grace time, because it may come back with all its
data. Meanwhile it is no owner, the next one in its slots is; who drains is still asked for what it has.
A view remembers for a while who the owners were before: they are asked before the origin is.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from hotshard.core.slots import WEIGHT_DEFAULT, WEIGHT_MAX

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.%A-Za-z0-9]{2,64}\]", re.ASCII)


class State(StrEnum):
    """What a member is to others."""

    JOINING = "joining"
    """It is known, and owns nothing yet."""
    READY = "ready"
    DRAINING = "draining"
    """It serves what it has; nothing new is asked of it."""
    LOST = "lost"
    """It does not answer, or is not listed any more; its slots wait for it."""


@dataclass(frozen=True, slots=True)
class Member:
    """One cache server."""

    id: str
    """Kept on its disk: it survives restarts and new addresses."""
    grpc: str
    """host:port; of a member that does not know its own, empty."""
    bulk: str = ""
    """host:port, or :port at the host where it was found; empty: it has no bulk port."""
    zone: str = ""
    weight: int = WEIGHT_DEFAULT
    state: State = State.JOINING
    instance: int = 0
    """Another number in each run of the process."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address where a provider says that a member may be."""

    address: str
    """host:port of its gRPC service."""
    serving: bool = True
    """False: it is listed, but should get nothing new (not ready, or terminating)."""
    zone: str = ""
    """As the provider knows it; empty: ask the member."""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What members of one cluster must have in common, or their tables would differ."""

    cluster: str
    slots: int
    replicas: int
    shard_bytes: int

    def differs(self, other: "Terms") -> str:
        """How another's terms differ, in words; empty: not at all."""
        for name in ("cluster", "slots", "replicas", "shard_bytes"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"its {name} is {theirs!r}, ours {mine!r}"
        return ""


class Refusal(StrEnum):
    """Why somebody is no member; a label of a metric."""

    BAD_ID = "bad_id"
    BAD_ADDRESS = "bad_address"
    BAD_WEIGHT = "bad_weight"
    DUPLICATE_ID = "duplicate_id"
    OTHER_TERMS = "other_terms"
    NOT_LISTED = "not_listed"
    TOO_MANY = "too_many"


class Refused(Exception):
    """Somebody is not taken in."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


def check_address(address: str) -> None:
    """Refuse what is no host:port.

    Raises:
        Refused: it is not.
    """
    host, _, port = address.rpartition(":")
    good = _HOST.fullmatch(host) and port.isascii() and port.isdigit() and len(port) <= 5
    if not good or not 0 < int(port) < 65536:
        raise Refused(Refusal.BAD_ADDRESS, f"{address[:300]!r} is no address; should be host:port")


def check_member(member: Member) -> None:
    """Refuse a member that makes no sense by itself.

    Raises:
        Refused: it does not.
    """
    if not _ID.fullmatch(member.id):
        raise Refused(Refusal.BAD_ID, f"{member.id[:100]!r} is no id of a member")
    if not 1 <= member.weight <= WEIGHT_MAX:
        problem = f"weight {member.weight} of {member.id}; should be from 1 to {WEIGHT_MAX}"
        raise Refused(Refusal.BAD_WEIGHT, problem)
    for address in (member.grpc, member.bulk):
        if address:
            check_address(address)
