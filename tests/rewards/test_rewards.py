"""Identity and aesthetic rewards, and their sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from idgen.errors import CheckpointError, LossError
from idgen.faces import DLIB_TEMPLATE
from idgen.losses import FaceEmbedder, Term, UpTo
from idgen.rewards import (
    AestheticHead,
    AestheticReward,
    BlendingReward,
    ClipImageEmbeds,
    IdentityReward,
    WeightedRewards,
)
from tests.components import seeded


def pictures(batch: int = 2, side: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, side, side, generator=seeded(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def embedder() -> FaceEmbedder:
    """A face encoder of one convolution, on crops of 8 pixels."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(54, 5))
    encoder.double().requires_grad_(False)
    return FaceEmbedder(name="test", encoder=encoder, template=DLIB_TEMPLATE * 8 / 150, size=8)


LANDMARKS = torch.from_numpy(DLIB_TEMPLATE * 16 / 150).expand(2, -1, -1)
REFERENCES = torch.randn(2, 3, 5, generator=seeded(2), dtype=torch.float64)


@pytest.mark.parametrize("hinge", [None, 0.1])
def test_identity_reward(embedder: FaceEmbedder, hinge: float | None) -> None:
    reward = IdentityReward(embedder=embedder, hinge=hinge)
    embeddings, expected = embedder(pictures(), LANDMARKS), []
    for e, references in zip(embeddings, REFERENCES, strict=True):
        cosines = [float(e @ r / (e.norm() * r.norm())) for r in references]
        value = np.mean(cosines)
        expected.append(value if hinge is None else min(value, hinge))
    assert reward(pictures(), LANDMARKS, REFERENCES).tolist() == pytest.approx(expected)
    images = pictures().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: reward(x, LANDMARKS, REFERENCES), (images,), fast_mode=True)


def test_a_face_above_the_hinge_has_no_gradient(embedder: FaceEmbedder) -> None:
    """ID-Aligner's hinge: relu(m − cos) as a loss, and min(cos, m) as a reward, have the same gradient."""
    images = pictures().requires_grad_(True)
    own = embedder(pictures(), LANDMARKS)
    references = torch.stack([own[0], -own[1]])  # the first is its own reference, the second its opposite
    (gradient,) = torch.autograd.grad(
        IdentityReward(embedder=embedder, hinge=0.75)(images, LANDMARKS, references).sum(), images
    )
    assert not gradient[0].any()
    cosines = IdentityReward(embedder=embedder)(images, LANDMARKS, references)
    (expected,) = torch.autograd.grad(-F.relu(0.75 - cosines).sum(), images)
    torch.testing.assert_close(gradient, expected)


def test_blending_is_the_likeness_to_the_other_people(embedder: FaceEmbedder) -> None:
    """The second picture shows one person, who blends with nobody."""
    images, targets = pictures(4), torch.randn(4, 5, generator=seeded(3), dtype=torch.float64)
    landmarks, known = LANDMARKS[:1].expand(4, -1, -1), torch.tensor([[True, True], [True, False]])
    found = embedder(images, landmarks)
    expected = [-F.cosine_similarity(found[i], targets[1 - i], dim=0).item() for i in (0, 1)]
    reward = BlendingReward(embedder)
    assert reward(images, landmarks, targets, known).tolist()[:3] == pytest.approx([*expected, 0])
    assert reward(images, landmarks, targets).tolist() == [0] * 4


def test_one_reference(embedder: FaceEmbedder) -> None:
    reward = IdentityReward(embedder=embedder)
    one = reward(pictures(), LANDMARKS, REFERENCES[:, 0])
    assert torch.equal(one, reward(pictures(), LANDMARKS, REFERENCES[:, :1]))
    torch.testing.assert_close(one[:1], reward(pictures()[:1], LANDMARKS[:1], REFERENCES[:1, 0]))
    for wrong in (REFERENCES[:1], REFERENCES[:, :0], REFERENCES[..., :4]):
        with pytest.raises(LossError, match="References must"):
            reward(pictures(), LANDMARKS, wrong)
    nonsense: list[dict[str, Any]] = [{"hinge": 1.5}, {"hinge": -1}]
    for options in nonsense:
        with pytest.raises(LossError):
            IdentityReward(embedder=embedder, **options)


# -- aesthetics


