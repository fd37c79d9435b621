"""A small pre-norm decoder: the architecture of GPT-2, without dropout or biases."""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional


@frozen
class GptShape:
    """Sizes of a decoder; `width` must be a multiple of `heads`."""

    width: int = 96
    layers: int = 3
    heads: int = 4
    context: int = 64
    vocabulary: int = 256


class Block(nn.Module):
    """Causal attention and a feed-forward net, each added to the residual stream."""

    def __init__(self, shape: GptShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.feed_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """Return the residual stream after this block, [batch, context, width]."""
        stream = stream + self.mix(self._attend(self.attention_norm(stream)))
        fed: Tensor = self.down(functional.gelu(self.up(self.feed_norm(stream))))
        return stream + fed

    def _attend(self, stream: Tensor) -> Tensor:
        batch, context, width = stream.shape
        parts = self.qkv(stream).view(batch, context, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return seen.transpose(1, 2).reshape(batch, context, width)


class Gpt(nn.Module):
    """A decoder whose input and output embeddings are one matrix."""

    def __init__(self, shape: GptShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Parameter(torch.empty(shape.context, shape.width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self._initialise(shape.layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the next token, [batch, context, vocabulary], for int64 [batch, context]."""
        stream = self.embedding(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            stream = block(stream)
        return functional.linear(self.norm(stream), self.embedding.weight)

    def _initialise(self, layers: int) -> None:
        # GPT-2: 0.02 everywhere, and less where a block writes to the stream, so that depth does not add up.
        for name, weight in self.named_parameters():
            if weight.dim() >= 2:
                writes = name.endswith(("mix.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers) if writes else 0.02)
