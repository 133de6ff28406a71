"""The list of keys."""

from cache_server.config.keys import keys, names_at


def test_every_key_is_listed_with_its_variable():
    variables = {key.dotted: key.variable for key in keys()}
    assert variables["grpc.listen"] == "HOTSHARD_GRPC__LISTEN"
    assert variables["grpc.tls.client_ca"] == "HOTSHARD_GRPC__TLS__CLIENT_CA"
    assert variables["origins"] == "HOTSHARD_ORIGINS"
    assert variables["origins.prefix"] is None


def test_only_lists_and_sections_are_structured():
    structured = {key.dotted for key in keys() if key.structured}
    assert structured == {
        *("origins", "cache_dirs", "grpc", "grpc.tls", "admin", "local_socket", "fetch", "log"),
        *("prices", "tracing"),
        *("bulk", "bulk.tls", "cluster", "cluster.members", "local_socket.allowed_uids"),
    }


def test_types_and_defaults_in_words():
    words = {key.dotted: (key.type_words, key.default_words) for key in keys()}
    assert words["shard_bytes"] == ("size", "256MiB")
    assert words["free_space_floor"] == ("size or percentage", "16%")
    assert words["memory_bytes"] == ("size, or auto", "auto")
    assert words["local_socket.mode"] == ("octal text", '"0666"')
    assert words["local_socket.allowed_uids"] == ("list of integers", "null")
    assert words["log.level"] == ("`debug` or `info` or `warning` or `error`", "info")
    assert words["fetch.concurrency"] == ("integer from 1, at most 1024", "32")
    assert words["grpc.tls.client_ca"] == ("absolute path", "null")
    assert words["origins.prefix"] == ("uri prefix", "")


def test_every_key_is_documented():
    for key in keys():
        model = key.section or key.item
        assert key.field.description or (model is not None and model.__doc__), key.dotted


def test_names_of_a_section():
    assert names_at(("origins", 3))[0] == "prefix"
    assert names_at(("grpc",)) == ["listen", "tls", "advertise"]
    assert "shard_bytes" in names_at(())
