"""Where credentials come from on EKS, on loopback: the Pod Identity agent and STS, as HTTP servers.

Every answer is a new set of keys, numbered, that expires when it is told to.
"""

import contextlib
import datetime
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


@dataclass
class Issuer:
    url: str = ""
    short_lived: set[str] = field(default_factory=set)
    """Callers with these tokens get keys for 5 seconds; others for an hour."""
    tokens: list[str] = field(default_factory=list)
    """What each caller identified itself with."""

    def issue(self, token: str) -> tuple[str, str]:
        """The number of the next set of keys, and when it ends."""
        self.tokens.append(token)
        seconds = 5 if token in self.short_lived else 3600
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        return f"{len(self.tokens):04}", end.strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def issuer() -> Iterator[Issuer]:
    """GET: the Pod Identity agent. POST: AssumeRoleWithWebIdentity of STS."""
    state = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number, end = state.issue(self.headers.get("Authorization", ""))
            keys = {
                "AccessKeyId": f"AKIDPOD{number}",
                "SecretAccessKey": "secret",
                "Token": f"session-{number}",
                "Expiration": end,
            }
            self._answer("application/json", json.dumps(keys))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked = {name: values[0] for name, values in parse_qs(body).items()}
            assert asked["Action"] == "AssumeRoleWithWebIdentity"
            number, end = state.issue(asked["WebIdentityToken"])
            result = (
                f"<Credentials><AccessKeyId>AKIDSTS{number}</AccessKeyId><SecretAccessKey>secret"
                f"</SecretAccessKey><SessionToken>session-{number}</SessionToken>"
                f"<Expiration>{end}</Expiration></Credentials><AssumedRoleUser><Arn>"
                f"{asked['RoleArn']}</Arn><AssumedRoleId>id</AssumedRoleId></AssumedRoleUser>"
            )
            name = "AssumeRoleWithWebIdentity"
            space = "https://sts.amazonaws.com/doc/2011-06-15/"
            self._answer(
                "text/xml",
                f'<{name}Response xmlns="{space}"><{name}Result>{result}</{name}Result>'
                f"<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{name}Response>",
            )

        def _answer(self, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
