"""A small pre-norm decoder: the architecture of GPT-2, without dropout or biases."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional


@frozen
class GptShape:
    """Sizes of a decoder; `width` must be a multiple of `heads`. `spread` is the deviation of its first weights."""

    width: int = 96
    layers: int = 3
    heads: int = 4
    context: int = 64
    vocabulary: int = 256
    spread: float = 0.02

    def network(self) -> nn.Module:
        """Return a new model."""
        return Gpt(self)


Shape = TypeVar("Shape", bound=GptShape)


class Attention(nn.Module):
    """Causal attention, added to the residual stream: the first half of a block."""

    def __init__(self, shape: GptShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.mix = nn.Linear(shape.width, shape.width, bias=False)

    def attended(self, stream: Tensor) -> Tensor:
        """Return the residual stream after the attention, [batch, context, width]."""
        batch, context, width = stream.shape
        parts = self.qkv(self.attention_norm(stream)).view(batch, context, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.mix(seen.transpose(1, 2).reshape(batch, context, width))
        return stream + mixed


class Block(Attention):
    """Causal attention and a feed-forward net, each added to the residual stream."""

    def __init__(self, shape: GptShape) -> None:
        super().__init__(shape)
        self.feed_norm = nn.LayerNorm(shape.width)
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """Return the residual stream after this block, [batch, context, width]."""
        stream = self.attended(stream)
        fed: Tensor = self.down(functional.gelu(self.up(self.feed_norm(stream))))
        return stream + fed


class Decoder(nn.Module):
    """A decoder of the given blocks, whose input and output embeddings are one matrix."""

    def __init__(self, shape: Shape, block: Callable[[Shape], nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Parameter(torch.empty(shape.context, shape.width))
        self.blocks = nn.ModuleList(block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self._initialise(shape.spread, shape.layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the next token, [batch, context, vocabulary], for int64 [batch, context]."""
        stream = self.embedding(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            stream = block(stream)
        return functional.linear(self.norm(stream), self.embedding.weight)

    def _initialise(self, spread: float, layers: int) -> None:
        # GPT-2: the same everywhere, and less where a block writes to the stream, so that depth does not add up.
        for name, weight in self.named_parameters():
            if weight.dim() >= 2:
                writes = {"mix", "down"} & set(name.split("."))
                nn.init.normal_(weight, std=spread / math.sqrt(2 * layers) if writes else spread)


class Gpt(Decoder):
    """A decoder of plain blocks."""

    def __init__(self, shape: GptShape) -> None:
        super().__init__(shape, Block)
