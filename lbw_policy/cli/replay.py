"""`lbw replay`: what a policy would decide on recorded telemetry."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lbw_policy.diagnostics import printable, render
from lbw_policy.errors import AttachError, PolicyError, StateError, TraceError
from lbw_policy.semantics import MOST_BYTES, Policy, check_bytes, load

if TYPE_CHECKING:
    from lbw_policy.cli.timeline import Tally, View
    from lbw_policy.runtime.deciding import Readings
    from lbw_policy.runtime.replaying import Binding, Replay
    from lbw_policy.traces import Trace

_EPILOG = """\
A trace has one row a tick. Its columns are named like the policy's signals, or like what they read
(`loss`, `grad_norm`, ...); an empty cell is an absent reading, `nan` and `inf` are readings.
The loop is open: the trace does not react to what the policy decides.

exit codes: 0 replayed, 2 wrong usage, a file that cannot be read, or a column that is missing"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("policy", metavar="POLICY", help="file, preset name, or `-` for standard input")
    parser.add_argument("trace", metavar="TRACE", type=Path, help="a `.csv`, `.jsonl` or `.npz` file")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print (json: a line a tick)")
    parser.add_argument("--all", action="store_true", help="show every tick, not only those where something happens")
    parser.add_argument(
        "--param", type=_param, action="append", default=[], metavar="NAME=VALUE", help="set a param of the policy"
    )
    parser.add_argument("--prior", type=Path, metavar="PRIOR", help="start risk models from a file of `lbw risk learn`")
    parser.add_argument("--from", type=_tick, dest="start", metavar="TICK", help="show and count from this tick on")
    parser.add_argument("--until", type=_tick, metavar="TICK", help="end the replay with this tick")


def run(arguments: argparse.Namespace) -> int:
    """Replay a trace; return 0 when it was replayed, 2 when it could not be."""
    try:
        policy = _policy(arguments.policy, dict(arguments.param))
        _replay(policy, arguments)
    except PolicyError as error:
        print(error, file=sys.stderr)
        return 2
    except (TraceError, StateError, AttachError) as error:
        for line in str(error).splitlines():
            print(f"lbw replay: error: {line}", file=sys.stderr)
        return 2
    return 0


def _param(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value.rstrip("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, found `{text}`") from None


def _tick(text: str) -> int:
    digits = text.replace("_", "")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 15:
        raise argparse.ArgumentTypeError(f"expected a tick, a whole number from 0, found `{text}`")
    return int(digits)


def _policy(word: str, params: dict[str, float]) -> Policy:
    if word != "-":
        return load(word, params=params)
    checked = check_bytes("<stdin>", sys.stdin.buffer.read(MOST_BYTES + 1), params)
    if checked.policy is None:
        raise PolicyError("\n".join(render(finding) for finding in checked.diagnostics), checked.diagnostics)
    return checked.policy


def _replay(policy: Policy, arguments: argparse.Namespace) -> None:
    # River, which a learned risk needs, takes most of a second to import.
    from lbw_policy.cli.timeline import JsonLines, Tally, Text, summarise
    from lbw_policy.risk import read_prior
    from lbw_policy.runtime.replaying import Binding, Replay, readings
    from lbw_policy.traces import read_trace

    trace = read_trace(arguments.trace, Binding.wanted(policy))
    binding = _bound(policy, trace)
    first, last = _range(trace, arguments)
    view: View = JsonLines(arguments.all) if arguments.format == "json" else Text(arguments.all)
    prior = None if arguments.prior is None else read_prior(arguments.prior)
    replay, tally = Replay(policy, trace.first, prior=prior), Tally(first)
    _collect_seldom()
    began = time.perf_counter()
    _play(replay, islice(readings(policy, trace, binding), last - trace.first + 1), tally, view)
    seconds = time.perf_counter() - began
    for line in view.summary(summarise(replay, trace, binding, tally, seconds)):
        print(line)


def _collect_seldom() -> None:
    """Look for cyclic garbage seldom: a tick makes none, and looking takes a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def _bound(policy: Policy, trace: Trace) -> Binding:
    """Bind the policy to the trace's columns, and tell of a choice that may be a mistake."""
    from lbw_policy.runtime.replaying import Binding

    try:
        binding = Binding.of(policy, trace.names)
    except TraceError as error:
        lines = str(error).splitlines()
        raise TraceError("\n".join(f"{printable(str(trace.path))}: {line}" for line in lines)) from None
    for name, source in binding.doubtful:
        note = f"signal `{name}` is read from column `{name}`, not from column `{source}`"
        print(f"lbw replay: note: {note}", file=sys.stderr)
    return binding


def _range(trace: Trace, arguments: argparse.Namespace) -> tuple[int, int]:
    """Return the first tick to show and the last to replay."""
    end = trace.first + trace.rows - 1
    first = trace.first if arguments.start is None else arguments.start
    last = end if arguments.until is None else min(arguments.until, end)
    if not trace.first <= last or not first <= last:
        asked = " to ".join(str(tick) for tick in (arguments.start, arguments.until) if tick is not None)
        raise TraceError(f"{printable(str(trace.path))}: expected ticks within {trace.first} to {end}, found {asked}")
    return first, last


def _play(replay: Replay, ticks: Iterable[tuple[Readings, Readings]], tally: Tally, view: View) -> None:
    """Replay the ticks; those before the first one that counts are neither shown nor counted."""
    for values, sources in ticks:
        turn = replay.tick(values, sources)
        if turn.decision.tick < tally.first:
            replay.forget_records()
        else:
            tally.add(turn)
            for line in view.moment(turn, replay):
                print(line)
