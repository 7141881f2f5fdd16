"""An expression beside a person: `pipe(…, id_embeds=…, expression_image=…)`."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idgen.commands.shared import load_expression_adapter
from idgen.errors import AdapterError, BlockedIdentityError, IdgenError
from idgen.faces.expression import EXPRESSION
from idgen.provenance import IdentityBlocklist
from tests.components import FAMILIES, SIDE, make_adapter, make_pipeline

from .kinds import ANNA, BRUNO, FROWN, SMILE, draw, expressions


def with_both(family: str = "sd", **config: Any) -> Any:
    """A pipeline with an adapter of people and one of expressions."""
    pipeline = make_pipeline(family)
    pipeline.load_id_adapter(expressions(pipeline, **config), adapter_name="expression")
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    return pipeline


@pytest.mark.parametrize("family", FAMILIES)
def test_no_expression_and_scale_0_change_no_bit(family: str) -> None:
    pipeline = make_pipeline(family)
    nobody = draw(pipeline)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    anna = draw(pipeline, id_embeds=ANNA)
    pipeline.load_id_adapter(expressions(pipeline), adapter_name="expression")
    assert np.array_equal(draw(pipeline), nobody)
    assert np.array_equal(draw(pipeline, id_embeds=ANNA), anna)
    smiling = draw(pipeline, id_embeds=ANNA, expression_image=SMILE)
    assert np.abs(smiling - anna).max() > 0.02
    assert np.abs(draw(pipeline, expression_image=SMILE) - nobody).max() > 0.02
    assert np.array_equal(draw(pipeline, id_embeds=ANNA, expression_image=SMILE, expression_scale=0.0), anna)
    assert np.array_equal(draw(pipeline, expression_image=SMILE, expression_scale=0.0), nobody)
    pipeline.set_id_adapter_scale(0.0)  # that of people
    no_person = draw(pipeline, id_embeds=ANNA, expression_image=SMILE)
    assert np.array_equal(no_person, draw(pipeline, expression_image=SMILE))
    pipeline.unload_id_adapter("expression")
    assert np.array_equal(draw(pipeline, id_embeds=ANNA, id_scale=1.0), anna)


def test_the_order_of_loading_does_not_matter() -> None:
    first, last = with_both(), make_pipeline()
    last.load_id_adapter(make_adapter(last.unet))
    last.load_id_adapter(expressions(last), adapter_name="expression")
    assert list(first.id_adapters) == list(last.id_adapters) == ["default", "expression"]
    one, other = (draw(pipeline, id_embeds=ANNA, expression_image=SMILE) for pipeline in (first, last))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_copies_and_calls_inside_of_a_call() -> None:
    pipeline = with_both()
    smiling = draw(pipeline, id_embeds=ANNA, expression_image=SMILE)
    anna = draw(pipeline, id_embeds=ANNA)
    twin, seen = copy.copy(pipeline), []

    def during(*_: Any) -> dict[str, Any]:
        if not seen:
            seen.append(draw(twin, id_embeds=ANNA))
        return {}

    outer = draw(pipeline, id_embeds=ANNA, expression_image=SMILE, callback_on_step_end=during)
    assert np.array_equal(outer, smiling)
    assert np.array_equal(seen[0], anna), "a call that names no expression gets none"
    for changed in (twin, copy.deepcopy(pipeline), pickle.loads(pickle.dumps(with_both()))):
        np.testing.assert_allclose(draw(changed, id_embeds=ANNA, expression_image=SMILE), smiling, atol=1e-5)
        np.testing.assert_allclose(draw(changed, id_embeds=ANNA), anna, atol=1e-5)


def test_an_expression_for_each_prompt_and_for_each_person() -> None:
    pipeline = with_both()
    generators = [torch.Generator().manual_seed(i) for i in (1, 2)]
    together = draw(pipeline, prompt=["a", "b"], id_embeds=ANNA, expression_image=[SMILE, FROWN], generator=generators)
    for i, (prompt, shown) in enumerate([("a", SMILE), ("b", FROWN)]):
        generator = torch.Generator().manual_seed(i + 1)
        alone = draw(pipeline, prompt=prompt, id_embeds=ANNA, expression_image=shown, generator=generator)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-4)
    left = np.zeros((SIDE, SIDE), np.uint8)
    left[:, : SIDE // 2] = 255
    two = draw(pipeline, id_embeds=[ANNA, BRUNO], id_masks=[left, 255 - left], expression_image=[SMILE, FROWN])
    order = draw(pipeline, id_embeds=[BRUNO, ANNA], id_masks=[255 - left, left], expression_image=[FROWN, SMILE])
    np.testing.assert_allclose(two, order, atol=1e-5)


def test_an_adapter_of_some_blocks_is_the_whole_one_with_a_scale_for_these(tmp_path: Path) -> None:
    pipeline, blocks = make_pipeline(), ("mid", "up_blocks.1")
    whole = expressions(pipeline)
    some = expressions(pipeline, blocks=blocks)
    some.load_state_dict({name: whole.state_dict()[name] for name in some.state_dict()})
    pipeline.load_id_adapter(whole)
    expected = draw(pipeline, expression_image=SMILE, expression_scale=dict.fromkeys(blocks, 1.0))
    some.save_pretrained(tmp_path)
    for given in (some, tmp_path):
        pipeline.load_id_adapter(given)
        np.testing.assert_allclose(draw(pipeline, expression_image=SMILE), expected, atol=1e-5)
    assert some.num_parameters() < whole.num_parameters()
    with pytest.raises(AdapterError, match="no layers in block 'down'"):
        draw(pipeline, expression_image=SMILE, expression_scale={"down": 1.0})
    with pytest.raises(AdapterError, match="no layers in block 'middle'"):
        expressions(pipeline, blocks=("middle",))
    assert 'expression_image="smile.jpg"' in (tmp_path / "README.md").read_text()


def test_a_blocklist_is_asked_about_people_not_about_expressions() -> None:
    pipeline = with_both()
    pipeline.id_blocklist = IdentityBlocklist.of(ANNA, threshold=0.9)
    draw(pipeline, id_embeds=BRUNO, expression_image=SMILE)
    with pytest.raises(BlockedIdentityError):
        draw(pipeline, id_embeds=ANNA, expression_image=SMILE)
    with pytest.raises(AdapterError, match="13 numbers, not 8"):  # so no person can pass as an expression
        make_adapter(pipeline.unet, encoder=EXPRESSION)


def test_the_expression_of_a_photo(astronaut: np.ndarray) -> None:
    pipeline, photo = with_both(), astronaut[:220, 120:340]
    enrolled = pipeline.encode_identity(photo, adapter_name="expression")
    assert enrolled.encoder == EXPRESSION
    shown = draw(pipeline, id_embeds=ANNA, expression_image=photo)
    assert np.array_equal(shown, draw(pipeline, id_embeds=ANNA, expression_image=enrolled))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expression_scale": 0.5}, "expression_scale requires expression_image"),
        ({"expression_image": SMILE, "id_scale": 0.5}, "require id_image"),
        ({"id_embeds": {"expression": SMILE}}, "pass the photo as expression_image"),
        ({"id_embeds": ANNA, "id_scale": {"expression": 0.5}}, "pass its scale as expression_scale"),
        ({"id_embeds": ANNA, "expression_images": SMILE}, "did you mean 'expression_image'"),
        ({"id_embeds": ANNA, "expression_image": ANNA}, "reads embeddings of 'expression-v1'"),
        ({"id_embeds": ANNA, "expression_image": [SMILE, FROWN]}, "Got 2 people for 1 prompt"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(IdgenError, match=re.escape(message)):
        draw(with_both(), **arguments)


def test_commands_load_only_an_adapter_that_reads_expressions(tmp_path: Path) -> None:
    pipeline = make_pipeline()
    make_adapter(pipeline.unet).save_pretrained(tmp_path / "people")
    expressions(pipeline).save_pretrained(tmp_path / "expressions")
    with pytest.raises(AdapterError, match="reads people, not expressions"):
        load_expression_adapter(pipeline, str(tmp_path / "people"))
    assert not pipeline.id_adapters
    load_expression_adapter(pipeline, str(tmp_path / "expressions"))
    assert pipeline.id_adapters["expression"].reads_expression
    with pytest.raises(AdapterError, match="rename the folder"):
        load_expression_adapter(pipeline, str(tmp_path / "expressions"))


def test_an_expression_needs_an_adapter_that_reads_it() -> None:
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    with pytest.raises(AdapterError, match="needs one adapter that reads expressions"):
        draw(pipeline, expression_image=SMILE)
    pipeline.load_id_adapter(expressions(pipeline))
    with pytest.raises(AdapterError, match="No identity adapter is loaded"):
        draw(pipeline, id_embeds=ANNA)
