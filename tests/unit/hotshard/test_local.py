"""Conversations over a real socket: whose they are, what breaks them, that no descriptor leaks."""

import errno
import itertools
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import hotshard
from hotshard.calls import Stat
from hotshard.local import IDLE_MAX, LocalTransport
from support.fake_server import FakeServer, FakeStore
from support.waiting import until

URI = "s3://bucket/a"


def uris(store: FakeStore, count: int, size: int = 1000) -> list[str]:
    """So many objects, all different."""
    for i in range(count):
        store.put(f"s3://bucket/{i:04}", i.to_bytes(4, "big") * (size // 4))
    return sorted(store.objects)


def number(data: bytes) -> int:
    """Which object the bytes are of; they must agree."""
    assert data == data[:4] * (len(data) // 4)
    return int.from_bytes(data[:4], "big")


# -- whose conversation --------------------------------------------------------------------------


def test_one_conversation_serves_one_thread(client: hotshard.Client, server: FakeServer):
    for uri in uris(server.store, 20):
        client.read(uri)
    assert server.calls["hello"] == 1


def test_threads_have_conversations_of_their_own(client: hotshard.Client, server: FakeServer):
    names = uris(server.store, 200)
    together = threading.Barrier(8)

    def work(start: int) -> None:
        together.wait()
        for i in range(start, 200, 8):
            assert number(client.read(names[i])) == i

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert server.connections <= 9


def test_idle_conversations_are_bounded(client: hotshard.Client, server: FakeServer):
    transport = LocalTransport(str(server.path), 5.0)
    lines = [transport.line() for _ in range(IDLE_MAX + 5)]
    server.store.put(URI, b"x")
    tickets = [line.submit(Stat(URI)) for line in lines]
    for line, ticket in zip(lines, tickets, strict=True):
        line.wait(ticket)
    for line in lines:
        line.end()
    assert len(transport._idle) == IDLE_MAX
    transport.hang_up()
    assert len(transport._idle) == 0


def test_an_operation_inside_another_has_its_own(client: hotshard.Client, server: FakeServer):
    """A signal handler that reads while its thread waits for an answer."""
    store = server.store
    store.put(URI, b"outer")
    store.put("s3://bucket/b", b"inner")
    outer = LocalTransport(str(server.path), 5.0)
    line = outer.line()
    ticket = line.submit(Stat(URI))
    inner = outer.line()
    assert inner.wait(inner.submit(Stat("s3://bucket/b"))).size == 5
    inner.end()
    assert line.wait(ticket).size == 5
    line.end()
    outer.hang_up()


def forked_read(job: tuple[hotshard.Client, list[str], int]) -> int:
    client, names, start = job
    for i in range(start, len(names), 4):
        assert number(client.read(names[i])) == i
        assert number(bytes(client.map(names[i]))) == i
    return os.getpid()


_inherited: list[tuple[hotshard.Client, list[str]]] = []


def inherited_read(start: int) -> int:
    client, names = _inherited[0]
    return forked_read((client, names, start))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_pool_inherits_a_used_client(client: hotshard.Client, server: FakeServer):
    """As PyTorch's DataLoader workers do."""
    names = uris(server.store, 100)
    assert number(client.read(names[0])) == 0
    client.stat_many(names)
    greeted = server.calls["hello"]
    _inherited.append((client, names))
    try:
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pids = pool.map(inherited_read, range(4), chunksize=1)
            assert len(set(pids)) >= 1
            for i in (1, 2, 3):  # the parent goes on, on its own conversation
                assert number(client.read(names[i])) == i
            pool.close()
            pool.join()
    finally:
        _inherited.clear()
    assert number(client.read(names[50])) == 50
    assert greeted < server.calls["hello"] <= greeted + 4
    assert os.getpid() not in pids


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_leaves_the_parents_answer_alone(client: hotshard.Client, server: FakeServer):
    """A fork between a question and its answer."""
    server.store.put(URI, b"hello")
    transport = LocalTransport(str(server.path), 5.0)
    line = transport.line()
    warm = transport.line()
    warm.wait(warm.submit(Stat(URI)))
    warm.end()
    ticket = line.submit(Stat(URI))
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            mine = transport.line()
            code = 0 if mine.wait(mine.submit(Stat(URI))).size == 5 else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert line.wait(ticket).size == 5
    line.end()
    transport.hang_up()


# -- what breaks it ------------------------------------------------------------------------------


def test_no_server(tmp_path: Path):
    with pytest.raises(hotshard.ServerUnavailable, match="is it running"):
        hotshard.connect(f"unix://{tmp_path}/none", direct="never")


def test_a_socket_that_is_not_ours_to_open(server: FakeServer):
    server.path.chmod(0)
    nobody, ours = 65534, os.geteuid()
    if ours == 0:  # who may open everything
        os.seteuid(nobody)
    try:
        with pytest.raises(hotshard.PermissionDenied):
            hotshard.connect(server.address)
    finally:
        os.seteuid(ours)


def test_a_server_that_refuses_us_says_why(server: FakeServer):
    server.unwelcome = hotshard.PermissionDenied("uid 7 is not allowed")
    for _ in range(20):  # it hangs up before or after we have said hello
        with pytest.raises(hotshard.PermissionDenied, match="uid 7"):
            hotshard.connect(server.address)


def test_a_server_with_too_many_connections_is_tried_again(
    client: hotshard.Client, server: FakeServer
):
    server.store.put(URI, b"hello")
    client._transport.hang_up()
    server.unwelcome = hotshard.Overloaded("full", retry_after_s=0.01)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.read, URI)
        assert server.turned_away.wait(10)
        server.unwelcome = None
        assert waiting.result() == b"hello"


def test_the_server_was_killed_and_restarted(client: hotshard.Client, server: FakeServer):
    names = uris(server.store, 10)
    assert number(client.read(names[0])) == 0
    server.restart()
    assert number(client.read(names[1])) == 1
    server.restart()
    assert [number(data) for data in client.read_many(names)] == list(range(10))


def test_reads_wait_while_the_server_is_away(client: hotshard.Client, server: FakeServer):
    names = uris(server.store, 10)
    file = client.open(names[0])
    server.kill()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.read, name) for name in names[1:3]]
        server.start()
        assert [number(each.result()) for each in waiting] == [1, 2]
    assert number(file.read()) == 0
    file.close()


