import asyncio
import socket
from contextlib import aclosing

from cache_server.cluster.providers.dns import DnsProvider


def found(*addresses):
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host, port in addresses]


class Resolver:
    """Answers in turn; an exception is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def __call__(self, host, port):
        assert host == "hotshard.ml.svc"
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return found(*((each, port) for each in answer))


async def lists(resolver, count):
    provider = DnsProvider("hotshard.ml.svc", 7070, 0.001, resolver)
    async with aclosing(provider.lists()) as found_lists:
        return [[c.address for c in await anext(found_lists)] for _ in range(count)]


async def test_changes_are_told_and_repetitions_are_not():
    resolver = Resolver(["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"], ["10.0.0.3"])
    assert await lists(resolver, 2) == [["10.0.0.1:7070", "10.0.0.2:7070"], ["10.0.0.3:7070"]]


async def test_failures_and_empty_answers_leave_the_last_list_in_force(caplog):
    failure = socket.gaierror(-2, "Name or service not known")
    resolver = Resolver(
        ["10.0.0.1"], failure, [], TimeoutError(), UnicodeError("label too long"), ["10.0.0.2"]
    )
    with caplog.at_level("INFO"):
        assert await lists(resolver, 2) == [["10.0.0.1:7070"], ["10.0.0.2:7070"]]
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO", "WARNING", "INFO"]


async def test_ipv6_in_brackets():
    assert await lists(Resolver(["fd00::1"]), 1) == [["[fd00::1]:7070"]]


async def test_the_real_resolver():
    provider = DnsProvider("localhost", 7070, 10.0)
    async with asyncio.timeout(90):
        async for candidates in provider.lists():
            assert {c.address for c in candidates} & {"127.0.0.1:7070", "[::1]:7070"}
            break
