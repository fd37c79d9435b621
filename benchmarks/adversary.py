"""How far an adversary comes against each preset: `python benchmarks/adversary.py`.

Five parts (`docs/security.md`): floods that a search makes as costly as it can, on the policy alone; telemetry that
creeps; lies to the risk model; sabotaged data in real small trainings; poison that creeps into them. Prints markdown
tables; `--write` puts them into the page.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lying
import sabotage
from adversaries import Attack, Flooder
from creeping import RATES, RULES, Sight, creep, watching
from efficacy_tables import table

import lbw_policy as lbw
from lbw_policy.authority import card
from lbw_policy.lab.trouble import Fault
from lbw_policy.resources import presets
from lbw_policy.semantics import Policy

PAGE = Path(__file__).resolve().parents[1] / "docs" / "security.md"
STEPS, STRUCK_STEPS, POISONED_STEPS = 1_300, 700, 700
STIRS = (1.15, 1.3, 1.6)
GROWTHS = (1.002, 1.005, 1.01, 1.02, 1.05)
ARCHITECTURE = "gpt"
Rows = Iterator[Sequence[str]]


# Floods


def floods(names: Sequence[str]) -> str:
    """Return what the worst attacks found take from a run, against what the authority card allows."""
    head = (
        "preset", "steps lost", "updates skipped", "rollbacks", "interventions", "longest pause",
        "lowest lr factor", "its mean, held low", "the worst attack found, over and over",
    )  # fmt: skip
    return table(head, _floods(names))


def _floods(names: Sequence[str]) -> Rows:
    for name in names:
        policy = lbw.load(name)
        most = {line.what: line.value for line in card(policy).lines}
        if not most["interventions in all"]:
            yield [f"`{name}`", *["0 of 0"] * 5, "1", "1", "-"]
            continue
        worst, low = (Flooder(policy, aim).worst() for aim in ("steps lost", "lr held low"))
        tolls = worst.toll, low.toll

        def reached(what: str, found: float, most: Mapping[str, object] = most) -> str:
            return f"{found:g} of {most[what]}"

        yield [
            f"`{name}`",
            reached("steps lost in all", max(toll.lost() for toll in tolls)),
            reached("updates skipped", max(toll.most(toll.skips) for toll in tolls)),
            reached("rollbacks", max(toll.most(toll.rollbacks) for toll in tolls)),
            reached("interventions in all", max(toll.most(toll.begun) for toll in tolls)),
            reached("longest pause", max(toll.longest_pause for toll in tolls)),
            reached("lowest lr factor", min(factor for toll in tolls for factor in toll.factors if factor)),
            f"{low.toll.slowest():.3f}",
            _told(worst.attack),
        ]


_WAITS = {
    "healthy": "until a snapshot is healthy",
    "late": "until it is nearly out of reach",
    "rollback": "until it rolls back",
    "refused": "until something is refused",
}


def _told(attack: Attack) -> str:
    if len(attack) == 1:
        return attack[0].lie.name
    return "; ".join(f"{phase.lie.name} {_WAITS.get(phase.until, f'for {phase.ticks}')}" for phase in attack)


# Creeps


def rules(_: Sequence[str]) -> str:
    """Return at which factor each rule on a loss sees it creep."""
    return table(("rule", *_percents(RATES)), ([name, *_sights(watching(rule))] for name, rule in RULES.items()))


def creeps(names: Sequence[str]) -> str:
    """Return at which factor each preset acts on, or tells of, a loss that creeps."""
    return table(("preset", *_percents(RATES)), ([f"`{name}`", *_sights(lbw.load(name))] for name in names))


def _sights(policy: Policy) -> Iterator[str]:
    losses = [one.name for one in policy.signals if one.key == "loss"]
    return (_sight(creep(policy, losses, rate)) for rate in RATES)


def _sight(seen: Sight | None) -> str:
    if seen is None:
        return "**unseen**"
    return f"{seen.factor:.2f}x" + ("" if seen.by == "alert seen" else f" {seen.by}")


def _percents(rates: Sequence[float]) -> list[str]:
    return [f"{100 * (rate - 1):.3g} % a step" for rate in rates]


# Lies


def lies(_: Sequence[str]) -> str:
    """Return what lies to the risk model of the presets lead to."""
    head = (
        "lie", "alarms a policy sees in 3_000 steps", "trusted", "moved from the prior", "alarms begin at",
        "real trouble then: alarmed before", "first reason of distrust",
    )  # fmt: skip
    return table(head, lying.rows(range(5)))


# Real trainings


def trainings(names: Sequence[str]) -> str:
    """Return what sabotaged data do to real trainings, unguarded and under each preset."""
    head = ("data", "guard", "final loss", "steps lost", "mean lr factor", "done", "refused", "alerts")
    return table(head, _trainings(names))


def _trainings(names: Sequence[str]) -> Rows:
    attacks: tuple[tuple[str, int, Callable[[], Fault]], ...] = (
        ("a spike in ten, harmless", STEPS, sabotage.spikes),
        ("NaN for ever", STEPS, sabotage.nan_for_ever),
        ("30 damaged batches", STRUCK_STEPS, sabotage.striker),
        ("the same, after the skips were spent", STRUCK_STEPS, sabotage.spender),
    )
    for name in names:
        policy = lbw.load(name)
        if policy.limits.rollback:
            found = [_damage(lambda s=stir: sabotage.waster(s), name, STEPS) for stir in STIRS]
            yield _row("rollbacks as late as can be", max(found, key=lambda one: one.lost), policy)
    for what, steps, make in attacks:
        for name in (sabotage.NONE, *names):
            yield _row(what, _damage(make, name, steps), None if name == sabotage.NONE else lbw.load(name))


def _damage(make: Callable[[], Fault], name: str, steps: int) -> sabotage.Damage:
    return sabotage.damage(ARCHITECTURE, make(), name, steps)


def _row(what: str, found: sabotage.Damage, policy: Policy | None) -> list[str]:
    most = {} if policy is None else {line.what: line.value for line in card(policy).lines}
    done = ", ".join(f"{count} {action}" for action, count in found.done.items() if action != "alert")
    return [
        what,
        "none" if policy is None else f"`{found.policy}`",
        "lost" if not math.isfinite(found.loss) else f"{found.loss:.3f}",
        "-" if policy is None else f"{found.lost} of {most['steps lost in all']}",
        f"{found.kept:.2f}",
        done or "-",
        str(found.refused),
        str(found.alerts),
    ]


def poison(names: Sequence[str]) -> str:
    """Return the harm of poison by how fast it creeps, and the step after its beginning at which a guard acts."""
    start = 200

    def cell(name: str, growth: float) -> str:
        found = sabotage.damage(ARCHITECTURE, sabotage.poisoner(growth, start), name, POISONED_STEPS)
        seen = (
            "" if name == sabotage.NONE else ", unseen" if found.first is None else f", seen at {found.first - start}"
        )
        return f"{found.loss:.3f}{seen}"

    rows = ([_code(name), *(cell(name, growth) for growth in GROWTHS)] for name in (sabotage.NONE, *names))
    return table(("guard", *_percents(GROWTHS)), rows)


def _code(name: str) -> str:
    return name if name == sabotage.NONE else f"`{name}`"


PARTS: Mapping[str, Callable[[Sequence[str]], str]] = {
    "floods": floods, "rules": rules, "creeps": creeps, "lies": lies, "trainings": trainings, "poison": poison,
}  # fmt: skip


def write(part: str, found: str, page: Path = PAGE) -> None:
    """Put a table into the page, between its marks."""
    text, begin, end = page.read_text(encoding="utf-8"), f"<!-- {part} -->\n", f"<!-- end of {part} -->"
    head, rest = text.split(begin)
    page.write_text(f"{head}{begin}{found.strip()}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these")
    parser.add_argument("--presets", nargs="+", default=list(presets()), help="presets, or paths of policies")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    options = parser.parse_args(arguments)
    for part in options.parts:
        found = PARTS[part](options.presets)
        sys.stdout.write(f"## {part}\n\n{found}\n\n")
        sys.stdout.flush()
        if options.write:
            write(part, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