def test_a_server_that_stays_away(server: FakeServer):
    server.store.put(URI, b"hello")
    with hotshard.connect(server.address, reconnect_s=0.2) as client:
        client.read(URI)
        server.kill()
        with pytest.raises(hotshard.ServerUnavailable):
            client.read("s3://bucket/b")
        assert client.read(URI) == b"hello", "the lease still holds"


@pytest.mark.parametrize("trick", ["hang up", "leave"])
def test_a_hitch_is_not_noticed(client: hotshard.Client, server: FakeServer, trick: str):
    names = uris(server.store, 3)
    server.tricks.append(trick)
    assert number(client.read(names[1])) == 1
    assert number(client.read(names[2])) == 2
    assert server.calls["hello"] == 2


def test_garbage_is_a_typed_error_and_the_client_goes_on(
    client: hotshard.Client, server: FakeServer
):
    server.store.put(URI, b"hello")
    server.tricks.append("garbage")
    with pytest.raises(hotshard.InternalError, match="no hotshard server"):
        client.read(URI)
    assert client.read(URI) == b"hello"


def test_a_reply_without_its_files_is_an_error(client: hotshard.Client, server: FakeServer):
    server.store.put(URI, b"hello")
    server.tricks.append("no files")
    with pytest.raises(hotshard.InternalError, match="lacks an open file"):
        client.read(URI)
    assert client.read(URI) == b"hello"


def test_silence_ends(server: FakeServer):
    server.store.put(URI, b"hello")
    transport = LocalTransport(str(server.path), timeout_s=0.1, grace_s=0.05)
    server.tricks.append("silence")
    line = transport.line()
    with pytest.raises(hotshard.ServerUnavailable, match="does not answer"):
        line.wait(line.submit(Stat(URI)))
    line.end()
    assert len(transport._idle) == 0, "a conversation that owes an answer is not used again"


