"""The whole cluster: who is in it, how each of them is, and what each has of one object.

Every member is asked, a few at a time, each for at most a few seconds; who does not answer has a row, too.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from hotshard.calls import Money
from hotshard.cli import output
from hotshard.core.errors import HotshardError

if TYPE_CHECKING:  # gRPC is loaded when it is needed: `hotshard --help` is quick
    from collections.abc import Callable, Iterable, Sequence

    from hotshard.cli.operator import Operator
    from hotshard.cli.session import Session
    from hotshard.v1 import cache_pb2 as pb
    from hotshard.v1 import types_pb2

    Everybody = tuple[pb.MembersReply, "Sequence[Answer[types_pb2.StatusReply]]"]

TIMEOUT_S = 3.0
THREADS = 16
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What one member said; one of the two."""

    member: types_pb2.Member
    said: T | None = None
    error: str = ""


def ask_each(members: Iterable[types_pb2.Member], ask: Callable[[Operator], T]) -> list[Answer[T]]:
    """Ask members side by side; the answers in their order."""
    from hotshard.cli.operator import Operator

    def one(member: types_pb2.Member) -> Answer[T]:
        try:
            with Operator(member.grpc, TIMEOUT_S) as operator:
                return Answer(member, ask(operator))
        except HotshardError as error:
            return Answer(member, error=str(error))

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, members))


def statuses(found: pb.MembersReply) -> list[Answer[types_pb2.StatusReply]]:
    """How every member is."""
    return ask_each(found.members, lambda operator: operator.status())


def owned_slots(found: pb.MembersReply) -> Counter[str]:
    """Member -> how many slots it is the first owner of."""
    table = found.table
    rows = memoryview(table.rows)
    step = 2 * table.width
    return Counter(
        table.ids[int.from_bytes(rows[at : at + 2], "little")]
        for at in range(0, len(rows), step or 1)
    )


def short(id_: str) -> str:
    """An id as people compare it."""
    return id_[:8]


# -- members ---------------------------------------------------------------------------------------


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def members(session: Session, as_json: bool) -> None:
    """List the members of the cluster as the server sees them, and how much each of them owns."""
    with session.operator() as operator:
        found = operator.members()
    owned = owned_slots(found)
    if as_json:
        output.print_json(members_document(found, owned))
        return
    if not found.cluster:
        output.print_line("this server is in no cluster")
        return
    print_cluster(found)
    output.print_table(
        ("member", "state", "zone", "grpc", "bulk", "weight", "owns"),
        [
            (
                _named(member, found.me),
                member.state,
                member.zone or "-",
                member.grpc,
                member.bulk or "-",
                str(member.weight),
                _share(owned[member.id], found.table.slots),
            )
            for member in found.members
        ],
        right=("weight", "owns"),
    )


def members_document(found: pb.MembersReply, owned: Counter[str]) -> dict[str, Any]:
    """The members as JSON."""
    return {
        "cluster": found.cluster,
        "me": found.me,
        "zone": found.zone,
        "view_version": found.view_version,
        "slots": found.table.slots,
        "members": [_member_document(each, owned) for each in found.members],
    }


def _member_document(member: types_pb2.Member, owned: Counter[str]) -> dict[str, Any]:
    return {
        "id": member.id,
        "state": member.state,
        "zone": member.zone,
        "grpc": member.grpc,
        "bulk": member.bulk,
        "weight": member.weight,
        "slots_owned": owned[member.id],
    }


def print_cluster(found: pb.MembersReply) -> None:
    """A line about the cluster."""
    states = Counter(member.state for member in found.members)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    output.print_line(
        f"cluster {output.printable(found.cluster)}: {counts}; view {found.view_version:x}"
    )


# -- status ----------------------------------------------------------------------------------------


def status_document(
    found: pb.MembersReply, answers: Sequence[Answer[types_pb2.StatusReply]]
) -> dict[str, Any]:
    """How every member is, as JSON."""
    document = members_document(found, owned_slots(found))
    for entry, answer in zip(document["members"], answers, strict=True):
        said = answer.said
        entry["reachable"] = said is not None
        if said is None:
            entry["error"] = answer.error
            continue
        entry |= {
            "ready": said.ready,
            "version": said.version,
            "uptime_s": said.uptime_s,
            "view_version": said.cluster.view_version,
            "used_bytes": sum(disk.used_bytes for disk in said.disks),
            "capacity_bytes": sum(disk.capacity_bytes for disk in said.disks),
            "sealed_shards": sum(disk.sealed_shards for disk in said.disks),
            "disks_failed": sum(disk.state != "ready" for disk in said.disks),
            "hit_ratio": _hit_ratio(said),
            "saved_usd": said.money.saved_usd,
        }
    return document


def money(answers: Sequence[Answer[types_pb2.StatusReply]]) -> Money:
    """What all members together save, as far as they answer."""
    each = [answer.said.money for answer in answers if answer.said is not None]
    return Money(
        {verb: sum(one.avoided_requests[verb] for one in each) for verb in ("GET", "HEAD", "LIST")},
        sum(one.avoided_bytes for one in each),
        sum(one.cross_zone_bytes for one in each),
        sum(one.direct_usd for one in each),
        sum(one.spent_usd for one in each),
        sum(one.saved_usd for one in each),
    )


def print_status(found: pb.MembersReply, answers: Sequence[Answer[types_pb2.StatusReply]]) -> None:
    """A table of all members."""
    print_cluster(found)
    owned = owned_slots(found)
    output.print_table(
        ("member", "state", "zone", "grpc", "up", "owns", "used", "capacity", "hits", "remark"),
        [
            (
                _named(answer.member, found.me),
                answer.member.state,
                answer.member.zone or "-",
                answer.member.grpc,
                *_figures(answer.said, _share(owned[answer.member.id], found.table.slots)),
                _remark(answer, found),
            )
            for answer in answers
        ],
        right=("up", "owns", "used", "capacity", "hits"),
    )


def _figures(said: types_pb2.StatusReply | None, share: str) -> tuple[str, ...]:
    if said is None:
        return "-", share, "-", "-", "-"
    hits = _hit_ratio(said)
    return (
        output.duration(said.uptime_s),
        share,
        output.size(sum(disk.used_bytes for disk in said.disks)),
        output.size(sum(disk.capacity_bytes for disk in said.disks)),
        "-" if hits is None else f"{hits:.1%}",
    )


def _remark(answer: Answer[types_pb2.StatusReply], found: pb.MembersReply) -> str:
    """What somebody should look at."""
    said = answer.said
    if said is None:
        return output.printable(answer.error.partition(" (")[0])
    remarks = [] if said.ready else ["not ready"]
    failed = sum(disk.state != "ready" for disk in said.disks)
    if failed:
        remarks.append(f"{failed} of {len(said.disks)} disks failed")
    if said.cluster.me.zone == found.zone and said.cluster.view_version != found.view_version:
        remarks.append("sees other members")
    return ", ".join(remarks)


def _hit_ratio(said: types_pb2.StatusReply) -> float | None:
    """Bytes found sealed here, of all bytes that were looked for."""
    if not said.history or not said.history[-1].asked_bytes:
        return None
    return said.history[-1].hit_bytes / said.history[-1].asked_bytes


def _named(member: types_pb2.Member, me: str) -> str:
    return short(member.id) + (" *" if member.id == me else "")


def _share(owned: int, slots: int) -> str:
    return f"{owned / slots:.1%}" if slots else "-"
