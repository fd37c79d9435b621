"""Stands where a guard would and only writes down what it would read."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lbw_policy.semantics.signals import SIGNALS, Need
from lbw_policy.telemetry import Collector, Layers, Plan, lacking

_LEFT_OUT = frozenset({"step_time", "attention_logit_max"})


class Watch:
    """Reads every signal of a run, once a step, where a guard reads it: after the backward pass, before the update.

    `columns` has the readings by signal, one a step, None where there was none. Left out are second derivatives
    (two more backward passes each) and the step's wall time, which is never the same twice.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module, *, attention: bool = False) -> None:
        layers = Layers.of(optimizer, model)
        names = [name for name, kind in SIGNALS.items() if kind.need is not Need.CURVATURE and name not in _LEFT_OUT]
        names += ["attention_logit_max"] if attention else []
        known = [name for name in names if lacking(name, optimizer, layers) is None]
        self.columns: dict[str, list[float | None]] = {name: [] for name in known}
        self.interventions: tuple[Any, ...] = ()
        self._collector = Collector(optimizer, layers, Plan(dict.fromkeys(known, 1), clips=True))
        self._tick = 0
        self._handle = optimizer.register_step_pre_hook(self._read)

    @classmethod
    def of_attention(cls, optimizer: Optimizer, model: nn.Module, _: LRScheduler) -> Watch:
        """Put a watch on a run whose model has attention."""
        return cls(optimizer, model, attention=True)

    @classmethod
    def plain(cls, optimizer: Optimizer, model: nn.Module, _: LRScheduler) -> Watch:
        """Put a watch on a run."""
        return cls(optimizer, model)

    def observe(self, *, loss: Tensor) -> None:
        """Take note of this step's loss."""
        self._collector.observe({"loss": loss})

    def clip_grad_norm_(self, max_norm: float, /) -> Tensor:
        """Clip as `Guard.clip_grad_norm_` does: the readings are those before the clip."""
        return self._collector.clip_gradients(max_norm)

    def detach(self) -> None:
        """Take all hooks off the run."""
        self._handle.remove()
        self._collector.detach()

    def _read(self, *_: object) -> None:
        values = self._collector.read(self._tick).values
        for name, column in self.columns.items():
            column.append(values[name])
        self._tick += 1
