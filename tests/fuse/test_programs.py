"""Programs that know nothing of hotshard: the same result on a mount as on a local copy.

tarfile, zipfile, sqlite3 and git on a real bucket are in test_server.py. What is not installed is skipped.
"""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

MODES = ("passthrough", "cached", "no_open")


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    root: Path = tmp_path_factory.mktemp("local")
    rnd = random.Random(5)
    for name in ("a/x.bin", "a/y.bin", "b/c/z.bin", "top.bin"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rnd.randbytes(rnd.randrange(300_000)))
    return root


def output(command: str, where: Path) -> str:
    run = subprocess.run(
        command, shell=True, cwd=where, check=True, timeout=60, capture_output=True, text=True
    )
    return run.stdout


def need(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize("mode", MODES)
def test_numpy_memmap(mount, local, mode):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1_000_000, dtype="<f4").reshape(1000, 1000)
    numpy.save(local / "array.npy", array)
    mounted = mount(local, mode=mode)
    ours = numpy.load(mounted / "array.npy", mmap_mode="r")
    assert isinstance(ours, numpy.memmap)
    assert (ours[::7, ::11] == array[::7, ::11]).all()
    assert float(ours.sum(dtype="f8")) == float(array.sum(dtype="f8"))
    del ours


@pytest.mark.parametrize("mode", MODES)
def test_pyarrow_scans_a_parquet_data_set(mount, tmp_path, mode):
    pyarrow = pytest.importorskip("pyarrow")
    dataset = pytest.importorskip("pyarrow.dataset")
    parquet = pytest.importorskip("pyarrow.parquet")
    source = tmp_path / "source"
    for part in range(3):
        (source / f"part={part}").mkdir(parents=True)
        numbers = pyarrow.array(range(part * 10_000, part * 10_000 + 10_000))
        table = pyarrow.table({"i": numbers, "text": [f"row {n}" for n in range(10_000)]})
        parquet.write_table(table, source / f"part={part}" / "data.parquet", row_group_size=1000)
    mounted = mount(source, mode=mode)

    def scan(root: Path):
        rows = dataset.dataset(root, format="parquet", partitioning="hive")
        wanted = dataset.field("i") > 12_345
        return rows.to_table(columns=["i", "text", "part"], filter=wanted).sort_by("i")

    ours = scan(mounted.path)
    assert ours.num_rows == 17_654
    assert ours.equals(scan(source))


@pytest.mark.parametrize("mode", MODES)
def test_safetensors_load(mount, tmp_path, mode):
    numpy = pytest.importorskip("numpy")
    safetensors = pytest.importorskip("safetensors.numpy")
    source = tmp_path / "source"
    source.mkdir()
    tensors = {f"layer.{i}": numpy.full((64, 100 + i), i, dtype="<f4") for i in range(20)}
    safetensors.save_file(tensors, source / "model.safetensors")
    mounted = mount(source, mode=mode)
    ours = safetensors.load_file(mounted / "model.safetensors")
    assert set(ours) == set(tensors)
    assert all((ours[name] == tensors[name]).all() for name in tensors)


def test_rsync_finds_nothing_to_copy(mount, local):
    need("rsync")
    mounted = mount(local)
    for compare in ("", "--checksum"):
        same = f"rsync -rtn --out-format=%n {compare} --omit-dir-times {mounted.path}/ {local}/"
        assert output(same, local) == ""
    (local / "new.bin").write_text("only here")
    other = f"rsync -rn --out-format=%n {local}/ {mounted.path}/"
    assert "new.bin" in output(other, local)
    (local / "new.bin").unlink()


def test_find_du_and_diff(mount, local):
    mounted = mount(local)
    for command in (
        "find . -type f -name '*.bin' -size +1k -printf '%P %s %T@\\n' | sort",
        "find . -mindepth 1 -type d -printf '%P\\n' | sort",
        "du --apparent-size -b a/*.bin b/c/*.bin top.bin | sort",
        "find . -type f -print0 | sort -z | xargs -0 sha256sum",
        "grep -rl . . | sort",
    ):
        assert output(command, mounted.path) == output(command, local)
    assert output(f"diff -r {local} {mounted.path}", local) == ""
