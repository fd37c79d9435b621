"""What the language costs, beside cel-python and RTAMT: `python benchmarks/language.py`.

One run prints one set of markdown tables. All arms of a table take turns, block by block, so that a
busy machine is busy for each; a cell has the median over the blocks and, in brackets, its quartiles.
The peers come with `pip install -c constraints.txt -e '.[bench]'`; one that is missing is named.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import io
import itertools
import json
import logging
import os
import platform
import random
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define
from timing import MS, US, Arm, Times, in_turns, missing, show

from lbw_policy.diagnostics import Source
from lbw_policy.machine import Evaluator, RiskValues, Session, by_signal
from lbw_policy.resources import presets
from lbw_policy.semantics import Policy, check_source, load
from lbw_policy.syntax import MAX_CHARACTERS

Values = Mapping[str, float | None]


# (a) Conditions without memory, against cel-python

SIGNALS = ("a", "b", "c", "d")
DECLARED = "lbw 1\npolicy p { }\n" + "".join(f"signal {name} = observed.{name}\n" for name in SIGNALS)
CONDITIONS = (
    "a > 2.5",
    "a > 2.5 and b < 3.5 or c >= d",
    "a / b > 1.5 and (c + d) * 2.0 < 9.0 or a - d > b",
    "not (a > b and b > c) and (c > 1.0 or d > 1.0) and a + b + c + d < 14.0",
)
_AS_CEL = {" and ": " && ", " or ": " || ", "not ": "!"}


def in_cel(condition: str) -> str:
    """Return a condition as CEL spells it."""
    for ours, theirs in _AS_CEL.items():
        condition = condition.replace(ours, theirs)
    return condition


def samples(count: int, seed: int = 1) -> list[dict[str, float]]:
    """Draw values of the four signals."""
    draw = random.Random(seed)  # noqa: S311 - made-up telemetry
    return [{name: draw.uniform(0.5, 5.0) for name in SIGNALS} for _ in range(count)]


def ours(condition: str, values: Sequence[Values]) -> Callable[[], list[bool]]:
    """Return a run of our evaluator over all values: read, test, commit."""
    policy = load(f"{DECLARED}reflex r {{ when {condition} do halt }}")
    evaluator = Evaluator(policy.signals, (), (policy.reflexes[0].condition,))
    ticks = itertools.count()

    def run() -> list[bool]:
        found = []
        for row in values:
            evaluator.read(next(ticks), row, {})
            found.append(evaluator.truth(0) == 3)
            evaluator.commit(quarantined=False)
        return found

    return run


def cel(condition: str, values: Sequence[Values], *, compiled: bool) -> Callable[[], list[bool]]:
    """Return a run of cel-python over all values, which have its own types already."""
    import celpy

    runner = celpy.CompiledRunner if compiled else celpy.InterpretedRunner
    names: dict[str, Any] = dict.fromkeys(SIGNALS, celpy.celtypes.DoubleType)
    world = celpy.Environment(annotations=names, runner_class=runner)
    program = world.program(world.compile(in_cel(condition)))
    rows = [{name: celpy.celtypes.DoubleType(value) for name, value in row.items()} for row in values]
    return lambda: [bool(program.evaluate(row)) for row in rows]


def expressions(blocks: int) -> None:
    """Compare conditions without memory."""
    why, rows = missing("cel-python"), []
    many, few = samples(500), samples(25)
    for condition in CONDITIONS:
        arms = [Arm("ours", ours(condition, many), len(many))]
        if not why:
            arms.append(Arm("compiled", cel(condition, few, compiled=True), len(few)))
            arms.append(Arm("interpreted", cel(condition, few, compiled=False), len(few)))
            said = {arm.name: arm.run() for arm in arms[1:]}
            assert all(verdicts == ours(condition, few)() for verdicts in said.values()), condition
        found = in_turns(arms, blocks)
        rows.append([f"`{condition}`", *_beside(found, ("compiled", "interpreted"), why)])
    head = ("condition", "ours, us", "CPU us", "cel-python compiled, us", "ratio", "interpreted, us", "ratio")
    show("Conditions without memory: one evaluation", head, rows)


def _beside(found: Mapping[str, Times], peers: Sequence[str], why: str | None) -> Iterator[str]:
    mine = found["ours"]
    yield mine.shown(US)
    yield mine.cpu_shown(US)
    for peer in peers:
        yield why or found[peer].shown(US)
        yield "" if why else f"{found[peer].median / mine.median:.1f}x"


# (b) Conditions over windows, against RTAMT

WINDOWS = (
    ("held for 20 steps", "a >= 2 for 20 steps", "historically[0:19](a >= 2)", 0),
    ("held for 200 steps", "a >= 2 for 200 steps", "historically[0:199](a >= 2)", 0),
    ("once in 20 steps", "a >= 4.9 for 1 of 20 steps", "once[0:19](a >= 4.9)", 0),
    ("maximum of 100 steps", "max(a, 100 steps) >= 4.9", "once[0:99](a >= 4.9)", 1),
    ("maximum of 1000 steps", "max(a, 1_000 steps) >= 4.9", "once[0:999](a >= 4.9)", 1),
    ("minimum of 100 steps, held for 50", "min(a, 100 steps) >= 0.6 for 50 steps",
     "historically[0:49](historically[0:99](a >= 0.6))", 1),
)  # fmt: skip
"""What, ours, RTAMT's, and by how many steps ours is later: a baseline leaves the present sample out."""


