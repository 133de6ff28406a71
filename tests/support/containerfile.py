"""A Containerfile as steps that a test can run itself, without a container engine."""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One FROM, and what follows."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """The arguments of every instruction of a kind."""
        return [text for word, text in self.steps if word == instruction]

    def without(self, instruction: str) -> "Stage":
        """The same, but for some steps."""
        kept = [step for step in self.steps if step[0] != instruction]
        return Stage(self.base, self.name, kept)


def stages(path: Path) -> list[Stage]:
    """Every stage, with the build arguments before the first one put in."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if not word:
            continue
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(arguments.get(base.strip("${}"), base), name))
        elif not found:
            name, _, value = rest.partition("=")
            arguments[name] = value
        else:
            found[-1].steps.append((word, rest.strip()))
    return found


def build(stage: Stage, root: Path, context: Path, environ: dict[str, str]) -> None:
    """Run the steps of a stage in the root file system `root`, as root."""
    place = "/"
    environment = dict(environ)
    for word, text in stage.steps:
        if word == "ARG":
            name, _, value = text.partition("=")
            environment.setdefault(name, value)
        elif word == "ENV":
            for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', text):
                environment[name] = value.strip('"')
        elif word == "WORKDIR":
            place = text
            (root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            *sources, target = text.split()
            _copy([context / s for s in sources], root / place.lstrip("/"), target)
        elif word == "RUN":
            given = [f"{name}={value}" for name, value in environment.items() if value]
            shell = ["sh", "-ec", f"cd {place} && {text}"]
            subprocess.run(["chroot", str(root), "env", "-i", *given, *shell], check=True)


def _copy(sources: list[Path], place: Path, target: str) -> None:
    for source in sources:
        into = place / target / source.name if target.endswith("/") else place / target
        if source.is_dir():
            shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, into)
