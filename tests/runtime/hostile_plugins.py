"""Plugins that do as they are told, and a policy under which a test can ask for every action with any amount."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from attrs import define, field

from lbw_policy.plugins import ActionContext, ActionPlugin, FunctionPlugin, SignalContext, SignalPlugin
from lbw_policy.semantics import plugins


@define
class Mood:
    """What the plugins do next; `nudged` has the amounts that the action was called with."""

    signal: str = "good"
    function: str = "good"
    action: str = "good"
    checkpoint: str = "good"
    nudged: list[float | None] = field(factory=list)


mood = Mood()


def _fail(*_: object) -> float:
    raise RuntimeError("no luck")


def _stop(*_: object) -> float:
    raise KeyboardInterrupt


NONSENSE: dict[str, Callable[..., object]] = {
    "good": lambda *_: 1.0,
    "nan": lambda *_: math.nan,
    "inf": lambda *_: -math.inf,
    "huge": lambda *_: 10**400,
    "none": lambda *_: None,
    "text": lambda *_: "seven",
    "tensor": lambda *_: torch.tensor(math.nan),
    "vector": lambda *_: torch.ones(3),
    "complex": lambda *_: 1j,
    "raises": _fail,
}
"""What a plugin may answer."""


def _measure(context: SignalContext) -> object:
    return _stop() if mood.signal == "stops" else NONSENSE[mood.signal](context)


def _evaluate(value: float) -> object:
    return NONSENSE[mood.function](value)


def _nudge(context: ActionContext) -> None:
    mood.nudged.append(context.amount)
    if mood.action == "raises":
        _fail()
    if mood.action == "stops":
        _stop()
    if mood.action == "sets lr":
        for group in context.optimizer.param_groups:
            group["lr"] = torch.full_like(group["lr"], 0.03) if isinstance(group["lr"], torch.Tensor) else 0.03


def checkpoint() -> None:
    """Be the user's function for `checkpoint`; it fails if the mood is so."""
    if mood.checkpoint == "raises":
        raise OSError("disk full")


odd = SignalPlugin("odd_signal", "ratio", "optimizer", "anything at all", _measure)
squash = FunctionPlugin("odd_function", None, _evaluate, "anything at all")  # type: ignore[arg-type]
nudge = ActionPlugin("nudge", "ratio", _nudge, "whatever the mood says")

_ENTRIES = """
[lbw_policy.signals]
odd_signal = tests.runtime.hostile_plugins:odd
[lbw_policy.functions]
odd_function = tests.runtime.hostile_plugins:squash
[lbw_policy.actions]
nudge = tests.runtime.hostile_plugins:nudge
"""


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Make these plugins look installed, by metadata in a folder on the path."""
    metadata = folder / "hostile_plugins-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile_plugins\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(_ENTRIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        plugins.forget()
        yield
    plugins.forget()


ORDERS = ("skip", "clip", "scale", "rollback", "freeze", "reset", "checkpoint", "nudge", "halt", "level")
"""What the loop may order by observing a number; what is above zero, or not finite, is carried out."""

_RULES = """
reflex broken       { when not finite(loss) or not finite(grad)  do skip else scale_lr by 0.25 }
reflex r_skip       { when order_skip > 0        do skip }
reflex r_clip       { when order_clip > 0        do clip to order_clip }
reflex r_scale      { when order_scale > 0       do scale_lr by order_scale }
reflex r_rollback { when order_rollback > 0 do rollback at most 8 steps else freeze top 40% of layers by grad_norm }
reflex r_freeze     { when order_freeze > 0      do freeze top 40% of layers by grad_norm }
reflex r_reset      { when order_reset > 0       do reset_moments else halt }
reflex r_checkpoint { when order_checkpoint > 0  do checkpoint }
reflex r_nudge      { when order_nudge > 0       do nudge with order_nudge else checkpoint }
reflex r_halt       { when order_halt > 0        do halt }
reflex r_odd        { when odd_function(odd) > 5 do nudge with odd_function(odd) }
levels normal -> caution -> defend
level caution {
  enter when divergence.alarm or order_level > 1  for 2 of 3 steps
  leave when order_level < 1 and divergence < 0.5
  stay at most 9 steps
  do scale_lr by 0.5  restore over 3 steps
}
level defend {
  enter when order_level > 2
  stay at most 7 steps
  cooldown 4 steps
  do freeze top 40% of layers by grad_norm
  do clip to order_clip else scale_lr by 0.5
  each 2 steps do scale_lr by 0.5
}
"""


@define(frozen=True)
class Allowed:
    """The limits of the hostile policy, as the test recounts them: budgets are (count, window)."""

    skip: tuple[int, int]
    in_a_row: int
    clip: tuple[int, int]
    rollback: tuple[int, int]
    distance: int
    spacing: int
    freeze_share: float
    freeze_ticks: int
    reset_moments: tuple[int, int]
    checkpoint: tuple[int, int]
    nudge: tuple[int, int]
    intervene: tuple[int, int]
    lowest: float = 0.2
    amounts: tuple[float, float] = (-0.5, 0.5)

    def text(self) -> str:
        """Return the limits in the language."""

        def budget(pair: tuple[int, int]) -> str:
            return f"at most {pair[0]} per {pair[1]} steps"

        low, high = self.amounts
        return f"""limits {{
          scale_lr within [{self.lowest}, 1]
          skip at most {self.in_a_row} in a row, {budget(self.skip)}
          clip {budget(self.clip)}
          rollback at most {self.distance} steps back, {budget(self.rollback)}, at least {self.spacing} steps apart
          freeze at most {self.freeze_share} of layers, for at most {self.freeze_ticks} steps
          reset_moments {budget(self.reset_moments)}
          checkpoint {budget(self.checkpoint)}
          nudge within [{low}, {high}], {budget(self.nudge)}
          intervene {budget(self.intervene)}
        }}"""


TIGHT = Allowed(
    skip=(3, 9), in_a_row=2, clip=(3, 8), rollback=(2, 12), distance=8, spacing=3, freeze_share=0.4, freeze_ticks=3,
    reset_moments=(1, 7), checkpoint=(2, 6), nudge=(2, 9), intervene=(5, 11),
)  # fmt: skip
LOOSE = Allowed(
    skip=(9, 15), in_a_row=4, clip=(9, 10), rollback=(6, 20), distance=12, spacing=1, freeze_share=0.7, freeze_ticks=6,
    reset_moments=(5, 10), checkpoint=(5, 10), nudge=(6, 10), intervene=(25, 30),
)  # fmt: skip


def policy_text(allowed: Allowed, on_failure: str = "continue") -> str:
    """Return the hostile policy under the given limits."""
    orders = "\n".join(f"signal order_{name} = observed.order_{name}" for name in ORDERS)
    return f"""lbw 1
policy hostile {{ quarantine at most 8 steps  snapshot every 2 steps  on failure {on_failure} }}
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
signal odd  = telemetry.odd_signal {{ every 2 steps  missing hold 3 steps }}
{orders}
risk divergence {{
  horizon 3 steps  features standard  alarm at most 5 false per 100 steps  trust after 2 steps  fallback 0%
}}
{_RULES}
{allowed.text()}
"""
