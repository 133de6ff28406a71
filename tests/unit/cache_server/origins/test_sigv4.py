"""The signer against botocore's own."""

import datetime
from urllib.parse import unquote

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from cache_server.origins.sigv4 import Keys, Signer, encoded_key

NOW = 1_795_353_216.5
_VISIBLE = st.characters(min_codepoint=33, max_codepoint=126)


def botocores(
    method: str, path: str, headers: dict[str, str], keys: Keys, region: str, now: float
) -> str:
    """The Authorization header that botocore computes for the same request."""
    host = headers["host"]
    request = AWSRequest(method=method, url=f"https://{host}{path}")
    for name, value in headers.items():
        request.headers[name] = value
    signer = auth.S3SigV4Auth(
        Credentials(keys.access_key, keys.secret_key, keys.token), "s3", region
    )
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(tzinfo=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "get_current_datetime", lambda *_: moment)
        signer.add_auth(request)
    return str(request.headers["Authorization"])


@given(
    key=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    method=st.sampled_from(["GET", "HEAD"]),
    extra=st.dictionaries(
        st.sampled_from(["range", "if-match", "x-amz-request-payer", "x-amz-checksum-mode"]),
        st.text(_VISIBLE, min_size=1, max_size=40),
    ),
    token=st.none() | st.text(_VISIBLE, min_size=1),
    secret=st.text(_VISIBLE, min_size=1, max_size=40),
    now=st.integers(10**9, 4 * 10**9),
)
def test_signatures_equal_botocores(
    key: str, method: str, extra: dict[str, str], token: str | None, secret: str, now: int
) -> None:
    keys = Keys("AKIDEXAMPLE", secret, token)
    path = f"/bucket/{encoded_key(key)}"
    headers = {"host": "s3.eu-west-3.amazonaws.com", **extra}
    ours = Signer("eu-west-3").sign(method, path, headers, keys, now)
    assert ours["authorization"] == botocores(method, path, headers, keys, "eu-west-3", now)


@pytest.mark.parametrize(
    ("key", "encoded"),
    [
        ("a/b", "a/b"),
        ("a//../b", "a//../b"),
        ("a b+c%d", "a%20b%2Bc%25d"),
        ("~-_.", "~-_."),
        ("ü", "%C3%BC"),
        ("a?b#c&d=e", "a%3Fb%23c%26d%3De"),
    ],
)
def test_keys_are_encoded_once_and_not_folded(key: str, encoded: str) -> None:
    assert encoded_key(key) == encoded
    assert unquote(encoded) == key


def test_the_derived_key_follows_the_day_and_the_secret() -> None:
    signer = Signer("us-east-1")
    headers = {"host": "h"}
    first, second = Keys("A", "one"), Keys("A", "two")
    for keys, now in [(first, NOW), (second, NOW), (first, NOW), (first, NOW + 86_400)]:
        kept = signer.sign("GET", "/k", headers, keys, now)
        assert kept == Signer("us-east-1").sign("GET", "/k", headers, keys, now)


def test_a_signature_does_not_change() -> None:
    """A vector of our own, so that a change of botocore is not taken for one of ours."""
    signed = Signer("us-east-1").sign(
        "GET", "/bucket/key", {"host": "h"}, Keys("AKID", "secret", "token"), NOW
    )
    assert signed["x-amz-date"] == "20261122T131336Z"
    assert signed["authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKID/20261122/us-east-1/s3/aws4_request,"
        " SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature="
    )
    assert signed["authorization"][-64:] == VECTOR


VECTOR = "282732949f02d8dc2365d558ca6d7db071c60c49a5f8cf88cf00e9455807532a"
