"""Every metric of the driver, and the sums of those of its mounts. Pure.

The reader of each mount writes its metrics to a file (`mount.metrics`); the driver shows them added up, as
one mount: what counts events counts them all, and a gauge of 0 or 1 says for how many mounts it is so.
"""

from collections.abc import Iterable, Mapping

from hotshard.mount import metrics as of_mounts
from hotshard.mount.metrics import About

ABOUT = {
    "hotshard_csi_volumes": About("Volumes published on this node.", ("kind",)),
    "hotshard_csi_mounts": About("File systems served; volumes with equal options share one."),
    "hotshard_csi_mounts_silent": About("Those whose reader does not answer now."),
    "hotshard_csi_mounts_healed_total": About("File systems that had died and were mounted anew."),
    "hotshard_csi_keeper_connected": About("1 while the keeper of the node holds what is mounted."),
    "hotshard_csi_registered": About("1 once kubelet has registered this driver."),
    "hotshard_csi_calls_total": About("Calls of kubelet.", ("method", "code")),
}
"""Every metric, with its labels."""

Sample = tuple[str, ...]
"""(metric, label, value, ...)"""


def render(values: Mapping[Sample, float], mounts: Iterable[str]) -> str:
    """The Prometheus text of the driver, with that of the mounts added up."""
    ours: dict[str, float] = {}
    for (name, *words), value in values.items():
        pairs = zip(words[::2], words[1::2], strict=True)
        labels = ",".join(f'{label}="{text}"' for label, text in pairs)
        ours[f"{name}{{{labels}}}" if labels else name] = value
    lines: list[str] = []
    family = ""
    for sample, value in [*ours.items(), *add_up(mounts).items()]:
        name = sample.partition("{")[0]
        about = _about(name)
        if about is None:
            continue  # of a reader that is newer than we are
        if about[0] != family:
            family = about[0]
            lines += [f"# HELP {family} {about[1].text}", f"# TYPE {family} {kind_of(family)}"]
        lines.append(f"{sample} {value:.12g}")
    return "\n".join(lines) + "\n"


def add_up(texts: Iterable[str]) -> dict[str, float]:
    """The sums of equal samples of several Prometheus texts; lines that are none are left out."""
    sums: dict[str, float] = {}
    for text in texts:
        for line in text.splitlines():
            sample, _, number = line.rpartition(" ")
            if not sample or line.startswith("#"):
                continue
            try:
                sums[sample] = sums.get(sample, 0.0) + float(number)
            except ValueError:
                continue
    order = list(of_mounts.ABOUT)
    return dict(sorted(sums.items(), key=lambda item: order.index(_family(item[0], order))))


def kind_of(name: str) -> str:
    """The Prometheus type of a metric."""
    return of_mounts.kind_of(name)


def _family(sample: str, order: list[str]) -> str:
    about = _about(sample.partition("{")[0])
    return about[0] if about is not None and about[0] in order else order[-1]


def _about(name: str) -> tuple[str, About] | None:
    for suffix in ("", "_bucket", "_sum", "_count"):
        family = name.removesuffix(suffix) if suffix else name
        about = ABOUT.get(family) or of_mounts.ABOUT.get(family)
        if about is not None:
            return family, about
    return None
