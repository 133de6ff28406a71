"""What a check of a node found: how bad it is, the fact, and how to mend it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, less well than it could."""
    FAIL = "fail"
    """It does not work."""
    SKIPPED = "skipped"
    """It could not be looked at; the fact says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    """What was looked at: "kernel", "origin s3://bucket/"."""
    verdict: Verdict
    fact: str
    remedy: str = ""
    """What to do about it; empty: nothing."""

    def document(self) -> dict[str, str]:
        """As JSON."""
        return {
            "check": self.check,
            "verdict": str(self.verdict),
            "fact": self.fact,
            "remedy": self.remedy,
        }

    @classmethod
    def of(cls, document: dict[str, str]) -> "Finding":
        """From JSON."""
        return cls(
            document["check"],
            Verdict(document["verdict"]),
            document["fact"],
            document["remedy"],
        )


def ok(check: str, fact: str) -> Finding:
    """It is well."""
    return Finding(check, Verdict.OK, fact)


def warn(check: str, fact: str, remedy: str) -> Finding:
    """It could be better."""
    return Finding(check, Verdict.WARN, fact, remedy)


def fail(check: str, fact: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.FAIL, fact, remedy)


def skipped(check: str, why: str) -> Finding:
    """It could not be looked at."""
    return Finding(check, Verdict.SKIPPED, why)


def worst(findings: Iterable[Finding]) -> Verdict:
    """Of all of them; what was skipped does not count."""
    found = {finding.verdict for finding in findings}
    for verdict in (Verdict.FAIL, Verdict.WARN):
        if verdict in found:
            return verdict
    return Verdict.OK
