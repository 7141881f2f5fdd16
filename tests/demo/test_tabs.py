"""Each tab generates the same images as the pipelines called directly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image
from gradio_client import handle_file
from PIL import Image

from idgen import Identity, IdentityNet
from idgen.adapter import IdScaleCurve
from idgen.demo.tabs.restore import AS_SET, BY_DAMAGE, NOBODY
from idgen.demo.tabs.several_people import COLOURS, painted_regions
from idgen.faces import DlibEncoder, EncoderStatistics, draw_keypoints
from idgen.faces.expression import EXPRESSION, MEASURES
from idgen.provenance import IdentityBlocklist
from tests.components import SIDE, make_adapter, make_pipeline
from tests.demo.conftest import Served, gallery
from tests.pipelines.test_restore import make_restorer

RED, BLUE = COLOURS["red"], COLOURS["blue"]
QUICK = {"steps": 4, "style": "As written", "seed": 0, "guidance_scale": 3.0}
ANNA, BRUNO = (Identity.random(DlibEncoder.name, DlibEncoder.dim, norm=1.5, seed=seed) for seed in (1, 2))


def page_options() -> dict[str, Any]:
    """Two adapters of people, one of expressions, and an IdentityNet."""
    pipe = make_pipeline()
    for seed, name in enumerate(("one", "two")):
        adapter = make_adapter(pipe.unet, seed=seed, encoder=DlibEncoder.name, embedding_dim=128)
        pipe.load_id_adapter(adapter, adapter_name=name)
    expressions = make_adapter(pipe.unet, seed=5, encoder=EXPRESSION, embedding_dim=len(MEASURES))
    pipe.load_id_adapter(expressions, adapter_name="expression")
    torch.manual_seed(4)
    net = IdentityNet.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8))
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    restorer = make_restorer(pipe.unet)
    restorer.curve = IdScaleCurve((0.0,), (0.3,), (0.6,))
    return {"pipe": pipe, "base": "random", "identity_net": net.eval(), "restorer": restorer}


@pytest.fixture(scope="module")
def served(serve: Any) -> Served:
    return serve(**page_options())


@pytest.fixture(scope="module")
def client(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client with two people, for all tests: each needs half a second to connect."""
    client, folder = served.client(), tmp_path_factory.mktemp("people")
    for name, identity in (("Anna", ANNA), ("Bruno", BRUNO)):
        identity.save(folder / f"{name}.safetensors")
        client.predict(handle_file(str(folder / f"{name}.safetensors")), name, api_name="/load_identity")
    yield client
    client.close()


def drawn(served: Served, shown: list[dict[str, Any]]) -> list[np.ndarray]:
    return [np.asarray(Image.open(served.path(each["image"]))) for each in shown]


def directly(pipe: Any, who: Any, adapter: str = "one", scale: float = 0.8, **arguments: Any) -> np.ndarray:
    return np.asarray(
        pipe(
            "a face",
            negative_prompt="",
            num_inference_steps=4,
            guidance_scale=3.0,
            id_embeds={adapter: who},
            id_scale={adapter: scale},
            generator=[torch.Generator().manual_seed(0)],
            **arguments,
        ).images[0]
    )


def variant(served: Served, family: Any, **options: Any) -> Any:
    """Another pipeline of the same parts."""
    pipe = family.from_pipe(served.pipe, dtype=torch.float32, **options)
    pipe.set_progress_bar_config(disable=True)
    for name, adapter in served.pipe.id_adapters.items():
        pipe.load_id_adapter(adapter, adapter_name=name)
    return pipe


def small(path: Path) -> np.ndarray:
    """Landmarks at the size of the picture; they are shown larger."""
    with Image.open(path) as shown:
        assert shown.width == 512
        return np.asarray(shown.resize((SIDE, SIDE), Image.Resampling.NEAREST))


def editor(background: Path | None = None, *, layer: Path | None = None, composite: Path | None = None) -> dict:
    """What an editor sends."""
    files = {"background": background, "composite": composite}
    sent: dict[str, Any] = {key: handle_file(str(file)) if file else None for key, file in files.items()}
    return sent | {"layers": [handle_file(str(layer))] if layer else [], "id": None}


