"""What `import hotshard` gives, and what it costs."""

import resource
import subprocess
import sys

import pytest

import hotshard


def test_every_name_is_there():
    for name in hotshard.__all__:
        assert getattr(hotshard, name) is not None
    assert sorted(hotshard.__all__) == hotshard.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = hotshard.nonsense


def test_aio_has_the_same_names():
    blocking = {name for name in dir(hotshard.Client) if not name.startswith("_")}
    awaited = {name for name in dir(hotshard.aio.AsyncClient) if not name.startswith("_")}
    assert blocking == awaited
    assert hotshard.aio.connect is not None


def test_import_loads_no_grpc_and_no_protobuf():
    program = (
        "import sys, hotshard;"
        "print(*[m for m in sys.modules if m.startswith(('grpc', 'google', 'asyncio', 'socket'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.split() == []


def test_a_local_client_loads_no_grpc():
    program = (
        "import sys, hotshard, hotshard.local, hotshard.local_async, hotshard.files, hotshard.aio;"
        "print(*[m for m in sys.modules if m.startswith('grpc') or m.endswith('_grpc')])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.split() == []


@pytest.mark.slow
def test_import_is_quick():
    """Under 60 ms of CPU beyond Python's own start; the least of several, as machines are busy."""

    def cpu_s(program: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = min(cpu_s("pass") for _ in range(8))
    ours = min(cpu_s("import hotshard") for _ in range(8))
    assert ours - bare < 0.060
