"""Losses on embeddings relative to their mean."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from idgen.losses import Bank, ContrastiveLoss, Term, WeightedTerms, identity_loss

from .inputs import normal

CENTRE = torch.linspace(-0.4, 0.3, 8)


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt()


@pytest.mark.parametrize("drawn", [False, True])
def test_every_embedding_is_relative_to_the_centre(drawn: bool) -> None:
    """The people of a batch, and those of a bank, whether it is given or drawn when it is read."""
    generated, target, others = normal(3, 8, seed=1), normal(3, 8, seed=2), normal(6, 8, seed=3)
    persons, strangers = torch.arange(3), torch.arange(3, 9)
    bank = Bank(others, strangers)
    inputs = {
        "generated_embeds": 3 * generated,  # lengths do not matter
        "target_embeds": target,
        "persons": persons,
        "negatives": (lambda persons: bank) if drawn else bank,
    }
    found = WeightedTerms(
        {
            "identity": Term(identity_loss, centre=CENTRE),
            "contrastive": Term(ContrastiveLoss(temperature=0.1), centre=CENTRE),
            "plain": Term(identity_loss),
        }
    )(inputs)
    g, t, o = (unit(x) - CENTRE for x in (unit(generated), unit(target), unit(others)))
    positive = (unit(g) * unit(t)).sum(1)
    logits = torch.cat([positive[:, None], unit(g) @ unit(o).T], 1) / 0.1
    contrastive = F.cross_entropy(logits, torch.zeros(3, dtype=torch.long), reduction="none")
    plain = 1 - (unit(generated) * unit(target)).sum(1)
    torch.testing.assert_close(found.values, 1 - positive + contrastive + plain)
