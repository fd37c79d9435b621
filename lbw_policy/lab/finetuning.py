"""Fine-tuning: a training that begins with the weights of an earlier, trouble-free one, in another domain."""

from __future__ import annotations

import functools

from attrs import evolve, field, frozen
from torch import Tensor, nn

from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.tasks import PLAIN, Batch, Task, View
from lbw_policy.lab.training import Run
from lbw_policy.lab.trouble import CALM


@frozen(eq=False)
class FineTuning:
    """A task whose models were trained on another one before; its data and its held-out loss are those of `task`.

    `before` and `task` build the same net. `recipe` is how it was trained on `before`, but for its seed, which is that
    of the model asked for: each seed has weights of its own, which are made once a process. All of them go on training.
    """

    before: Task = field(repr=False)
    recipe: Recipe
    task: Task = field(repr=False)

    @property
    def name(self) -> str:
        """Return the name shown to people."""
        return f"fine-tuned {self.task.name}"

    def model(self, seed: int) -> nn.Module:
        """Return a model with the weights of the earlier training; the global random state is left as it was."""
        model = self.task.model(seed)
        model.load_state_dict(_trained(self, seed))
        return model

    def batch(self, seed: int, step: int, view: View = PLAIN) -> Batch:
        """Return the batch of a step."""
        return self.task.batch(seed, step, view)

    def noise(self, seed: int, step: int) -> Batch:
        """Return a batch of the same shape with nothing in it to learn."""
        return self.task.noise(seed, step)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the weighted mean loss, a scalar."""
        return self.task.loss(model, batch)

    def held_out(self, model: nn.Module) -> float:
        """Return the mean loss on data never trained on, in the new domain."""
        return self.task.held_out(model)


@functools.cache
def _trained(tuning: FineTuning, seed: int) -> dict[str, Tensor]:
    run = Run(tuning.before, evolve(tuning.recipe, seed=seed), CALM)
    for _ in range(tuning.recipe.steps):
        run.step()
    return run.model.state_dict()
