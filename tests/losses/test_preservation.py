"""Preservation, alignment and attention losses against their formulas, position by position."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idgen.errors import LossError
from idgen.losses import (
    background_loss,
    base_preservation_loss,
    editing_direction_loss,
    increment_loss,
    layout_alignment_loss,
    localisation_loss,
    mix_identities,
    semantic_alignment_loss,
    value_regulariser,
    word_regulariser,
)
from idgen.losses.recorder import masks_at
from tests.components import seeded

from .inputs import face_mask, normal, recording

OUTPUT, OTHER = normal(2, 4, 4, 4, seed=1), normal(2, 4, 4, 4, seed=2)


@pytest.mark.parametrize("loss", [base_preservation_loss, background_loss])
def test_outside_the_face(loss) -> None:
    mask = face_mask()
    expected = [(((OUTPUT[i] - OTHER[i]) * (1 - mask[i])) ** 2).mean().item() for i in range(2)]
    assert loss(OUTPUT, OTHER, mask).tolist() == pytest.approx(expected)
    assert loss(OUTPUT, OTHER, torch.ones(2, 1, 4, 4)).tolist() == [0, 0]
    whole = (OUTPUT - OTHER).square().mean((1, 2, 3)).tolist()
    assert loss(OUTPUT, OTHER, torch.zeros(2, 1, 4, 4)).tolist() == pytest.approx(whole)
    constant = OTHER.clone().requires_grad_(True)
    assert not loss(OUTPUT, constant, mask).requires_grad


def test_mixed_identities() -> None:
    embeds = normal(3, 8, seed=3)
    u = torch.rand(3, generator=seeded(0))
    mixed, share = mix_identities(embeds, u), 0.2 + 0.6 * u
    for i in range(3):
        torch.testing.assert_close(mixed[i], share[i] * embeds[i] + (1 - share[i]) * embeds[2 - i])
    assert mix_identities(embeds[:1], u[:1]).allclose(embeds[:1])


def test_editing_direction() -> None:
    rec, edit, rec_base, edit_base = (recording(seed) for seed in (3, 4, 6, 7))
    mask = (face_mask() > 0.5).double()
    expected = []
    for i in range(2):
        layers = []
        for path in rec:
            d, d_base = (
                (b[path].text_output - a[path].text_output)[i] for a, b in ((rec, edit), (rec_base, edit_base))
            )
            face = masks_at(mask, len(d))[i, 0]
            distance = [1 - float(x @ y / (x.norm() * y.norm())) for x, y in zip(d, d_base, strict=True)]
            layers.append(float(np.average(distance, weights=face)))
        expected.append(np.mean(layers))
    assert editing_direction_loss(rec, edit, rec_base, edit_base, mask).tolist() == pytest.approx(expected)
    nowhere = editing_direction_loss(rec, edit, rec_base, edit_base, torch.zeros_like(mask))
    assert nowhere.tolist() == [0, 0]
    same = editing_direction_loss(rec, edit, rec, edit, mask)
    assert same.tolist() == pytest.approx([0, 0], abs=1e-12)


def test_alignment() -> None:
    with_id, without = recording(3), recording(6)
    layout, semantic = [], []
    for path in with_id:
        a, b = with_id[path], without[path]
        layout.append((a.query - b.query).square().mean((1, 2)))
        heads = []
        for h in (slice(0, 2), slice(2, 4)):  # two heads of two numbers
            found = [(r.key[..., h] @ r.query[..., h].mT / 2**0.5).softmax(-1) @ r.query[..., h] for r in (a, b)]
            heads.append((found[0] - found[1]).square().mean((1, 2)))
        semantic.append(torch.stack(heads).mean(0))
    torch.testing.assert_close(layout_alignment_loss(with_id, without), torch.stack(layout).mean(0))
    torch.testing.assert_close(semantic_alignment_loss(with_id, without), torch.stack(semantic).mean(0))


@pytest.mark.parametrize("loss", [layout_alignment_loss, semantic_alignment_loss])
def test_paths_that_agree_have_a_gradient_of_zero(loss) -> None:
    """As in the first layer of the first step, where nothing of the identity has arrived; a norm has none there."""
    without = recording(6)
    query = without["down.attn2"].query.clone().requires_grad_(True)
    value = loss(recording(6, query=query), without)
    value.sum().backward()
    assert value.tolist() == [0, 0]
    assert query.grad is not None
    assert not query.grad.any()


def test_recordings_of_other_layers_are_refused() -> None:
    whole, part = recording(3), {"mid.attn2": recording(3)["mid.attn2"]}
    for wrong in (
        lambda: layout_alignment_loss(whole, part),
        lambda: semantic_alignment_loss(part, whole),
        lambda: editing_direction_loss(whole, whole, part, whole, face_mask()),
    ):
        with pytest.raises(LossError, match="same layers"):
            wrong()


def test_localisation() -> None:
    with_id, words = recording(3), torch.tensor([[0, 2], [1, 2]])
    masks = torch.rand(2, 2, 4, 4, generator=seeded(1)).double()
    expected = []
    for i in range(2):
        layers = []
        for layer in with_id.values():
            gaps = []
            for j in range(2):
                p = layer.attention()[i, :, words[i, j]]
                p = p / p.max()
                m = masks_at(masks, len(p))[i, j]
                gaps.append(float((p * (1 - m)).sum() / (1 - m).sum() - (p * m).sum() / m.sum()))
            layers.append(np.mean(gaps))
        expected.append(np.mean(layers))
    assert localisation_loss(with_id, words, masks).tolist() == pytest.approx(expected)


def test_words_whose_mask_is_empty_do_not_count() -> None:
    with_id, words = recording(3), torch.tensor([[0, 2], [1, 2]])
    masks = torch.rand(2, 2, 4, 4, generator=seeded(1)).double()
    masks[0, 1] = 0
    masks[1] = 0
    found = localisation_loss(with_id, words, masks)
    alone = localisation_loss(with_id, words[:, :1], masks[:, :1])
    torch.testing.assert_close(found[0], alone[0])
    assert found[1] == 0
    everywhere = localisation_loss(with_id, words, torch.ones_like(masks))
    assert (everywhere < 0).all()  # no outside: only the inside counts
    with pytest.raises(LossError, match="one mask each"):
        localisation_loss(with_id, words, masks[:, :1])


def test_increment() -> None:
    with_id, mask = recording(3), face_mask()
    expected = []
    for i in range(2):
        layers = []
        for layer in with_id.values():
            outside = 1 - masks_at(mask, layer.output.shape[1])[i, 0]
            layers.append(((outside[:, None] * (layer.output - layer.text_output)[i]) ** 2).mean().item())
        expected.append(np.mean(layers))
    assert increment_loss(with_id, mask).tolist() == pytest.approx(expected)
    assert increment_loss(with_id, torch.ones_like(mask)).tolist() == [0, 0]


def test_regularisers() -> None:
    words, values = normal(2, 3, 4, seed=4), [normal(2, 3, 4, seed=5), normal(2, 3, 8, seed=6)]
    assert word_regulariser(words).tolist() == pytest.approx([words[i].abs().mean().item() for i in range(2)])
    expected = [np.mean([v[i].abs().mean().item() for v in values]) for i in range(2)]
    assert value_regulariser(values).tolist() == pytest.approx(expected)
    with pytest.raises(LossError, match="at least one layer"):
        value_regulariser([])
