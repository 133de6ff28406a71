"""One read through two real nodes: one id in the logs of both, and one trace at a collector."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import hotshard
from hotshard.cli.ports import free_ports
from support.content import content
from support.waiting import until

OBJECTS = 12


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, as a real collector does."""

    def __init__(self):
        self.bodies = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self):
        service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        found = []
        for body in list(self.bodies):
            message = service.ExportTraceServiceRequest.FromString(body)
            for resource in message.resource_spans:
                node = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scoped in resource.scope_spans:
                    found += [(node["service.instance.id"], span) for span in scoped.spans]
        return found


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        assert isinstance(self.server, Collector)
        self.server.bodies.append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pair(start_node, bucket, collector):
    pytest.importorskip("opentelemetry.sdk", reason="pip install 'hotshard[otel]'")
    boto, name = bucket
    for i in range(OBJECTS):
        boto.put_object(Bucket=name, Key=f"{i}", Body=content(50_000, seed=i))
    ports = free_ports(4)
    grpc, bulk = [f"127.0.0.1:{p}" for p in ports[:2]], [f"127.0.0.1:{p}" for p in ports[2:]]
    nodes = [
        start_node(
            started=False,
            origins=[f"s3://{name}/"],
            grpc={"listen": grpc[i]},
            bulk={"listen": bulk[i]},
            cluster={"provider": "static", "members": grpc, "start_wait_s": 1},
            log={"format": "json", "level": "debug", "slow_request_s": 0.000001},
            tracing={"endpoint": collector.url, "sample": 1.0},
        )
        for i in range(2)
    ]
    for node in nodes:
        node.launch()
    until(lambda: all(node.ready() for node in nodes))
    until(lambda: all("2 of 2 nodes ready" in node.get("/")[1] for node in nodes))
    return nodes, [f"s3://{name}/{i}" for i in range(OBJECTS)]


def log_lines(node):
    with open(f"{node.directory}/server.log", encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.startswith("{")]


def logged(node, request_id):
    return request_id in {line.get("request") for line in log_lines(node)}


def slow(node):
    return [line for line in log_lines(node) if line["message"] == "slow request"]


def test_one_read_has_one_id_on_both_nodes_and_is_one_trace(pair, collector):
    (one, two), uris = pair
    with hotshard.connect(one.address) as cache:
        for uri in uris:
            assert len(cache.read(uri)) == 50_000

    def opens():
        return {line["request"]: line for line in slow(one) if line["method"] == "open"}

    until(lambda: len(opens()) == OBJECTS)
    asked = opens()

    def answered(code):
        return [line for line in slow(two) if (line["method"], line["code"]) == ("read", code)]

    passed_on = until(lambda: answered("ok"), "an object that is the other node's")
    asked_before_the_origin = answered("not_cached")
    assert {line["request"] for line in passed_on + asked_before_the_origin} <= set(asked)
    for line in passed_on:
        assert asked[line["request"]]["uri"] == line["uri"]
        assert asked[line["request"]]["peer_s"] > 0
        tries = [each for each in passed_on if each["request"] == line["request"]]
        assert any("origin_s" in each for each in tries), "one of them has fetched it"
    request_id = passed_on[0]["request"]
    one.stop()
    two.stop()  # what is left is sent at the end

    of_this = [(node, span) for node, span in collector.spans() if _id(span) == request_id]
    names = {span.name for _, span in of_this}
    assert {"local open", "peer bulk", "bulk read", "origin GET"} <= names
    assert len({node for node, _ in of_this}) == 2
    ids = {span.span_id for _, span in of_this}
    roots = [span for _, span in of_this if not span.parent_span_id]
    assert [span.name for span in roots] == ["local open"]
    assert all(span.parent_span_id in ids for _, span in of_this if span.parent_span_id)


def _id(span):
    return span.trace_id[8:].hex()


def test_a_refusal_carries_the_id_to_the_reader(pair):
    (one, _), uris = pair
    with hotshard.connect(one.address) as cache, pytest.raises(hotshard.NotFound) as caught:
        cache.read(uris[0] + "-not-there")
    assert len(caught.value.request_id) == 16
    until(lambda: logged(one, caught.value.request_id))
    with hotshard.connect(grpc_of(one)) as cache, pytest.raises(hotshard.NotFound) as caught:
        cache.stat(uris[0] + "-neither")
    until(lambda: logged(one, caught.value.request_id))


def grpc_of(node):
    return json.loads(node.get("/status")[1])["cluster"]["me"]["grpc"]
