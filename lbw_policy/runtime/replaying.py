"""A policy over recorded telemetry: what it would decide, tick by tick. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, repeat

from attrs import frozen

from lbw_policy.diagnostics import nearest, printable
from lbw_policy.errors import TraceError
from lbw_policy.machine import Session, Turn
from lbw_policy.record import Intervention, Ledger
from lbw_policy.risk import Prior
from lbw_policy.runtime.cadence import cadence, clips, clips_layers
from lbw_policy.runtime.deciding import Deciding, Readings, risk_models
from lbw_policy.runtime.records import Recorder
from lbw_policy.semantics.policy import Policy, Signal
from lbw_policy.semantics.walk import own
from lbw_policy.traces import TICK, Column, Trace


class Replay:
    """One policy over recorded telemetry, in the open loop: what it decides changes nothing that comes later.

    It decides as a guard in mode `shadow` does on the same readings: every update of the trace happened,
    so progress goes on, and what was granted is taken for done only by the budgets.
    `records` are those of the last tick, `ledger.counts` counts those of all.
    """

    mode = "shadow"

    def __init__(self, policy: Policy, first_tick: int = 0, seed: int = 0, prior: Prior | None = None) -> None:
        self.policy = policy
        self.session = Session(policy)
        self.session.tick = first_tick
        self.deciding = Deciding(self.session, risk_models(policy, seed, prior))
        self.ledger = Ledger()
        self._recorder = Recorder(self.deciding, self.ledger, aloud=False)

    @property
    def records(self) -> Sequence[Intervention]:
        """What the last tick began: interventions, refusals, alerts."""
        return self.ledger.records

    def tick(self, values: Readings, readings: Readings) -> Turn:
        """Decide on one tick's signals by name and the same readings by source, and go on to the next."""
        self.ledger.records.clear()
        turn = self.deciding.decide(values, readings)
        self._recorder.tick(self, turn, ())
        self.deciding.learn(readings, intervened=False)
        self.session.finish(applied=True)
        return turn

    def drivers(self, rule: str) -> tuple[str, ...]:
        """Return which features raise the trusted risks that a rule reads, a line each."""
        return self._recorder.drivers(rule)

    def forget_records(self) -> None:
        """Start counting anew."""
        self.ledger.forget()


@frozen
class Binding:
    """Which column each signal and each built-in source is read from, by name.

    `absent` are the sources that only a risk's standard features would read and no column has;
    `doubtful` the signals, with their source, that two columns are named after: their own was taken.
    """

    signals: Mapping[str, str]
    sources: Mapping[str, str]
    absent: tuple[str, ...] = ()
    doubtful: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def wanted(policy: Policy) -> frozenset[str]:
        """Return the names of all columns that a policy might read."""
        return frozenset([*cadence(policy), *_names(policy)])

    @classmethod
    def of(cls, policy: Policy, names: Sequence[str]) -> Binding:
        """Bind a policy to a trace's columns: a signal's own name first, then its source's.

        Raises TraceError, naming every column that is missing.
        """
        known = set(names) - {TICK}
        read = [signal for signal in policy.signals if not own(signal)]
        signals = {one.name: _column(one, known) for one in read}
        sources = _sources(policy, known, {one.key: signals[one.name] for one in reversed(read)})
        missing = [_missing(one, names) for one in read if not signals[one.name]]
        if clips(policy) and "grad_norm" not in sources and not any(one.key == "grad_norm" for one in read):
            missing.append(f"no column `grad_norm`, which `clip` needs{_nearest('grad_norm', names)}")
        if clips_layers(policy) and "grad_norm_max" not in sources:
            missing.append(f"no column `grad_norm_max`, which `clip layers` needs{_nearest('grad_norm_max', names)}")
        if missing:
            raise TraceError("\n".join(missing))
        absent = tuple(source for source in cadence(policy) if source not in sources)
        doubtful = tuple((o.name, o.key) for o in read if o.name != o.key and {o.name, o.key} <= known)
        return cls(signals, sources, absent, doubtful)


def _names(policy: Policy) -> Iterator[str]:
    for signal in policy.signals:
        if not own(signal):
            yield from (signal.name, signal.key)


def _column(signal: Signal, known: set[str]) -> str:
    """Return the column a signal is read from, empty if there is none."""
    return next((name for name in (signal.name, signal.key) if name in known), "")


def _sources(policy: Policy, known: set[str], read: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of the built-in sources: what a signal reads, else the column of that name."""
    taken = {signal.name for signal in policy.signals}
    found = {source: read.get(source) or (source if source in known - taken else "") for source in cadence(policy)}
    return {source: column for source, column in found.items() if column}


def _missing(signal: Signal, names: Sequence[str]) -> str:
    either = f" or `{signal.name}`" if signal.name != signal.key else ""
    near = _nearest(signal.key, names) or _nearest(signal.name, names)
    return f"no column `{signal.key}`{either}, which signal `{signal.name}` reads{near or _list(names)}"


def _nearest(word: str, names: Sequence[str]) -> str:
    near = nearest(word, names)
    return f"; did you mean `{printable(near)}`?" if near else ""


def _list(names: Sequence[str]) -> str:
    few = ", ".join(f"`{printable(name)[:40]}`" for name in names[:8])
    return f"; the trace has {few}{', ...' if len(names) > 8 else ''}"


@frozen
class _Reader:
    """Reads some names from their columns; a name is due at the ticks that its `every` divides."""

    names: tuple[str, ...]
    columns: tuple[Column, ...]
    slow: tuple[tuple[str, int], ...]
    rows: int

    @classmethod
    def of(cls, trace: Trace, columns: Mapping[str, str], every: Mapping[str, int]) -> _Reader:
        slow = tuple((name, every[name]) for name in columns if every[name] > 1)
        return cls(tuple(columns), tuple(trace.columns[name] for name in columns.values()), slow, trace.rows)

    def __iter__(self) -> Iterator[tuple[float | None, ...]]:
        return iter(zip(*self.columns, strict=True)) if self.columns else repeat((), self.rows)

    def named(self, tick: int, row: tuple[float | None, ...]) -> dict[str, float | None]:
        values = dict(zip(self.names, row, strict=True))
        for name, every in self.slow:
            if tick % every:
                values[name] = None
        return values


def readings(policy: Policy, trace: Trace, binding: Binding) -> Iterator[tuple[Readings, Readings]]:
    """Yield each tick's signals by name and sources by name, None where one is absent or not due."""
    signals = _Reader.of(trace, binding.signals, {signal.name: signal.every for signal in policy.signals})
    sources = _Reader.of(trace, binding.sources, cadence(policy))
    for tick, told, read in zip(count(trace.first), signals, sources, strict=False):
        yield signals.named(tick, told), sources.named(tick, read)
