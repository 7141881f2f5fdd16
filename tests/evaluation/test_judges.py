"""Networks that judge, on small random ones; several people in a picture; people who do not exist."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from idgen.errors import CheckpointError, EvaluationError
from idgen.evaluation import judges as judging
from idgen.evaluation.cases import Case
from idgen.evaluation.judges import Judges, read_real
from idgen.evaluation.measure import Measured, Shot, measure
from idgen.evaluation.prompt_fidelity import Clip, PromptClassifier
from idgen.evaluation.prompts import PROMPT_SETS, load_prompts
from idgen.evaluation.synthesis import random_people
from idgen.faces import Detection, DlibEncoder, EncoderStatistics, OnnxEncoder, open_encoder
from tests.components import make_tokenizer
from tests.evaluation.conftest import save_pictures


def save_mean_colour(path: Path, side: int, labels: list[str] | None = None) -> Path:
    """A network whose output is the mean of each channel."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([2, 3], np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if labels is not None:
        helper.set_model_props(model, {"labels": json.dumps(labels)})
    onnx.save(model, path)
    return path


def plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (20, 30, 3)).copy()


def test_an_encoder_is_fed_as_it_is_told(tmp_path: Path) -> None:
    file = save_mean_colour(tmp_path / "mean.onnx", 112)
    crops = plain(255, 0, 51)[None]
    assert OnnxEncoder(file).embed(crops)[0] == pytest.approx([1, -1, -0.6], abs=1e-5)
    expected = (np.array([1, 0, 0.2]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert open_encoder(f"imagenet:{file}").embed(crops)[0] == pytest.approx(expected, abs=1e-4)


def test_classifier(tmp_path: Path) -> None:
    judge = PromptClassifier(save_mean_colour(tmp_path / "c.onnx", 64, ["red", "green", "blue"]))
    pictures = [plain(200, 0, 0), plain(0, 200, 0)]
    assert judge(pictures, ["", ""], ["red", "blue"]) == pytest.approx([1, 0])
    with pytest.raises(EvaluationError, match="pink"):
        judge(pictures, ["", ""], ["red", "pink"])
    with pytest.raises(CheckpointError, match="labels"):
        PromptClassifier(save_mean_colour(tmp_path / "none.onnx", 64))


def test_clip_is_the_models_own_cosine(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = small | {"image_size": 32, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    processor: Any = CLIPProcessor(CLIPImageProcessorPil(size=32, crop_size=32), make_tokenizer())
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    clip, pictures, prompts = Clip(str(tmp_path)), [plain(9, 200, 30), plain(200, 0, 90)], ["a face", "somebody else"]
    inputs = processor(text=prompts, images=pictures, return_tensors="pt", padding=True)
    expected = model(**inputs).logits_per_text.detach().diagonal() / model.logit_scale.exp().detach()
    assert clip(pictures, prompts, ["", ""]) == pytest.approx(expected.numpy(), abs=1e-5)
    passes: list[int] = []
    clip._model.vision_model.register_forward_hook(lambda *_: passes.append(1))
    assert np.linalg.norm(clip.features(pictures), axis=1) == pytest.approx(1, abs=1e-5)
    assert not passes  # they are those of the judgement before
    assert len(clip.features(list(pictures))) == len(passes) * 2


class Halves:
    """Finds a face in each bright half of a picture, the right one larger."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        points = np.array([[2.0, 2], [6, 2], [4, 4], [2, 6], [6, 6]])
        found = []
        for i, left in enumerate((0, 20)):
            if image[:, left : left + 20].max() > 0:
                box = np.array([left, 0, left + 18 + i, 20.0])
                found.append(Detection(box, points + np.array([left, 0]), 1.0))
        return found


class Colour:
    """Embeds the colour of the half in which the landmarks lie."""

    name, dim = "colour", 3

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        left = 20 if landmarks[0, 0] > 20 else 0
        return image[:, left : left + 20]

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return crops.astype(np.float32).mean((1, 2))


@pytest.mark.parametrize("missing", [False, True])
def test_several_people_are_matched_and_a_missing_one_counts(tmp_path: Path, missing: bool) -> None:
    """Whoever stands where: everybody is compared with their own photo; of somebody left out the similarity is 0."""
    red, green, black = ([255, 0, 0], [0, 255, 0], [0, 0, 0])
    case = save_pictures(
        tmp_path, references=[red, green], target=[green, red], out=[green, black if missing else red]
    )
    judges = Judges(detector=Halves(), encoders={"colour": Colour()})
    assert case.output is not None
    measured = measure([Shot(case=case, file=case.output, prompt="")], judges, read_real([case], judges))
    values = measured.rows[0]["values"]
    share = 0.5 if missing else 1.0
    assert values["detection"] == values["sim_gt/colour"] == values["sim_ref/colour"] == pytest.approx(share)
    assert values["blending/colour"] == pytest.approx(0)
    assert measured.genuine.tolist() == [[True, False], [False, True]]
    expected = [[-1, -1], [0, 1]] if missing else [[1, 0], [0, 1]]
    assert measured.scores["colour"] == pytest.approx(np.array(expected, float))


SIDE = 256


class Whole:
    """Finds one face, the whole picture."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        points = np.array([[2.0, 2], [6, 2], [4, 4], [2, 6], [6, 6]]) * SIDE / 8
        return [Detection(np.array([0, 0, SIDE, SIDE]), points, 1.0)]


class Features:
    """Of whole pictures; keeps count of what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        self.asked.append(len(pictures))
        return np.stack([picture.astype(np.float64).mean((0, 1)) for picture in pictures])

    def prompt_score(self, pictures: Sequence[np.ndarray], prompts: Sequence[str], _: Sequence[str]) -> np.ndarray:
        return np.array([len(prompt) for prompt in prompts]) + self(pictures)[:, 0]


@pytest.fixture(scope="module")
def run_of_many(tmp_path_factory: pytest.TempPathFactory) -> list[Shot]:
    """Pictures of eight people under ten prompts, and without them."""
    folder = tmp_path_factory.mktemp("many")

    def save(name: str, seed: int) -> Path:
        small = np.random.default_rng(seed).integers(1, 256, (4, 4, 3), np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE)).save(folder / f"{name}.png")
        return folder / f"{name}.png"

    twins = [save(f"without-{i}", 100 + i) for i in range(10)]
    return [
        Shot(case=case, file=save(f"{case.name}-{i}", 1000 * p + i), prompt=f"prompt {i}", without=twin)
        for p, case in enumerate(Case(name=f"p{n}", references=(save(f"real-{n}", n),)) for n in range(8))
        for i, twin in enumerate(twins)
    ]


def judged(shots: Sequence[Shot]) -> tuple[Measured, Features]:
    features = Features()
    judges = Judges(
        detector=Whole(), encoders={"colour": Colour()}, features=features, prompt_score=features.prompt_score
    )
    cases = list({shot.case.name: shot.case for shot in shots}.values())
    return measure(shots, judges, read_real(cases, judges)), features


def test_values_do_not_depend_on_the_batch(run_of_many: list[Shot], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on the order of the shots."""
    together, features = judged(run_of_many)
    assert max(features.asked) <= judging.BATCH
    assert sum(features.asked) == 2 * len(run_of_many) + 10 + 8  # each network sees each picture once
    monkeypatch.setattr(judging, "BATCH", 7)
    monkeypatch.setattr("idgen.evaluation.measure.BATCH", 7)
    order = np.random.default_rng(0).permutation(len(run_of_many))
    shuffled, _ = judged([run_of_many[i] for i in order])
    for row, i in zip(shuffled.rows, order, strict=True):
        expected = together.rows[i]
        assert row["file"] == expected["file"]
        assert row["values"] == pytest.approx(expected["values"], nan_ok=True)
    assert together.features is not None
    assert shuffled.features is not None
    np.testing.assert_allclose(shuffled.features[0], together.features[0][order])
    columns = [shuffled.gallery.index(name) for name in together.gallery]
    np.testing.assert_allclose(shuffled.scores["colour"][:, columns], together.scores["colour"][order])


def test_memory_does_not_grow_with_the_number_of_pictures(run_of_many: list[Shot]) -> None:
    """Twice the pictures, all larger than what is left of them: the peak is nearly the same."""

    def peak(shots: list[Shot]) -> int:
        tracemalloc.start()
        judged(shots)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    half = len(run_of_many) // 2
    peak(run_of_many[:half])  # what is imported on the way
    few, many = peak(run_of_many[:half]), peak(run_of_many)
    assert many - few < 3 * SIDE * SIDE * 3  # 40 more pictures were read
    assert few > judging.BATCH * SIDE * SIDE * 3


def test_random_people_differ_as_strangers_do_and_stay_the_same() -> None:
    statistics = EncoderStatistics.of(DlibEncoder.name)
    people = random_people(60, DlibEncoder.name, DlibEncoder.dim, false_match_rate=0.01, seed=5)
    directions = np.stack([p.embedding(normalised=True).numpy() for p in people])
    cosines = (directions @ directions.T)[np.triu_indices(60, 1)]
    assert cosines.max() <= statistics.threshold(0.01)
    assert cosines.mean() == pytest.approx(statistics.impostor.mean, abs=0.02)
    again = random_people(3, DlibEncoder.name, DlibEncoder.dim, false_match_rate=0.01, seed=5)
    assert all((a.embeddings == b.embeddings).all() for a, b in zip(people, again, strict=False))
    with pytest.raises(EvaluationError, match=r"of 1000 people .* give a lower rate"):
        random_people(1000, DlibEncoder.name, DlibEncoder.dim, false_match_rate=0.3)


def test_prompt_sets_and_files(tmp_path: Path) -> None:
    assert len({prompt.text for prompt in PROMPT_SETS["fastcomposer"]}) == 40
    assert all(prompt.text.count("{}") == 1 for prompt in PROMPT_SETS["fastcomposer"])
    (tmp_path / "p.txt").write_text("sepia\tan old photo\n\njust words\n")
    assert [(p.text, p.label) for p in load_prompts(str(tmp_path / "p.txt"))] == [
        ("an old photo", "sepia"),
        ("just words", ""),
    ]
    with pytest.raises(EvaluationError, match="fastcomposer"):
        load_prompts("no such set")
