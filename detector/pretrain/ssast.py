"""SSAST of arXiv 2110.09784: a transformer learns from spectrograms without labels, by patches hidden from it.

Shapes: B batch, N frames, F mel bands, R x S patch grid, P = R S patches of A values (16 x 16 or 128 x 2 = 256),
n hidden patches, D embedding. Patch index = frequency row * S + time column.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.backbones.transformer import TOKENS, Transformer, check_grid, pair
from detector.backbones.weights import fitted, read_source
from detector.pretrain.masking import hidden
from detector.published.weights import misfit

GENERATIVE_WEIGHT = 10.0  # of the reconstruction in the published loss


class SSAST(nn.Module):
    """Hides patches of (B, N, F) and predicts them twice: which one it was, and what it held.

    `patch` is in bands and frames: (16, 16), or (128, 2) for whole frames. Names and sizes are the published
    ones; the size of the input is kept in the weights, as published, for `AST.from_ssast`.
    """

    p_input_fdim: Tensor
    p_input_tdim: Tensor

    def __init__(
        self,
        size: str = "tiny",
        frames: int = 1024,
        mels: int = 128,
        patch: tuple[int, int] = (16, 16),
        *,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        patch = pair(patch)
        check_grid(mels, frames, size, patch, patch)
        self.size, self.frames, self.mels, self.patch = size, frames, mels, patch
        self.v = Transformer(size, mels, frames, patch, patch, checkpointing=checkpointing)
        self.cpredlayer = _head(self.v.dim, patch[0] * patch[1])
        self.gpredlayer = _head(self.v.dim, patch[0] * patch[1])
        self.mask_embed = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, self.v.dim)))
        self.register_buffer("p_input_fdim", torch.tensor(mels))
        self.register_buffer("p_input_tdim", torch.tensor(frames))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows of frequency and columns of time."""
        return self.v.rows, self.v.columns

    def columns(self, lengths: Tensor) -> Tensor:
        """The columns of patches that lie wholly within so many frames, at least one: (B,) -> (B,)."""
        return self.v.columns_of(lengths).clamp(min=1)

    def load_published(self, source: Mapping[str, Tensor] | str | Path) -> SSAST:
        """Load published weights in place, from a state dict or its `.pth` or `.safetensors` file. Returns self.

        Position embeddings of another length are cut or stretched as for fine-tuning. Raises ValueError, in one
        sentence, on what does not fit, and changes nothing then.
        """
        found = read_source(source)
        if not found.pretrained:
            raise ValueError(f"{found.name}: holds no mask embedding; expected weights of a pretrained SSAST")
        tensors = fitted(found, *self.grid, planes=1)
        tensors |= {"p_input_fdim": self.p_input_fdim, "p_input_tdim": self.p_input_tdim}
        tensors = {key: value for key, value in tensors.items() if not key.startswith("mlp_head.")}
        if fault := misfit(tensors, self.state_dict()):
            raise ValueError(
                f"{found.name} does not fit SSAST({self.size!r}, mels={self.mels}, patch={self.patch}): {fault}; "
                "check size and patch"
            )
        self.load_state_dict(tensors)
        return self

    def losses(self, x: Tensor, masked: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, N, F) and hidden patches (B, n) -> (InfoNCE, mean squared error), as the published code has them.

        InfoNCE: the hidden patches of one clip against all predictions for that clip, by inner products; the
        softmax runs over the predictions. Both are means over hidden patches. -1 in `masked` stands for none.
        """
        x, masked = self._checked(x, masked, lengths)
        guessed, rebuilt = self.predict(x, masked, lengths)
        true, guessed, rebuilt = map(
            _wide, (self._picked(self.patches(x), masked).detach(), guessed, rebuilt)
        )
        return info_nce(true, guessed, masked >= 0), patch_error(true, rebuilt, masked >= 0)

    def forward(self, x: Tensor, masked: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The published loss, InfoNCE + 10 MSE, from one pass (published: two, each with masks of its own)."""
        discriminative, generative = self.losses(x, masked, lengths)
        return discriminative + GENERATIVE_WEIGHT * generative

    def predict(self, x: Tensor, masked: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, N, F), hidden patches (B, n) -> what each head says of them, 2 x (B, n, A).

        Of the hidden patches it knows their places alone, of what lies beyond `lengths` (B,) nothing.
        """
        x, masked = self._checked(x, masked, lengths)
        columns = None if lengths is None else self.columns(torch.as_tensor(lengths, device=x.device))
        patches = self.v.embed(x.transpose(1, 2)[:, None])
        out = hidden(masked, self.v.rows * self.v.columns).unflatten(1, self.grid)[..., None]
        patches = torch.where(out, self.mask_embed.to(patches.dtype)[:, None], patches)
        found = self._picked(self.v.encode(patches, columns)[:, TOKENS:], masked)
        return self.cpredlayer(found), self.gpredlayer(found)

    def reconstruct(self, x: Tensor, masked: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The spectrogram with its hidden patches as NaN, and with the generative head's in their place; 2 x
        (B, N, F)."""
        _, rebuilt = self.predict(x, masked, lengths)
        x, masked = self._checked(x, masked, None)
        patches = self.patches(x)
        spare = F.pad(patches, (0, 0, 0, 1))  # -1 writes into one patch more, which is dropped
        index = torch.where(masked < 0, patches.shape[1], masked)[..., None].expand_as(rebuilt)
        filled = spare.scatter(1, index, rebuilt.to(patches.dtype))[:, :-1]
        blank = patches.masked_fill(hidden(masked, patches.shape[1])[..., None], torch.nan)
        return self.spectrogram(blank), self.spectrogram(filled)

    def patches(self, x: Tensor) -> Tensor:
        """(B, N, F) -> the values of every patch (B, P, A), bands before frames."""
        (rows, columns), (bands, frames) = self.grid, self.patch
        x = x[:, : columns * frames, : rows * bands].transpose(1, 2)
        return (
            x.unflatten(2, (columns, frames))
            .unflatten(1, (rows, bands))
            .transpose(2, 3)
            .flatten(3)
            .flatten(1, 2)
        )

    def spectrogram(self, patches: Tensor) -> Tensor:
        """(B, P, A) -> (B, N, F): the inverse of `patches`; bands and frames that fill no patch are lost."""
        x = patches.unflatten(1, self.grid).unflatten(3, self.patch).transpose(2, 3)
        return x.flatten(3).flatten(1, 2).transpose(1, 2)

    def _picked(self, values: Tensor, masked: Tensor) -> Tensor:
        """The values of the hidden patches: (B, P, X), (B, n) -> (B, n, X); -1 picks patch 0, unused."""
        return values.gather(1, masked.clamp(min=0)[..., None].expand(-1, -1, values.shape[-1]))

    def _checked(self, x: Tensor, masked: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """The spectrograms with zeros beyond their lengths, and the indices as int64; ValueError where the
        arguments do not fit."""
        if x.ndim != 3 or tuple(x.shape[1:]) != (self.frames, self.mels):
            raise ValueError(
                f"expected spectrograms (B, {self.frames} frames, {self.mels} mel bands), got shape "
                f"{tuple(x.shape)}; cut or pad them and give lengths"
            )
        patches = self.v.rows * self.v.columns
        masked = torch.as_tensor(masked, device=x.device)
        whole = not (masked.is_floating_point() or masked.is_complex() or masked.dtype == torch.bool)
        if masked.ndim != 2 or len(masked) != len(x) or not masked.shape[1] or not whole:
            raise ValueError(
                f"masked patches {tuple(masked.shape)} {masked.dtype}: expected ({len(x)}, n) patch indices, "
                "whole numbers, at least one for each clip"
            )
        x, masked = x.to(self.v.pos_embed.dtype), masked.long()
        if masked.device.type == "cpu" and len(x) and not -1 <= masked.min() <= masked.max() < patches:
            raise ValueError(
                f"masked patches beyond the grid: expected indices of 0 to {patches - 1}, or -1 for none"
            )
        if lengths is None:
            return x, masked
        beyond = (
            torch.arange(self.frames, device=x.device) >= torch.as_tensor(lengths, device=x.device)[:, None]
        )
        return x.masked_fill(beyond[..., None], 0), masked


def info_nce(true: Tensor, guessed: Tensor, counted: Tensor) -> Tensor:
    """Patches (B, n, A), their predictions (B, n, A), which count (B, n) -> the mean of -log of the share that
    each patch's own prediction has among all predictions of its clip."""
    with torch.autocast(guessed.device.type, enabled=False):  # half precision would round the products
        products = true @ guessed.transpose(1, 2)
    products = products.masked_fill(~counted[:, None], torch.finfo(products.dtype).min)
    own = products.log_softmax(dim=-1).diagonal(dim1=1, dim2=2)
    return -torch.where(counted, own, 0).sum() / counted.sum().clamp(min=1)


def patch_error(true: Tensor, rebuilt: Tensor, counted: Tensor) -> Tensor:
    """The mean square of what the prediction misses, over the patches that count."""
    return (torch.where(counted[..., None], rebuilt - true, 0) ** 2).sum() / (
        counted.sum().clamp(min=1) * true.shape[-1]
    )


def _wide(x: Tensor) -> Tensor:
    """Half precision as float32, in which losses are summed; float64 stays."""
    return x.float() if x.dtype.itemsize < 4 else x


def _head(dim: int, values: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, values))
