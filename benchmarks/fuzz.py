"""Feeds the checker what no person would write: `python benchmarks/fuzz.py --minutes 8 --seed 1`.

Four sources take turns: random derivations of the grammar, mutated policies, random bytes, and
fragments repeated very often, whose time must grow with their length. A policy that checks is also
run for a few ticks of hostile telemetry. Everything that raises, hangs, reports a place outside of
its text or takes more than linear time is printed with what makes it happen again; then the exit code is 1.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attrs import define, field
from lark import Lark
from lark.grammar import Rule

from lbw_policy.diagnostics import Source, as_json, render
from lbw_policy.machine import RiskValues, Session, by_signal
from lbw_policy.resources import grammar_path, presets
from lbw_policy.semantics import Checked, Policy, check_bytes, check_source
from lbw_policy.syntax import MAX_CHARACTERS, grammar

HANG = 20
"""Seconds after which a case counts as hanging."""
HOSTILE = (0.0, -0.0, 1.0, -1.0, 5e-324, 1e300, -1e300, math.inf, -math.inf, math.nan, None)
Case = bytes


def sound(checked: Checked) -> None:
    """Assert what holds for every outcome of a check."""
    for finding in checked.diagnostics:
        if finding.span is not None:
            assert 0 <= finding.span.start <= finding.span.end <= len(finding.source.text), finding
        assert render(finding)
        assert as_json(finding)["code"] == finding.code
    errors = [finding for finding in checked.diagnostics if finding.severity.value == "error"]
    assert (checked.policy is None) == bool(errors)


def live(policy: Policy, draw: random.Random) -> None:
    """Run a policy for a few ticks of hostile telemetry."""
    session = Session(policy)
    for _ in range(12):
        values = {signal.source: draw.choice(HOSTILE) for signal in policy.signals}
        session.begin(by_signal(policy, session.tick, values))
        risks = {risk.name: RiskValues(draw.choice(HOSTILE), draw.choice((None, True, False))) for risk in policy.risks}
        turn = session.decide(risks, draw.choice(HOSTILE))
        session.finish(applied=turn.updates)
    Session(policy).load_state_dict(session.state_dict())


# Sources of cases


@define
class Derivations:
    """Random derivations of the grammar's start symbol."""

    lark: Lark
    rules: dict[str, list[Rule]] = field(factory=dict)
    words: dict[str, str] = field(factory=dict)
    depths: dict[str, int] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for rule in self.lark.rules:
            self.rules.setdefault(rule.origin.name, []).append(rule)
        self.words = {t.name: t.pattern.value for t in self.lark.terminals if t.pattern.type == "str"}
        while any(self._settle(name) for name in self.rules):
            pass

    def _settle(self, name: str) -> bool:
        """Find how deep the shallowest derivation of a rule is; tell whether that is news."""
        depth = 1 + min(self._depth(rule) for rule in self.rules[name])
        news = depth < self.depths.get(name, 10**6)
        self.depths[name] = min(depth, self.depths.get(name, 10**6))
        return news

    def _depth(self, rule: Rule) -> int:
        return max((self.depths.get(s.name, 10**6) for s in rule.expansion if not s.is_term), default=0)

    def draw(self, draw: random.Random) -> Iterator[str]:
        """Draw the words of one derivation."""
        budget, stack = draw.choice((20, 100, 400)), ["start"]
        while stack:
            name = stack.pop()
            if name not in self.rules:
                yield self._word(name, draw)
                continue
            rules, budget = self.rules[name], budget - 1
            rule = draw.choice(rules) if budget > 0 else min(rules, key=self._depth)
            # A plugin's action under the name of a built-in one would be read as that.
            named = "PLUGIN" if rule.alias == "plugin" else "NAME"
            stack += [named if symbol.name == "NAME" else symbol.name for symbol in reversed(rule.expansion)]

    def _word(self, name: str, draw: random.Random) -> str:
        if name in self.words:
            return self.words[name]
        return draw.choice(_SPELLED[name]) if name in _SPELLED else "x"