def wave(count: int) -> list[float]:
    """Draw a signal that dips below and rises above every bound of `WINDOWS` now and then."""
    draw = random.Random(5)  # noqa: S311 - made-up telemetry
    return [2.2 + draw.random() if tick % 700 else draw.choice((0.5, 5.0)) for tick in range(count)]


def our_window(condition: str, values: Sequence[float]) -> Callable[[], list[int]]:
    """Return a run of a whole session, limits included, that gives the ticks at which the condition begins."""
    policy = load(f'lbw 1 policy p {{ }} signal a = observed.a alert x info when {condition} "x"')
    session = Session(policy)

    def run() -> list[int]:
        began = []
        for value in values:
            session.begin({"a": value})
            if session.decide({}).decision.messages:
                began.append(session.tick)
            session.finish(applied=True)
        return began

    return run


def our_condition(condition: str, values: Sequence[float]) -> Callable[[], list[int]]:
    """Return a run of the condition alone, with its hold kept as the machine keeps it."""
    policy = load(f'lbw 1 policy p {{ }} signal a = observed.a alert x info when {condition} "x"')
    trigger = policy.alerts[0].trigger
    evaluator, window = Evaluator(policy.signals, (), (trigger.condition,)), (1 << trigger.window) - 1
    ticks, mask = itertools.count(), 0

    def run() -> list[int]:
        nonlocal mask
        began = []
        for value in values:
            tick, before = next(ticks), mask
            evaluator.read(tick, {"a": value}, {})
            mask = (mask << 1 | (evaluator.truth(0) >= 2)) & window
            evaluator.commit(quarantined=False)
            if mask.bit_count() >= trigger.count > before.bit_count():
                began.append(tick)
        return began

    return run


def rtamt_window(formula: str, values: Sequence[float]) -> Callable[[], list[int]]:
    """Return a run of RTAMT that gives the ticks at which the formula begins to hold."""
    import rtamt

    logging.getLogger().setLevel(logging.ERROR)
    monitor = rtamt.StlDiscreteTimeSpecification()
    for name in ("a", "out"):
        monitor.declare_var(name, "float")
    monitor.spec = f"out = {formula}"
    monitor.parse()
    monitor.pastify()
    ticks, held = itertools.count(), False

    def run() -> list[int]:
        nonlocal held
        began = []
        for value in values:
            tick, before = next(ticks), held
            held = monitor.update(tick, [("a", value)]) >= 0
            if held and not before:
                began.append(tick)
        return began

    return run


