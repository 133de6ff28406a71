import pytest

from hotshard.mount import abi
from hotshard.mount.abi import Init
from hotshard.mount.codec import InitIn, Request
from hotshard.mount.session import Agreement, InFlight, Pending, Unsupported, Wanted, negotiate

EVERYTHING = (1 << 45) - 1


def test_everything_offered():
    agreement, payload = negotiate(InitIn(7, 45, 131072, EVERYTHING), Wanted())
    assert agreement.passthrough
    assert agreement.resend
    assert agreement.readdirplus
    assert not agreement.no_open
    fields = abi.INIT_OUT.unpack(payload)
    assert fields[:3] == (7, 45, 131072)
    assert fields[8] == 256  # max_pages: requests of 1 MiB
    assert fields[11] == 1  # max_stack_depth goes with passthrough
    assert Agreement.from_reply(payload, no_open=False) == agreement


def test_linux_6_1_offers_neither_passthrough_nor_resend():
    offer = InitIn(7, 38, 131072, EVERYTHING & ~(Init.PASSTHROUGH | Init.HAS_RESEND))
    agreement, payload = negotiate(offer, Wanted())
    assert not agreement.passthrough
    assert not agreement.resend
    assert abi.INIT_OUT.unpack(payload)[11] == 0
    assert agreement.minor == 38


def test_nothing_is_asked_that_was_not_offered():
    agreement, _ = negotiate(InitIn(7, 45, 1, Init.ASYNC_READ | Init.INIT_EXT), Wanted())
    assert agreement.flags == Init.ASYNC_READ | Init.INIT_EXT


def test_no_open_excludes_passthrough():
    agreement, _ = negotiate(InitIn(7, 45, 1, EVERYTHING), Wanted(no_open=True))
    assert agreement.no_open
    assert not agreement.passthrough
    offer = InitIn(7, 45, 1, EVERYTHING & ~Init.NO_OPEN_SUPPORT)
    assert not negotiate(offer, Wanted(no_open=True))[0].no_open


def test_a_newer_kernel_is_met_with_what_we_know():
    assert negotiate(InitIn(7, 99, 1, EVERYTHING), Wanted())[0].minor == abi.MINOR


@pytest.mark.parametrize("version", [(7, 22), (8, 0), (6, 99)])
def test_a_protocol_we_do_not_speak(version):
    with pytest.raises(Unsupported, match="FUSE"):
        negotiate(InitIn(version[0], version[1], 1, EVERYTHING), Wanted())


def pending(unique: int, deadline_s: float = 10.0) -> Pending:
    return Pending(Request(15, unique, 1, 0, 0, 1, None), 0, 0, 0.0, deadline_s)


def test_one_may_answer():
    flights = InFlight()
    one = pending(2)
    flights.add(one)
    assert 2 in flights
    assert flights.take(2) is one
    assert flights.take(2) is None
    assert len(flights) == 0


def test_the_deadline_takes_what_is_late_only():
    flights = InFlight()
    flights.add(pending(2, 5.0))
    flights.add(pending(4, 50.0))
    assert [p.request.unique for p in flights.expired(5.0)] == [2]
    assert flights.take(2) is None
    assert flights.take(4) is not None


def test_an_interrupt_marks_the_request_even_a_resent_one():
    flights = InFlight()
    flights.add(pending(2))
    flights.add(pending(4 | abi.UNIQUE_RESEND))
    assert flights.interrupt(2, 1.0)
    assert flights.interrupt(4, 1.0)
    assert not flights.interrupt(6, 1.0)
    assert len(flights.interrupted()) == 2
