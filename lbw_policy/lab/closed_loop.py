"""One run of a comparison from beginning to end, and what was seen of it, as plain data."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from attrs import asdict, frozen

from lbw_policy.lab.architectures import task_of
from lbw_policy.lab.contenders import Contender
from lbw_policy.lab.scenarios import Case
from lbw_policy.lab.tasks import Draw, Task, evaluating
from lbw_policy.lab.training import Run
from lbw_policy.lab.trouble import BENIGN, Fault

FORMAT = 2
"""Of a finding and of the trainings: raised when either changes, so that no old finding is taken for a new one."""
LOST_FOR = 60
"""A run whose loss is not finite for so many steps in a row is given up."""
_DIGITS = 5


@frozen
class Finding:
    """What was seen of a run, before it is judged.

    `losses` are those of each finished step on the data that were due, whatever a fault made of them: they tell of the
    weights, not of a bad batch. `untrained` and `held_out` are the held-out losses before the first and after the last
    step. `acts` has the steps of all that the guard did, by action. `raised` is what a guard broke the run with.
    `levels` are the steps at which the level of a guard that has levels changed, with the new one.
    """

    key: str
    contender: str
    case: str
    losses: tuple[float, ...]
    untrained: float
    held_out: float
    halted: int | None
    raised: str
    acts: Mapping[str, tuple[int, ...]]
    levels: tuple[tuple[int, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as data for JSON, which has no NaN: what is not finite becomes None."""
        rough = {"losses": [_rough(loss) for loss in self.losses], "held_out": _rough(self.held_out)}
        return asdict(self) | rough | {"acts": {name: list(ticks) for name, ticks in self.acts.items()}}

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Finding:
        """Return the finding of such data.

        Raises:
            KeyError, TypeError, ValueError: they are no finding.
        """
        losses = tuple(math.nan if loss is None else float(loss) for loss in entry["losses"])
        held_out = math.nan if entry["held_out"] is None else float(entry["held_out"])
        acts = {str(name): tuple(map(int, ticks)) for name, ticks in entry["acts"].items()}
        levels = tuple((int(step), str(level)) for step, level in entry.get("levels", ()))
        return cls(**{**entry, "losses": losses, "held_out": held_out, "acts": acts, "levels": levels})


def key(case: Case, contender: Contender) -> str:
    """Return what names a run in a folder of findings: a digest of everything that it depends on."""
    fault = {"kind": case.fault.name, **case.fault.severity()}
    parts = [FORMAT, case.architecture, asdict(case.recipe), fault, contender.identity]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def find(case: Case, contender: Contender) -> Finding:
    """Train a run of a comparison. ImportError where scikit-learn is needed and missing."""
    torch.set_num_threads(1)
    task, fault = task_of(case.architecture), contender.fault(case.fault)
    attach = contender.attach(case.fault) if contender.attach else None
    run = Run(task, contender.recipe(case.recipe), fault, attach)
    losses, levels = list[float](), list[tuple[int, str]]()
    raised = _train(run, losses, levels, (task, case, fault))
    if run.guard is not None:
        run.guard.detach()
    return Finding(
        key=key(case, contender),
        contender=contender.name,
        case=case.id,
        losses=tuple(losses),
        untrained=untrained(case.architecture, case.recipe.seed),
        held_out=run.held_out(),
        halted=run.halted,
        raised=raised,
        acts=_acts(run),
        levels=tuple(levels),
    )


@functools.cache
def untrained(architecture: str, seed: int) -> float:
    """Return the held-out loss of the model that a run begins with."""
    task = task_of(architecture)
    return task.held_out(task.model(seed))


def _train(run: Run, losses: list[float], levels: list[tuple[int, str]], struck: tuple[Task, Case, Fault]) -> str:
    """Train to the end, as far as it goes, and return what the guard broke it with."""
    task, case, fault = struck
    try:
        for step in range(case.steps):
            due = _due_loss(run, task, case, step) if _spoils(fault, step) else None
            run.step()
            _note_level(run, step, levels)
            if run.halted is not None or _lost(losses):
                break
            losses.append(run.losses[-1] if due is None else due)
    except Exception as error:  # a guard of whatever kind: that it breaks the run is its result
        return f"{type(error).__name__}: {error}"
    return ""


def _note_level(run: Run, step: int, levels: list[tuple[int, str]]) -> None:
    level = getattr(run.guard, "level", None)
    if level is not None and (not levels or levels[-1][1] != level):
        levels.append((step, str(level)))


def _spoils(fault: Fault, step: int) -> bool:
    """Tell whether a fault makes of this step's data what they are not; a benign shift is the data that are due."""
    spoiling = type(fault).on_batch is not Fault.on_batch and fault.group != BENIGN
    return (spoiling or fault.name == "spikes") and fault.active(step)


def _due_loss(run: Run, task: Task, case: Case, step: int) -> float:
    with evaluating(run.model), case.recipe.casting():
        return float(task.loss(run.model, Draw(task, case.recipe.seed, step).batch()))


def _lost(losses: list[float]) -> bool:
    return len(losses) >= LOST_FOR and not any(map(math.isfinite, losses[-LOST_FOR:]))


def _acts(run: Run) -> dict[str, tuple[int, ...]]:
    records = () if run.guard is None else run.guard.interventions
    done = [each for each in records if each.outcome != "refused"]
    names = dict.fromkeys(each.action for each in done)
    return {name: tuple(each.tick for each in done if each.action == name) for name in names}


def _rough(loss: float) -> float | None:
    return float(f"{loss:.{_DIGITS}g}") if math.isfinite(loss) else None
