"""The small trainings of the lab by name: architecture, data, and a learning rate for each optimizer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from attrs import field, frozen

from lbw_policy.lab.digits import DigitClasses, DigitDenoising, digits
from lbw_policy.lab.finetuning import FineTuning
from lbw_policy.lab.gpt import GptShape
from lbw_policy.lab.language import ByteLanguage, Shape
from lbw_policy.lab.moe import MoeShape
from lbw_policy.lab.nets import Cnn, Denoiser, GruShape, Mlp
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.ssm import SsmShape
from lbw_policy.lab.tasks import Task
from lbw_policy.lab.text import Text, library_prose, library_text, split
from lbw_policy.lab.trouble import ATTENTION, ROUTER, SECOND_MOMENTS, Fault

_SPREAD = 0.1
"""GPT-2's 0.02 at a width of 768, carried over to one of 32 by the root of the widths."""
_GPT = GptShape(width=32, layers=2, heads=4, context=32, spread=_SPREAD)
_TRAINED_BEFORE = 300
"""Steps of the training, trouble-free and under AdamW, whose weights fine-tuning begins with."""


@frozen(eq=False)
class Architecture:
    """A kind of small training.

    `rates` has for each optimizer a learning rate at which the trouble-free run learns well: of a sweep by factors of
    about three, the best in held-out loss after 300 steps, or the next lower one where that is about as good.
    """

    name: str
    make: Callable[[], Task] = field(repr=False)
    rates: Mapping[str, float]
    traits: frozenset[str] = frozenset()

    def fits(self, kind: type[Fault], optimizer: str) -> bool:
        """Tell whether a kind of fault can strike this training under an optimizer."""
        moments = frozenset() if optimizer == "sgd" else frozenset({SECOND_MOMENTS})
        return kind.needs <= self.traits | moments


@functools.cache
def _text() -> Text:
    return library_text(prose=False)


def _language(shape: Shape, name: str) -> Task:
    return ByteLanguage(_text(), shape, size=8, name=name, other=library_prose())


_CATALOGUE = (
    Architecture(
        "gpt",
        lambda: _language(_GPT, "byte-level GPT"),
        {"adamw": 0.01, "adam": 0.01, "sgd": 0.1},
        frozenset({ATTENTION}),
    ),
    Architecture(
        "moe",
        lambda: _language(MoeShape(width=32, layers=2, heads=4, context=32, spread=_SPREAD), "mixture of experts"),
        {"adamw": 0.01, "adam": 0.01, "sgd": 0.1},
        frozenset({ATTENTION, ROUTER}),
    ),
    Architecture(
        "ssm",
        lambda: _language(SsmShape(width=32), "selective state-space model"),
        {"adamw": 0.01, "adam": 0.01, "sgd": 0.1},
    ),
    Architecture(
        "gru",
        lambda: _language(GruShape(), "gated recurrent net"),
        {"adamw": 0.01, "adam": 0.01, "sgd": 0.3},
    ),
    Architecture(
        "denoiser",
        lambda: DigitDenoising(digits(), Denoiser),
        {"adamw": 0.01, "adam": 0.01, "sgd": 0.3},
    ),
    Architecture(
        "mlp",
        lambda: DigitClasses(digits(), Mlp, name="perceptron"),
        {"adamw": 0.003, "adam": 0.003, "sgd": 0.03},
    ),
    Architecture(
        "cnn",
        lambda: DigitClasses(digits(), Cnn, name="convolutional net"),
        {"adamw": 0.003, "adam": 0.003, "sgd": 0.03},
    ),
    Architecture(
        "cnn_bn",
        lambda: DigitClasses(digits(), functools.partial(Cnn, normalised=True), name="convolutions with BatchNorm"),
        {"adamw": 0.003, "adam": 0.003, "sgd": 0.1},
    ),
)

ARCHITECTURES: dict[str, Architecture] = {each.name: each for each in _CATALOGUE}
"""Every kind of training from random weights by name: those of the corpus."""


def _prose() -> Text:
    """Return the other domain of the decoders; where there is no prose it is the source text, backwards."""
    prose, code = library_prose(), _text()
    return Text(code.train.flip(0), code.held_out.flip(0)) if prose is None else split(prose)


def _fine_tuned(base: str, task: Task) -> Task:
    return FineTuning(task_of(base), Recipe(_TRAINED_BEFORE, rate=ARCHITECTURES[base].rates["adamw"]), task)


_FINE_TUNED = (
    Architecture(
        "gpt_tuned",
        lambda: _fine_tuned("gpt", ByteLanguage(_prose(), _GPT, size=8, other=_text().train)),
        {"adamw": 0.01, "adam": 0.01, "sgd": 0.1},
        frozenset({ATTENTION}),
    ),
    Architecture(
        "cnn_tuned",
        lambda: _fine_tuned("cnn", DigitClasses(digits(), Cnn, name="convolutional net", moved=True)),
        {"adamw": 0.003, "adam": 0.003, "sgd": 0.01},
    ),
)

# INVARIANT: those of a comparison keep their places, with which their optimizers, and so the keys of findings, go.
TRAININGS: dict[str, Architecture] = ARCHITECTURES | {each.name: each for each in _FINE_TUNED}
"""Every kind of training by name: those of a comparison. Fine-tuned ones are last and in no corpus."""


@functools.cache
def task_of(name: str) -> Task:
    """Return the task of a training; data are read once. ImportError where scikit-learn is needed and missing."""
    return TRAININGS[name].make()
