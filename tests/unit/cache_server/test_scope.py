"""On whose behalf."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from cache_server import scope
from hotshard.wire import request_number

u64 = st.integers(0, (1 << 64) - 1)


async def test_tasks_that_are_started_belong_to_the_request():
    async def work():
        with scope.step("origin"):
            await asyncio.sleep(0.01)
        return scope.current_id()

    with scope.entered(scope.Scope("r1")) as found:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work())
    assert task.result() == "r1"
    assert found.waits["origin"] >= 0.01
    assert scope.current_id() == ""


async def test_two_requests_at_one_time_do_not_meet():
    async def one(name):
        with scope.entered(scope.Scope(name)) as found:
            await asyncio.sleep(0)
            with scope.step("peer"):
                await asyncio.sleep(0)
            return scope.current_id(), set(found.waits)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(name)) for name in ("a", "b")]
    assert [task.result() for task in tasks] == [("a", {"peer"}), ("b", {"peer"})]


def test_a_step_outside_of_a_request_costs_nothing():
    with scope.step("origin", "GET", uri="s3://b/x"):
        pass


def test_spans_are_closed_with_the_error():
    class Tracer:
        def __init__(self):
            self.closed = []

        def root(self, name, request_id, *, passed_on):
            raise AssertionError

        def child(self, name, attributes):
            tracer = self

            class Span:
                def __enter__(self):
                    tracer.closed.append((name, attributes))

                def __exit__(self, kind, error, trace):
                    tracer.closed.append(kind)

            return Span()

    tracer = Tracer()
    with scope.entered(scope.Scope("r", tracer)):
        try:
            with scope.step("origin", "GET", uri="u"):
                raise OSError
        except OSError:
            pass
    assert tracer.closed == [("origin GET", {"uri": "u"}), OSError]


def test_ids_are_hexadecimal_and_fit_a_bulk_request():
    assert len(scope.new_id()) == 16
    assert int(scope.new_id(), 16) < 1 << 64
    assert scope.as_id(255) == "00000000000000ff"


@given(u64, u64)
def test_numbers_of_a_conversation_never_meet_and_are_never_zero(base, number):
    assert 0 < request_number(base, number) < 1 << 64
    assert request_number(base, number) != request_number(base, number + 1)
