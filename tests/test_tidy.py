"""Checks on the repository itself: what can be checked is a test, not a rule in somebody's head."""

import ast
import re
import subprocess
import sys
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("client/hotshard", "cache_server", "benchmarks", ".ci")
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50  # docstrings not counted
MAKE_VERBS_MAX = 12
BANNED_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}

# Modules without a test_<name>.py of their own: who tests them. The first pattern that fits counts.
TESTED_ELSEWHERE = {
    "cache_server/__main__.py": "tests/integration/test_bad_input.py",
    "cache_server/answer.py": "tests/unit/cache_server/test_service.py",
    "cache_server/cluster/joining.py": "tests/integration/cluster/test_membership.py",
    "cache_server/cluster/providers/provider.py": "tests/support/town.py",
    "cache_server/config/fields.py": "tests/unit/cache_server/config/test_model.py",
    "cache_server/cluster/bulk_c*.py": "tests/unit/cache_server/cluster/test_bulk_server.py",
    "cache_server/cluster/grpc_peer.py": "tests/integration/cluster/test_reads.py",
    "cache_server/cluster/origin.py": "tests/unit/cache_server/cluster/test_blocks.py",
    "cache_server/cluster/ports.py": "tests/support/cluster.py",
    "cache_server/cluster/wiring.py": "tests/integration/cluster/test_reads.py",
    "cache_server/doctor/__main__.py": "tests/integration/test_doctor.py",
    "client/hotshard/cli/fuse_probe.py": "tests/integration/test_doctor.py",
    "cache_server/config/__main__.py": "tests/unit/cache_server/config/test_reference.py",
    "cache_server/block_fill.py": "tests/unit/cache_server/test_cache.py",
    "cache_server/block_flight.py": "tests/unit/cache_server/cluster/test_blocks.py",
    "client/hotshard/cli/explaining.py": "tests/integration/test_cli.py",
    "client/hotshard/core/matching.py": "tests/unit/hotshard/core/test_placement.py",
    "cache_server/fill.py": "tests/unit/cache_server/test_cache.py",
    "cache_server/fills.py": "tests/unit/cache_server/test_cache.py",
    "cache_server/local_*.py": "tests/integration/test_bad_input.py",
    "cache_server/node.py": "tests/integration/test_promises.py",
    "cache_server/sources.py": "tests/integration/test_promises.py",
    "cache_server/upkeep.py": "tests/integration/test_promises.py",
    "cache_server/page/sections.py": "tests/unit/cache_server/page/test_page.py",
    "cache_server/page/datasets.py": "tests/unit/cache_server/page/test_page.py",
    "cache_server/page/tables.py": "tests/unit/cache_server/page/test_page.py",
    "cache_server/opened.py": "tests/unit/cache_server/test_cache.py",  # data only
    "cache_server/origins/s3_*.py": "tests/contract/test_s3_engine.py",
    "cache_server/origins/*.py": "tests/contract/test_origins.py",
    "client/hotshard/bulkports.py": "tests/integration/cluster/test_remote_clients.py",
    "client/hotshard/remote_async.py": "tests/contract/client/test_client.py",
    "client/hotshard/cli/cache_process.py": "tests/integration/conftest.py",
    "client/hotshard/cli/child.py": "tests/integration/test_demo.py",
    "client/hotshard/cli/demo*.py": "tests/integration/test_demo.py",
    "client/hotshard/cli/s3_server.py": "tests/conftest.py",
    "client/hotshard/cli/mounting.py": "tests/fuse/test_cli.py",
    "client/hotshard/cli/*.py": "tests/integration/test_cli.py",
    "client/hotshard/core/objects.py": "tests/unit/hotshard/core/test_blocks.py",  # data only
    **{
        f"client/hotshard/{name}.py": "tests/contract/client/test_client.py"
        for name in ("calls", "openfile", "packets", "remote", "routes", "transports")
    },
    **{
        f"client/hotshard/csi/{name}.py": f"tests/csi/test_{test}.py"
        for test, names in {
            "recovery": "driver keeper_line served",
            "volumes": "front mounter",
        }.items()
        for name in names.split()
    },
    "client/hotshard/direct/fallback_async.py": "tests/unit/hotshard/direct/test_fallback.py",
    "client/hotshard/direct/origin.py": "tests/contract/client/conftest.py",
    "client/hotshard/mount/abi.py": "tests/unit/hotshard/mount/test_codec.py",
    **{
        f"client/hotshard/mount/{name}.py": f"tests/fuse/test_{test}.py"
        for test, names in {
            "names": "directories filesystem names parts",
            "reads": "contents device files source",
            "recovery": "answers keeper late loop pool publish reader starting",
            "server": "server_source",
        }.items()
        for name in names.split()
    },
    "client/hotshard/steps.py": "tests/unit/hotshard/test_ops.py",
    "client/hotshard/wire.py": "tests/unit/cache_server/test_service.py",
}