def test_refusals_keep_the_conversation(client: hotshard.Client, server: FakeServer):
    server.store.put(URI, b"hello")
    for error in (
        hotshard.NotFound("no", uri=URI),
        hotshard.PermissionDenied("no", uri=URI),
        hotshard.OriginUnavailable("no", uri=URI),
        hotshard.InvalidRequest("no", uri=URI),
    ):
        server.refusals.append(error)
        with pytest.raises(type(error)) as caught:
            client.read(URI)
        assert (caught.value.uri, str(caught.value)) == (URI, "no")
    assert client.read(URI) == b"hello"
    assert server.calls["hello"] == 1


def test_overloaded_is_tried_again(client: hotshard.Client, server: FakeServer):
    server.store.put(URI, b"hello")
    server.refusals += [hotshard.Overloaded("full", retry_after_s=0.01)] * 3
    assert client.read(URI) == b"hello"


def test_a_request_too_large_for_a_packet(client: hotshard.Client):
    with pytest.raises(hotshard.InvalidRequest, match="too large"):
        client.read("s3://bucket/" + "x" * 500_000)


def test_an_interrupted_wait_breaks_nothing(client: hotshard.Client, server: FakeServer):
    """Ctrl-C while an answer is awaited: the answer must not be taken for that of the next call."""
    names = uris(server.store, 3)
    server.tricks.append("silence")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            client.read(names[0])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [number(client.read(name)) for name in names] == [0, 1, 2]


# -- descriptors ---------------------------------------------------------------------------------


def test_ten_thousand_opens_leak_nothing(
    client: hotshard.Client, server: FakeServer, open_fds: Callable[[], int]
):
    names = uris(server.store, 100, size=4)
    server.lease_ms = 0  # every read opens anew
    client.read(names[0])
    before = open_fds()
    for _ in range(100):
        client.read_many(names)
    for name in names:
        client.read(name)
        client.open(name).close()
    until(lambda: open_fds() == before, "the server of this process to close its end, too")


def test_the_table_bounds_open_files(server: FakeServer, open_fds: Callable[[], int]):
    names = uris(server.store, 300, size=4)
    with hotshard.connect(server.address, files_max=50) as client:
        before = open_fds()
        client.read_many(names)
        for name in names:
            client.read(name)
        assert open_fds() - before <= 50
        client.close()
        assert open_fds() <= before


@pytest.mark.parametrize("trick", ["garbage", "hang up", "no files"])
def test_error_paths_leak_nothing(
    client: hotshard.Client, server: FakeServer, open_fds: Callable[[], int], trick: str
):
    names = uris(server.store, 10, size=4)
    server.lease_ms = 0
    client.read_many(names)
    before = open_fds()
    for _ in range(20):
        server.tricks.append(trick)
        with suppress(hotshard.InternalError):
            client.read_many(names)
        client.read_many(names)
    until(lambda: open_fds() <= before + 2, "the server of this process to close its end, too")


@contextmanager
def few_files(spare: int) -> Iterator[None]:
    """A limit of open files that leaves little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(fd) for fd in os.listdir("/proc/self/fd")}
    free = (fd for fd in itertools.count() if fd not in used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, spare, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_files_that_do_not_fit_are_an_error_that_says_so(
    store: FakeStore, tmp_path: Path, open_fds: Callable[[], int]
):
    names = uris(store, 40, size=4)
    context = multiprocessing.get_context("spawn")  # the server needs its own limit
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=serve_elsewhere, args=(store, tmp_path, ready, stop))
    process.start()
    try:
        assert ready.wait(30)
        with hotshard.connect(f"unix://{tmp_path}/far") as client:
            client.stat(names[0])
            before = open_fds()
            with few_files(10), pytest.raises(hotshard.InternalError, match="ulimit") as caught:
                client.read_many(names)
            assert caught.value.errno == errno.EMFILE
            del caught
            assert open_fds() <= before
            assert len(client.read_many(names)) == 40
    finally:
        stop.set()
        process.join()


def serve_elsewhere(store: FakeStore, directory: Path, ready: object, stop: object) -> None:
    with FakeServer(store, directory / "far"):
        ready.set()  # type: ignore[attr-defined]
        stop.wait(30)  # type: ignore[attr-defined]
