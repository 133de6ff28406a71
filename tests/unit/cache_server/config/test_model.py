"""The configuration's values and how they agree."""

from typing import Any

import pytest
from pydantic import ValidationError

from cache_server.config.model import ConflictError, OriginConfig, ServerConfig, conflicts


def config(**values: Any) -> ServerConfig:
    return ServerConfig.model_validate(
        {"cache_dirs": ["/nvme"], "local_socket": {"path": "/run/x.sock"}, **values}
    )


def conflict_of(**values: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        config(**values)
    (detail,) = caught.value.errors()
    cause = detail["ctx"]["error"]
    assert isinstance(cause, ConflictError)
    return [
        (".".join(str(part) for part in conflict.paths[0]), conflict.message)
        for conflict in cause.found
    ]


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/a", "s3://bucket/a/"),
        ("s3://bucket/a//", "s3://bucket/a//"),
        ("file:///fsx//train", "file:///fsx/train/"),
    ],
)
def test_prefixes_end_in_a_slash(given, prefix):
    assert OriginConfig(prefix=given).prefix == prefix


def test_it_is_frozen():
    with pytest.raises(ValidationError):
        config().shard_bytes = 1


def test_nested_origins_are_fine():
    assert len(config(origins=["s3://bucket/", "s3://bucket/a/", "file:///fsx"]).origins) == 3


def test_equal_origins_are_not():
    assert conflict_of(origins=["s3://bucket/a", "s3://bucket/b", "s3://bucket/a/"]) == [
        ("origins.2.prefix", "s3://bucket/a/ is origins.0 already")
    ]


@pytest.mark.parametrize(
    ("first", "second"), [("/a", "/a/"), ("/a", "/a/b"), ("/a/b/../c", "/a/c"), ("/", "/a")]
)
def test_overlapping_cache_dirs(first, second):
    ((where, _),) = conflict_of(cache_dirs=[first, second])
    assert where == "cache_dirs.1.path"


def test_similar_cache_dirs_are_fine():
    assert len(config(cache_dirs=["/nvme", "/nvme1"]).cache_dirs) == 2


@pytest.mark.parametrize("prefix", ["file:///", "file:///nvme", "file:///nvme/data/"])
def test_an_origin_may_not_overlap_a_cache_dir(prefix):
    ((where, message),) = conflict_of(origins=[prefix])
    assert where == "cache_dirs.0.path"
    assert "origins.0" in message


def test_several_conflicts_are_found_at_once():
    found = conflict_of(
        shard_bytes="20MiB",
        memory_bytes="16MiB",
        block_bytes="32MiB",
        grpc={"listen": "0.0.0.0:7072"},
    )
    assert [where for where, _ in found] == ["shard_bytes", "memory_bytes", "admin.listen"]


def test_a_good_configuration_has_no_conflicts():
    assert list(conflicts(config())) == []


@pytest.mark.parametrize(
    "keys",
    [
        {"immutable": True, "strict": True},
        {"anonymous": True, "profile": "p"},
        {"prefix": "file:///x", "region": "eu-west-1"},
        {"endpoint_url": "127.0.0.1:8333"},
        {"metadata_ttl_s": -1},
        {"metadata_ttl_s": float("nan")},
        {"addressing": "both"},
        {"prefix": "ftp://x/"},
        {"prefix": 5},
        {"prefix": "file:///a/../b"},
    ],
)
def test_origins_that_make_no_sense(keys):
    with pytest.raises(ValidationError):
        OriginConfig.model_validate({"prefix": "s3://bucket/", **keys})
