"""Values, schema, reference and the sets that tests render belong together; what is wrong is refused."""

import re

import pytest
import yaml

from support.chart import CHART, HELM_VERSIONS, VALUES, at, program, refusal, schema

chart = program("chart")


def defaults():
    return yaml.safe_load((CHART / "values.yaml").read_text())


def leaves():
    return list(chart.leaves(schema()))


def groups(values, path=()):
    """The paths of all values that are in values.yaml, as deep as the schema goes."""
    known = set(leaves())
    for name, value in values.items():
        if (*path, name) in known or not isinstance(value, dict):
            yield (*path, name)
        else:
            yield from groups(value, (*path, name))


def test_schema_and_reference_are_up_to_date():
    assert chart.main(check=True) == 0, "run: python .ci/chart.py"


def test_every_value_has_a_schema_a_default_and_a_description():
    assert sorted(groups(defaults())) == sorted(leaves())
    comments = chart.described((CHART / "values.yaml").read_text(), schema())
    assert [path for path in leaves() if not comments.get(path)] == []


def test_every_value_is_in_the_reference():
    readme = (CHART / "README.md").read_text()
    assert [p for p in leaves() if f"| `{'.'.join(p)}` |" not in readme] == []


def test_every_value_is_set_by_a_set_of_values_that_tests_render():
    silent = set(leaves())
    for path in VALUES:
        values = yaml.safe_load(path.read_text())
        for leaf in list(silent):
            try:
                differs = at(values, leaf) != at(defaults(), leaf)
            except (KeyError, TypeError):
                continue
            if differs:
                silent.discard(leaf)
    assert silent == set()


def test_every_key_of_the_server_that_is_not_the_charts_can_be_set():
    from cache_server.config.keys import keys

    definitions = schema()["$defs"]
    found = set()

    def walk(node, path):
        for name, inner in node.get("properties", {}).items():
            found.add(".".join((*path, name)))
            walk(inner, (*path, name))
            if inner.get("type") == "array" and "then" in inner["items"]:
                walk(inner["items"]["then"], (*path, name))

    walk(definitions["serverConfig"], ())
    walk(definitions["serverOrigins"]["items"]["then"], ("origins",))
    own = {k.dotted for k in keys() if k.section is None}
    inside = {k for k in own if k.startswith(("grpc.tls.", "bulk.tls.", "cache_dirs."))}
    assert own - found - chart.MANAGED - inside == set()
    assert found & (chart.MANAGED - {"origins"}) == set()


def test_every_value_is_used_by_a_template():
    text = "\n".join(
        path.read_text()
        for path in (CHART / "templates").rglob("*")
        if path.suffix in (".yaml", ".tpl", ".txt")
    )
    used = set(re.findall(r"\b[a-z][A-Za-z_]*\b", text))
    assert [path for path in leaves() if path[-1] not in used] == []


WRONG = {
    'image={"repository":"r","tagg":"x"}': "tagg",
    'image.tag="latest"': "tag",
    'image.digest="sha256:short"': "digest",
    'image.pullPolicy="Sometimes"': "pullPolicy",
    "nodes={}": "nodes",
    'identity.type="keys"': "type",
    'identity.roleArn="role/x"': "roleArn",
    'origins=["s4://bucket/"]': "origins",
    'origins=[{"prefix":"s3://b/","imutable":true}]': "imutable",
    'origins=[{"immutable":true}]': "prefix",
    "config.fetch.concurrency=0": "concurrency",
    'config.fetch.concurrency="many"': "concurrency",
    'config.fetchh={"concurrency":1}': "fetchh",
    'config.grpc.listen="0.0.0.0:1"': "grpc",
    'config.shard_bytes="huge"': "shard_bytes",
    'cache.dirs=["/mnt/nvme"]': "dirs",
    'cache.dirs=[{"path":"mnt"}]': "path",
    'server.ports.grpc="7070"': "grpc",
    'server.listenAddress="localhost"': "listenAddress",
    'server.extraEnv=[{"nam":"x"}]': "extraEnv",
    'node.resources.limits.memory="lots"': "memory",
    'node.resources.requets={"cpu":1}': "requets",
    'node.tolerations=[{"effect":"NoSleep"}]': "effect",
    'node.updateStrategy.type="Recreate"': "type",
    'csi.driverName="Not A Name"': "driverName",
    "csi.orphanTimeoutSeconds=0": "orphanTimeoutSeconds",
    "dedicated.replicas=0": "replicas",
    'dedicated.storage.size="big"': "size",
    'service.routing="Everywhere"': "routing",
    'tls.mode="on"': "mode",
    'metrics.podMonitor.interval="often"': "interval",
    'networkPolicy.originCidrs=["everywhere"]': "originCidrs",
    'tests.uri="bucket/key"': "uri",
}


def check_refused(setting, helm):
    message = refusal(helm, setting)
    assert "schema" in message
    assert WRONG[setting] in message.split("specifications of the schema")[-1]


@pytest.mark.parametrize("setting", WRONG)
def test_a_wrong_value_is_refused_by_name(setting):
    check_refused(setting, HELM_VERSIONS[0])


@pytest.mark.parametrize("setting", list(WRONG)[::6])
def test_the_schema_means_the_same_to_older_helm(setting):
    check_refused(setting, HELM_VERSIONS[1])


TOGETHER = {
    ('image.repository=""',): ("image.repository is empty", "build helm/image/Containerfile"),
    ("node.enabled=false",): ("nothing would run", "set one of them to true"),
    ('identity.type="irsa"',): ("identity.roleArn is empty", "set it to the ARN"),
    ('identity.roleArn="arn:aws:iam::111122223333:role/r"',): ("has no effect", "set identity.type=irsa"),
    ("serviceAccount.create=false", 'serviceAccount.annotations={"a":"b"}'): (
        "cannot annotate",
        "set serviceAccount.create=true",
    ),
    ('tls.mode="secret"',): ("tls.secretName is empty", "set it to a Secret"),
    ('tls.secretName="x"',): ("has no effect", "set tls.mode=secret"),
    ("metrics.podMonitor.enabled=true", "metrics.serviceMonitor.enabled=true"): (
        "counted twice",
        "set one of them to false",
    ),
    ("server.ports.bulk=7070",): ("server.ports", "set three different ports"),
    ("node.updateStrategy.rollingUpdate.maxSurge=1",): ("maxSurge must be 0", "use maxUnavailable"),
    ('cache.dirs=[{"path":"/a/b"},{"path":"/a/"}]',): ("/a/b and /a", "name each disk once"),
    ('origins=["file:///fsx/x/"]',): ("file:///fsx/x/", "mount it by server.extraVolumes"),
    (
        'origins=[{"prefix":"file:///fsx/"}]',
        'node.hostMounts=[{"name":"f","hostPath":"/f","mountPath":"/fsx2"}]',
    ): (
        "file:///fsx/",
        "mount it by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("settings", TOGETHER, ids=" ".join)
def test_what_does_not_go_together_is_refused_with_what_to_do(settings):
    message = refusal(HELM_VERSIONS[0], *settings)
    for words in TOGETHER[settings]:
        assert words in message
