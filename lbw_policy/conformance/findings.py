"""What a check has found."""

from __future__ import annotations

from attrs import define, field, frozen


@frozen
class Finding:
    """One way in which a plugin breaks its contract: what it does, and where and why that is wrong."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@define
class Findings:
    """Collects findings; of each kind the first is kept."""

    _found: dict[str, Finding] = field(init=False, factory=dict)

    def add(self, what: str, why: str) -> None:
        """Keep a finding, unless there is one of its kind."""
        self._found.setdefault(what, Finding(what, why))

    def all(self) -> tuple[Finding, ...]:
        """Return what was found, in the order it was found in."""
        return tuple(self._found.values())


def raised(error: BaseException) -> str:
    """Return an exception in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