def _agree(condition: str, formula: str, later: int) -> None:
    """Hold that both say the same, once every window is full."""
    values = wave(6_000)
    said = [run(condition, values)() for run in (our_window, our_condition)]
    mine, alone = ([tick - later for tick in ticks if tick > 1_100] for ticks in said)
    assert mine, condition
    assert mine == alone == [tick for tick in rtamt_window(formula, values)() if tick > 1_100 - later], condition


def windows(blocks: int) -> None:
    """Compare conditions over windows: theirs beside our condition alone, and beside the whole decision step."""
    why, rows, values = missing("rtamt"), [], wave(1_000)
    for what, condition, formula, later in WINDOWS:
        arms = [Arm("ours", our_condition(condition, values), len(values))]
        arms.append(Arm("whole step", our_window(condition, values), len(values)))
        if not why:
            _agree(condition, formula, later)
            arms.append(Arm("rtamt", rtamt_window(formula, values), len(values)))
        found = in_turns(arms, blocks)
        rows.append([what, f"`{condition}`", f"`{formula}`", *_beside(found, ("rtamt",), why)])
        rows[-1].append(found["whole step"].shown(US))
    head = ("what", "ours", "RTAMT's", "ours, us", "CPU us", "RTAMT, us", "ratio", "our whole step, us")
    show("Conditions over windows: one step", head, rows)


# (c) The decision step

LENGTHS = (1_000, 10_000, 100_000)
STEP = 200


@define
class Run:
    """A training run of made-up telemetry under one policy, with a few bad steps in it."""

    session: Session
    readings: Sequence[Values]
    risks: Mapping[str, RiskValues]

    @staticmethod
    def of(policy: Policy, readings: Sequence[Values]) -> Run:
        """Return a fresh run; its telemetry repeats."""
        risks = {risk.name: RiskValues(0.01, alarm=False, trusted=True) for risk in policy.risks}
        return Run(Session(policy), readings, risks)

    def go(self, ticks: int) -> None:
        """Go on for so many ticks."""
        session, readings, policy = self.session, self.readings, self.session.policy
        for _ in range(ticks):
            row = readings[session.tick % len(readings)]
            session.begin(by_signal(policy, session.tick, row))
            turn = session.decide(self.risks, row["grad_norm"])
            session.finish(applied=turn.updates)


def telemetry(count: int) -> list[Values]:
    """Draw readings of every built-in source; one step in 500 has a gradient 20 times too large."""
    draw = random.Random(2)  # noqa: S311 - made-up telemetry
    names = sorted({signal.source for path in presets().values() for signal in load(path).signals})
    rows = [{name: abs(draw.gauss(1.0, 0.05)) for name in names} for _ in range(count)]
    for tick, row in enumerate(rows):
        row |= {name: 0.0 for name in names if name.startswith("nonfinite")}
        row["grad_norm"] = draw.gauss(1.0, 0.1) if tick % 500 != 499 else 20.0
        row["lr"] = 1e-3
    return list(rows)


def decisions(blocks: int) -> None:
    """Time the decision step of each preset at growing run lengths, and measure its memory."""
    readings = telemetry(1_000)
    runs = {(name, length): Run.of(load(name), readings) for name in presets() for length in LENGTHS}
    for (_, length), run in runs.items():
        run.go(length)
    arms = [Arm(f"{name} {length}", lambda run=run: run.go(STEP), STEP) for (name, length), run in runs.items()]
    found, rows = in_turns(arms, blocks), []
    for name in presets():
        held = memory(load(name), readings)
        for length in LENGTHS:
            times = found[f"{name} {length}"]
            state = len(json.dumps(runs[name, length].session.state_dict()))
            rows.append([name, f"{length:,}", times.shown(US), times.cpu_shown(US), f"{held[length]:,}", f"{state:,}"])
    head = ("preset", "ticks so far", "us a tick", "CPU us", "memory held, bytes", "saved state, characters")
    show("The decision step (signals, machine, limits)", head, rows)


