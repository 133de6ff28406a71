"""`explain`: what is known of one object, here and with the members that own it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hotshard.cli import output
from hotshard.cli.cluster import Answer, ask_each, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotshard.cli.session import Session
    from hotshard.v1 import cache_pb2 as pb
    from hotshard.v1 import types_pb2

ASKED_MAX = 16
"""Members that are asked: of an object of many shards, the owners of the first ones."""


@click.command()
@click.argument("uri")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def explain(session: Session, uri: str, as_json: bool) -> None:
    """Say what the server knows of the object URI: version, shards, why the last miss was one.

    In a cluster also who owns the shards, and what of them the owners have.
    """
    with session.operator() as operator:
        found = operator.explain(uri)
        members = operator.members()
    others = _others(found, members)
    answers = ask_each(others, lambda operator: operator.explain(uri))
    if as_json:
        output.print_json(_document(found, answers))
        return
    output.print_facts(
        {
            "object": output.printable(found.object.uri),
            "version": found.object.version,
            "size": output.size(found.object.size_bytes),
            "modified": output.moment(found.object.mtime_ns),
            "origin": found.origin,
            "metadata": f"{output.duration(found.metadata_age_s)} old",
            "lease": output.duration(found.lease_s),
            "last miss": found.last_miss or "none",
        }
    )
    rows = [
        (
            str(shard.index),
            *((str(shard.slot), _owners(shard, members)) if members.cluster else ()),
            shard.state,
            output.size(shard.size_bytes),
            _present(shard),
            "yes" if shard.pinned else "no",
            "yes" if shard.verified else "on next use",
            shard.path,
        )
        for shard in found.shards
    ]
    placed = ("slot", "owners") if members.cluster else ()
    output.print_table(
        ("shard", *placed, "state", "size", "present", "pinned", "verified", "file"),
        rows,
        right=("shard", "slot", "size", "present"),
    )
    if answers:
        _print_elsewhere(answers)


def _others(found: pb.ExplainReply, members: pb.MembersReply) -> list[types_pb2.Member]:
    """Who may have something of the object, besides the server that was asked."""
    by_id = {member.id: member for member in members.members}
    ids = dict.fromkeys(
        id_
        for shard in found.shards
        for id_ in (*shard.away_owners, *shard.owners, *shard.previous_owners)
    )
    ids.pop(members.me, None)
    return [by_id[id_] for id_ in ids if id_ in by_id][:ASKED_MAX]


def _document(found: pb.ExplainReply, answers: Sequence[Answer[pb.ExplainReply]]) -> dict[str, Any]:
    document = _plain(found)
    if answers:
        document["elsewhere"] = {
            answer.member.id: {"error": answer.error}
            if answer.said is None
            else {"grpc": answer.member.grpc, "shards": _plain(answer.said)["shards"]}
            for answer in answers
        }
    return document


def _plain(reply: pb.ExplainReply) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(
        reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _print_elsewhere(answers: Sequence[Answer[pb.ExplainReply]]) -> None:
    output.print_table(
        ("member", "grpc", "shard", "state", "present", "remark"),
        [row for answer in answers for row in _rows(answer)],
        title="with the owners:",
        right=("shard", "present"),
    )


def _rows(answer: Answer[pb.ExplainReply]) -> list[tuple[str, ...]]:
    member = (short(answer.member.id), answer.member.grpc)
    if answer.said is None:
        return [(*member, "-", "-", "-", output.printable(answer.error))]
    return [
        (*member, str(shard.index), shard.state, _present(shard), "")
        for shard in answer.said.shards
    ]


def _owners(shard: pb.ShardExplanation, members: pb.MembersReply) -> str:
    """Who is asked, best first, after those whose slot it is and who are away."""
    states = {member.id: member.state for member in members.members}
    away = [f"{short(id_)} ({states.get(id_, 'gone')})" for id_ in shard.away_owners]
    return " ".join((*away, *map(short, shard.owners)))


def _present(shard: pb.ShardExplanation) -> str:
    """Bytes that are here, and of a partial shard which blocks they are."""
    size = output.size(shard.present_bytes)
    if shard.state != "partial":
        return size
    ends = iter(shard.present_blocks)
    runs = [str(a) if a == b else f"{a}-{b}" for a, b in zip(ends, ends, strict=True)]
    return f"{size} (blocks {' '.join(runs) or 'none'} of {shard.blocks})"
