"""The small plain nets: a recurrent one for text; for digits a perceptron, convolutions, a denoiser."""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional

from lbw_policy.lab.digits import CLASSES, SIDE

_PIXELS = SIDE * SIDE


@frozen
class GruShape:
    """Sizes of a recurrent net."""

    width: int = 64
    context: int = 32
    vocabulary: int = 256

    def network(self) -> nn.Module:
        """Return a new model."""
        return Gru(self)


class Gru(nn.Module):
    """A gated recurrent unit (Cho et al., 2014) between an embedding and a head."""

    def __init__(self, shape: GruShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.gru = nn.GRU(shape.width, shape.width, batch_first=True)
        self.head = nn.Linear(shape.width, shape.vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the next token, [batch, context, vocabulary], for int64 [batch, context]."""
        scores: Tensor = self.head(self.gru(self.embedding(tokens))[0])
        return scores


class Mlp(nn.Module):
    """Three hidden layers of rectified units, without any normalisation."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.enter = nn.Linear(_PIXELS, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return scores of the digits, [batch, 10], for images [batch, 1, 8, 8]."""
        stream = self.enter(pixels.flatten(1)).relu()
        for layer in self.hidden:
            stream = layer(stream).relu()
        scores: Tensor = self.head(stream)
        return scores


class Cnn(nn.Module):
    """Three convolutions, with or without batch normalisation."""

    def __init__(self, width: int = 16, *, normalised: bool = False) -> None:
        super().__init__()
        sizes = ((1, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        self.layers = nn.Sequential(*(_convolution(*size, normalised) for size in sizes))
        self.head = nn.Linear(2 * width * _PIXELS // 4, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return scores of the digits, [batch, 10], for images [batch, 1, 8, 8]."""
        scores: Tensor = self.head(self.layers(pixels).flatten(1))
        return scores


class Denoiser(nn.Module):
    """A residual net that guesses the noise in a flat image, told the time by sines."""

    def __init__(self, width: int = 128, layers: int = 2, waves: int = 8) -> None:
        super().__init__()
        self.waves = 2.0 ** torch.arange(waves) * math.pi / 2
        self.enter = nn.Linear(_PIXELS + 2 * waves, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(layers)
        )
        self.head = nn.Linear(width, _PIXELS)

    def forward(self, mixture: Tensor) -> Tensor:
        """Return the noise, [batch, 64], for pixels and the time behind them, [batch, 65]."""
        angles = mixture[:, -1:] * self.waves
        stream = self.enter(torch.cat((mixture[:, :-1], angles.sin(), angles.cos()), 1))
        for layer in self.layers:
            stream = stream + layer(stream)
        noise: Tensor = self.head(functional.silu(stream))
        return noise


def _convolution(before: int, after: int, stride: int, normalised: bool) -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(before, after, 3, stride, padding=1)]
    if normalised:
        parts.append(nn.BatchNorm2d(after))
    return nn.Sequential(*parts, nn.ReLU())
