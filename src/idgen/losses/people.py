"""Losses on where the identity branch attends for each person of a picture, after MOSAIC (arXiv 2509.01977)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from .recorder import LayerRecord, Recording, level_size, masks_at

Divergence: TypeAlias = Literal["js", "kl"]
"""Jensen-Shannon divergence, at most log 2, or the mean of both Kullback-Leibler divergences, which has no bound."""


def correspondence_loss(
    with_id: Recording, person_masks: torch.Tensor, person_landmarks: torch.Tensor, people: torch.Tensor
) -> torch.Tensor:
    """Each person's tokens attend to that person's landmarks: `−1/K Σ_k 1/P_k Σ_j log A[u_j, v_j]`.

    `L_SCA` of MOSAIC, with A of `LayerRecord.identity_attention`. MOSAIC matches points of reference and target. The
    tokens of an identity have no position in the photo, so each is matched with all five landmarks. The least value of
    a layer of many positions is log 5.

    Args:
        with_id: Cross-attention layers.
        person_masks: (batch, people, height, width), at the resolution of the latent; only their size is read.
        person_landmarks: (batch, people, 5, 2), in pixels of the latent.
        people: (batch, people), who counts; tokens of others are left out.

    Returns:
        (batch,), the mean over the layers; 0 for a picture of nobody.
    """
    height, width = person_masks.shape[-2:]

    def of_layer(maps: torch.Tensor) -> torch.Tensor:
        rows, columns = level_size(height, width, maps.shape[-1])
        x, y = (person_landmarks * person_landmarks.new_tensor([columns / width, rows / height])).floor().unbind(-1)
        places = (y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)).long()
        hits = maps.gather(-1, places[:, :, None].expand(-1, -1, maps.shape[2], -1))
        return -_log(hits).mean((2, 3))

    return _over_layers(with_id, people, lambda maps: _mean(of_layer(maps), people))


def in_box_loss(with_id: Recording, person_masks: torch.Tensor, people: torch.Tensor) -> torch.Tensor:
    """Share of each person's attention outside of the box around the person's face: `1 − Σ_{v in box} a^(k)[v]`.

    `a^(k)` is the mean of `LayerRecord.identity_attention` over the tokens of person k. It is the localisation loss
    for the identity branch; see `localisation_loss` for words of the prompt.

    Args:
        with_id: Cross-attention layers.
        person_masks: (batch, people, height, width) in [0, 1], at the resolution of the latent.
        people: (batch, people), who counts.

    Returns:
        (batch,), 0 to 1, the mean over layers and people; 0 for a picture of nobody.
    """

    def of_layer(maps: torch.Tensor) -> torch.Tensor:
        inside = (maps.mean(2) * masks_at(person_masks.to(maps.dtype), maps.shape[-1])).sum(-1)
        return _mean(1 - inside, people)

    return _over_layers(with_id, people, of_layer)


@dataclass(frozen=True)
class DisentanglementLoss:
    """The people of a picture attend to different places: `−1/(K(K − 1)) Σ_{i≠j} D(a^(i), a^(j))`.

    `L_MD` of MOSAIC, with `a^(k)` as in `in_box_loss`. The paper prints the symmetric Kullback-Leibler divergence,
    which can become arbitrarily large; the authors' code uses the Jensen-Shannon divergence, as the default here.

    Attributes:
        divergence: D, "js" or "kl".
    """

    divergence: Divergence = "js"

    def __call__(self, with_id: Recording, people: torch.Tensor) -> torch.Tensor:
        """Cross-attention layers and (batch, people), who counts → (batch,), at most 0; 0 for a single person."""
        pairs = people[:, :, None] & people[:, None]
        pairs = pairs & ~torch.eye(people.shape[1], dtype=torch.bool, device=people.device)

        def of_layer(maps: torch.Tensor) -> torch.Tensor:
            a = maps.mean(2)
            one, other = torch.broadcast_tensors(a[:, :, None], a[:, None])
            middle = (one + other) / 2
            apart = (
                (_kl(one, middle) + _kl(other, middle)) / 2
                if self.divergence == "js"
                else (_kl(one, other) + _kl(other, one)) / 2
            )
            return -_mean(apart.flatten(1), pairs.flatten(1))

        return _over_layers(with_id, people, of_layer)


def _over_layers(
    with_id: Recording, people: torch.Tensor, of_layer: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The mean over the layers in which the identity is active; 0 where there is none."""
    active: list[LayerRecord] = [layer for layer in with_id.values() if layer.identity_keys]
    if not active:
        return torch.zeros(len(people), device=people.device)
    return torch.stack([of_layer(layer.identity_attention(people.shape[1])) for layer in active]).mean(0)


def _mean(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Masked mean along the last axis; 0 where the mask is empty."""
    return torch.where(counts, values, 0).sum(-1) / counts.sum(-1).clamp(min=1)


def _log(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(min=torch.finfo(values.dtype).tiny).log()


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (_log(p) - _log(q))).sum(-1)
