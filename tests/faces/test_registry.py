"""Encoders are rows of one table; whatever opens one finds each of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idgen import FaceAnalyzer, enroll
from idgen.demo.app import _encoders
from idgen.errors import CheckpointError, EncoderMismatchError, IdgenError
from idgen.evaluation.judges import open_judges
from idgen.faces import ENCODERS, AlignedEncoder, FaceEncoder, open_encoder, spec_of
from idgen.faces.align import ARCFACE_TEMPLATE
from idgen.faces.encoder import inner_features
from idgen.faces.inner_encoder import InnerEncoder
from idgen.faces.insightface import InsightFaceEncoder, InsightFacePack
from idgen.faces.onnx_encoder import ARCFACE, NetworkInput, OnnxEncoder
from idgen.faces.opencv import SFaceEncoder
from idgen.faces.registry import encoders_table, register_encoder
from idgen.identity import Identity
from idgen.losses.embedders import open_embedder
from idgen.losses.face_embedder import FaceEmbedder
from idgen.provenance import IdentityBlocklist
from tests.faces.dots import ROW
from tests.faces.onnx_pack import write_iresnet, write_pack, write_recogniser

OWN = """
from pathlib import Path

import torch
from torch import nn

from idgen.faces import AlignedEncoder
from idgen.faces.align import ARCFACE_TEMPLATE

Path(__file__).with_suffix(".ran").touch()


class Brightness(AlignedEncoder):
    name, dim, template, size = "brightness", 12, ARCFACE_TEMPLATE / 7, 16

    def torch_module(self, checkpointing=False):
        return nn.Sequential(nn.AvgPool2d(8), nn.Flatten())


class Needy(Brightness):
    def __init__(self, path):
        pass


class Nothing:
    pass


class Dlib(Brightness):
    name = "dlib-resnet-v1"


class Path_(Brightness):
    name = "../up"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return file


def test_a_new_row_is_found_everywhere(monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray) -> None:
    monkeypatch.setitem(ENCODERS, "dots", ROW)
    analyzer = FaceAnalyzer.for_encoder("dots")
    person = enroll(astronaut, analyzer)
    assert (person.encoder, person.dim) == ("dots", 48)
    assert "| `dots` | mean colours |" in encoders_table()
    with pytest.raises(EncoderMismatchError, match="dots"):
        open_encoder("dost")
    with pytest.raises(IdgenError, match="blocklist"):
        IdentityBlocklist.of(person, threshold=0.9).check_picture(astronaut)
    assert open_embedder("dots").name == "dots"
    assert list(open_judges("dots", eval_encoder=["dlib-resnet-v1"]).encoders) == ["dlib-resnet-v1", "dots"]
    pipeline: Any = type("Pipeline", (), {"adapters": {"a": type("Adapter", (), {"config": {"encoder": "dots"}})()}})()
    assert set(_encoders(pipeline, FaceAnalyzer(), None)) == {"dots", "dlib-resnet-v1"}


def test_own_code_runs_when_the_user_names_it_and_never_because_a_file_does(own: Path, astronaut: np.ndarray) -> None:
    spec, ran = f"{own}:Brightness", own.with_suffix(".ran")
    for name in (spec, "os:system", "brightness"):
        for use in (spec_of, FaceAnalyzer.for_encoder):
            with pytest.raises(EncoderMismatchError, match="is not built in"):
                use(name)
    blocklist = IdentityBlocklist.of(Identity(embeddings=torch.ones(1, 12), encoder=spec), threshold=0.9)
    with pytest.raises(EncoderMismatchError, match="is not built in"):
        blocklist.check_picture(astronaut)
    assert not ran.exists()
    register_encoder(spec)
    assert ran.exists()
    assert spec_of("brightness") == spec
    assert enroll(astronaut, FaceAnalyzer.for_encoder("brightness")).encoder == "brightness"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nothing", "needs name, dim, crop and embed"),
        ("Needy", "without arguments"),
        ("Dlib", "differs from those that are built in"),
        ("Path_", "A name has letters"),
        ("Missing", "no function or class 'Missing'"),
    ],
)
def test_what_is_no_encoder_is_refused(own: Path, name: str, message: str) -> None:
    with pytest.raises(EncoderMismatchError, match=message):
        open_encoder(f"{own}:{name}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("magic", "no face encoder 'magic'"),
        ("dlib-resnet", "Did you mean 'dlib-resnet-v1'"),
        ("net.onnx", "pass arcface:net.onnx or imagenet:net.onnx"),
        ("imagenet", "needs an argument: imagenet:FILE.onnx"),
        ("no_such_module:Class", "no existing Python file or module"),
        ("none.py:Class", "no existing Python file or module"),
    ],
)
def test_wrong_names_say_what_to_write(spec: str, message: str) -> None:
    with pytest.raises(EncoderMismatchError, match=re.escape(message)):
        open_encoder(spec)


