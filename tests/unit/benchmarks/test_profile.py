import os
import subprocess
import sys
import sysconfig

import pytest
from click.testing import CliRunner

from benchmarks import profile
from benchmarks.__main__ import main
from benchmarks.bench import Bench, Scale
from benchmarks.results import BenchError
from benchmarks.rows import select

BENCHMARK = 'process 1:"python -m benchmarks profile x"'
SERVER = 'process 2:"python -m cache_server --config /x"'
CLIENT = 'process 3:"python -c from multiprocessing.spawn import spawn_main"'


def test_samples_are_counted_by_program_and_function(tmp_path):
    (tmp_path / "spy-1").write_text(
        f"{BENCHMARK};main (a.py:1);read (b.py:7) 3\n"
        f"{BENCHMARK};main (a.py:1);read (b.py:9) 2\n"
        f"{BENCHMARK};{SERVER};run (loop.py:5) 4\n"
        'process 9:"python -c\nimport x";main (x.py:1) 0\n'
        f"{BENCHMARK};{CLIENT};read (b.py:7) 1\n"
        f"{BENCHMARK};{SERVER};_find (<frozen importlib._bootstrap>:1);exec (x.py:1) 6\n"
    )
    assert profile._python(str(tmp_path)) == {
        "benchmark: read (b.py)": 5,
        "cache_server: run (loop.py)": 4,
        "benchmark: main (x.py)": 0,
        "client process: read (b.py)": 1,
        "cache_server: imports": 6,
    }


def test_a_sampler_that_left_nothing_counts_nothing(tmp_path):
    assert not profile._system(str(tmp_path))
    assert profile._shares(profile._python(str(tmp_path))) == []


def test_our_children_and_those_who_name_the_directory_are_found(tmp_path):
    """A mount is no child of ours: it is known by the directory it was given."""
    program = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as child:
        tree, outside = profile._processes(str(tmp_path / "nobody"))
        child.kill()
    assert {os.getpid(), child.pid} <= set(tree)
    assert outside == []


def test_without_a_sampler_there_is_no_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    (row,) = select(["harness.self"])
    with pytest.raises(BenchError, match="py-spy"):
        profile.profile(row, Bench(str(tmp_path), Scale.TINY), seconds=0.1)


def test_a_profile_is_of_one_row():
    done = CliRunner().invoke(main, ["profile", "scale"])
    assert (done.exit_code, "one is wanted" in done.output) == (2, True)
