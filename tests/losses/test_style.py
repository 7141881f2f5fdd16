"""Subspaces of styles: formulas in numbers, and what the two losses do to a picture."""

from __future__ import annotations

import pytest
import torch

from idgen.errors import LossError
from idgen.losses.style import StyleDirectionLoss, StyleDistanceLoss, StyleSpace, fit_styles, style_features

from .inputs import normal


def test_the_offset_is_perpendicular_to_the_subspace_in_numbers() -> None:
    space = StyleSpace(torch.tensor([0.0, 0, 1]), torch.tensor([[1.0, 0, 0]]))
    assert space.offset(torch.tensor([[5.0, 2, 4]])).tolist() == [[0, 2, 3]]


def test_features_do_not_depend_on_where_things_are() -> None:
    latents = normal(2, 3, 8, 8, seed=1)
    torch.testing.assert_close(style_features(latents.flip(-1).roll(4, 2)), style_features(latents))
    assert style_features(latents).shape == (2, 3 + 6 + 9)
    assert not torch.allclose(style_features(latents * 1.2), style_features(latents))


def test_pictures_of_a_style_are_nearer_to_it_than_others() -> None:
    """The distance of a style's own pictures is what its subspace leaves over, a tenth of their variance."""
    grey, bright = 0.3 * normal(8, 3, 8, 8, seed=2), 2 + normal(8, 3, 8, 8, seed=3)
    styles = fit_styles([grey, bright])
    own, other = styles.distances(grey)
    assert own.mean() < 0.2
    assert (other > 5 * own).all()
    loss = StyleDistanceLoss(lambda: styles)
    torch.testing.assert_close(loss(grey), (own + other) / 2)


def test_the_direction_is_below_1_towards_the_styles_and_above_away_from_them() -> None:
    """Of pictures that differ from a style in brightness, which are made darker or brighter; and not moving is 1."""
    styles = fit_styles([normal(30, 3, 8, 8, seed=4)])
    source = 5 + normal(2, 3, 8, 8, seed=5)
    direction, distance = StyleDirectionLoss(lambda: styles), StyleDistanceLoss(lambda: styles)
    assert (distance(source - 1) < distance(source)).all()
    towards, away = direction(source - 1, source), direction(source + 1, source)
    assert (towards < 0.8).all()
    torch.testing.assert_close(away, 2 - towards)
    assert torch.equal(direction(source, source), torch.ones(2).double())


def test_one_picture_is_no_style() -> None:
    with pytest.raises(LossError, match=r"at least 2 pictures, got \[3, 1\]"):
        fit_styles([normal(3, 3, 4, 4, seed=6), normal(1, 3, 4, 4, seed=7)])
    with pytest.raises(LossError, match="folders of pictures"):
        StyleDistanceLoss()
