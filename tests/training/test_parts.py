"""Modules trained with an adapter or without one: a separate LoRA, an IdentityNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from idgen import IdentityAdapter, IdentityNet
from idgen.errors import CheckpointError, TrainingError
from idgen.losses import FaceDecoder, FaceEmbedder, Term, make_losses
from idgen.rewards import IdentityReward, WeightedRewards
from idgen.training.base import BaseModel
from idgen.training.config import LoopConfig, LossConfig, OptimizerConfig
from idgen.training.denoiser import IdentityDenoiser
from idgen.training.loop import Loop
from idgen.training.methods import ReFLConfig
from idgen.training.reward_backprop import RewardStep
from idgen.training.step import TrainingStep
from idgen.training.trainable import UNetLoRA, new_identity_net
from tests.components import call_arguments, make_adapter, make_pipeline, seeded

from .runs import RandomPeople
from .test_rollout import Everywhere

KEPT = LossConfig.only(preservation=1.0)


def open_base(family: str = "sd") -> BaseModel:
    return BaseModel(make_pipeline(family), torch.float32, torch.device("cpu"))


def denoiser(base: BaseModel, adapter: IdentityAdapter | None, losses: LossConfig = KEPT, **parts: Any) -> Any:
    if adapter is not None:
        adapter.attach(base.unet)
    return IdentityDenoiser(base, adapter, make_losses(losses, base.parametrisation), **parts)


def evaluate(step: TrainingStep, batch: Any, backward: bool = True) -> Any:
    with step:
        found = step(batch, seeded(1))
        if backward:
            found.total.backward()
    return found


def loop_of(step: TrainingStep, folder: Path, steps: int = 3, **loop: Any) -> Loop:
    config = LoopConfig(**{"max_train_steps": steps, "checkpointing_steps": 2, "train_batch_size": 2, **loop})
    batches = RandomPeople(2, xl=isinstance(step.base.text_encoders, list) and len(step.base.text_encoders) == 2)
    return Loop(step, batches, folder, config, OptimizerConfig(learning_rate=1e-2), Accelerator(cpu=True))


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_an_adapter_and_a_lora_predict_the_same_in_a_stock_pipeline(family: str, tmp_path: Path) -> None:
    """`load_id_adapter` and `load_lora_weights` restore from the folder what was trained."""
    base = open_base(family)
    step = denoiser(base, make_adapter(base.unet), lora=UNetLoRA(base.unet, 4))
    before = [weight.detach().clone() for weight in step.lora.parameters()]
    loop_of(step, tmp_path).run()
    assert all(not torch.equal(a, b) for a, b in zip(before, step.lora.parameters(), strict=True))
    batch = RandomPeople(2, xl=family == "sdxl").make(0)
    text, noisy, times = base.encode(batch.prompts), batch.latents, torch.tensor([300, 600])
    with torch.no_grad(), step.activate(batch, step.encode(batch)):
        expected = step.predict(batch, noisy, times, text)

    stock = make_pipeline(family)
    stock.load_lora_weights(tmp_path)
    stock.load_id_adapter(tmp_path)
    fresh = BaseModel(stock, torch.float32, torch.device("cpu"))
    adapter = stock.id_adapters["default"]
    with torch.no_grad(), adapter.activate([adapter.encode(batch.id_embeds)], 2):
        found = fresh.predict(noisy, times, text, batch.time_ids)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        stock.unload_lora_weights()
        assert not torch.allclose(fresh.predict(noisy, times, text, batch.time_ids), expected, atol=1e-3)


def test_preservation_compares_with_the_base_without_its_lora() -> None:
    base = open_base()
    step = denoiser(base, make_adapter(base.unet), lora=UNetLoRA(base.unet, 4))
    batch = RandomPeople(2).make(0)
    base_alone = open_base().predict(batch.latents, torch.tensor([5, 5]), base.encode(batch.prompts))
    for weight in step.lora.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    assert step.adapter is not None
    with torch.no_grad(), step.activate(batch, step.encode(batch)):
        drawn = step.predict(batch, batch.latents, torch.tensor([5, 5]), base.encode(batch.prompts))
        with step.base_only():
            alone = step.predict(batch, batch.latents, torch.tensor([5, 5]), base.encode(batch.prompts))
        again = step.predict(batch, batch.latents, torch.tensor([5, 5]), base.encode(batch.prompts))
    assert torch.equal(alone, base_alone)
    assert torch.equal(again, drawn)
    assert not torch.equal(drawn, alone)
    assert all(weight.requires_grad for weight in step.lora.parameters())


def lora_reward(base: BaseModel) -> RewardStep:
    """ID-Aligner's LoRA mode: no adapter, a reward, and denoising of the photos."""
    embedder = FaceEmbedder.dlib()
    return RewardStep(
        base,
        None,
        WeightedRewards({"identity": Term(IdentityReward(embedder=embedder), 0.2, None, "face_found")}),
        ReFLConfig(steps=3, last=2, guidance_scale=1.0, denoising=1.0),
        embedders=[embedder],
        decoder=FaceDecoder(vae=base.pipeline.vae, margin=2),
        detector=Everywhere(),
        lora=UNetLoRA(base.unet, 4),
    )