def painted(path: Path, left: Any, right: Any) -> Path:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = left, right
    Image.fromarray(pixels).save(path)
    return path


def test_several_people(served: Served, client: Any, tmp_path: Path) -> None:
    """In one call, where the base can draw a scene."""
    regions = editor(composite=painted(tmp_path / "regions.png", RED, BLUE))
    shown, table = client.predict(["Anna", "Bruno"], regions, **QUICK, api_name="/several_people")
    left = np.zeros((64, 64), bool)
    left[:, :32] = True
    size: dict[str, Any] = {"width": SIDE, "height": SIDE}
    expected = directly(served.pipe, [ANNA, BRUNO], id_masks=[left, ~left], **size)
    assert np.array_equal(drawn(served, shown)[0], expected)
    assert [row[1] for row in table["data"]] == ["Anna", "Bruno"]
    swapped, _ = client.predict(["Bruno", "Anna"], regions, **QUICK, api_name="/several_people")
    assert not np.array_equal(drawn(served, swapped)[0], expected)
    default, _ = client.predict(["Anna", "Bruno"], **QUICK, api_name="/several_people")  # halves, as at first
    assert np.array_equal(drawn(served, default)[0], expected)


def test_several_people_by_a_base_that_draws_one_face(
    served: Served, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each person is drawn alone; then one call blends the regions."""
    monkeypatch.setattr(served.backend.pipeline, "draws_one_face", True)
    shown, _ = client.predict(["Anna", "Bruno"], **QUICK, width=2 * SIDE, api_name="/several_people")
    size: dict[str, Any] = {"width": SIDE, "height": SIDE}
    scene = np.hstack([directly(served.pipe, who, **size) for who in (ANNA, BRUNO)])
    left = np.zeros((64, 128), bool)
    left[:, :64] = True
    pipe = variant(served, AutoPipelineForImage2Image)
    arguments: dict[str, Any] = {"image": Image.fromarray(scene), "strength": 0.4, "id_masks": [left, ~left]}
    assert np.array_equal(drawn(served, shown)[0], directly(pipe, [ANNA, BRUNO], **arguments))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_person_has_the_region_of_their_colour(count: int, tmp_path: Path) -> None:
    stripes = np.repeat(np.array(list(COLOURS.values())[:count], np.uint8)[None], 8, 0)
    Image.fromarray(stripes).save(tmp_path / "regions.png")
    masks = painted_regions({"background": None, "composite": str(tmp_path / "regions.png")}, count)
    assert np.array_equal(np.stack(masks)[:, 0], np.eye(count, dtype=bool))


def test_mix(served: Served, client: Any) -> None:
    shown, table = client.predict("Anna", "Bruno", 0.3, **QUICK, api_name="/mix")
    expected = directly(served.pipe, Identity.mix(ANNA, BRUNO, 0.3), width=SIDE, height=SIDE)
    assert np.array_equal(drawn(served, shown)[0], expected)
    assert [row[1] for row in table["data"]] == ["Anna", "Bruno"]


def test_attributes(served: Served, client: Any) -> None:
    shown, table = client.predict("Anna", 1.5, 0, -0.5, **QUICK, api_name="/attributes")
    expected = directly(served.pipe, ANNA.moved("smile", 1.5).moved("sex", -0.5), width=SIDE, height=SIDE)
    assert np.array_equal(drawn(served, shown)[0], expected)
    assert [row[1] for row in table["data"]] == ["Anna"]


def test_expression(served: Served, client: Any, eileen: Path) -> None:
    before = set(served.files())
    photo: Any = handle_file(str(eileen))
    small: dict[str, Any] = {"width": SIDE, "height": SIDE}
    shown, table = client.predict("Anna", photo, 0.7, **QUICK, api_name="/expression")
    smile = served.pipe.encode_identity(eileen, adapter_name="expression")
    expected = directly(served.pipe, ANNA, expression_image=smile, expression_scale=0.7, **small)
    assert np.array_equal(drawn(served, shown)[0], expected)
    assert not np.array_equal(expected, directly(served.pipe, ANNA, **small))
    assert [row[1] for row in table["data"]] == ["Anna"]
    assert len(set(served.files()) - before) == 2, "the upload and the result: no crop of the face is kept"


def test_pose(served: Served, client: Any, eileen: Path) -> None:
    pose = client.predict(gallery(eileen), [], SIDE, SIDE, api_name="/landmarks")
    landmarks = served.pipe.prepare_landmarks(str(eileen), (SIDE, SIDE))
    assert np.array_equal(small(served.path(pose)), np.asarray(landmarks))
    shown, _ = client.predict("Anna", handle_file(str(served.path(pose))), 0.9, **QUICK, api_name="/generate_pose")
    pipe = variant(served, AutoPipelineForText2Image, controlnet=served.backend.pipeline.identity_net)
    arguments: dict[str, Any] = {
        "image": landmarks,
        "controlnet_conditioning_scale": 0.9,
        "width": SIDE,
        "height": SIDE,
    }
    assert np.array_equal(drawn(served, shown)[0], directly(pipe, ANNA, **arguments))
    arguments["image"] = Image.new("RGB", (SIDE, SIDE))
    flat = directly(pipe, ANNA, **arguments)
    assert not np.array_equal(drawn(served, shown)[0], flat)


def test_landmarks_by_hand(served: Served, client: Any) -> None:
    points = [[10, 12], [22, 12], [16, 18], [11, 24], [21, 24]]
    pose = client.predict([], points, SIDE, SIDE, api_name="/landmarks")
    expected = draw_keypoints(np.array([points], float), (SIDE, SIDE))
    assert np.array_equal(small(served.path(pose)), expected)


def test_redraw_and_inpaint(served: Served, client: Any, eileen: Path, tmp_path: Path) -> None:
    with Image.open(eileen) as photo:
        tiny = photo.resize((SIDE, SIDE))
    tiny.save(tmp_path / "small.png")
    shown, _ = client.predict("Anna", editor(tmp_path / "small.png"), 0.8, **QUICK, api_name="/image_to_image")
    pipe = variant(served, AutoPipelineForImage2Image)
    assert np.array_equal(drawn(served, shown)[0], directly(pipe, ANNA, image=tiny, strength=0.8))

    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:24, 8:24] = True
    Image.fromarray(np.dstack([np.full((SIDE, SIDE, 3), 255), mask * 255]).astype(np.uint8)).save(
        tmp_path / "mask.png"
    )
    sent = editor(tmp_path / "small.png", layer=tmp_path / "mask.png")
    shown, _ = client.predict("Anna", sent, 0.9, **QUICK, api_name="/inpaint")
    [picture] = drawn(served, shown)
    before = np.asarray(tiny)
    assert np.array_equal(picture[:4], before[:4])
    assert np.array_equal(picture[:, 28:], before[:, 28:])
    pipe = variant(served, AutoPipelineForInpainting)
    white = Image.fromarray(mask.astype(np.uint8) * 255)
    expected = directly(pipe, ANNA, image=tiny, mask_image=white, strength=0.9, width=SIDE, height=SIDE)
    assert np.abs(picture[12:20, 12:20].astype(int) - expected[12:20, 12:20]).mean() < 5  # its edge is softer here
    assert np.abs(picture[12:20, 12:20].astype(int) - before[12:20, 12:20]).mean() > 10


def test_protect(served: Served, client: Any, eileen: Path) -> None:
    shown, table = client.predict(gallery(eileen), 6, 10, api_name="/protect_photo")
    protected, original = drawn(served, shown)
    assert np.array_equal(original, np.asarray(Image.open(eileen)))
    difference = np.abs(protected.astype(int) - original)
    assert 0 < difference.max() <= 6
    for encoder, _, before, after in table["data"]:
        assert encoder == DlibEncoder.name
        assert after < before - 0.05
    with pytest.raises(Exception, match="Upload a photo"):
        client.predict([], 6, 10, api_name="/protect_photo")


def test_compare(served: Served, client: Any) -> None:
    shown, plot = client.predict("Anna", "0, 0.8", ["one", "two"], **QUICK, api_name="/compare")
    cells = [("one", 0.0), ("one", 0.8), ("two", 0.0), ("two", 0.8)]
    for picture, (adapter, scale) in zip(drawn(served, shown), cells, strict=True):
        expected = directly(served.pipe, ANNA, adapter, scale, width=SIDE, height=SIDE)
        assert np.array_equal(picture, expected), (adapter, scale)
    assert np.array_equal(drawn(served, shown)[0], drawn(served, shown)[2])  # scale 0 turns the identity off
    assert [each["caption"].split(" · ")[0] for each in shown] == [f"{adapter}, scale {s:g}" for adapter, s in cells]
    assert {(row[0], row[3]) for row in plot["data"] if row[3]} == {(scale, adapter) for adapter, scale in cells}
    statistics = EncoderStatistics.of(DlibEncoder.name)
    beside = {row[2].split(",")[0]: row[1] for row in plot["data"] if not row[3]}
    assert beside == pytest.approx({"strangers": statistics.impostor.mean, "threshold": statistics.threshold(1e-3)})


def test_invalid_requests_raise_clear_errors(client: Any, eileen: Path, tmp_path: Path) -> None:
    only_red = editor(composite=painted(tmp_path / "red.png", RED, RED))
    wrong: list[tuple[str, tuple, dict[str, Any], str]] = [
        ("/several_people", (["Anna", "Bruno"], only_red), {}, "No region is painted blue"),
        ("/several_people", (["Anna", "Carl"], only_red), {}, "Unknown person"),
        ("/several_people", (["Anna"], only_red), {}, "Choose 2 to 4 people, not 1"),
        ("/mix", ("Anna", "Bruno", 2), {}, "between 0 and 1|greater than"),
        ("/attributes", ("Anna", 9, 0, 0), {}, "between -5 and 5|greater than"),
        ("/expression", ("Anna", None, 1), {}, "Upload a photo of the expression"),
        ("/expression", ("Anna", handle_file(str(eileen)), 3), {}, "between 0 and 2|greater than"),
        ("/landmarks", ([], [[1, 2]], 32, 32), {}, "Five points"),
        ("/landmarks", ([], [], 32, 32), {}, "Upload a photo"),
        ("/generate_pose", ("Anna", None), {}, "No pose is given"),
        ("/generate_pose", ("Anna",), {}, "No pose is given"),  # the canvas of the page, which is empty
        ("/image_to_image", ("Anna", editor()), {}, "Upload an image"),
        ("/image_to_image", ("Anna", editor(eileen), 0.1), {"steps": 4}, "less than one step"),
        ("/inpaint", ("Anna", editor(eileen)), {}, "Paint over"),
        ("/compare", ("Anna", "0, much", ["one"]), {}, "scales must be numbers"),
        ("/compare", ("Anna", "0", []), {}, "got 0"),
        ("/compare", ("Anna", ",".join(map(str, range(13))), ["one"]), {}, "At most 12 scales|lies between"),
    ]
    for endpoint, values, settings, message in wrong:
        with pytest.raises(Exception, match=message):
            client.predict(*values, **(QUICK | settings if endpoint != "/landmarks" else {}), api_name=endpoint)


def test_another_encoder_than_the_adapters_is_refused(client: Any, tmp_path: Path) -> None:
    Identity.random("other", 8).save(tmp_path / "other.safetensors")
    client.predict(handle_file(str(tmp_path / "other.safetensors")), "Other", api_name="/load_identity")
    for values, endpoint in ((("Anna", "Other"), "/mix"), ((["Other", "Anna"],), "/several_people")):
        with pytest.raises(Exception, match="other"):
            client.predict(*values, **QUICK, api_name=endpoint)


def test_every_tab_refuses_people_on_the_blocklist(
    served: Served, client: Any, eileen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of the pipeline; the page's marks name none."""
    monkeypatch.setattr(served.pipe, "id_blocklist", IdentityBlocklist.of(ANNA))
    Image.new("RGBA", (SIDE, SIDE), "white").save(tmp_path / "paint.png")
    regions = editor(composite=painted(tmp_path / "regions.png", RED, BLUE))
    scene = editor(eileen, layer=tmp_path / "paint.png")
    pose = handle_file(str(served.path(client.predict(gallery(eileen), [], SIDE, SIDE, api_name="/landmarks"))))
    requests: list[tuple[str, Any, tuple]] = [
        ("/generate", "Anna", ()),
        ("/several_people", ["Bruno", "Anna"], (regions,)),
        ("/mix", "Anna", ("Bruno", 0.0)),
        ("/generate_pose", "Anna", (pose, 0.8)),
        ("/attributes", "Anna", (5.0, 5.0, 5.0)),
        ("/expression", "Anna", (handle_file(str(eileen)), 1.0)),
        ("/image_to_image", "Anna", (scene, 0.8)),
        ("/inpaint", "Anna", (scene, 0.8)),
        ("/compare", "Anna", ("0.8", ["two"])),
        ("/swap", "Anna", (handle_file(str(eileen)), True, 0, 0.5, True)),
        ("/restore", "Anna", (handle_file(str(eileen)), True, 0, AS_SET)),
    ]
    drawing = {f"/{call.fn.__name__}" for call in served.demo.fns.values() if call.concurrency_id == "pipeline"}
    assert drawing == {endpoint for endpoint, _, _ in requests}
    for endpoint, person, values in requests:
        with pytest.raises(Exception, match="blocklist"):
            client.predict(person, *values, **QUICK, api_name=endpoint)
    for endpoint, _, values in requests[3:4]:
        assert client.predict("Bruno", *values, **QUICK, api_name=endpoint)[0]


def test_swap(served: Served, client: Any, eileen: Path) -> None:
    """The face of a picture is replaced, once everybody in it has agreed."""
    given = handle_file(str(eileen))
    with pytest.raises(Exception, match="Confirm first"):
        client.predict("Anna", given, False, 0, 0.5, True, **QUICK, api_name="/swap")
    [face] = client.predict(given, True, api_name="/picture_faces")
    assert np.asarray(Image.open(served.path(face["image"]))).shape == (112, 112, 3)
    shown, table = client.predict("Anna", given, True, 0, 0.5, True, **QUICK, api_name="/swap")
    pipe, net = served.pipe, served.backend.pipeline.identity_net
    box = served.backend.analyzer.analyze(eileen)[0].box
    expected = pipe.swap(
        eileen,
        prompt="a face",
        id_embeds={"one": ANNA},
        id_scale={"one": 0.8},
        face=tuple(box),
        strength=0.5,
        identity_net=net,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(0)],
    )
    picture, original, mask = drawn(served, shown)[0], np.asarray(Image.open(eileen)), expected.masks[0]
    assert np.array_equal(picture, np.asarray(expected.images[0]))
    assert np.array_equal(picture[np.asarray(mask) == 0], original[np.asarray(mask) == 0])
    assert [row[1] for row in table["data"]] == ["Anna"]


def test_restore(served: Served, client: Any, eileen: Path) -> None:
    """With the person by the restorer's curve or as set, and without the person."""
    given = handle_file(str(eileen))
    with pytest.raises(Exception, match="Confirm first"):
        client.predict("Anna", given, False, 0, BY_DAMAGE, **QUICK, api_name="/restore")
    with pytest.raises(Exception, match="not in the list of choices"):
        client.predict("Anna", given, True, 0, "a lot", **QUICK, api_name="/restore")
    box = served.backend.analyzer.analyze(eileen)[0].box
    restored = []
    for scale, options in ((BY_DAMAGE, {}), (AS_SET, {"id_scale": {"one": 0.8}}), (NOBODY, {"id_scale": 0.0})):
        shown, _ = client.predict("Anna", given, True, 0, scale, **QUICK, api_name="/restore")
        expected = served.pipe.restore(
            eileen,
            restorer=served.backend.pipeline.restorer,
            prompt="a face",
            id_embeds={"one": ANNA},
            face=tuple(box),
            num_inference_steps=4,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(0)],
            **options,
        )
        restored.append(drawn(served, shown)[0])
        assert np.array_equal(restored[-1], np.asarray(expected.images[0])), scale
    assert not np.array_equal(restored[0], restored[2])
