"""The command line without a server: parsing, exit codes, what is printed."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotshard.calls import Money
from hotshard.cli import app, copying, exits, operating, output
from hotshard.cli.session import GRPC_DEFAULT, Session
from hotshard.core import errors
from hotshard.core.objects import ObjectInfo


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--help"]) == exits.OK
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in app.COMMANDS)
    assert all(f"{code}  " in text for code in (0, 1, 2, 3, 4, 5, 6, 130))


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == exits.OK
    assert capsys.readouterr().out.startswith("Usage: hotshard")


@pytest.mark.parametrize("name", app.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([name, "--help"]) == exits.OK
    assert f"Usage: hotshard {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ls"],
        ["cat", "--offset", "-1", "s3://b/k"],
        ["cat", "--length", "x", "s3://b/k"],
        ["warm"],
        ["cp", "s3://b/k"],
        ["cp", "-j", "0", "s3://b/k", "here"],
        ["config"],
        ["config", "nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == exits.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hotshard: ")
    assert printed.err.count("\n") == 1
    assert "--help`" in printed.err


@pytest.mark.parametrize("command", [["ls"], ["stat"], ["cat"], ["warm"], ["prefetch"]], ids=str)
def test_no_server_is_said_in_one_line(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOTSHARD_ADDRESS", f"unix://{tmp_path}/none.sock")
    assert app.run([*command, "s3://bucket/key"]) == exits.UNAVAILABLE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hotshard: ")
    assert printed.err.count("\n") == 1


def test_an_address_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--address", "nonsense", "ls", "s3://bucket/"]) == exits.USAGE
    assert "host:port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest("x"), exits.USAGE),
        (errors.ConfigError(["x"]), exits.USAGE),
        (errors.NotFound("x"), exits.NOT_FOUND),
        (errors.PermissionDenied("x"), exits.PERMISSION),
        (errors.ServerUnavailable("x"), exits.UNAVAILABLE),
        (errors.OriginUnavailable("x"), exits.UNAVAILABLE),
        (errors.Overloaded("x"), exits.UNAVAILABLE),
        (errors.StaleObject("x"), exits.FAILED),
        (errors.CorruptData("x"), exits.FAILED),
        (errors.InternalError("x"), exits.FAILED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_error_has_its_exit_code(error: errors.HotshardError, code: int) -> None:
    failure = exits.failure_of(error)
    assert failure.code == code
    assert failure.line.startswith("hotshard: ")
    assert "x" in failure.what


def test_advice_is_given_once() -> None:
    advised = exits.failure_of(errors.PermissionDenied("not served; add it under `origins`"))
    assert advised.line == "hotshard: not served; add it under `origins`"


def test_a_broken_pipe_is_quiet() -> None:
    program = "import sys; from hotshard.cli.app import run; sys.exit(run(['--help'] ))"
    reader, writer = subprocess.PIPE, subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdout=reader, stderr=writer) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""


def loaded_by(*arguments: str) -> set[str]:
    """Which modules a command line has loaded when it ends."""
    program = (
        f"import sys; from hotshard.cli.app import run; run({list(arguments)!r});"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stderr.split())


def test_the_list_of_commands_loads_none_of_them() -> None:
    loaded = loaded_by("--help")
    modules = {f"hotshard.cli.{place.partition(':')[0]}" for place, _ in app.COMMANDS.values()}
    assert modules.isdisjoint(loaded)
    assert {"grpc", "rich", "hotshard.client", "importlib.metadata"}.isdisjoint(loaded)


def test_a_command_loads_no_other() -> None:
    """The mount's and the driver's commands: programs wait for them to start."""
    for arguments in (["mount", "--help"], ["csi", "serve", "--help"]):
        loaded = loaded_by(*arguments)
        names = {name for name in loaded if name.startswith("hotshard.cli.")}
        assert names <= {f"hotshard.cli.{name}" for name in
                         ("app", "exits", "session", "mounting", "container_storage")}  # fmt: skip
        assert {"hotshard.client", "hotshard.calls", "importlib.metadata"}.isdisjoint(loaded)


# -- where the operator's calls go ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "variable", "expected"),
    [
        (Session(), "", GRPC_DEFAULT),
        (Session(address="unix:///run/x.sock"), "", GRPC_DEFAULT),
        (Session(address="node:7070"), "", "node:7070"),
        (Session(address="node:7070", grpc_address="other:1"), "", "other:1"),
        (Session(), "node:7071", "node:7071"),
        (Session(), "unix:///run/x.sock", GRPC_DEFAULT),
    ],
    ids=str,
)
def test_grpc_address(
    session: Session, variable: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTSHARD_ADDRESS", variable)
    assert session.grpc_target == expected


# -- output --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536 << 10, "1.50 MiB"),
        (1 << 40, "1.00 TiB"),
        (1 << 60, "1024.00 PiB"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (200, "3 min 20 s"), (18720, "5 h 12 min")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


@given(st.text())
def test_no_name_can_drive_a_terminal(name: str) -> None:
    shown = output.printable(name)
    assert shown.isprintable() or shown == ""


def test_columns_are_aligned() -> None:
    lines = output.columns_of([("name", "size"), ("a", "1"), ("long", "100")], (False, True))
    assert lines == ["name  size", "a        1", "long   100"]


def test_a_table_in_a_pipe_has_no_escape_codes(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("a", "b"), [("[red]x", "1")], title="t", right=("b",))
    assert capsys.readouterr().out == "t\na       b\n[red]x  1\n"


def test_a_table_on_a_terminal_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    output.print_table(("a", "b"), [("[red]x", "1")])
    assert "[red]x" in terminal.getvalue()


def test_errors_inside_documents_are_told_apart() -> None:
    document = output.plain({"failures": (errors.NotFound("gone", uri="s3://b/k"),)})
    failure = {"error": "NotFound", "uri": "s3://b/k", "message": "gone"}
    assert json.loads(json.dumps(document)) == {"failures": [failure]}


# -- cp: names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["../x", "a/../../x", "a//b", "/etc/passwd", ".", "a/.", ""])
def test_no_key_leaves_the_target_directory(key: str) -> None:
    with pytest.raises(exits.Failure):
        copying.local_path("target", key)


@given(st.text().filter(lambda key: "\0" not in key))
def test_a_local_path_stays_below_the_directory(key: str) -> None:
    try:
        path = copying.local_path("/target", key)
    except exits.Failure:
        return
    assert Path(path).is_relative_to("/target")
    assert ".." not in Path(path).parts


def test_an_object_goes_to_a_file_or_into_a_directory(tmp_path: Path) -> None:
    info = ObjectInfo("s3://b/dir/x.tar", "v", 1, 0)
    into = copying.one_object(info, str(tmp_path))
    assert (into.directory, into.key) == (str(tmp_path), "x.tar")
    named = copying.one_object(info, str(tmp_path / "y"))
    assert (named.directory, named.key) == (str(tmp_path), "y")


def test_savings_are_told_as_fewer_requests_and_more() -> None:
    owner = Money({"GET": 1200.0, "HEAD": -22.0, "LIST": 0.0}, avoided_bytes=2 << 20, saved_usd=0.5)
    said = operating._saved(owner)
    assert "avoided: 1,200 GET, 2.00 MiB" in said
    assert "added: 22 HEAD" in said
    assert "LIST" not in said
    assert "added" not in operating._saved(Money())
