"""Several people in one image: with masks, with masks of each image, and without masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from idgen import Identity
from idgen.adapter import IdentityAdapter, IdentityNet, IdentityTokens
from idgen.errors import AdapterError
from tests.components import call_arguments, make_adapter, make_pipeline, make_unet

from .test_attention import random_tokens, unet_inputs

LEFT = torch.zeros(16, 16)
LEFT[:, :8] = 1


class Scene:
    """A UNet with an adapter that places up to four people."""

    def __init__(self, **config: Any) -> None:
        self.unet = make_unet()
        self.adapter = make_adapter(self.unet, max_people=4, **config)
        self.adapter.attach(self.unet)
        self.inputs = unet_inputs(self.unet)
        self.anna, self.bruno, self.clara = (random_tokens(self.adapter, rows=2, seed=i) for i in (1, 2, 3))

    @torch.no_grad()
    def draw(self, people: list[IdentityTokens], **options: Any) -> torch.Tensor:
        """Two images with guidance."""
        with self.adapter.activate(people, num_images=2, **options):
            return self.unet(**self.inputs).sample


def rows(person: IdentityTokens, row: int) -> IdentityTokens:
    return IdentityTokens(person.tokens[row : row + 1], person.negative_tokens)


def test_masks_of_each_image_are_the_masks_of_that_image() -> None:
    """Bit for bit those of both if they are the same; otherwise each image is drawn with its own."""
    scene = Scene()
    people, same = [scene.anna, scene.bruno], scene.draw([scene.anna, scene.bruno], masks=[LEFT, 1 - LEFT])
    assert torch.equal(scene.draw(people, masks=[torch.stack([m, m]) for m in (LEFT, 1 - LEFT)]), same)
    swapped = scene.draw(people, masks=[1 - LEFT, LEFT])
    both = scene.draw(people, masks=[torch.stack([LEFT, 1 - LEFT]), torch.stack([1 - LEFT, LEFT])])
    torch.testing.assert_close(both[[0, 2]], same[[0, 2]])
    torch.testing.assert_close(both[[1, 3]], swapped[[1, 3]])
    with pytest.raises(AdapterError, match=r"\(2, height, width\), got \(3, 16, 16\)"):
        scene.draw(people, masks=[LEFT.expand(3, -1, -1)] * 2)


@pytest.mark.parametrize("fusion", [{}, {"ortho": "ortho", "num_zero": 3}])
def test_people_without_masks_are_a_set(fusion: dict[str, Any]) -> None:
    """Their order does not matter, and a person who is given twice is drawn as one who is given once."""
    scene = Scene(**fusion)
    alone, both = scene.draw([scene.anna]), scene.draw([scene.anna, scene.bruno])
    assert (both - alone).abs().max() > 1e-3
    torch.testing.assert_close(scene.draw([scene.bruno, scene.anna]), both, atol=1e-5, rtol=0)
    torch.testing.assert_close(scene.draw([scene.anna, scene.anna]), alone, atol=1e-5, rtol=0)


def test_who_is_not_in_an_image_does_not_change_it() -> None:
    scene = Scene(num_zero=1)
    people = [scene.anna, scene.bruno, scene.clara]
    shown = torch.tensor([[True, True, True], [True, False, True]])
    found, three, two = scene.draw(people, shown=shown), scene.draw(people), scene.draw([scene.anna, scene.clara])
    torch.testing.assert_close(found[[0, 2]], three[[0, 2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[[1, 3]], two[[1, 3]], atol=1e-5, rtol=0)
    assert torch.equal(scene.draw([scene.anna], shown=shown[:, :1]), scene.draw([scene.anna]))


def test_people_of_an_ordered_adapter_stand_in_their_order() -> None:
    """New places change no bit. Trained ones act by the order among the people of an image, and not on one person."""
    plain, scene = Scene(), Scene(ordered=True)
    anna, bruno, clara = people = [scene.anna, scene.bruno, scene.clara]
    assert torch.equal(scene.draw(people), plain.draw(people))
    assert scene.adapter.places is not None
    torch.nn.init.normal_(scene.adapter.places.weight)
    both = scene.draw([anna, bruno])
    assert (scene.draw([bruno, anna]) - both).abs().max() > 1e-3
    assert torch.equal(scene.draw([anna]), plain.draw([anna]))
    assert torch.equal(
        scene.draw([anna, bruno], masks=[LEFT, 1 - LEFT]), plain.draw([anna, bruno], masks=[LEFT, 1 - LEFT])
    )
    shown = torch.tensor([[True, False, True], [False, True, False]])
    found = scene.draw(people, shown=shown)
    torch.testing.assert_close(found[[0, 2]], scene.draw([anna, clara])[[0, 2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[[1, 3]], scene.draw([bruno])[[1, 3]], atol=1e-5, rtol=0)


def test_an_identity_net_reads_all_people() -> None:
    scene = Scene()
    net = IdentityNet.from_unet(scene.unet, conditioning_embedding_out_channels=(8, 8)).eval()
    for block in net.controlnet_down_blocks:
        torch.nn.init.normal_(block.weight, std=0.1)  # pyright: ignore

    @torch.no_grad()
    def residual(people: list[IdentityTokens], **options: Any) -> torch.Tensor:
        with net.activate(people, num_images=4, **options):
            return net(**scene.inputs, controlnet_cond=torch.zeros(4, 3, 32, 32), return_dict=False)[0][-1]

    anna, bruno = rows(scene.anna, 0), rows(scene.bruno, 0)
    alone, both = residual([anna]), residual([anna, bruno])
    assert (both - alone).abs().max() > 1e-3
    torch.testing.assert_close(residual([bruno, anna]), both, atol=1e-5, rtol=0)
    torch.testing.assert_close(residual([anna, anna]), alone, atol=1e-5, rtol=0)
    nobody = IdentityTokens(anna.negative_tokens, anna.negative_tokens)
    shown = torch.tensor([[True, False]] * 4)
    assert torch.equal(residual([anna, bruno], shown=shown), residual([anna, nobody]))
    masks = torch.stack([LEFT, LEFT, 1 - LEFT, LEFT])
    each, left = residual([anna], masks=[masks]), residual([anna], masks=[LEFT])
    torch.testing.assert_close(each[[0, 1, 3]], left[[0, 1, 3]])
    assert not torch.allclose(each[2], left[2])


def test_a_pipeline_places_as_many_people_as_its_adapter_was_trained_for(tmp_path: Path) -> None:
    pipe = make_pipeline()
    anna, bruno, clara = (Identity.random("test", 8, seed=i) for i in range(3))
    make_adapter(pipe.unet, max_people=2, ordered=True).save_pretrained(tmp_path)
    pipe.load_id_adapter(tmp_path)
    both, swapped = (pipe(**call_arguments(), id_embeds=people).images for people in ([anna, bruno], [bruno, anna]))
    torch.testing.assert_close(*map(torch.from_numpy, (both, swapped)), atol=1e-3, rtol=0)
    assert abs(both - pipe(**call_arguments(), id_embeds=anna).images).max() > 1e-3
    each = pipe(**call_arguments(prompt=["a face"] * 2, generator=None), id_embeds=[anna, bruno]).images
    assert len(each) == 2  # one person per prompt
    with pytest.raises(AdapterError, match=r"id_masks is required for 3 people.*at most 2"):
        pipe(**call_arguments(), id_embeds=[anna, bruno, clara])
    pipe.id_adapters["default"].set_fusion("ortho_v2")
    with pytest.raises(AdapterError, match=r"id_masks is required for 2 people.*at most 1"):
        pipe(**call_arguments(), id_embeds=[anna, bruno])
    pipe.load_id_adapter(make_adapter(pipe.unet))
    with pytest.raises(AdapterError, match=r"Got 2 people for 1 prompt.*trained so"):
        pipe(**call_arguments(), id_embeds=[anna, bruno])
    with pytest.raises(AdapterError, match="max_people must be an integer >= 1, got 0"):
        make_adapter(pipe.unet, max_people=0)
    assert IdentityAdapter.from_pretrained(tmp_path).config["max_people"] == 2