_SPELLED: Mapping[str, tuple[str, ...]] = {
    "NAME": (
        "loss",
        "a",
        "b",
        "telemetry",
        "grad_norm",
        "ratio",
        "normal",
        "median",
        "zscore",
        "slope",
        "prev",
        "halt",
    ),
    "PLUGIN": ("loss", "a", "median", "top"),
    "NUMBER": ("0", "1", "3", "20", "1_000", "0.5", "1e308", "1e999", "00", "9" * 400),
    "PERCENT": ("0%", "10%", "100%", "0.5%"),
    "STRING": ('""', '"x {loss}"', r'"\"\\"', '"{"'),
    "COMPARE": ("<", "<=", ">", ">=", "==", "!="),
    "PLUS": ("+", "-"),
    "TIMES": ("*", "/"),
}


@define
class Cases:
    """Draws cases of every kind, all from one seed."""

    draw: random.Random
    derivations: Derivations
    corpus: list[str]

    def derived(self) -> Case:
        """Draw a text the grammar derives."""
        words = list(self.derivations.draw(self.draw))
        return self.draw.choice((" ", "\n", "  # c\n")).join(words).encode()

    def mutated(self) -> Case:
        """Draw a policy with some parts left out, doubled, swapped or put in."""
        parts, joint = self._parts()
        for _ in range(self.draw.choice((1, 2, 4, 16))):
            one, other = self.draw.randrange(len(parts)), self.draw.randrange(len(parts))
            match self.draw.randrange(4):
                case 0:
                    parts[one] = ""
                case 1:
                    parts.insert(one, parts[other])
                case 2:
                    parts[one], parts[other] = parts[other], parts[one]
                case _:
                    parts.insert(one, self._stranger())
        return joint.join(parts).encode("utf-8", "surrogatepass")

    def _parts(self) -> tuple[list[str], str]:
        joint = self.draw.choice(("", " ", "\n"))
        text = self.draw.choice(self.corpus)
        return (text.split(joint) if joint else list(text)), joint

    def _stranger(self) -> str:
        word = self.draw.choice(self.draw.choice(self.corpus).split() or ["x"])
        return self.draw.choice((word, chr(self.draw.randrange(0x20, 0x3000)), self.draw.choice("{}[]()\"'#%$@\\=<>")))

    def bytes(self) -> Case:
        """Draw bytes."""
        raw = self.draw.randbytes(self.draw.randrange(300))
        text = self.draw.choice(self.corpus).encode()
        place = self.draw.randrange(len(text) + 1)
        return self.draw.choice((raw, text[:place] + raw + text[place:], text[:place]))

    def fragment(self) -> tuple[str, str, str]:
        """Draw what comes before, what is repeated, and what comes after."""
        text = self.draw.choice(self.corpus)
        words = text.split()
        start = self.draw.randrange(len(words) or 1)
        repeated = " ".join(words[start : start + self.draw.randrange(1, 8)]) + self.draw.choice((" ", "\n", ""))
        before = self.draw.choice(
            ("", "lbw 1 policy p { }\nsignal loss = telemetry.loss\n", " ".join(words[:start]) + " ")
        )
        return before, repeated or "x", self.draw.choice(("", "\n}", " ".join(words[start:])))


# Running them


@define
class Tally:
    """What was tried and what went wrong."""

    counts: Counter[str] = field(factory=Counter)
    codes: Counter[str] = field(factory=Counter)
    failures: list[str] = field(factory=list)
    known: set[str] = field(factory=set)
    slowest: tuple[float, str] = (0.0, "")

    def failed(self, kind: str, reason: str, case: str) -> None:
        """Note a failure, the first of its kind."""
        self.counts["failures"] += 1
        if reason not in self.known:
            self.known.add(reason)
            self.failures.append(f"{kind}: {reason}\n  input: {case}")


