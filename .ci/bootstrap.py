"""Makes a virtual environment and installs hotshard into it, with nothing but the standard library.

    python3 .ci/bootstrap.py <directory> <extra> [...]

Works where Debian and Ubuntu leave ensurepip out of python3: then pip's own wheel is fetched from the
index that pip's usual configuration names, checked against the hash below, and run from the wheel to
install itself. A stamp in the directory makes the next run a matter of milliseconds; it holds as long
as pyproject.toml, the interpreter and the place of the checkout stay the same.
"""

from __future__ import annotations  # an older Python must get as far as saying that it is too old

import configparser
import hashlib
import importlib.util
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
TIMEOUT_S = 60


class SetupFailed(Exception):
    """What the user has to know, in one line."""


def main(directory: str, extras: list[str]) -> None:
    """Make the environment if it is not there, and install what is missing."""
    if sys.version_info < OLDEST:
        raise SetupFailed(
            f"hotshard needs Python {OLDEST[0]}.{OLDEST[1]} or newer, {sys.executable} is"
            f" {sys.version.split()[0]}: name another with `make PYTHON=python3.12 ...`"
        )
    venv = ROOT / directory
    stamp = venv / "hotshard-setup.json"
    wanted = {
        "pyproject": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
        "python": sys.version,
        "root": str(ROOT),
    }
    installed = read_stamp(stamp, wanted)
    if installed is not None and installed.issuperset(extras):
        return
    if installed is None or not (venv / "bin" / "pip").exists():
        make(venv)
    extras = sorted((installed or set()).union(extras))
    print(f"setup: installing hotshard[{','.join(extras)}] into {directory}", flush=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--editable", f"{ROOT}[{','.join(extras)}]"])
    stamp.write_text(json.dumps({**wanted, "extras": extras}))


def read_stamp(stamp: Path, wanted: dict[str, str]) -> set[str] | None:
    """The extras that are installed; None: not installed, or for other circumstances."""
    try:
        found = json.loads(stamp.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    same = all(found.get(key) == value for key, value in wanted.items())
    return set(found["extras"]) if same else None


def make(venv: Path) -> None:
    """A fresh environment with pip in it."""
    print(f"setup: creating {venv.name} with Python {sys.version.split()[0]}", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    if importlib.util.find_spec("ensurepip") is not None:
        run([sys.executable, "-m", "venv", str(venv)])
        return
    run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    with tempfile.TemporaryDirectory() as scratch:
        wheel = Path(scratch) / PIP_WHEEL
        wheel.write_bytes(fetch_pip())
        python = str(venv / "bin" / "python")
        pip = [python, str(wheel / "pip"), "--disable-pip-version-check"]
        run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)])


def run(command: list[str]) -> None:
    """Run a program; its output is the user's."""
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise SetupFailed(f"`{' '.join(command)}` failed: see above")


def fetch_pip() -> bytes:
    """The wheel of pip from the first configured index that has it."""
    problems = []
    for index in indexes():
        page_url = f"{index.rstrip('/')}/pip/"
        try:
            page = fetch(page_url).decode(errors="replace")
            link = re.search(rf'href="([^"]*{re.escape(PIP_WHEEL)}[^"]*)"', page)
            if link is None:
                problems.append(f"{index} has no {PIP_WHEEL}")
                continue
            data = fetch(urllib.parse.urljoin(page_url, link.group(1).split("#")[0]))
        except (urllib.error.URLError, OSError) as error:
            problems.append(f"{index}: {getattr(error, 'reason', error)}")
            continue
        if hashlib.sha256(data).hexdigest() == PIP_SHA256:
            return data
        problems.append(f"{index}: {PIP_WHEEL} is not the file that was pinned")
    raise SetupFailed(
        "this python3 comes without ensurepip, and pip could not be fetched:\n  "
        + "\n  ".join(problems)
        + "\n  Either `apt-get install python3-venv`, or name an index: PIP_INDEX_URL=https://..."
    )


def fetch(url: str) -> bytes:
    """The content behind an address.

    A minimal system has no CA certificates. What is fetched here is checked against its own hash, so
    that is no reason to stop, unless the address holds a password that a stranger must not see.
    """
    certificates = setting("cert")
    context = ssl.create_default_context(cafile=certificates)
    if not context.cert_store_stats()["x509_ca"] and "@" not in urllib.parse.urlsplit(url).netloc:
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
    with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=context) as reply:  # noqa: S310
        data: bytes = reply.read()
    return data


def indexes() -> list[str]:
    """The indexes pip would ask."""
    first = setting("index-url") or "https://pypi.org/simple"
    return [first, *(setting("extra-index-url") or "").split()]


def setting(name: str) -> str | None:
    """A setting of pip: its environment variable, else the last configuration file that has it."""
    from_environment = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
    if from_environment:
        return from_environment
    home = Path.home()
    named = os.environ.get("PIP_CONFIG_FILE")
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        Path(os.environ.get("XDG_CONFIG_HOME", home / ".config")) / "pip/pip.conf",
        *([Path(named)] if named else []),
    ]
    parser = configparser.RawConfigParser()
    parser.read(files if named != os.devnull else [])
    for section in ("install", "global"):
        if parser.has_option(section, name):
            return parser.get(section, name)
    return None


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except SetupFailed as failure:
        sys.exit(f"setup: {failure}")
