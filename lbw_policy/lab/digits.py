"""Scikit-learn's digits: 1,797 real images of 8 x 8 pixels, to tell apart or to denoise."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn import functional as net

from lbw_policy.lab.tasks import PLAIN, Batch, View, evaluating, generator, seeded

SIDE = 8
CLASSES = 10
_HELD_OUT = 0.2


@frozen(eq=False)
class Images:
    """Images, float32 of shape [n, 1, 8, 8] within [-1, 1], and the digits they show, int64 of shape [n]."""

    pixels: Tensor
    labels: Tensor

    def pick(self, count: int, source: torch.Generator, ease: float = 0.0) -> Images:
        """Return random ones, repeats allowed; the easy part are the lowest digits."""
        known = (self.labels < max(2, math.ceil(CLASSES * (1 - ease)))).nonzero().flatten()
        chosen = known[torch.randint(len(known), (count,), generator=source)]
        return Images(self.pixels[chosen], self.labels[chosen])


@frozen(eq=False)
class Digits:
    """The images to learn from and those never trained on."""

    train: Images
    held_out: Images


@functools.cache
def digits() -> Digits:
    """Return scikit-learn's digits, always split alike; ImportError where scikit-learn is not installed."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(found.data).float().view(-1, 1, SIDE, SIDE)[order] / 8 - 1
    labels = torch.from_numpy(found.target).long()[order]
    cut = len(order) - int(len(order) * _HELD_OUT)
    return Digits(Images(pixels[:cut], labels[:cut]), Images(pixels[cut:], labels[cut:]))


@frozen(eq=False)
class DigitClasses:
    """Tell which digit an image shows. Another domain: the image moved by a pixel, on noisy paper.

    Where `moved` is set, that is the domain that is trained and judged in, and the plain images are the other one.
    """

    data: Digits = field(repr=False)
    build: Callable[[], nn.Module]
    size: int = 32
    name: str = "digit classifier"
    moved: bool = False

    def model(self, seed: int) -> nn.Module:
        """Return a new model; the global random state is left as it was."""
        with seeded(seed):
            return self.build()

    def batch(self, seed: int, step: int, view: View = PLAIN) -> Batch:
        """Return `size` images, float32 of shape [size, 1, 8, 8], and their digits."""
        source, count = generator(seed, step), view.count(self.size)
        found = self.data.train.pick(count, source, view.ease)
        moved = round((1 - view.elsewhere if self.moved else view.elsewhere) * count)
        pixels = torch.cat((_moved(found.pixels[:moved], source), found.pixels[moved:])) if moved else found.pixels
        return Batch(pixels, found.labels)

    def noise(self, seed: int, step: int) -> Batch:
        """Return noise, with digits that have nothing to do with it."""
        source = generator(seed, ~step)
        pixels = torch.randn(self.size, 1, SIDE, SIDE, generator=source)
        return Batch(pixels, torch.randint(CLASSES, (self.size,), generator=source))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the batch in nats, times its weight."""
        return net.cross_entropy(model(batch.inputs), batch.targets) * batch.weight

    def held_out(self, model: nn.Module) -> float:
        """Return the mean cross entropy over the held-out images, in nats."""
        pixels = self.data.held_out.pixels
        seen = _moved(pixels, generator(0, 0)) if self.moved else pixels
        with evaluating(model):
            return float(self.loss(model, Batch(seen, self.data.held_out.labels)))


@frozen(eq=False)
class DigitDenoising:
    """Guess the noise in a noisy image: the training of a diffusion model. Another domain: negatives.

    An image is mixed with noise as `sqrt(a) x + sqrt(1 - a) noise`, `a = cos(pi t / 2) ** 2`, t uniform in [0, 1]
    (Ho et al., 2020; the schedule of Nichol and Dhariwal, 2021). A model is given the mixture and t.
    """

    data: Digits = field(repr=False)
    build: Callable[[], nn.Module]
    size: int = 64
    name: str = "diffusion denoiser"

    def model(self, seed: int) -> nn.Module:
        """Return a new model; the global random state is left as it was."""
        with seeded(seed):
            return self.build()

    def batch(self, seed: int, step: int, view: View = PLAIN) -> Batch:
        """Return `size` mixtures with t behind the pixels, [size, 65], and the noise in them, [size, 64].

        The easy part are the late times, where there is more noise to see.
        """
        source, count = generator(seed, step), view.count(self.size)
        pixels = self.data.train.pick(count, source).pixels.flatten(1)
        turned = round(view.elsewhere * count)
        pixels = torch.cat((-pixels[:turned], pixels[turned:]))
        times = view.ease + (1 - view.ease) * torch.rand(count, 1, generator=source)
        return _mixed(pixels, times, source)

    def noise(self, seed: int, step: int) -> Batch:
        """Return noise, with targets that are noise of their own."""
        source = generator(seed, ~step)
        inputs = torch.randn(self.size, SIDE * SIDE + 1, generator=source)
        return Batch(inputs, torch.randn(self.size, SIDE * SIDE, generator=source))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared error of the guess, times its weight; the noise has variance 1."""
        return net.mse_loss(model(batch.inputs), batch.targets) * batch.weight

    def held_out(self, model: nn.Module) -> float:
        """Return the mean squared error over the held-out images, at evenly spread times."""
        pixels = self.data.held_out.pixels.flatten(1)
        times = torch.linspace(0, 1, len(pixels))[:, None]
        with evaluating(model):
            return float(self.loss(model, _mixed(pixels, times, generator(0, 0))))


def _moved(pixels: Tensor, source: torch.Generator) -> Tensor:
    return pixels.roll(1, -1) + 0.3 * torch.randn(pixels.shape, generator=source)


def _mixed(pixels: Tensor, times: Tensor, source: torch.Generator) -> Batch:
    noise = torch.randn(pixels.shape, generator=source)
    angle = 0.5 * math.pi * times
    return Batch(torch.cat((angle.cos() * pixels + angle.sin() * noise, times), 1), noise)