def _hangs(*_: object) -> None:
    raise TimeoutError(f"no answer within {HANG} s")


def tried(kind: str, case: Case, draw: random.Random, tally: Tally) -> None:
    """Check one case, and note what came of it."""
    tally.counts[kind] += 1
    signal.alarm(HANG)
    start = time.process_time()
    try:
        checked = check_bytes("fuzz", case)
        taken = time.process_time() - start
        sound(checked)
        if checked.policy is not None:
            tally.counts["policies run"] += 1
            live(checked.policy, draw)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        tally.failed(
            kind, f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:400], repr(case)
        )
        return
    finally:
        signal.alarm(0)
    tally.codes.update({finding.code for finding in checked.diagnostics})
    if taken > tally.slowest[0]:
        tally.slowest = (taken, f"{kind}, {len(case)} bytes: {case[:80]!r}...")


def seconds(text: str) -> float:
    """Return the CPU time of a check."""
    start = time.process_time()
    sound(check_source(Source("fuzz", text)))
    return time.process_time() - start


def grown(parts: tuple[str, str, str], tally: Tally) -> None:
    """Hold that a fragment repeated four times as often takes no more than about four times as long."""
    before, fragment, after = parts
    tally.counts["growth"] += 1
    most = (MAX_CHARACTERS - len(before) - len(after)) // len(fragment)
    count = max(1, min(most // 4, 12_000 // len(fragment)))
    signal.alarm(6 * HANG)
    try:
        ratio = _growth(before, fragment, after, count)
    except Exception as error:
        tally.failed("growth", f"{type(error).__name__}: {error}"[:400], repr((before, fragment, after, count)))
    else:
        if ratio > 1:
            tally.failed("growth", f"{fragment[:40]!r} took {ratio:.1f} times the linear time", repr((*parts, count)))
    finally:
        signal.alarm(0)


def _growth(before: str, fragment: str, after: str, count: int) -> float:
    """Return by how much the time grows faster than the length, if it does so four times in a row; else 0."""
    found = []
    for _ in range(4):
        small, large = (seconds(before + fragment * times + after) for times in (count, 4 * count))
        found.append(large / max(small, 0.002) / 4)
        if found[-1] < 1.7 or large < 0.05:
            return 0.0
    return min(found)


def fuzz(minutes: float, seed: int) -> Tally:
    """Try cases until the time is over."""
    draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
    text = grammar_path().read_text(encoding="utf-8")
    cases = Cases(draw, Derivations(grammar.build(text)), corpus())
    plain: tuple[tuple[str, Callable[[], Case]], ...] = (
        ("derived", cases.derived), ("mutated", cases.mutated), ("bytes", cases.bytes),
    )  # fmt: skip
    tally, end, turn = Tally(), time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        for kind, make in plain:
            tried(kind, make(), draw, tally)
        if turn % 40 == 0:
            grown(cases.fragment(), tally)
        turn += 1
    return tally


def corpus() -> list[str]:
    """Return the shipped policies, and the golden cases where a checkout has them."""
    cases = sorted((Path(__file__).parents[1] / "tests" / "cases").glob("*/policy.lbw"))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in [*presets().values(), *cases]]
    return [text for text in texts if text.strip()]


def main() -> int:
    """Fuzz and report; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description="Fuzz the parser and the checker.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same cases")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _hangs)
    tally = fuzz(arguments.minutes, arguments.seed)
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes")
    for name, count in sorted(tally.counts.items()):
        print(f"{name:>14}: {count:,}")
    print(f"codes met: {len(tally.codes)}: {' '.join(sorted(tally.codes))}")
    print(f"slowest: {tally.slowest[0] * 1e3:.0f} ms: {tally.slowest[1]}")
    for failure in tally.failures:
        print(f"\n{failure}")
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
