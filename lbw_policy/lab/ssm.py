"""A small selective state-space model: Mamba's block in the matrix form of Mamba-2."""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional

_TAPS = 4


@frozen
class SsmShape:
    """Sizes of the model; twice the width must be a multiple of `heads`."""

    width: int = 48
    layers: int = 2
    heads: int = 4
    state: int = 8
    context: int = 32
    vocabulary: int = 256

    def network(self) -> nn.Module:
        """Return a new model."""
        return Ssm(self)


class SsmBlock(nn.Module):
    """A gated scan `h[t] = exp(dt[t] a) h[t-1] + dt[t] b[t] x[t]`, `y[t] = c[t] h[t] + d x[t]`, added to the stream.

    dt, b and c depend on the input: that is what makes it selective (Gu and Dao, 2023). With one decay a head, the
    scan is one product with a lower triangular matrix (Dao and Gu, 2024); all its exponents are at most 0.
    """

    def __init__(self, shape: SsmShape) -> None:
        super().__init__()
        inner = 2 * shape.width
        self.heads, self.sizes = shape.heads, (inner, inner, shape.state, shape.state, shape.heads)
        self.norm = nn.LayerNorm(shape.width)
        self.enter = nn.Linear(shape.width, sum(self.sizes), bias=False)
        self.taps = nn.Conv1d(inner, inner, _TAPS, groups=inner, padding=_TAPS - 1)
        self.decay = nn.Parameter(torch.linspace(0, math.log(8), shape.heads))
        self.pace = nn.Parameter(torch.full((shape.heads,), -2.0))
        self.direct = nn.Parameter(torch.ones(shape.heads))
        self.leave = nn.Linear(inner, shape.width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """Return the residual stream after this block, [batch, context, width]."""
        x, gate, b, c, pace = self.enter(self.norm(stream)).split(self.sizes, dim=-1)
        x = functional.silu(self.taps(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        scanned = self._scan(x.reshape(*x.shape[:2], self.heads, -1), b, c, functional.softplus(pace + self.pace))
        left: Tensor = self.leave(scanned.flatten(2) * functional.silu(gate))
        return stream + left

    def _scan(self, x: Tensor, b: Tensor, c: Tensor, pace: Tensor) -> Tensor:
        """Return y, [batch, context, heads, part], of x, [batch, context, heads, part]."""
        past = (-pace * self.decay.exp()).float().cumsum(1).transpose(1, 2)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        fading = (past[..., :, None] - past[..., None, :]).masked_fill(~later, -math.inf).exp()
        mixing = (fading * (c @ b.transpose(1, 2))[:, None]).to(x.dtype)
        return (mixing @ (x * pace[..., None]).transpose(1, 2)).transpose(1, 2) + self.direct[:, None] * x


class Ssm(nn.Module):
    """Blocks between an embedding and a head."""

    def __init__(self, shape: SsmShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(SsmBlock(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        for weight in (self.embedding.weight, self.head.weight):
            nn.init.normal_(weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the next token, [batch, context, vocabulary], for int64 [batch, context]."""
        stream = self.embedding(tokens)
        for block in self.blocks:
            stream = block(stream)
        scores: Tensor = self.head(self.norm(stream))
        return scores
