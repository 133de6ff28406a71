"""A cached file that is damaged behind the server's back."""

from pathlib import Path

import hotshard
from integration.conftest import origin_bytes
from support.content import content

MIB = 1 << 20
QUARANTINED = "hotshard_quarantined_shards_total{"


def test_a_damaged_file_is_never_served(bucket, node):
    """SEMANTICS 2: A file that does not match its checksums is never served: it is put into
    quarantine and fetched again.
    """
    boto, name = bucket
    body = content(3 * MIB + 17)
    boto.put_object(Bucket=name, Key="k", Body=body)
    with hotshard.connect(node.address) as cache:
        assert cache.warm(f"s3://{name}/k").complete
    node.kill()
    (sealed,) = (path for path in Path(node.cache_dir, "sealed").rglob("*") if path.is_file())
    sealed.chmod(0o600)
    with sealed.open("r+b") as file:
        file.seek(2 * MIB)
        byte = file.read(1)[0]
        file.seek(2 * MIB)
        file.write(bytes([byte ^ 1]))
    node.start()
    with hotshard.connect(node.address) as cache:
        assert cache.read(f"s3://{name}/k") == body
    assert origin_bytes(node) == len(body)
    found = (v for k, v in node.counters().items() if k.startswith(QUARANTINED))
    assert sum(found) == 1  # by the scrub or by the open, whichever came first
    assert list(Path(node.cache_dir, "quarantine").iterdir())
