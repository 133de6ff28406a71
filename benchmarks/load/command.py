"""`python -m benchmarks load` and `data`: a load on any running server, and data to put it on."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.bench import SEED
from benchmarks.data import DataSet
from benchmarks.load import latency
from benchmarks.load.crew import Crew, Load, Share, together
from benchmarks.load.finding import Aim, Way, put
from benchmarks.load.workloads import Kind, Workload
from benchmarks.results import BenchError, Measured
from benchmarks.svg import duration
from benchmarks.terminal import console
from cache_server.config.units import parse_size

F = TypeVar("F", bound=Callable[..., Any])

FORMAT = "hotshard-load/1"
_KIB, _MIB = 1 << 10, 1 << 20
_LATE = 0.98  # of the asked rate: below that, the target did not keep up
_NEIGHBOUR_LONGER_S = 0.2


@dataclass(frozen=True, slots=True)
class Preset:
    """A workload by name."""

    kind: Kind
    read_bytes: int
    says: str
    neighbours: int = 0
    """Processes that read everything in order meanwhile, as fast as they can."""


WORKLOADS = {
    "sequential": Preset(Kind.SEQUENTIAL, _MIB, "every object in order, 1 MiB reads"),
    "block": Preset(Kind.RANDOM, _MIB, "blocks of 1 MiB at random"),
    "rand_4k": Preset(Kind.RANDOM, 4 * _KIB, "4 KiB at random"),
    "small": Preset(Kind.EPOCHS, 64 * _MIB, "whole objects in shuffled epochs, one call each"),
    "zipf": Preset(Kind.ZIPF, 128 * _KIB, "128 KiB of objects of unequal popularity"),
    "epochs": Preset(Kind.EPOCHS, _MIB, "shuffled epochs dealt out to the processes, 1 MiB reads"),
    "restore": Preset(Kind.RESTORE, 8 * _MIB, "a checkpoint: all processes read all, 8 MiB reads"),
    "mixed": Preset(Kind.RANDOM, 128 * _KIB, "128 KiB at random beside a noisy neighbour", 1),
}


@click.command("data")
@click.argument("prefix", metavar="DIRECTORY|s3://BUCKET/PREFIX/")
@click.option("--objects", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--size", default="4MiB", show_default=True, help="Of each object.")
@click.option("--seed", type=int, default=SEED, show_default=True)
def write_data(prefix: str, objects: int, size: str, seed: int) -> None:
    """Write objects whose every byte `load --data-seed` can check."""
    data = DataSet(seed, objects, _bytes(size))
    put(data, prefix if prefix.endswith("/") else f"{prefix}/", os.environ)
    click.echo(f"{objects} objects of {data.object_bytes} bytes at {prefix}")


def _options(function: F) -> F:
    presets = "; ".join(f"{name}: {preset.says}" for name, preset in WORKLOADS.items())
    for option in reversed(
        (
            click.option(
                "--target", type=click.Choice([w.value for w in Way]), default=Way.LOCAL.value,
                show_default=True, help="How the bytes come.",
            ),
            click.option("--address", default="", help="Of the server: its socket, or host:port."),
            click.option("--bulk", default="", help="host:port of its bulk port (target bulk)."),
            click.option("--cluster", default="", help="Name of the cluster (target bulk)."),
            click.option(
                "--workload", type=click.Choice(list(WORKLOADS)), default="epochs", help=presets
            ),
            click.option("--read-size", default="", help="Another size of each read."),
            click.option(
                "--rate", type=click.FloatRange(min=0), default=0.0,
                help="Calls a second of all processes together (open loop). 0: as many as they can.",
            ),
            click.option(
                "--processes", type=click.IntRange(1, 256), default=1, show_default=True,
                help="Client processes, each with one call at a time.",
            ),
            click.option("--seconds", type=click.FloatRange(0.01, 3600), default=10.0),
            click.option("--runs", type=click.IntRange(1, 100), default=1, show_default=True),
            click.option(
                "--warm-up", type=click.IntRange(0, 100), default=1, show_default=True,
                help="Runs before them that do not count. 0: for cold data.",
            ),
            click.option(
                "--neighbours", type=click.IntRange(0, 64),
                help="Processes that read everything in order meanwhile.",
            ),
            click.option("--seed", type=int, default=SEED, show_default=True, help="Of the order."),
            click.option("--data-seed", type=int, help="The data was written by `data` with it."),
            click.option("--json", "json_path", type=click.Path(dir_okay=False)),
        )
    ):  # fmt: skip
        function = option(function)
    return function


@click.command("load")
@click.argument("prefix", metavar="PREFIX|DIRECTORY")
@_options
def run_load(prefix: str, json_path: str | None, runs: int, **given: Any) -> None:
    """Put a load on a running server, a mount, a directory or a bucket, and measure it."""
    try:
        taken = [_record(each, given) for each in _measure(prefix, runs, given)]
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    _show(console(), taken)
    if json_path:
        document = {
            "format": FORMAT, "prefix": prefix, **given, "machine": machine.facts(), "runs": taken
        }  # fmt: skip
        with open(json_path, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


def _measure(prefix: str, runs: int, given: dict[str, Any]) -> list[Measured]:
    preset = WORKLOADS[given["workload"]]
    aim = Aim(Way(given["target"]), prefix, given["address"], given["bulk"], given["cluster"])
    found = aim.find(os.environ, given["data_seed"])
    spec = aim.spec(os.environ, keep_open=preset.read_bytes < 64 * _MIB)
    read_bytes = _bytes(given["read_size"]) if given["read_size"] else preset.read_bytes
    workload = Workload(preset.kind, read_bytes, given["seed"])
    load = Load(spec, found, workload, given["seconds"], given["rate"])
    noise = Load(
        spec,
        found,
        Workload(Kind.SEQUENTIAL, _MIB, given["seed"]),
        given["seconds"] + _NEIGHBOUR_LONGER_S,
    )
    neighbours = preset.neighbours if given["neighbours"] is None else given["neighbours"]
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(load, given["processes"]))
        noisy = stack.enter_context(Crew(noise, neighbours)) if neighbours else None
        for _ in range(given["warm_up"]):
            _run(crew, noisy)
        return [_run(crew, noisy) for _ in range(runs)]


def _run(crew: Crew[Share], noisy: Crew[Share] | None) -> Measured:
    if noisy is None:
        return together(crew.run())
    noisy.start()
    measured = together(crew.run())
    beside = together(noisy.finish())
    return Measured(**{**asdict(measured), "facts": {"neighbours_gb_per_s": beside.value}})


def _record(measured: Measured, given: dict[str, Any]) -> dict[str, Any]:
    """One run as it is shown and written."""
    rate = measured.operations / measured.seconds
    return {
        "gb_per_s": measured.value,
        "calls_per_s": rate,
        "kept_up": not given["rate"] or rate >= _LATE * given["rate"],
        "latency_ns": {
            f"p{percent:g}": value
            for percent, value in latency.percentiles_ns(measured.histogram).items()
        },
        "client_cpu_s_per_gb": measured.cpu_s_per_gb.get("client", 0.0),
        **asdict(measured),
    }


def _show(out: Console, runs: Sequence[dict[str, Any]]) -> None:
    table = Table("GB/s", "calls/s", "p50", "p90", "p99", "p99.9", "CPU s/GB", "", highlight=False)
    for run in runs:
        table.add_row(
            f"{run['gb_per_s']:.3g}",
            f"{run['calls_per_s']:,.0f}",
            *(duration(value) for value in run["latency_ns"].values()),
            f"{run['client_cpu_s_per_gb']:.3g}",
            "" if run["kept_up"] else "did not keep up with the rate",
        )
    out.print(table)


def _bytes(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