class LaionPredictor(nn.Module):
    """The published head as it is trained: dropout between the layers, so their numbers have gaps."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(768, 1024), (1024, 128), (128, 64), (64, 16)]
        steps: list[nn.Module] = []
        for (a, b), rate in zip(widths, (0.2, 0.2, 0.1, 0.0), strict=True):
            steps += [nn.Linear(a, b), nn.Dropout(rate)] if rate else [nn.Linear(a, b)]
        self.layers = nn.Sequential(*steps, nn.Linear(16, 1))


@pytest.mark.parametrize("prefix", ["", "predictor."])
def test_the_published_head_is_read(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(0)
    theirs = LaionPredictor().eval()
    state = theirs.state_dict()
    assert sorted({key.split(".")[1] for key in state}) == ["0", "2", "4", "6", "7"]
    save_file({prefix + key: tensor for key, tensor in state.items()}, tmp_path / "head.safetensors")
    features = F.normalize(torch.randn(3, 768), dim=-1)
    head = AestheticHead.load(tmp_path / "head.safetensors")
    torch.testing.assert_close(head(features), theirs.layers(features)[:, 0])
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_a_linear_head_is_read(tmp_path: Path) -> None:
    linear = nn.Linear(768, 1)
    save_file(linear.state_dict(), tmp_path / "linear.safetensors")
    features = torch.randn(2, 768)
    head = AestheticHead.load(tmp_path / "linear.safetensors")
    torch.testing.assert_close(head(features), linear(features)[:, 0])


@pytest.mark.parametrize(
    "tensors",
    [
        {"layers.0.weight": torch.zeros(4, 8), "layers.0.bias": torch.zeros(4)},  # ends in four scores
        {"layers.0.weight": torch.zeros(4, 8), "layers.1.weight": torch.zeros(1, 5)},
        {"layers.0.bias": torch.zeros(1)},
        {"layers.0.weight": torch.zeros(1, 8)},
        {"text_model.embeddings": torch.zeros(1)},
        {"conv.0.weight": torch.zeros(1, 3, 3, 3), "conv.0.bias": torch.zeros(1)},
        {},
    ],
)
def test_other_files_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors"):
        AestheticHead.load(tmp_path / "other.safetensors")


def test_no_pickle_and_no_file(tmp_path: Path) -> None:
    torch.save(nn.Linear(8, 1).state_dict(), tmp_path / "head.pth")
    for path in (tmp_path / "head.pth", tmp_path / "missing.safetensors"):
        with pytest.raises(CheckpointError, match="safetensors"):
            AestheticHead.load(path)
    with pytest.raises(LossError):
        AestheticHead((8, 2))


@pytest.fixture(scope="module")
def clip() -> CLIPVisionModelWithProjection:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=8,
    )
    return CLIPVisionModelWithProjection(config).eval()


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (60, 44), (33, 64)])
def test_clip_sees_what_its_own_processor_makes(clip: CLIPVisionModelWithProjection, size: tuple[int, int]) -> None:
    """But for the 8 bits that the processor rounds to, and where it crops to an even number of pixels."""
    y, x = (torch.linspace(0, 3, n) for n in size)
    image = torch.stack([(y[:, None] + x).sin(), (y[:, None] * x).cos(), y[:, None] - x]).mul(0.4).add(0.5).clamp(0, 1)
    eight_bits = (image * 255).round().to(torch.uint8)
    processor: Any = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    pixels = processor(eight_bits.permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"]
    expected = F.normalize(clip(pixels).image_embeds, dim=-1)
    found = ClipImageEmbeds(clip)(eight_bits[None] / 255)
    assert F.cosine_similarity(found, expected).item() > 0.999


def test_aesthetic_reward(clip: CLIPVisionModelWithProjection) -> None:
    torch.manual_seed(1)
    features = ClipImageEmbeds(clip)
    head = AestheticHead((8, 4, 1))
    reward = AestheticReward(features, head)
    images = torch.rand(2, 3, 20, 24, generator=seeded(3))
    embeds = features(images)
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(2))
    w, b = head.layers[0], head.layers[1]
    expected = (embeds @ w.weight.T + w.bias) @ b.weight.T + b.bias  # pyright: ignore
    torch.testing.assert_close(reward(images), expected[:, 0])
    assert reward(images[:1]).shape == (1,)


def test_aesthetic_gradient(clip: CLIPVisionModelWithProjection) -> None:
    reward = AestheticReward(ClipImageEmbeds(clip).double(), AestheticHead((8, 4, 1)).double())
    try:
        images = pictures(2, 20).requires_grad_(True)
        assert torch.autograd.gradcheck(reward, (images,), fast_mode=True)
        assert not any(parameter.grad is not None for parameter in clip.parameters())
    finally:
        clip.float()


# -- the sum


def test_weighted_rewards(embedder: FaceEmbedder) -> None:
    calls = []

    def black_box(images: torch.Tensor) -> list[float]:
        """Any callable, without a gradient."""
        calls.append(len(images))
        return [float(image.mean()) for image in images.detach()]

    rewards = WeightedRewards(
        {
            "identity": Term(IdentityReward(embedder=embedder), 0.2, valid="face_found"),
            "brightness": Term(black_box, 0.5),
        }
    )
    images = pictures().requires_grad_(True)
    inputs = {
        "images": images,
        "face_images": images,
        "landmarks": LANDMARKS,
        "reference_embeds": REFERENCES,
        "face_found": torch.tensor([True, False]),
    }
    out = rewards(inputs)
    identity = IdentityReward(embedder=embedder)(pictures(), LANDMARKS, REFERENCES)
    brightness = pictures().mean((1, 2, 3))
    expected = 0.5 * brightness + torch.tensor([0.2, 0.0]) * identity
    torch.testing.assert_close(out.values, expected, rtol=1e-6, atol=0)
    assert out.terms["identity"].sum.item() == pytest.approx(identity[0].item())
    assert (out.terms["identity"].samples, out.terms["identity"].invalid) == (1, 1)
    assert out.terms["brightness"].mean.item() == pytest.approx(brightness.mean().item())
    assert calls == [2]
    out.total.backward()
    assert images.grad is not None
    assert images.grad[0].any()
    assert not images.grad[1].any()


def test_rewards_have_no_gate() -> None:
    with pytest.raises(LossError, match="no timestep"):
        WeightedRewards({"a": Term(lambda images: images, gate=UpTo())})
    with pytest.raises(LossError, match="at least one"):
        WeightedRewards({})
