"""Reports as messages; the gRPC service's tests see the rest of them."""

from cache_server.origins.origin import ListPage
from cache_server.replies import page_to_pb, progress_to_pb, stat_result_to_pb
from cache_server.warm import WarmState
from hotshard.core.errors import Overloaded
from hotshard.core.objects import ObjectInfo
from hotshard.v1 import types_pb2
from hotshard.wire import error_from_pb, info_from_pb

INFO = ObjectInfo("s3://bucket/\u00e9 //..", "v", (1 << 63) - 1, -5)


def test_one_answer_of_a_batch_is_an_object_or_an_error() -> None:
    found = stat_result_to_pb(INFO)
    assert info_from_pb(found.object) == INFO
    assert not found.HasField("error")
    refused = stat_result_to_pb(Overloaded("full", retry_after_s=2.0))
    assert not refused.HasField("object")
    assert isinstance(error_from_pb(refused.error), Overloaded)


def test_page() -> None:
    page = page_to_pb(ListPage([INFO], ["s3://bucket/x/"], "next"))
    assert [info_from_pb(info) for info in page.objects] == [INFO]
    assert (list(page.common_prefixes), page.next_page_token) == (["s3://bucket/x/"], "next")


def test_progress_keeps_every_number() -> None:
    state = WarmState(
        job_id="j",
        listing=True,
        planned_objects=1,
        planned_bytes=2,
        resident_objects=3,
        resident_bytes=4,
        failed_objects=5,
        failed_bytes=6,
        failures=(Overloaded("full"),),
        done=True,
    )
    message = progress_to_pb(state)
    numbers = [getattr(message, field.name) for field in types_pb2.WarmProgress.DESCRIPTOR.fields]
    assert numbers[:8] == ["j", True, 1, 2, 3, 4, 5, 6]
    assert message.done
    assert message.failures[0].message == "full"
