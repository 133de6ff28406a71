import errno
import pickle

import pytest

from hotshard import wire
from hotshard.core import errors
from hotshard.v1 import types_pb2 as pb

KINDS = sorted(errors.BY_CODE.values(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_and_the_wire(kind):
    error = kind("s3://b/k: what went wrong", uri="s3://b/k")
    for copy in (pickle.loads(pickle.dumps(error)), wire.error_from_pb(wire.error_to_pb(error))):
        assert type(copy) is kind
        assert str(copy) == "s3://b/k: what went wrong"
        assert copy.uri == "s3://b/k"
        assert copy.errno == error.errno


def test_overloaded_carries_when_to_ask_again():
    error = errors.Overloaded("full", uri="s3://b/k", retry_after_s=2.5)
    copy = wire.error_from_pb(wire.error_to_pb(error))
    assert isinstance(copy, errors.Overloaded)
    assert copy.retry_after_s == 2.5
    assert pickle.loads(pickle.dumps(error)).retry_after_s == 2.5


def test_errors_are_what_callers_of_file_apis_expect():
    assert issubclass(errors.NotFound, FileNotFoundError)
    assert issubclass(errors.PermissionDenied, PermissionError)
    assert issubclass(errors.InvalidRequest, ValueError)
    assert errors.NotFound("x").errno == errno.ENOENT
    assert errors.PermissionDenied("x").errno == errno.EACCES
    assert errors.StaleObject("x").errno == errno.ESTALE
    assert errors.Overloaded("x").errno == errno.EAGAIN
    assert errors.OriginUnavailable("x").errno == errno.EIO


def test_a_foreign_exception_tells_the_peer_only_its_type():
    message = wire.error_to_pb(KeyError("/secret/path"))
    assert message.code == pb.ERROR_CODE_INTERNAL
    assert "secret" not in message.message


def test_an_unknown_code_of_a_newer_peer_is_an_internal_error():
    message = pb.Error.FromString(b"\x08\x63\x12\x0ffrom the future")
    assert message.message == "from the future"
    assert type(wire.error_from_pb(message)) is errors.InternalError


def test_every_code_has_a_grpc_status():
    assert set(errors.GRPC_STATUS) == set(errors.BY_CODE)
    codes = {name.removeprefix("ERROR_CODE_") for name, _ in pb.ErrorCode.items()}
    assert codes - {"UNSPECIFIED"} == set(errors.BY_CODE)


def test_a_config_error_lists_every_problem():
    error = errors.ConfigError(["a: wrong", "b: missing"], source="x.yaml")
    assert str(error) == "x.yaml: 2 mistakes\n  a: wrong\n  b: missing"
    assert pickle.loads(pickle.dumps(error)).problems == ["a: wrong", "b: missing"]
