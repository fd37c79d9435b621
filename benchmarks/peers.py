"""The guards of others, for `benchmarks/efficacy.py`: their own packages, or else their published rules."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import statistics
import tempfile
from collections import deque
from collections.abc import Callable

from attrs import asdict, frozen
from timing import missing
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lbw_policy.lab.contenders import CLIPPED, OURS, PLAIN, Bystander, Contender, Memory, clipped, ours
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.training import Attach

WINDOW, ENOUGH, SIGMAS = 128, 64, 6.0
"""The rule of OLMo's SkipStep: so many steps, so many before it begins, so many standard deviations."""
EVERY, FRESH, APART = 25, 3, 10
"""Of the rollback: steps between snapshots, the age of one that is restored, steps between two rollbacks."""


class Zclip(Bystander):
    """ZClip with its defaults, by its own package."""

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        from zclip import ZClip

        super().__init__(optimizer, model)
        self._clip = ZClip()

    def judge(self, _: float, /) -> None:
        """Clip."""
        self._clip.step(self.model)


class SkipStep(Bystander):
    """OLMo-core's rule: skip where loss or gradient norm is six standard deviations above the last 128 steps.

    Skipped steps stay in the window. It is kinder than theirs, which multiplies the update by 0: NaN stays NaN there.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        super().__init__(optimizer, model)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)

    def judge(self, loss: float, /) -> None:
        """Skip an outlier."""
        norm = float(nn.utils.get_total_norm([w.grad for w in self.model.parameters() if w.grad is not None]))
        if _outlying(loss, self._losses) or _outlying(norm, self._norms):
            self.skip()
            self.acted("skip")
        self._losses.append(loss)
        self._norms.append(norm)


class Rollback(Bystander):
    """The rollback of a day's work: a loss that is not finite, or six deviations high, restores a recent snapshot.

    One in memory every 25 accepted steps, two of them kept; the newer one is restored if it is three steps old.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        super().__init__(optimizer, model)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._kept: deque[Memory] = deque([Memory.of(self)], maxlen=2)
        self._last = -APART

    def judge(self, loss: float, /) -> None:
        """Put the run back where it is in trouble."""
        if not math.isfinite(loss) or _outlying(loss, self._losses):
            self._restore()
            return
        self._losses.append(loss)
        if self.tick - self._kept[-1].tick >= EVERY:
            self._kept.append(Memory.of(self))

    def _restore(self) -> None:
        if self.tick - self._last < APART:
            return
        old = [memory for memory in self._kept if self.tick - memory.tick >= FRESH]
        (old or list(self._kept))[-1].restore(self)
        self._last = self.tick
        self.acted("rollback")


class Stability(Bystander):
    """StabilityGuard's optimizer with its defaults, by its own package; it steps the run's own optimizer."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, action: str) -> None:
        from stabilityguard import GuardedOptimizer

        super().__init__(optimizer, model)
        self._reports = tempfile.TemporaryDirectory()
        self._guarded = GuardedOptimizer(
            _Inner(optimizer), model, nan_action=action, verbose=False, log_dir=self._reports.name
        )
        self._action, self._step = action, optimizer.step
        optimizer.step = self._guard

    def _guard(self) -> None:
        before = self._guarded.total_spikes
        with contextlib.redirect_stdout(io.StringIO()):
            self._guarded.step()
        if self._guarded.total_spikes > before:
            self.acted(self._action)

    def detach(self) -> None:
        """Take its hooks off, and throw its reports away."""
        self._guarded.close()
        self._reports.cleanup()


class _Inner:
    """The run's optimizer with the step that it had before the guard took its place."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer, self.step = optimizer, optimizer.step

    def __getattr__(self, name: str) -> object:
        return getattr(self._optimizer, name)


@frozen
class _Adagc(Recipe):
    """AdaGC in Adam's place, by pytorch_optimizer."""

    def optimizer_of(self, model: nn.Module) -> Optimizer:
        from pytorch_optimizer import AdaGC

        betas, decay = (0.9, self.beta2), self.weight_decay if self.optimizer == "adamw" else 0.0
        return AdaGC(model.parameters(), lr=self.rate, betas=betas, weight_decay=decay)


@frozen
class _StableSpam(Recipe):
    """StableSPAM in Adam's place, by pytorch_optimizer."""

    def optimizer_of(self, model: nn.Module) -> Optimizer:
        from pytorch_optimizer import StableSPAM

        betas, decay = (0.9, self.beta2), self.weight_decay if self.optimizer == "adamw" else 0.0
        return StableSPAM(model.parameters(), lr=self.rate, betas=betas, weight_decay=decay)


def _outlying(value: float, window: deque[float]) -> bool:
    """Tell whether a value is high; where a window has NaN, everything is, as in the published rule."""
    if len(window) < ENOUGH:
        return False
    mean = math.fsum(window) / len(window) if all(map(math.isfinite, window)) else math.nan
    return not value - mean <= SIGMAS * (statistics.pstdev(window) if math.isfinite(mean) else math.nan)


def _as(kind: type[Recipe]) -> Callable[[Recipe], Recipe]:
    return lambda recipe: kind(**asdict(recipe))


def _attached(build: Callable[[Optimizer, nn.Module], Bystander]) -> Callable[[object], Attach]:
    def attach(optimizer: Optimizer, model: nn.Module, _: LRScheduler) -> Bystander:
        return build(optimizer, model)

    return lambda _: attach


ADAMS = ("adamw", "adam")
PEERS: dict[str, Contender] = {
    each.name: each
    for each in (
        Contender("zclip", "zclip 1", "zclip", _attached(Zclip)),
        Contender("adagc", "adagc 1", "pytorch_optimizer", recipe=_as(_Adagc), optimizers=ADAMS),
        Contender("stablespam", "stablespam 1", "pytorch_optimizer", recipe=_as(_StableSpam), optimizers=ADAMS),
        Contender("skipstep", "skipstep 1", "re-implemented from OLMo-core's rule", _attached(SkipStep)),
        Contender(
            "stabilityguard", "stabilityguard 1", "stabilityguard, its `rollback`",
            _attached(lambda optimizer, model: Stability(optimizer, model, "rollback")),
        ),
        Contender("rollback", "rollback 1", "re-implemented: 6 deviations of 128 losses", _attached(Rollback)),
    )
}  # fmt: skip
"""Guards of others by name."""
_PACKAGES = frozenset({"zclip", "pytorch_optimizer", "stabilityguard"})


@functools.cache
def contender(name: str) -> Contender:
    """Return a contender by its name: `none`, `clip`, `clip+rollback`, `ours:conservative`, `ours:mine.lbw`.

    Raises:
        KeyError: there is none of this name.
        PolicyError, ResourceError: the policy cannot be used.
    """
    if name.startswith(CLIPPED):
        return clipped(contender(name.removeprefix(CLIPPED)))
    if name.startswith(OURS):
        return ours(name.removeprefix(OURS))
    return PLAIN[name]() if name in PLAIN else PEERS[name]


def absent(found: Contender) -> str | None:
    """Return why a contender cannot take part, None if it can."""
    package = found.source.split(",")[0]
    return missing(package) if package in _PACKAGES else None
