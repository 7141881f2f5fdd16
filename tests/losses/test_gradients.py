"""Every loss against finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler

from idgen.losses import (
    Bank,
    ContrastiveLoss,
    DenoisingLoss,
    DisentanglementLoss,
    ErrorRateLoss,
    IdentityHeadLoss,
    LearnedSimilarity,
    MannWhitneyLoss,
    MixedContrastiveLoss,
    NormDirectionLoss,
    OrthogonalityLoss,
    Parametrisation,
    PrototypeLoss,
    RelationLoss,
    RobustContrastiveLoss,
    ThresholdLoss,
    TripletLoss,
    WithinGroupLoss,
    background_loss,
    base_preservation_loss,
    correspondence_loss,
    editing_direction_loss,
    feature_loss,
    identity_loss,
    in_box_loss,
    increment_loss,
    layout_alignment_loss,
    localisation_loss,
    patch_loss,
    semantic_alignment_loss,
    symmetry_loss,
    value_regulariser,
    word_regulariser,
)
from idgen.losses.style import StyleDirectionLoss, StyleDistanceLoss, fit_styles

from .inputs import face_mask, normal, recording

TIMESTEPS = torch.tensor([120, 730])
PERSONS = torch.tensor([3, 8, 5])
BANK = Bank(normal(6, 8, seed=20), torch.tensor([3, 1, 8, 8, 2, 5]))
GENERATED, TARGET = normal(3, 8, seed=21), normal(3, 8, seed=22)
OUTPUT, OTHER = normal(2, 4, 4, 4, seed=23), normal(2, 4, 4, 4, seed=24)


def parametrisation(kind: str) -> Parametrisation:
    return Parametrisation(DDIMScheduler().alphas_cumprod.double(), kind)


def denoising(kind: str, **options: float) -> Callable[[torch.Tensor], torch.Tensor]:
    loss = DenoisingLoss(parametrisation=parametrisation(kind), **options)
    return lambda x: loss(x, OTHER, normal(2, 4, 4, 4, seed=25), TIMESTEPS, face_mask())


def of_x0(kind: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """An identity loss on x0, through the one-step prediction."""
    predict_x0 = parametrisation(kind).predict_x0
    return lambda x: identity_loss(predict_x0(x, OTHER, TIMESTEPS).flatten(1), OTHER.flatten(1).flip(0))


def localised(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    words = torch.tensor([[0, 2], [1, 2]])
    return localisation_loss(recording(3, query=query, key=key), words, face_mask().expand(-1, 2, -1, -1))


def placed(loss: Callable[..., torch.Tensor], **inputs: torch.Tensor) -> Callable[..., torch.Tensor]:
    """A loss on where people are attended to, of queries and of the keys of two people."""
    return lambda q, *keys: loss(recording(3, query=q, identity_keys=[*keys]), people=torch.ones(2, 2) > 0, **inputs)


PEOPLES_MASKS, QUERY_AND_KEYS = (
    torch.cat([face_mask(), face_mask(6)], 1),
    (normal(2, 16, 4, seed=50), *(normal(2, 2, 3, 2, seed=i) for i in (51, 52))),
)


def edited(rec: torch.Tensor, edit: torch.Tensor) -> torch.Tensor:
    with_id = recording(3, text_output=rec), recording(4, text_output=edit)
    return editing_direction_loss(*with_id, recording(6), recording(7), face_mask())


def learned() -> LearnedSimilarity:
    """All parts, away from their start, where the network of the temperature is 0."""
    torch.manual_seed(0)
    similarity = LearnedSimilarity(8, heads=2).double()
    for weight in similarity.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return similarity


LEARNED, SHARE = learned(), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)


STYLES = fit_styles([normal(4, 3, 4, 4, seed=52), normal(3, 3, 4, 4, seed=53)])
PEOPLE, CENTRES = torch.tensor([4, 0, 2]), normal(5, 8, seed=47).float()


def prototype(learned: bool) -> PrototypeLoss:
    return PrototypeLoss(margin=2.0, temperature=0.3, learned_prototypes=learned, centres=lambda: CENTRES)


CASES: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "denoising_epsilon": (denoising("epsilon", snr_gamma=5.0), (OUTPUT,)),
    "denoising_v_face": (denoising("v_prediction", snr_gamma=5.0, background_weight=0.2), (OUTPUT,)),
    "denoising_sample": (denoising("sample"), (OUTPUT,)),
    "denoising_huber": (denoising("epsilon", snr_gamma=5.0, huber=0.1), (OUTPUT,)),
    "x0_epsilon": (of_x0("epsilon"), (OUTPUT,)),
    "x0_v": (of_x0("v_prediction"), (OUTPUT,)),
    "identity": (lambda g: identity_loss(g, TARGET), (GENERATED,)),
    "features": (
        lambda a, b: feature_loss([a, b], [normal(2, 2, 3, 3, seed=41), normal(2, 4, 2, 2, seed=42)]),
        (normal(2, 2, 3, 3, seed=43), normal(2, 4, 2, 2, seed=44)),
    ),
    "symmetry": (
        lambda a, b: symmetry_loss((a, b), torch.tensor([0.3, 1.0, 0.7], dtype=torch.float64)),
        (GENERATED, TARGET),
    ),
    "patches": (lambda x: patch_loss(x, normal(2, 4, 3, 2, 2, seed=45)), (normal(2, 4, 3, 2, 2, seed=46),)),
    "triplet": (lambda g: TripletLoss(1.0)(g, TARGET, normal(3, 8, seed=26)), (GENERATED,)),
    "contrastive": (lambda g: ContrastiveLoss()(g, TARGET, PERSONS, BANK), (GENERATED,)),
    "contrastive_heads_whiskers": (
        lambda g: ContrastiveLoss(heads=2, whiskers=0.5)(g, TARGET, PERSONS, BANK),
        (GENERATED,),
    ),
    "contrastive_learned": (
        lambda g: ContrastiveLoss(temperature=0.3, learned=LEARNED)(g, TARGET, PERSONS, BANK),
        (GENERATED,),
    ),
    "contrastive_mixed": (
        lambda g: MixedContrastiveLoss(temperature=0.3, learned=LEARNED)(g, TARGET, PERSONS, BANK, SHARE),
        (GENERATED,),
    ),
    "threshold": (
        lambda g: ThresholdLoss(negative_threshold=0.05, negative_weight=2.0)(g, TARGET, PERSONS, BANK),
        (GENERATED,),
    ),
    "mann_whitney": (lambda g: MannWhitneyLoss(0.3)(g, TARGET, PERSONS, BANK), (GENERATED,)),
    "prototype": (lambda g: prototype(False)(g, TARGET, PEOPLE), (GENERATED,)),
    "relation": (
        lambda g: RelationLoss(temperature=0.3, centres=lambda: CENTRES)(g, TARGET),
        (GENERATED,),
    ),
    "identity_head": (
        lambda g: IdentityHeadLoss(temperature=0.3, centres=lambda: CENTRES)(g, TARGET, PEOPLE),
        (GENERATED,),
    ),
    "within_group": (
        lambda g: WithinGroupLoss(0.3, lambda: torch.tensor([0, 1, 0, 0, 1, 0, 0, 0, 1]))(g, TARGET, PERSONS, BANK),
        (GENERATED,),
    ),
    "orthogonality": (
        lambda t: OrthogonalityLoss(lambda: torch.tensor([1, 0, 0, 0, 1]))(t, normal(2, 3, 4, seed=48), PEOPLE),
        (normal(3, 6, 4, seed=49),),
    ),
    "norm_direction": (lambda g: NormDirectionLoss(lambda: CENTRES)(g, TARGET, PEOPLE), (GENERATED,)),
    "error_rates": (
        lambda g: ErrorRateLoss(match_threshold=0.2, temperature=0.3)(g, TARGET, PERSONS, BANK),
        (GENERATED,),
    ),
    "robust": (
        lambda g: RobustContrastiveLoss(robustness=0.4, margin=0.1)(g, TARGET, PERSONS, BANK),
        (GENERATED,),
    ),
    "base_preservation": (lambda x: base_preservation_loss(x, OTHER, face_mask()), (OUTPUT,)),
    "background": (lambda x: background_loss(x, OTHER, face_mask()), (OUTPUT,)),
    "editing_direction": (edited, (normal(2, 16, 4, seed=27), normal(2, 16, 4, seed=28))),
    "semantic_alignment": (
        lambda q: semantic_alignment_loss(recording(3, query=q), recording(6)),
        (normal(2, 16, 4, seed=29),),
    ),
    "layout_alignment": (
        lambda q: layout_alignment_loss(recording(3, query=q), recording(6)),
        (normal(2, 16, 4, seed=29),),
    ),
    "localisation": (localised, (normal(2, 16, 4, seed=30), normal(2, 3, 4, seed=31))),
    "increment": (lambda h: increment_loss(recording(3, output=h), face_mask()), (normal(2, 16, 4, seed=99),)),
    "correspondence": (
        placed(
            correspondence_loss,
            person_masks=PEOPLES_MASKS,
            person_landmarks=4 * normal(2, 2, 5, 2, seed=53).sigmoid(),
        ),
        QUERY_AND_KEYS,
    ),
    "disentanglement_js": (placed(DisentanglementLoss()), QUERY_AND_KEYS),
    "disentanglement_kl": (placed(DisentanglementLoss("kl")), QUERY_AND_KEYS),
    "in_box": (placed(in_box_loss, person_masks=PEOPLES_MASKS), QUERY_AND_KEYS),
    "style_distance": (StyleDistanceLoss(lambda: STYLES), (normal(2, 3, 4, 4, seed=54),)),
    "style_direction": (
        lambda x: StyleDirectionLoss(lambda: STYLES)(x, normal(2, 3, 4, 4, seed=55)),
        (normal(2, 3, 4, 4, seed=54),),
    ),
    "words": (word_regulariser, (normal(2, 3, 4, seed=33),)),
    "values": (lambda *v: value_regulariser([*v]), (normal(2, 3, 4, seed=34), normal(2, 3, 8, seed=35))),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    loss, inputs = CASES[name]
    inputs = tuple(x.clone().requires_grad_(True) for x in inputs)
    value = loss(*inputs)
    assert value.shape == inputs[0].shape[:1]
    assert value.dtype == torch.float64
    gradients = torch.autograd.grad(value.sum(), inputs)
    assert all((gradient.flatten(1).abs().sum(1) > 0).all() for gradient in gradients)  # of every sample
    torch.autograd.gradcheck(loss, inputs)


def test_learned_parts_have_the_gradient_of_finite_differences() -> None:
    names, weights = zip(*LEARNED.named_parameters(), strict=True)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        similarity = learned()
        for name, value in zip(names, values, strict=True):
            owner, _, last = name.rpartition(".")
            del similarity.get_submodule(owner)._parameters[last]
            setattr(similarity.get_submodule(owner), last, value)
        found = MixedContrastiveLoss(temperature=0.3, learned=similarity)(GENERATED, TARGET, PERSONS, BANK, SHARE)
        return found.sum()

    inputs = tuple(weight.detach().clone().requires_grad_(True) for weight in weights)
    assert all(gradient.any() for gradient in torch.autograd.grad(loss(*inputs), inputs))
    torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_learned_prototypes_have_the_gradient_of_finite_differences() -> None:
    """Of the classification of targets alone: where the generated face is does not matter."""
    gradients = []
    for generated in (GENERATED, -GENERATED):
        loss = prototype(True).double()
        loss(generated, TARGET, PEOPLE).sum().backward()
        assert isinstance(loss.prototypes, torch.nn.Parameter)
        gradients.append(loss.prototypes.grad)
    assert torch.equal(*gradients)
    assert gradients[0] is not None
    assert gradients[0].any()

    def classified(prototypes: torch.Tensor) -> torch.Tensor:
        logits = torch.nn.functional.cosine_similarity(TARGET[:, None], prototypes[None], dim=-1) / 0.3
        return -logits.log_softmax(1)[range(3), PEOPLE].sum()

    start = CENTRES.double().requires_grad_(True)
    torch.testing.assert_close(gradients[0], torch.autograd.grad(classified(start), start)[0])


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"mann_whitney"}))
def test_no_sample_changes_the_value_of_another(name: str) -> None:
    """All but the one that compares each sample with the negatives of all."""
    loss, inputs = CASES[name]
    inputs = tuple(x.clone().requires_grad_(True) for x in inputs)
    for i, value in enumerate(loss(*inputs)):
        for gradient in torch.autograd.grad(value, inputs, retain_graph=True):
            others = torch.cat([gradient[:i], gradient[i + 1 :]])
            assert (others == 0).all()
