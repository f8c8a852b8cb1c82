"""Transformers of 32 px with random weights: 8×8 patches, two blocks, and what their kinds differ in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

SIDE = 8


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Hidden(NamedTuple):
    tokens: Tensor
    other: int


def tensor_in(output) -> Tensor:
    """The first tensor of a block's output."""
    if isinstance(output, dict):
        return output["hidden"]
    return output if isinstance(output, Tensor) else output[0]


class Block(nn.Module):
    """``output``: what it returns, a tensor, a tuple, a named tuple, a list or a dictionary that begins with it."""

    def __init__(self, width: int, output: str = "tensor") -> None:
        super().__init__()
        self.output = output
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, given):
        x = tensor_in(given)
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        forms = {"tuple": (x, None), "list": [x], "named": Hidden(x, 3), "dict": {"hidden": x, "same": x}}
        return forms.get(self.output, x)


class TinyViT(nn.Module):
    """``extra`` tokens ``where`` among the patches: first, last, or in the middle. ``head``: what the classifier reads,
    "class" the first extra token, "mean" all tokens. ``folded``: the tokens after the first block pass through an
    identity as a map N×C×h×w.
    """

    def __init__(
        self,
        extra: int = 1,
        where: str = "first",
        head: str = "class",
        output: str = "tensor",
        folded: bool = False,
    ) -> None:
        super().__init__()
        torch.manual_seed(4)
        width = 16
        self.extra, self.head_reads, self.folded = extra, head, folded
        self.at = {"first": 0, "middle": SIDE * SIDE // 2, "last": SIDE * SIDE}[where]
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.tokens = nn.Parameter(torch.randn(1, extra, width))
        self.places = nn.Parameter(0.5 * torch.randn(1, SIDE * SIDE + extra, width))
        self.blocks = nn.Sequential(*(Block(width, output) for _ in range(2)))
        self.as_map = nn.Identity()
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)
        with torch.no_grad():  # the patches have to matter to the class token
            for block in self.blocks:
                block.attn.proj.weight *= 3

    def embedded(self, x: Tensor) -> Tensor:
        """The tokens before the first block."""
        patches = 3 * self.stem(x).flatten(2).transpose(1, 2)
        extra = self.tokens.expand(len(x), -1, -1)
        return torch.cat([patches[:, : self.at], extra, patches[:, self.at :]], 1) + self.places

    def classified(self, tokens: Tensor) -> Tensor:
        """The logits of the tokens after the last block."""
        tokens = self.norm(tokens)
        return self.head(tokens[:, self.at] if self.head_reads == "class" else tokens.mean(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](self.embedded(x))
        if self.folded:  # the extra tokens are in front
            patches = self.as_map(x[:, self.extra :].transpose(1, 2).unflatten(2, (SIDE, SIDE)))
            x = torch.cat([x[:, : self.extra], patches.flatten(2).transpose(1, 2)], 1)
        x = self.blocks[1](x)
        return self.classified(tensor_in(x))


class MixerBlock(nn.Module):
    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across, self.along = nn.Linear(count, count), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + nn.functional.gelu(self.across(self.norm1(x).transpose(1, 2))).transpose(1, 2)
        return x + nn.functional.gelu(self.along(self.norm2(x)))


class TinyMixer(nn.Module):
    """Linear layers across the tokens and along the channels, and a mean: no extra token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.blocks = nn.Sequential(MixerBlock(16, SIDE * SIDE), MixerBlock(16, SIDE * SIDE))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


class Merging(nn.Module):
    """2×2 tokens become one, as in Swin."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        side = round(x.shape[1] ** 0.5)
        x = x.unflatten(1, (side // 2, 2, side // 2, 2)).permute(0, 1, 3, 2, 4, 5)
        return self.reduction(x.flatten(3).flatten(1, 2))


class TinySwin(nn.Module):
    """Two stages of tokens, 8×8 and 4×4, each a block whose output is a tuple, as in transformers' Swin."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.first, self.merging, self.second = Block(16, "tuple"), Merging(16), Block(32, "tuple")
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens, _ = self.first(self.stem(x).flatten(2).transpose(1, 2))
        tokens, _ = self.second(self.merging(tokens))
        return self.head(self.norm(tokens).mean(1))