def test_a_lora_is_trained_alone_with_a_reward(tmp_path: Path) -> None:
    base = open_base()
    step = lora_reward(base)
    found = evaluate(step, RandomPeople(2).make(0))
    assert set(found.terms) == {"identity", "preservation", "denoising"}
    assert found.terms["preservation"].mean == 0  # nothing has been learned
    assert step.lora is not None
    # the down maps have no gradient yet: the up maps, which they go through, start from nothing
    grads = {name: weight.grad for name, weight in step.lora.weights.items()}
    assert all(grad is not None and grad.any() for name, grad in grads.items() if "lora_B" in name)
    step.zero_grad()
    loop_of(step, tmp_path, steps=2).run()
    assert evaluate(step, RandomPeople(2).make(0)).terms["preservation"].mean > 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "metrics.jsonl",
        "pytorch_lora_weights.safetensors",
    ]
    stock = make_pipeline()
    plain = stock(**call_arguments()).images
    stock.load_lora_weights(tmp_path)
    assert abs(stock(**call_arguments()).images - plain).max() > 1e-4


def test_a_lora_is_resumed(tmp_path: Path) -> None:
    def run(folder: str, steps: int, **loop: Any) -> dict[str, torch.Tensor]:
        base = open_base()
        torch.manual_seed(0)
        step = denoiser(base, make_adapter(base.unet), lora=UNetLoRA(base.unet, 2))
        loop_of(step, tmp_path / folder, steps, **loop).run()
        return step.state_dict()

    whole = run("whole", 4)
    run("parts", 2)
    parts = run("parts", 4, resume_from_checkpoint="latest")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_lora_that_does_not_fit(tmp_path: Path) -> None:
    base = open_base()
    lora = UNetLoRA(base.unet, 4)
    lora.save(tmp_path)
    with pytest.raises(TrainingError, match="already"):
        UNetLoRA(base.unet, 4)
    lora.remove()
    assert not any("lora" in name for name, _ in base.unet.named_parameters())
    with pytest.raises(CheckpointError, match="does not fit"):
        UNetLoRA(open_base().unet, 8).load(tmp_path)
    with pytest.raises(CheckpointError, match="There is no file"):
        UNetLoRA(open_base().unet, 4).load(tmp_path / "nowhere")
    with pytest.raises(TrainingError, match="rank"):
        UNetLoRA(open_base().unet, 0)
    with pytest.raises(TrainingError, match="Nothing would be trained"):
        denoiser(open_base(), None)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("image_branch", [True, False])
