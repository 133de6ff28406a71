"""When a new reader counts as one that serves."""

import time
from types import SimpleNamespace
from typing import cast

from hotshard.mount.reader import ARRIVAL_MAX_S, Arrival
from hotshard.mount.session import InFlight, Pending


def waiting(in_flight: InFlight, unique: int) -> None:
    request = SimpleNamespace(unique=unique)
    in_flight.add(cast("Pending", SimpleNamespace(request=request)))


def loaded(in_flight: InFlight) -> Arrival:
    arrival = Arrival(in_flight)
    arrival._loading.join()
    return arrival


def test_a_reader_that_nobody_waits_for_has_arrived_when_it_has_loaded():
    arrival = Arrival(InFlight())
    while arrival._loading.is_alive():
        assert not arrival.complete(0.0) or not arrival._loading.is_alive()
    assert arrival.complete(time.monotonic())


def test_what_waited_while_it_loaded_is_answered_first():
    in_flight = InFlight()
    waiting(in_flight, 1)
    arrival = loaded(in_flight)
    assert not arrival.complete(10.0)
    waiting(in_flight, 2)  # came later: not waited for
    assert not arrival.complete(10.1)
    in_flight.take(1)
    assert arrival.complete(10.2)


def test_a_server_that_is_away_does_not_keep_it_from_arriving():
    in_flight = InFlight()
    waiting(in_flight, 1)
    arrival = loaded(in_flight)
    assert not arrival.complete(10.0)
    assert not arrival.complete(10.0 + ARRIVAL_MAX_S / 2)
    assert arrival.complete(10.0 + ARRIVAL_MAX_S)
