"""What a decision asks for, what is at hand, and what the limiter answers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection

from attrs import frozen


class Outcome(enum.Enum):
    """The limiter's answer to a request."""

    GRANTED = "granted"
    REDUCED = "reduced"
    REFUSED = "refused"


@frozen
class Request:
    """One action asked for by a rule; a tick has at most one request of each action.

    `amount` is the lr factor of `scale_lr`, the norm of `clip`, the most steps of `rollback`
    below the high-water mark, the share of layers of `freeze`, or a plugin's own; None for `skip` and `halt`,
    and where the policy's expression is not ready. `by` is the layer statistic of `freeze`, and
    `group` the layer group it chooses from ("" for all layers). `layers` tells a `clip` of each layer by itself.
    """

    action: str
    rule: str
    amount: float | None = None
    by: str = ""
    group: str = ""
    layers: bool = False


Impossible = Callable[[Request], str | None]
"""Tells why a request cannot be carried out at this moment; None where it can."""
Otherwise = Callable[[Request, Collection[str]], tuple[Request, ...]]
"""Returns what rules declared in place of a refused request, at most one request of each action, given the
actions that are refused already; amounts are those of all rules that ask for the action in this tick."""


def _possible(_: Request) -> str | None:
    return None


def _undeclared(_: Request, __: Collection[str]) -> tuple[Request, ...]:
    return ()


@frozen
class Situation:
    """What the answer depends on besides budgets.

    `snapshots` has the progress of every healthy snapshot; `grad_norm`, and `layer_norm`, the largest of a
    layer's, are None where unknown.
    """

    snapshots: tuple[int, ...] = ()
    grad_norm: float | None = None
    impossible: Impossible = _possible
    otherwise: Otherwise = _undeclared
    layer_norm: float | None = None


@frozen
class Grant:
    """The answer to a request.

    `amount` is what may be done: the lr factor, the factor for the gradients (`clip`; of layers, for the largest), the
    progress to restore (`rollback`), the share of layers, a plugin's amount; None where refused or without amount.
    `starts` tells an intervention that begins from one that is merely held.
    `left` is how many more the tightest budget allows now; None where no budget applies.
    `fallback` names the actions asked for instead of a refused one, whose answers the same tick has
    unless a halt, a rollback or a skip ends it; "" where none was declared.
    """

    request: Request
    outcome: Outcome
    amount: float | None = None
    reason: str = ""
    starts: bool = True
    left: int | None = None
    fallback: str = ""