def test_an_identity_net_is_trained(family: str, image_branch: bool, tmp_path: Path) -> None:
    base = open_base(family)
    net = IdentityNet.from_unet(base.unet, conditioning_embedding_out_channels=(8, 8))
    adapter = make_adapter(base.unet)
    step = denoiser(base, adapter, identity_net=net, image_branch=image_branch)
    branches = [weight.clone() for weight in adapter.branches.parameters()]
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    loop_of(step, tmp_path, steps=4).run()
    changed = [name for name, weight in net.state_dict().items() if not torch.equal(weight, before[name])]
    assert any("controlnet_cond_embedding" in name for name in changed)  # it looks at the landmarks
    assert any("attn2" in name for name in changed)  # and reads the tokens
    moved = any(not torch.equal(a, b) for a, b in zip(branches, adapter.branches.parameters(), strict=True))
    assert moved == image_branch
    saved = IdentityNet.from_pretrained(tmp_path / "identity_net")
    assert all(torch.equal(weight, saved.state_dict()[name]) for name, weight in net.state_dict().items())
    alone = denoiser(base, IdentityAdapter.from_pretrained(tmp_path))
    with pytest.raises(CheckpointError, match="has an IdentityNet, and this run does not train one"):
        alone.load(tmp_path)


def test_words_of_an_earlier_version_are_not_resumed_as_others(tmp_path: Path) -> None:
    words = {"text_encoders": open_base().text_encoders, "num_words": 2}
    step, earlier = (
        denoiser(base := open_base(), make_adapter(base.unet, **words, adaptive_words=adaptive))
        for adaptive in (True, False)
    )
    earlier.save(tmp_path)
    with pytest.raises(CheckpointError, match="Start a new run from its weights"):
        step.load(tmp_path)
    step.save(tmp_path)
    step.load(tmp_path)


def test_an_identity_net_reads_the_same_as_in_the_pipeline() -> None:
    """Training and a ControlNet pipeline predict the same from the same landmarks and tokens."""
    base = open_base()
    net = IdentityNet.from_unet(base.unet, conditioning_embedding_out_channels=(8, 8))
    for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.1)  # pyright: ignore
    step = denoiser(base, make_adapter(base.unet), identity_net=net)
    batch, text = RandomPeople(2).make(0), base.encode(["a face"] * 2)
    times, person = torch.tensor([300, 600]), step.encode(batch)
    with torch.no_grad(), step.activate(batch, person):
        found = step.predict(batch, batch.latents, times, text)
    pipe = make_pipeline(controlnet=True)
    from idgen.faces import draw_keypoints

    side = batch.latents.shape[-1] * 2
    picture = pipe.control_image_processor.preprocess(
        [draw_keypoints(batch.landmarks[0].numpy(), (side, side)).astype("float32") / 255], height=side, width=side
    )
    black = torch.zeros_like(picture)  # the second sample has no face
    with torch.no_grad(), step.adapter.activate([person], 2), net.activate([person], 2):
        down, middle = net(
            batch.latents, times, text["encoder_hidden_states"], torch.cat([picture, black]), return_dict=False
        )
        expected = base.predict(batch.latents, times, text, None, (down, middle))
        without = base.predict(batch.latents, times, text)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, without, atol=1e-3)
    with torch.no_grad(), step.activate(batch, person), step.base_only():
        alone = step.predict(batch, batch.latents, times, text)
    assert torch.equal(alone, open_base().predict(batch.latents, times, text))


def test_a_new_identity_net_fits_the_built_in_base() -> None:
    """Its VAE gives 128 px latents of 16 x 16 with 16 channels."""
    base = BaseModel.open("tiny", torch.float32, torch.device("cpu"))
    net = new_identity_net(base)
    adapter = IdentityAdapter.from_unet(base.unet, encoder="random", embedding_dim=8)
    adapter.attach(base.unet)
    latents, times, text = torch.randn(1, 16, 16, 16), torch.tensor([300]), base.encode(["a face"])
    with torch.no_grad(), net.activate([adapter.encode(torch.randn(1, 8))], 1):
        words = text["encoder_hidden_states"]
        residuals = net(latents, times, words, torch.rand(1, 3, 128, 128), return_dict=False)
        found = base.predict(latents, times, text, residuals=residuals)
        assert torch.equal(found, base.predict(latents, times, text))  # it changes nothing yet
    assert found.shape == latents.shape


def test_an_identity_net_needs_an_adapter() -> None:
    base = open_base()
    with pytest.raises(TrainingError, match="tokens of an adapter"):
        denoiser(base, None, identity_net=IdentityNet.from_unet(base.unet))
