"""From file, environment and command line to one configuration, or to all mistakes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.config import load
from cache_server.config.source import default_paths
from hotshard.core.errors import ConfigError


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "hotshard.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def problems(path=None, environ=None, overrides=None):
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, overrides or {})
    return caught.value.problems


def test_nothing_at_all_is_a_configuration():
    config = load(None, {"HOME": "/h"}, {})
    assert config.origins == ()
    assert config.cache_dirs[0].path.endswith("/hotshard")
    assert config.local_socket.path.endswith("/hotshard/local.sock")
    assert config.shard_bytes == 256 << 20


def test_an_empty_file_is_a_configuration(file):
    assert load(file("# nothing yet\n"), {}, {}).origins == ()


def test_three_mistakes_are_all_listed(file):
    path = file("shard_bytes: 20MiB\ngrpc: {listen: nonsense}\nlog: {levle: debug}\n")
    assert problems(path) == [
        (
            f"{path}: grpc.listen: should be HOST:PORT, such as 127.0.0.1:7070 or [::]:7070"
            " (it is 'nonsense')"
        ),
        f"{path}: log.levle: unknown key; did you mean level?",
        f"{path}: shard_bytes: 20MiB should be a multiple of block_bytes (8MiB)",
    ]


def test_the_whole_message(file):
    path = file("shard_bytes: lots\n")
    with pytest.raises(ConfigError, match="1 mistake\n") as caught:
        load(path, {}, {})
    assert str(caught.value).splitlines()[1].strip() == (
        f"{path}: shard_bytes: should be a size: a number of bytes, or text such as 512MiB, 10GiB or"
        " 100GB (it is 'lots')"
    )


def test_conflicts_are_found_beside_wrong_values(file):
    path = file(
        "origins:\n"
        "  - s3://bucket/a\n"
        "  - {prefix: 'ftp://x', strict: true, immutable: true}\n"
        "  - s3://bucket/a/\n"
        "cache_dirs: [relative, /n, /n/m]\n"
        "local_socket: {path: relative}\n"
    )
    found = [problem.removeprefix(f"{path}: ").split(": ")[0] for problem in problems(path)]
    assert found == [
        "origins.1.prefix",
        "cache_dirs.0.path",
        "local_socket.path",
        "origins.2.prefix",
        "cache_dirs.2.path",
    ]


def test_what_a_wrong_value_causes_is_not_reported_as_well(file):
    path = file("block_bytes: 5KiB\nshard_bytes: 6MiB\n")
    (problem,) = problems(path)
    assert "block_bytes: should be a multiple of 4KiB" in problem


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1\nb: 2\n", ":2:2: not valid YAML: expected ',' or ']'"),
        ("a: 1\na: 2\n", ":2:1: not valid YAML: key 'a' stands here twice"),
        ("\tx: 1\n", ":1:1: not valid YAML"),
        (b"\xff\xfe\xff", ": not valid YAML"),
        ("? [a]\n: 1\n", "not valid YAML"),
        ("- a\n", ": should hold keys and values"),
        ("just text", ": should hold keys and values"),
        ("5: x\n", ": 5: Keys should be strings"),
        ("origins: s3://bucket/\n", "origins: should be a list"),
        ("origins: [[x]]\n", "origins.0: should be a section with the keys prefix"),
        ("origins: [{region: x}]\n", "origins.0.prefix: is required, and not given"),
        ("cache_dirs: []\n", "cache_dirs: "),
        ("cache_dirs: null\n", "cache_dirs: should be a list"),
        ("local_socket: 5\n", "local_socket: should be a section with the keys path"),
        ("local_socket: {mode: 0666}\n", "local_socket.mode: should be octal digits in quotes"),
        ("grpc: null\n", "grpc: should be a section"),
        ("fetch: {concurrency: 0}\n", "fetch.concurrency: should be greater than or equal to 1"),
        ("zzz: 1\n", "zzz: unknown key; known are origins, cache_dirs"),
    ],
)
def test_bad_files(file, text, complaint):
    path = file(text)
    (problem,) = problems(path)
    assert problem.startswith(path)
    assert complaint in problem


def test_unreadable_files(tmp_path):
    (problem,) = problems(str(tmp_path / "absent.yaml"))
    assert problem.endswith("cannot be read: No such file or directory")
    (problem,) = problems(str(tmp_path))
    assert problem.endswith("cannot be read: Is a directory")


def test_precedence(file):
    path = file(
        "fetch: {concurrency: 1, attempts: 1, prefetch_share: 0.1}\norigins: [s3://from-file/]\n"
    )
    config = load(
        path,
        {"HOTSHARD_FETCH__ATTEMPTS": "2", "HOTSHARD_FETCH__PREFETCH_SHARE": "0.2"},
        {"fetch.prefetch_share": 0.3, "origins": ["s3://from-line/"], "cache_dirs": None},
    )
    fetch = config.fetch
    assert (fetch.concurrency, fetch.attempts, fetch.prefetch_share) == (1, 2, 0.3)
    assert [origin.prefix for origin in config.origins] == ["s3://from-line/"]


def test_the_variable_that_names_the_file(file):
    path = file("metadata_entries: 1234\n")
    assert load(None, {"HOTSHARD_CONFIG": path}, {}).metadata_entries == 1234
    assert load(path, {"HOTSHARD_CONFIG": "/absent"}, {}).metadata_entries == 1234


def test_variables_hold_text_or_yaml():
    config = load(
        None,
        {
            "HOTSHARD_ORIGINS": '["s3://bucket/a", {"prefix": "file:///fsx", "strict": true}]',
            "HOTSHARD_CACHE_DIRS": "[{path: /nvme0, capacity_bytes: 50%}]",
            "HOTSHARD_GRPC__LISTEN": "[::1]:7171",
            "HOTSHARD_LOCAL_SOCKET": "{mode: '0600', path: /a.sock}",
            "HOTSHARD_LOCAL_SOCKET__MODE": "0660",
            "HOTSHARD_LOCAL_SOCKET__ALLOWED_UIDS": "[1000, 1001]",
            "HOTSHARD_MEMORY_BYTES": "1GiB",
            "HOTSHARD_LOG__LEVEL": "",
        },
        {},
    )
    assert config.origins[1].strict
    assert str(config.cache_dirs[0].capacity_bytes) == "50%"
    assert str(config.grpc.listen) == "[::1]:7171"
    assert config.local_socket.mode == 0o660
    assert config.local_socket.path == "/a.sock"
    assert config.local_socket.allowed_uids == (1000, 1001)
    assert config.memory_bytes == 1 << 30
    assert config.log.level == "info"


def test_null_takes_a_value_back(file):
    path = file("grpc: {tls: {certificate: /c, key: /k, client_ca: /ca}}\nmemory_bytes: 1GiB\n")
    config = load(path, {"HOTSHARD_GRPC__TLS": "null", "HOTSHARD_MEMORY_BYTES": "null"}, {})
    assert config.grpc.tls is None
    assert config.memory_bytes is None


def test_mistakes_name_the_variable_or_the_command_line(file):
    path = file("fetch: 5\n")
    found = problems(
        path,
        {
            "HOTSHARD_FETCH__CONCURENCY": "1",
            "HOTSHARD_FETCH__ATTEMPTS": "many",
            "HOTSHARD_ORIGINS": "[s3://bucket/, x]",
            "HOTSHARD_CACHE_DIRS": "[",
        },
        {"shard_bytes": "huge"},
    )
    starts = [problem.split(": ")[0] for problem in found]
    assert starts == [
        "HOTSHARD_CACHE_DIRS",
        "HOTSHARD_FETCH__CONCURENCY",
        "HOTSHARD_ORIGINS",
        "command line",
        path,
    ]
    assert found[1].endswith("did you mean HOTSHARD_FETCH__CONCURRENCY?")
    assert "origins.1.prefix" in found[2]


def test_variables_that_are_not_ours_are_left_alone():
    load(
        None,
        {
            "HOTSHARD_ADDRESS": "unix:/x",
            # What Kubernetes sets in every pod when there are services "hotshard" and "hotshard-grpc".
            "HOTSHARD_SERVICE_HOST": "10.0.0.1",
            "HOTSHARD_SERVICE_PORT": "7070",
            "HOTSHARD_SERVICE_PORT_GRPC": "7070",
            "HOTSHARD_PORT": "tcp://10.0.0.1:7070",
            "HOTSHARD_PORT_7070_TCP": "tcp://10.0.0.1:7070",
            "HOTSHARD_PORT_7070_TCP_ADDR": "10.0.0.1",
            "HOTSHARD_GRPC_SERVICE_HOST": "10.0.0.2",
            "HOTSHARD_GRPC_PORT_7070_TCP_PROTO": "tcp",
            "PATH": "/bin",
        },
        {},
    )


@pytest.mark.parametrize("name", ["HOTSHARD_SERVICE", "HOTSHARD_GRPC__PORT", "HOTSHARD_PORTS"])
def test_variables_that_only_look_like_them_are_mistakes(name):
    (problem,) = problems(environ={name: "x"})
    assert problem.startswith(f"{name}: unknown variable")


def test_default_paths():
    assert default_paths({}, 0) == ("/var/lib/hotshard", "/run/hotshard/local.sock")
    assert default_paths({"HOME": "/h"}, 7) == (
        "/h/.cache/hotshard",
        "/tmp/hotshard-7/hotshard/local.sock",
    )
    xdg = {"HOME": "/h", "XDG_CACHE_HOME": "/c", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert default_paths(xdg, 7) == ("/c/hotshard", "/run/user/7/hotshard/local.sock")
    assert default_paths({}, 7)[0] == "/tmp/hotshard-7/.cache/hotshard"


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "origins",
                    "cache_dirs",
                    "grpc",
                    "tls",
                    "listen",
                    "local_socket",
                    "path",
                    "prefix",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["origins", "cache_dirs", "grpc", "local_socket", "shard_bytes", "memory_bytes"]
        ),
        documents,
    )
)
def test_any_values_give_a_configuration_or_a_list_of_mistakes(values):
    found = ["a configuration"]
    try:
        load(None, dict(os.environ), values)
    except ConfigError as error:
        found = error.problems
    assert found
    assert len(set(found)) == len(found)
