"""Losses that preserve everything but the face: an identity loss alone reduces prompt fidelity."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..errors import LossError
from .parametrisation import at_least_float32
from .recorder import Recording, masks_at


def base_preservation_loss(
    model_output: torch.Tensor, output_without_id: torch.Tensor, face_mask: torch.Tensor
) -> torch.Tensor:
    """Outside the face, predict what the base model predicts: `mean((ε(w) − sg[ε(no adapter)]) · (1 − M))²`.

    `L_preserve` of W+ Adapter (arXiv 2311.17461). The authors' code compares the whole picture and has the masked form
    commented out; a mask of zeros gives the former.

    Args:
        model_output: (batch, channels, height, width), with the adapter.
        output_without_id: The same without the adapter; a constant.
        face_mask: (batch, 1, height, width) in [0, 1].

    Returns:
        (batch,); 0 where the face fills the picture.
    """
    return _outside(model_output, output_without_id, face_mask)


def background_loss(
    model_output: torch.Tensor, output_mixed_id: torch.Tensor, face_mask: torch.Tensor
) -> torch.Tensor:
    """Outside the face, predict the same for another identity: `mean((ε(id) − sg[ε(mixed id)]) · (1 − M))²`.

    `L_bg` of MasterWeaver (arXiv 2405.05806), whose other identity comes from `mix_identities`. With embeddings
    changed along attributes it is `L_disen` of W+ Adapter (arXiv 2311.17461).

    Args:
        model_output: (batch, channels, height, width).
        output_mixed_id: The same for the other identity; a constant.
        face_mask: (batch, 1, height, width) in [0, 1].

    Returns:
        (batch,); 0 where the face fills the picture.
    """
    return _outside(model_output, output_mixed_id, face_mask)


def mix_identities(id_embeds: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Mix the identities of a batch with those in reverse order: `a·e + (1 − a)·flip(e)`, `a = 0.2 + 0.6 u`.

    MasterWeaver (arXiv 2405.05806). In a batch of odd size the identity in the middle is mixed with itself.

    Args:
        id_embeds: (batch, ...), embeddings or tokens.
        u: (batch,), uniform in [0, 1).
    """
    share = (0.2 + 0.6 * u).to(id_embeds).view(-1, *[1] * (id_embeds.ndim - 1))
    return share * id_embeds + (1 - share) * id_embeds.flip(0)


def editing_direction_loss(
    with_id: Recording,
    edited: Recording,
    without_id: Recording,
    edited_without_id: Recording,
    face_mask: torch.Tensor,
) -> torch.Tensor:
    """On the face, an edit of the prompt changes the same as without the identity.

    `L_edit` of MasterWeaver (arXiv 2405.05806): with `F` the text's part of cross-attention before the identity is
    added, `d = F_edited − F_neutral`, it is the mean of `1 − cos(d, d_without)` over the positions of the face. The
    authors sum over the layers of `up_blocks.1`; here it is the mean, so that one weight serves all UNets.

    Args:
        with_id: With the identity and the plain prompt ("a photo of a woman").
        edited: With the identity and the edited prompt, from the same noisy latent.
        without_id: With the plain prompt, without the identity; constants.
        edited_without_id: With the edited prompt, without the identity; constants.
        face_mask: (batch, 1, height, width) in [0, 1], at the resolution of the latent.

    Returns:
        (batch,); 0 where the mask is empty.

    Raises:
        LossError: The recordings are of different layers.
    """
    recordings = with_id, edited, without_id, edited_without_id
    if len({frozenset(recording) for recording in recordings}) != 1:
        raise LossError("The four recordings must be of the same layers.")
    losses = []
    for path in with_id:
        rec, edit, rec_base, edit_base = (at_least_float32(r[path].text_output) for r in recordings)
        distance = 1 - F.cosine_similarity(edit - rec, (edit_base - rec_base).detach(), dim=-1)
        face = masks_at(face_mask.to(distance.dtype), distance.shape[1])[:, 0]
        losses.append((face * distance).sum(1) / face.sum(1).clamp(min=torch.finfo(face.dtype).tiny))
    return torch.stack(losses).mean(0)


def _outside(output: torch.Tensor, constant: torch.Tensor, face_mask: torch.Tensor) -> torch.Tensor:
    difference = at_least_float32(output) - at_least_float32(constant.detach())
    return (difference * (1 - face_mask)).square().flatten(1).mean(1)
