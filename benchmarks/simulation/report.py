"""The simulation as a page: what it found in figures, a plot, and what it assumed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from benchmarks import svg
from benchmarks.simulation.model import (
    Cluster,
    Epoch,
    Moved,
    Ownership,
    Sample,
    Slots,
    moved,
    owned_by,
    run,
)

FRACTIONS = (0.5, 0.8, 1.0, 1.2)
_STYLE = (
    "<style>svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#1d2530}.dim{fill:#687282}"
    ".gridline{stroke:#d5dae2}polyline{fill:none;stroke-width:2}"
    ".k0{stroke:#cf5b3c}.k1{stroke:#c28a1e}.k2{stroke:#2f8f5b}.k3{stroke:#4a7fc1}"
    "circle.k0{fill:#cf5b3c}circle.k1{fill:#c28a1e}circle.k2{fill:#2f8f5b}circle.k3{fill:#4a7fc1}"
    "</style>"
)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What times are made of, in bytes per second."""

    nic: float = 12.5e9
    """Each way: 100 Gb/s."""
    origin_node: float = 2.5e9
    """What one node gets from the origin."""
    origin_all: float = 1e12
    """What the origin gives to all nodes together."""
    disk: float = 4e9
    """Writes of one node's NVMe."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulation found."""

    cluster: Cluster
    fullest: float
    """Shards owned by the fullest node, over the mean; and so what its NIC sends."""
    fullest_after: float
    moved: Moved
    epochs: Mapping[float, Sequence[Epoch]]
    """By the part of the dataset that all disks together hold."""

    @property
    def share_bytes(self) -> float:
        """The dataset divided by the nodes: what the pods of each read in an epoch."""
        return self.cluster.total_bytes / self.cluster.nodes

    def seconds(self, epoch: Epoch, hardware: Hardware) -> tuple[float, str]:
        """The time of an epoch in which nothing but moving bytes takes time, and what bounds it."""
        share, fullest = self.share_bytes, self.fullest
        times = {
            "the origin": epoch.origin * self.cluster.total_bytes / hardware.origin_all,
            "one node's way to the origin": epoch.origin * fullest * share / hardware.origin_node,
            "the fullest node's NIC, in": (epoch.origin * fullest + 1) * share / hardware.nic,
            "the fullest node's NIC, out": fullest * share / hardware.nic,
            "one node's disk": epoch.written * fullest * share / hardware.disk,
        }
        bound = max(times, key=times.__getitem__)
        return times[bound], bound


def simulate(cluster: Cluster) -> Result:
    """Run it: some minutes at the default size."""
    slots = Slots(cluster)
    ownership = Ownership(cluster)
    sample = Sample(cluster, slots, ownership)
    mean = cluster.shards / cluster.nodes
    after = owned_by(ownership.after, slots.counts)
    return Result(
        cluster=cluster,
        fullest=max(owned_by(ownership.before, slots.counts).values()) / mean,
        fullest_after=max(after.values()) / (cluster.shards / len(after)),
        moved=moved(ownership, slots.counts),
        epochs={each: run(cluster, sample, ownership, each) for each in FRACTIONS},
    )


def plot(result: Result) -> str:
    """Bytes from the origin in each epoch, as a picture."""
    lines = [
        svg.Curve(
            f"disks hold {fraction:.0%} of the dataset",
            [(number + 1.0, 100 * epoch.origin) for number, epoch in enumerate(epochs)],
        )
        for fraction, epochs in result.epochs.items()
    ]
    title = "bytes from the origin in each epoch"
    axes = ("epoch", "from the origin, % of the dataset")
    picture = svg.curves(lines, title=title, axes=axes)
    head, rest = picture.split(">", 1)
    return f"{head}>{_STYLE}{rest}\n"


def page(result: Result, hardware: Hardware) -> str:
    """The page."""
    cluster = result.cluster
    lost = max(1, round(cluster.nodes * cluster.lost))
    rows = []
    for fraction, epochs in result.epochs.items():
        first, steady = epochs[0], epochs[cluster.loss_epoch - 1]
        loss, last = epochs[cluster.loss_epoch], epochs[-1]
        rows.append(
            f"| {fraction:.0%} | {_percent(first.origin)} | {_percent(steady.origin)} |"
            f" {_percent(loss.origin)} | {_percent(last.origin)} | {_percent(first.written)} |"
            f" {_percent(steady.written)} | {_time(result.seconds(first, hardware))} |"
            f" {_time(result.seconds(steady, hardware))} |"
        )
    sent_gb = result.share_bytes * (1 - 1 / cluster.nodes) / 1e9
    template = resources.files(__package__).joinpath("page.txt").read_text("utf-8")
    return template.format(
        cluster=cluster,
        hardware=hardware,
        result=result,
        rows="\n".join(rows),
        shard_mib=cluster.shard_bytes >> 20,
        total_tb=cluster.total_bytes / 1e12,
        loss_epoch=cluster.loss_epoch + 1,
        lost=lost,
        sent_gb=sent_gb,
        fullest_gb=result.fullest * sent_gb,
        gone=_percent(result.moved.gone),
        other=_percent(result.moved.other, 3),
        nic_gbit=hardware.nic * 8 / 1e9,
        origin_node_gb=hardware.origin_node / 1e9,
        origin_all_tb=hardware.origin_all / 1e12,
        disk_gb=hardware.disk / 1e9,
        uncached_s=cluster.total_bytes / hardware.origin_all,
    )


def _percent(part: float, digits: int = 2) -> str:
    return f"{100 * part:.{digits}f}%"


def _time(found: tuple[float, str]) -> str:
    seconds, bound = found
    return f"{seconds:.0f} s ({bound})"
