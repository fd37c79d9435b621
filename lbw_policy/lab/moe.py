"""The small decoder with a mixture of experts in place of its feed-forward nets."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional

from lbw_policy.lab.gpt import Attention, Decoder, GptShape


@frozen
class MoeShape(GptShape):
    """Sizes of a decoder with experts; each token goes to `choices` of them."""

    experts: int = 4
    choices: int = 2
    hidden: int = 64

    def network(self) -> nn.Module:
        """Return a new model."""
        return Moe(self)


class Experts(nn.Module):
    """Feed-forward experts behind a router that sends each token to its top two.

    Gates are the softmax over the chosen scores (Mixtral, Jiang et al., 2024); every expert sees every token and the
    gates of those not chosen are zero, which is the same sum at this size. `penalty` is the balance loss of
    Switch Transformer (Fedus et al., 2021) and the router z-loss of ST-MoE (Zoph et al., 2022), weighted as there.
    """

    def __init__(self, shape: MoeShape) -> None:
        super().__init__()
        self.top_k = shape.choices
        self.router = nn.Linear(shape.width, shape.experts)
        self.up = nn.Parameter(torch.empty(shape.experts, shape.width, shape.hidden))
        self.down = nn.Parameter(torch.empty(shape.experts, shape.hidden, shape.width))
        self.penalty = torch.zeros(())

    def forward(self, stream: Tensor) -> Tensor:
        """Return the experts' answer, [batch, context, width]."""
        scores: Tensor = self.router(stream)
        best, chosen = scores.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(scores).scatter(-1, chosen, best.softmax(-1).to(scores.dtype))
        self.penalty = _balance(scores.float(), chosen)
        answers = functional.gelu(stream.flatten(0, 1) @ self.up) @ self.down
        return (gates.flatten(0, 1).T[..., None] * answers).sum(0).view_as(stream)


class MoeBlock(Attention):
    """Causal attention and experts, each added to the residual stream."""

    def __init__(self, shape: MoeShape) -> None:
        super().__init__(shape)
        self.feed_norm = nn.LayerNorm(shape.width)
        self.experts = Experts(shape)

    def forward(self, stream: Tensor) -> Tensor:
        """Return the residual stream after this block, [batch, context, width]."""
        stream = self.attended(stream)
        fed: Tensor = self.experts(self.feed_norm(stream))
        return stream + fed


class Moe(Decoder):
    """The decoder with experts in every block."""

    def __init__(self, shape: MoeShape) -> None:
        super().__init__(shape, MoeBlock)

    @property
    def penalty(self) -> Tensor:
        """Return the routers' penalty of the last forward pass, a scalar."""
        return torch.stack([part.penalty for part in self.modules() if isinstance(part, Experts)]).sum()


def _balance(scores: Tensor, chosen: Tensor) -> Tensor:
    experts = scores.shape[-1]
    load = functional.one_hot(chosen, experts).float().mean((0, 1, 2))
    share = scores.softmax(-1).mean((0, 1))
    return 0.01 * experts * (load * share).sum() + 0.001 * scores.logsumexp(-1).square().mean()
