"""The plugins of one policy at work on one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from torch import nn
from torch.optim import Optimizer

from lbw_policy.limits import Grant
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.plugins import ActionContext, ActionPlugin, SignalContext, SignalPlugin, usable
from lbw_policy.semantics.signals import SIGNALS
from lbw_policy.semantics.walk import actions_of

Measure = Callable[[int], object]


class Plugged:
    """Binds a policy's plugins to the optimizer and the model they read and act on."""

    def __init__(self, policy: p.Policy, optimizer: Optimizer, model: nn.Module | None) -> None:
        self._optimizer, self._model = optimizer, model
        names = {action.name for action in actions_of(policy) if isinstance(action, p.Custom)}
        self._actions = {name: plugin for name in sorted(names) if (plugin := usable(ActionPlugin, name))}
        sources = {signal.source for signal in policy.signals if not signal.observed} - set(SIGNALS)
        signals = {name: found for name in sorted(sources) if (found := usable(SignalPlugin, name))}
        self.measures: dict[str, Measure] = {name: partial(self._measure, one) for name, one in signals.items()}

    def _measure(self, plugin: SignalPlugin, tick: int) -> object:
        return plugin.measure(SignalContext(self._optimizer, self._model, tick))

    def act(self, grants: Iterable[Grant], tick: int) -> list[str]:
        """Carry out the grants of plugin actions; return why those that raised have failed."""
        failures = []
        for grant in grants:
            plugin = self._actions.get(grant.request.action)
            if plugin is None:
                continue
            try:
                plugin.apply(ActionContext(self._optimizer, self._model, grant.amount, tick))
            except Exception as error:
                failures.append(f"the plugin action `{plugin.name}` failed: {type(error).__name__}: {error}")
        return failures