def onnx_encoders(folder: Path) -> list[AlignedEncoder]:
    """Recognisers of different crops, channels and normalisations."""
    small: dict[str, Any] = {"depths": (1, 1), "width": 4, "dim": 16}
    wide, sided = write_iresnet(folder / "a.onnx", **small), write_iresnet(folder / "b.onnx", side=128, **small)
    backwards = NetworkInput(template=ARCFACE_TEMPLATE + 3, colours="BGR", mean=(0.1, 0.2, 0.3), deviation=(1, 2, 0.5))
    pack = write_pack(folder / "pack", recogniser=False)
    write_iresnet(pack / "recogniser.onnx", side=128, **small)
    return [
        OnnxEncoder(wide),
        OnnxEncoder(sided),
        OnnxEncoder(sided, backwards),
        InsightFaceEncoder(InsightFacePack(pack)),
        SFaceEncoder(write_recogniser(folder / "sface.onnx", SFaceEncoder.dim)),
    ]


def test_the_embedding_with_a_gradient_is_that_without(tmp_path: Path, astronaut: np.ndarray) -> None:
    """For every kind of recogniser, whatever it reads: also where its crops are not of 112 px."""
    landmarks = FaceAnalyzer().detector.detect(astronaut)[0].landmarks
    image = torch.tensor(astronaut).permute(2, 0, 1)[None].float() / 255
    for encoder in onnx_encoders(tmp_path):
        assert isinstance(encoder, FaceEncoder)
        module = encoder.torch_module()
        crops = encoder.crop(astronaut, landmarks)[None]
        expected = torch.from_numpy(encoder.embed(crops))
        found = module(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max())), encoder.name
        embedder = FaceEmbedder(name=encoder.name, encoder=module, template=encoder.template, size=encoder.size)
        whole = embedder(image, torch.from_numpy(landmarks)[None])
        assert torch.cosine_similarity(whole, expected) > 0.99, encoder.name


def test_two_networks_never_have_one_name(tmp_path: Path) -> None:
    """Also of files that are called the same, and of one file that is fed in two ways."""
    names = set()
    for number, dim in enumerate((8, 16)):
        (tmp_path / str(number)).mkdir()
        file = write_recogniser(tmp_path / str(number) / "model.onnx", dim)
        names |= {open_encoder(f"{kind}:{file}").name for kind in ("arcface", "imagenet")}
    assert len(names) == 4
    assert all(name.startswith("onnx/model-") for name in names)
    copy = tmp_path / "model.onnx"
    copy.write_bytes((tmp_path / "0" / "model.onnx").read_bytes())
    assert OnnxEncoder(copy, ARCFACE).name in names  # wherever it lies
    with pytest.raises(CheckpointError, match="could not be opened"):
        open_encoder(f"arcface:{tmp_path / 'none.onnx'}")


def test_an_inner_map_is_an_embedding_of_rows() -> None:
    """Position after position of the last map before the embedding, by the name that is stored with it."""
    inner = open_encoder("inner/dlib-resnet-v1")
    assert isinstance(inner, InnerEncoder)
    crops = np.random.default_rng(0).integers(0, 255, (2, inner.size, inner.size, 3), np.uint8)
    network = open_encoder("dlib-resnet-v1").torch_module()  # pyright: ignore[reportAttributeAccessIssue]
    found = inner_features(network, torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)[0][-1]
    rows = inner.embed(crops).reshape(2, inner.rows, -1)
    assert inner.dim == rows[0].size
    assert found.shape[1:] == (rows.shape[2], *[int(inner.rows**0.5)] * 2)
    np.testing.assert_allclose(rows[:, 1], found[:, :, 0, 1], rtol=1e-4)
    assert spec_of(inner.name) == "inner/dlib-resnet-v1"
    with pytest.raises(EncoderMismatchError, match="needs an argument: inner/ENCODER"):
        open_encoder("inner")