def tracked(*suffixes: str) -> list[Path]:
    """Files that git knows or would know, with one of the suffixes."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout.decode()
        found = [ROOT / name for name in listed.split("\0") if name]
    except (
        FileNotFoundError,
        subprocess.CalledProcessError,
    ):  # an unpacked archive, or no git here
        found = [
            path
            for path in ROOT.rglob("*")
            if path.is_file()
            and not any(part.startswith((".venv", ".git")) for part in path.relative_to(ROOT).parts)
        ]
    return sorted(path for path in found if path.is_file() and path.name.endswith(suffixes))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def source_modules() -> list[Path]:
    """Our own modules; generated ones are not."""
    return [
        path
        for path in tracked(".py")
        if named(path).startswith(tuple(f"{source}/" for source in SOURCES))
        and "_pb2" not in path.name
    ]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the `def` to the end, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def test_modules_are_short() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in source_modules()}
    assert lengths
    assert {n: length for n, length in lengths.items() if length > MODULE_LINES_MAX} == {}


def test_functions_are_short() -> None:
    long = {
        f"{named(path)}:{node.lineno} {node.name}": body_lines(node)
        for path in source_modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and body_lines(node) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_modules_are_named_for_what_they_are() -> None:
    assert [named(path) for path in source_modules() if path.stem in BANNED_NAMES] == []


def test_modules_say_what_they_are() -> None:
    silent = [
        named(path)
        for path in source_modules()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_every_module_has_tests() -> None:
    test_files = {path.name for path in tracked(".py") if named(path).startswith("tests/")}
    untested = [
        name
        for path in source_modules()
        if (name := named(path)).startswith(("client/", "cache_server/"))
        and path.name != "__init__.py"
        and f"test_{path.stem}.py" not in test_files
        and not any(PurePath(name).match(pattern) for pattern in TESTED_ELSEWHERE)
    ]
    assert untested == []


def test_the_list_of_modules_tested_elsewhere_is_true() -> None:
    names = [named(path) for path in source_modules()]
    assert [p for p in TESTED_ELSEWHERE if not any(PurePath(name).match(p) for name in names)] == []
    assert [where for where in TESTED_ELSEWHERE.values() if not (ROOT / where).exists()] == []


def test_nothing_is_left_undone_in_comments() -> None:
    marker = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    found = [
        f"{named(path)}:{number}"
        for path in tracked(".py", ".proto", ".md", "Makefile")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marker.search(line)
    ]
    assert found == []


def test_no_path_of_a_developers_machine() -> None:
    place = re.compile(r"(?<![\w.])/(work|ro" + r"ot|home/[a-z]+)/[\w.]")
    found = [
        f"{named(path)}:{number}: {line.strip()}"
        for path in tracked(".py", ".md", ".toml", ".proto", ".yaml", ".json", "Makefile", "run")
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if place.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("path", tracked(".md"), ids=named)
def test_a_document_has_one_title(path: Path) -> None:
    text = re.sub(r"^(```|~~~).*?^\1", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("path", tracked(".md"), ids=named)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not leads_somewhere(path, link)] == []


def leads_somewhere(path: Path, link: str) -> bool:
    """Whether the file is there, and the heading that the part behind "#" names."""
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    if not target.exists() or not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
    return anchor in {
        re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings
    }


def test_every_module_is_on_the_map() -> None:
    words = (ROOT / "docs" / "ARCHITECTURE.md").read_text().replace(",", " ").split()
    tops = (ROOT / "client" / "hotshard", ROOT / "cache_server")
    modules = {path.name for top in tops for path in top.glob("*.py")} - {"__init__.py"}
    assert modules - set(words) == set()


def test_make_has_few_verbs_and_lists_them_all() -> None:
    text = (ROOT / "Makefile").read_text()
    verbs = re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE)
    assert 0 < len(verbs) <= MAKE_VERBS_MAX
    assert [verb for verb in verbs if not re.search(rf"^{verb}:.*## ", text, re.MULTILINE)] == []


def test_every_command_is_documented() -> None:
    from hotshard.cli.app import COMMANDS

    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    words = "\n".join(path.read_text() for path in documents)
    assert [n for n in COMMANDS if not re.search(rf"hotshard (-\S+ \S+ )*{n}\b", words)] == []


def test_import_loads_nothing_heavy() -> None:
    modules = "hotshard, hotshard.direct.fallback, hotshard.local"
    program = f"import sys, {modules}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    heavy = {
        "asyncio",
        "grpc",
        "obstore",
        "aiobotocore",
        "botocore",
        "click",
        "rich",
        "yaml",
        "pydantic",
        "torch",
    }
    assert heavy.isdisjoint(loaded)
    assert "cache_server" not in loaded


# -- docs/SEMANTICS.md ---------------------------------------------------------------------------
#
#   ## 4. Eviction
#   - **A promise.** More about it.
#     Tests: `test_one`, `test_two`
#
# and in those tests a docstring with `SEMANTICS 4: a promise.` Line breaks, the case of the first letter
# and the final full stop do not count; every other character does.

SECTION = re.compile(r"^## (\d+)\. .*\n((?:(?!^## ).*\n?)*)", re.MULTILINE)
PROMISE = re.compile(r"^- \*\*(.+?)\*\*(.*?)^  Tests: (.+?)(?=^\S|^$)", re.MULTILINE | re.DOTALL)
QUOTE = re.compile(r"SEMANTICS (\d+): (.+?)(?=\n\s*\n|\bSEMANTICS \d+:|\Z)", re.DOTALL)
Promise = tuple[int, str]


def promise(number: str, sentence: str) -> Promise:
    words = " ".join(sentence.split()).removesuffix(".")
    return int(number), words[:1].lower() + words[1:]


def promises() -> dict[Promise, set[str]]:
    """Each promise, and the tests that are named for it."""
    text = (ROOT / "docs" / "SEMANTICS.md").read_text() + "\n"
    return {
        promise(number, sentence): set(re.findall(r"`(\w+)`", tests))
        for number, body in SECTION.findall(text)
        for sentence, _, tests in PROMISE.findall(body)
    }


def quotes() -> list[tuple[Promise, str]]:
    """Each promise that a test quotes, with the name of the test."""
    return [
        (promise(number, sentence), node.name)
        for path in tracked(".py")
        if path.name.startswith("test_")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        for number, sentence in QUOTE.findall(ast.get_docstring(node) or "")
    ]


def test_every_sentence_in_bold_is_a_promise_with_tests() -> None:
    text = (ROOT / "docs" / "SEMANTICS.md").read_text()
    assert len(promises()) == len(re.findall(r"^- ", text, re.MULTILINE)) > 0
    numbers = [int(number) for number, _ in SECTION.findall(text)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_tests_of_a_promise_quote_it() -> None:
    quoted = quotes()
    silent = [
        (made, test)
        for made, tests in promises().items()
        for test in tests
        if (made, test) not in quoted
    ]
    assert silent == []
    assert [made for made, tests in promises().items() if not tests] == []


def test_no_test_quotes_a_promise_that_is_not_made() -> None:
    made = promises()
    assert [quote for quote in quotes() if quote[0] not in made] == []