def memory(policy: Policy, readings: Sequence[Values]) -> dict[int, int]:
    """Return the bytes a session holds after each length, as Python's allocator counts them."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    run, found = Run.of(policy, readings), {}
    for length in LENGTHS:
        run.go(length - run.session.tick)
        gc.collect()  # empties the interpreter's own stores of free tuples
        found[length] = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return found


# (d) lbw-check, whole process

_FROM_GRAMMAR = """
import pathlib, sys
from lbw_policy.syntax import grammar
grammar.table_path = lambda: pathlib.Path("missing")
from lbw_policy.cli.check import main
sys.exit(main([sys.argv[1]]))
"""


def process(words: Sequence[str]) -> tuple[float, float]:
    """Return the wall and CPU seconds of a child process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def checks(blocks: int) -> None:
    """Time `lbw-check` as a whole process."""
    cases = {f"lbw-check {name}": ["-m", "lbw_policy.cli.check", name] for name in presets()}
    cases["lbw-check monitor, parser built from the grammar"] = ["-c", _FROM_GRAMMAR, "monitor"]
    cases["python, doing nothing"] = ["-c", "pass"]
    found = {name: Times() for name in cases}
    for block, (name, words) in itertools.product(range(blocks + 1), cases.items()):
        wall, cpu = process(words)
        if block:
            found[name].wall.append(wall)
            found[name].cpu.append(cpu)
    rows = [[f"`{name}`", times.shown(MS), times.cpu_shown(MS)] for name, times in found.items()]
    show("`lbw-check`, whole process", ("command", "ms", "CPU ms"), rows)


# (e) Parse and check, by size

SIZES = (10_000, 30_000, 100_000, 250_000)


def long_policy(size: int) -> str:
    """Return a clean policy of about so many characters."""
    text = io.StringIO()
    text.write("lbw 1\npolicy long { }\nsignal loss = telemetry.loss\n")
    for index in itertools.count():
        text.write(f"let part{index} = loss / median(loss, {64 + index % 8} steps) + {index}\n")
        text.write(f'alert high{index} info when part{index} > {index + 2} for 3 of 5 steps "loss is {{loss}}"\n')
        if text.tell() >= size - 200:
            return text.getvalue()
    raise AssertionError


def sizes(blocks: int) -> None:
    """Time parse and check of growing policies."""
    texts = {size: long_policy(size) for size in SIZES}
    for text in texts.values():
        assert not check_source(Source("t", text)).diagnostics
    arms = [Arm(str(size), lambda text=text: check_source(Source("t", text))) for size, text in texts.items()]
    found = in_turns(arms, blocks)
    rows = []
    for size, text in texts.items():
        times = found[str(size)]
        rows.append([f"{len(text):,}", times.shown(MS), times.cpu_shown(MS), f"{times.median / len(text) / US:.3g}"])
    huge = in_turns([Arm("1 MB", lambda: check_source(Source("t", long_policy(10**6)[: 10**6])))], 1)["1 MB"]
    rows.append([f"1,000,000: refused, at most {MAX_CHARACTERS:,}", f"{huge.wall[0] / MS:.3g}", "", ""])
    show("Parse and check, by length of the policy", ("characters", "ms", "CPU ms", "us a character"), rows)


PARTS: Mapping[str, tuple[Callable[[int], None], int]] = {
    "expressions": (expressions, 31),
    "windows": (windows, 31),
    "decisions": (decisions, 31),
    "checks": (checks, 15),
    "sizes": (sizes, 5),
}


def main() -> None:
    """Run the parts that are asked for, all by default."""
    parser = argparse.ArgumentParser(description="Benchmark the language; prints markdown.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {', '.join(PARTS)} (all by default)")
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    peers = [f"{peer} {importlib.metadata.version(peer)}" for peer in ("cel-python", "rtamt") if not missing(peer)]
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    print(f"{machine}; {', '.join(peers) or 'no peer installed'}")
    with contextlib.suppress(BrokenPipeError):
        for part in chosen:
            run, blocks = PARTS[part]
            run(blocks)


if __name__ == "__main__":
    main()
