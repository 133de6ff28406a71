"""AWS Signature Version 4 for requests without a body, as S3 wants it. Pure.

S3's dialect: the path is signed as it is sent (percent-encoded once, nothing folded: "//" and ".." are
parts of a key), and the hash of the payload is a header. That hash is the one of the empty string, not
"UNSIGNED-PAYLOAD": it costs nothing here, and bucket policies that forbid unsigned payloads accept it.

tests/unit/cache_server/origins/test_sigv4.py holds it equal to botocore's own signer.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials at one moment."""

    access_key: str
    secret_key: str
    token: str | None = None


def encoded_key(key: str) -> str:
    """An object key as it stands in a request path."""
    return quote(key, safe="/~")


class Signer:
    """Signs for one region and service; keeps the derived key, which changes once a day."""

    def __init__(self, region: str, service: str = "s3") -> None:
        self._scope_tail = f"{region}/{service}/aws4_request"
        self._region = region
        self._service = service
        self._derived: tuple[tuple[str, str], bytes] = (("", ""), b"")

    def sign(
        self, method: str, path: str, headers: Mapping[str, str], keys: Keys, now: float
    ) -> dict[str, str]:
        """The headers to send: the given ones and those of the signature.

        Args:
            method: GET or HEAD.
            path: percent-encoded, without a query.
            headers: lower-case names, `host` among them; all are signed.
            keys: who signs.
            now: seconds since 1970.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        signed = {**headers, "x-amz-content-sha256": EMPTY_SHA256, "x-amz-date": stamp}
        if keys.token:
            signed["x-amz-security-token"] = keys.token
        names = sorted(signed)
        listed = ";".join(names)
        lines = "".join(f"{name}:{signed[name]}\n" for name in names)
        request = f"{method}\n{path}\n\n{lines}\n{listed}\n{EMPTY_SHA256}"
        scope = f"{stamp[:8]}/{self._scope_tail}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}"
        signature = hmac.digest(self._key(keys.secret_key, stamp[:8]), text.encode(), "sha256")
        signed["authorization"] = (
            f"{_ALGORITHM} Credential={keys.access_key}/{scope},"
            f" SignedHeaders={listed}, Signature={signature.hex()}"
        )
        return signed

    def _key(self, secret_key: str, day: str) -> bytes:
        # Replaced whole, never changed: threads may race here, and each gets a right answer.
        known, key = self._derived
        if known != (secret_key, day):
            key = f"AWS4{secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._derived = ((secret_key, day), key)
        return key
