"""Every setting, from flags to a finished run: on the built-in model and photos of one face."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from idgen import IdentityAdapter
from idgen.data.cache import write_caches
from idgen.data.dataset import PairedIdentityDataset
from idgen.data.framing import AlignedFraming
from idgen.data.makers import LatentMaker
from idgen.data.pairing import Pairing
from idgen.data.poses import Poses
from idgen.data.triplets import triplets_key
from idgen.demo.examples import picture
from idgen.errors import CheckpointError, DataError, LossError, TrainingError
from idgen.losses import LOSSES, FaceEmbedder
from idgen.losses.row import load_function
from idgen.pipelines import swap
from idgen.rewards import RewardsConfig, StructureScorer, make_rewards
from idgen.tiny import TINY_PATH, load_tiny_base
from idgen.tiny.usage import Usage
from idgen.training.base import BaseModel
from idgen.training.parsing import parse
from idgen.training.prompt_checks import check_prompts, may_be_long
from idgen.training.run import train_denoising, train_reward
from idgen.training.tracking import read_rows
from idgen.training.trainable import new_identity_net
from tests.components import make_adapter
from tests.data import sets

ONE = ("--max_train_steps", "1", "--train_batch_size", "2", "--validation_people", "0", "--paired_ratio", "0.5")
PRIOR = ("--losses.prior_dir", "{PRIOR}", "--losses.older_adapter", "{OLDER}", "--losses.learned_prototypes")
STYLES = ("--losses.styles", "{STYLE}", "{STYLE}")
FACES = ("--losses", "identity=0.1@1")
DENOISING = {
    "every loss": ("--num_words", "2", "--losses", *(f"{name}=0.1@1" for name in LOSSES.rows), *PRIOR, *STYLES),
    "settings of losses": (
        *(
            "--losses",
            "contrastive=0.1@decay",
            "background=0.1",
            "localisation=0.1",
            "--losses.whiskers",
            "1.5",
            "--losses.heads",
            "4",
        ),
        *("--losses.noise_offset", "0.05", "--losses.snr_gamma", "0", "--losses.background_weight", "0.5"),
        *("--losses.learned", "heads", "temperature", "--losses.mixup", "0.4", "--losses.huber", "0.001"),
        *("--losses.timesteps", "lognormal", "--losses.lognormal_mean", "-1"),
        *("--random_fusion", "--num_words", "2", "--references", "2", "--component_dropout", "0.25"),
        *("--losses.moved", "smile", "age", "--losses.word_parts", "eyes", "mouth", "--moves", "smile=1", "age=0.5"),
        *("--losses.centred", "--losses.temperature", "0.1", "--optimizer.combine", "pcgrad"),
    ),
    "faces in two steps, found": (
        *(*FACES, "--faces.steps", "2", "--faces.landmarks", "prediction"),
        *("--faces.vae", "{VAE}", "--faces.no-checkpointing", "--faces.margin", "2"),
    ),
    "faces of a rollout": (
        *FACES,
        "--id_adapter",
        "{OLDER}",
        "--faces.rollout_steps",
        "2",
        "--gradient_checkpointing",
    ),
    "several people": (
        *("--group", "photo", "--people.masks", "none", "--people.count", "1", "2", "--people.overlap", "0.1"),
        *(
            "--losses",
            "contrastive=0.1@1",
            "correspondence=0.1",
            "disentanglement=0.1",
            "in_box=0.1",
        ),
        *("--num_words", "2"),
    ),
    "a loss of one's own": ("--losses", "{OWN}:level=0.1@1", "{OWN}:likeness=0.1"),
    "parts, in half precision": (
        *(
            "--lora_rank",
            "2",
            "--unet_lora_rank",
            "2",
            "--identity_net",
            "--projection",
            "resampler",
            "hidden_dim=16",
            "dim_head=8",
            "depth=1",
            "--mixed_precision",
            "bf16",
        ),
        *("--placement", "sequential", "--face_only", "--curriculum_steps", "1"),
        *("--optimizer.ema_decay", "0.9", "--optimizer.lr_scheduler", "cosine", "--report_to", "tensorboard"),
        *("--gradient_accumulation_steps", "2", "--dataloader_num_workers", "1"),
    ),
}
SHORT = ("--rollout.steps", "3")
LAST = ("--rollout.last", "2")
REWARDS = {
    "refl, every reward": (
        *LAST,
        *("--rollout.method", "refl", "--rollout.guidance_scale", "1", "--rewards.hinge", "0.9"),
        *("--rewards", "aesthetic=0.01", "structure=0.1", "{OWN}:brightness=1", "--rewards.aesthetic_head", "{HEAD}"),
        *("--rewards.structure_scorer", "{SCORER}", "--rewards.aesthetic_clip", "{CLIP}"),
    ),
    "draft": (
        *(*LAST, "--rollout.method", "draft", "--rollout.scheduler", "EulerDiscreteScheduler"),
        *("--optimizer.combine", "mgda"),
    ),
    "draft-lv": ("--rollout.method", "draft-lv", "--rollout.copies", "1", "--rollout.vae", "{VAE}"),
    "alignprop": (*LAST, "--rollout.method", "alignprop", "--rollout.no-checkpointing", "--gradient_checkpointing"),
    "swap": ("--rollout.method", "swap", "--rollout.guidance_scale", "3", "--identity_net"),
    "ddpo": ("--rollout.method", "ddpo", "--rollout.learned", "1", "--rewards", "{OWN}:colours=1"),
    "grpo": (
        *("--rollout.method", "grpo", "--rollout.group", "2", "--rollout.updates", "4", "--rollout.kl", "0.1"),
        *("--rewards", "{OWN}:colours=1", "identity=0.5", "--unet_lora_rank", "2"),
    ),
    "draft, several people": (
        *(*LAST, "--rollout.method", "draft", "--group", "photo", "--people.count", "2", "2"),
        *("--rewards", "blending=1", "identity=1", "--rewards.over_people", "least"),
    ),
    "a LoRA alone": (*LAST, "--unet_lora_rank", "2"),
}
OWN = """
def brightness(images):
    return images.mean((1, 2, 3))

def level(model_output):
    return model_output.square().mean((1, 2, 3))

def likeness(generated_embeds, target_embeds):
    return (generated_embeds - target_embeds).square().mean(1)

def colours(images):
    return [float(len(picture.unique())) for picture in images]
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files for flags: shards with cached latents and text, pictures, and networks with random weights."""
    folder: Path = tmp_path_factory.mktemp("files")
    for i in (1, 2, 3):
        sets.save(sets.portrait(512, shift=8 * i), folder / "photos" / "anna" / f"{i}.jpg")
        (folder / "photos" / "anna" / f"{i}.json").write_text('{"group": "adults"}')
    (folder / "photos" / "anna" / "1.txt").write_text("a photo of <id>, smiling")
    with Image.open(picture("Ben")) as ben:
        sets.save(ben.convert("RGB").resize((256, 256)), folder / "photos" / "ben" / "1.png")
    sets.make_set(folder / "photos", folder / "shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swap, "pipeline_usage", lambda _: Usage(num_inference_steps=2))  # triplets are drawn quickly
        write_caches(str(folder / "shards"), ["latents", "text", "triplets"], base="tiny", resolution=64)
    sets.save(sets.portrait(256), folder / "prior" / "1.png")
    for i in (1, 2):
        sets.save(sets.portrait(256, shift=16 * i), folder / "style" / f"{i}.png")
    tiny = load_tiny_base()
    tiny.vae.save_pretrained(folder / "vae")
    older = IdentityAdapter.from_unet(tiny.unet, encoder="dlib-resnet-v1", embedding_dim=128)
    older.save_pretrained(folder / "older")
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "clip")
    save_file({"weight": torch.randn(1, 8), "bias": torch.zeros(1)}, folder / "head.safetensors")
    StructureScorer((8, 8)).save(folder / "scorer.safetensors")
    (folder / "own.py").write_text(OWN)
    places = {"SHARDS": "shards", "PRIOR": "prior", "VAE": "vae", "CLIP": "clip", "HEAD": "head.safetensors"}
    places |= {"SCORER": "scorer.safetensors", "OWN": "own.py", "OLDER": "older", "STYLE": "style"}
    return {name: str(folder / place) for name, place in places.items()}


@pytest.fixture(autouse=True)
def _runs_are_processes() -> Iterator[None]:
    """Accelerate keeps one state per process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def train(stage: Any, files: dict[str, str], output: Path, flags: tuple[str, ...]) -> tuple[set[str], str]:
    """Run one update; returns the names of its metrics, and the model card."""
    arguments = ["--train_data_dir", files["SHARDS"], "--output_dir", str(output), *ONE]
    config = parse(stage, [*arguments, *(flag.format(**files) for flag in flags)], "idgen")
    (train_denoising if stage == "denoise" else train_reward)(config)
    row = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])
    assert row["skipped"] == 0
    return set(row), (output / "README.md").read_text()


@pytest.mark.parametrize("name", DENOISING)
def test_stage_one(name: str, files: dict[str, str], tmp_path: Path) -> None:
    metrics, card = train("denoise", files, tmp_path, DENOISING[name])
    weights = [flag.partition("=")[0].rpartition(":")[-1] for flag in DENOISING[name] if "=0.1" in flag]
    assert {"denoising", *weights} <= metrics
    assert all(f"{loss}=0.1" in card for loss in weights)
    pipe = load_tiny_base()
    pipe.load_id_adapter(tmp_path)
    config = pipe.id_adapters["default"].config
    several = "--group" in DENOISING[name]
    assert (config["max_people"], config["ordered"]) == ((2, True) if several else (1, False))
    if "--identity_net" in DENOISING[name]:
        assert (tmp_path / "identity_net" / "config.json").exists()
        pipe.load_lora_weights(str(tmp_path))
        assert list(tmp_path.rglob("events.out*"))


@pytest.fixture(scope="module")
def adapter(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("adapter")
    train("denoise", files, output, ())
    return str(output)


@pytest.mark.parametrize("name", REWARDS)
def test_stage_two(name: str, files: dict[str, str], adapter: str, tmp_path: Path) -> None:
    flags = REWARDS[name] if "LoRA" in name else (*REWARDS[name], "--id_adapter", adapter)
    metrics, card = train("reward", files, tmp_path, (*SHORT, *flags))
    rewards = {flag.partition("=")[0].rpartition(":")[-1] for flag in flags if "=" in flag}
    assert {"loss", *rewards} <= metrics
    assert ("supervision" in metrics) == (name == "swap")
    assert ({"preservation", "denoising"} <= metrics) == (name.split(",")[0] not in ("ddpo", "grpo"))
    assert f"by {name.split(',')[0]}" in card or "LoRA" in name
    assert (tmp_path / "identity_net").exists() == ("--identity_net" in flags)
    assert (tmp_path / ("pytorch_lora_weights.safetensors" if "LoRA" in name else "config.json")).exists()


def test_a_lora_and_then_an_identity_net_are_added_to_an_adapter(
    files: dict[str, str], adapter: str, tmp_path: Path
) -> None:
    """The LoRA is stored in the adapter's file; a frozen adapter does not change by a bit."""
    wide, net = tmp_path / "wide", tmp_path / "net"
    train("denoise", files, wide, ("--id_adapter", adapter, "--lora_rank", "2"))
    before = IdentityAdapter.from_pretrained(wide)
    assert before.config["lora_rank"] == 2
    assert not (wide / "pytorch_lora_weights.safetensors").exists()
    assert any(weight.any() for name, weight in before.loras.named_parameters() if "up" in name)
    with pytest.raises(TrainingError, match="has a LoRA of rank 2: lora_rank=4"):
        train("denoise", files, tmp_path / "refused", ("--id_adapter", str(wide), "--lora_rank", "4"))
    with pytest.raises(TrainingError, match="Nothing would be trained"):
        train("denoise", files, tmp_path / "refused", ("--id_adapter", str(wide), "--frozen"))
    train("denoise", files, net, ("--id_adapter", str(wide), "--frozen", "--identity_net"))
    after = IdentityAdapter.from_pretrained(net).state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.state_dict().items())
    assert (net / "identity_net" / "config.json").exists()


def test_an_identity_net_in_the_adapters_folder_is_used_only_if_asked_for(
    files: dict[str, str], adapter: str, tmp_path: Path
) -> None:
    """With a net beside it, an adapter is trained as without it, bit for bit."""
    folder = tmp_path / "with a net"
    shutil.copytree(adapter, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    net = new_identity_net(BaseModel.open("tiny", torch.float32, torch.device("cpu")))
    torch.nn.init.ones_(net.controlnet_mid_block.bias)  # it changes every prediction
    net.save_pretrained(folder / "identity_net")
    for stage, flags in (("denoise", ()), ("reward", (*SHORT, *LAST))):
        trained = []
        for place in (adapter, str(folder)):
            output = tmp_path / stage / Path(place).name
            train(stage, files, output, (*flags, "--id_adapter", place))
            assert not (output / "identity_net").exists()
            trained.append(IdentityAdapter.from_pretrained(output).state_dict())
        assert all(torch.equal(weight, trained[1][name]) for name, weight in trained[0].items())


def test_a_run_is_resumed_with_its_settings_or_refused(files: dict[str, str], adapter: str, tmp_path: Path) -> None:
    run, latest = shutil.copytree(adapter, tmp_path / "run"), ("--resume_from_checkpoint", "latest")
    sets.save(sets.portrait(512), tmp_path / "photos" / "anna" / "1.jpg")
    sets.make_set(tmp_path / "photos", tmp_path / "others")
    for stage, changed, flags, message in (
        ("denoise", {}, (), "already holds a run"),
        ("denoise", {}, (*latest, "--losses", "identity=0.1"), r"losses\.identity was '2@0\.85', now '0\.1@0\.85'"),
        ("denoise", {}, (*latest, "--resolution", "256"), "resolution was 512, now 256"),  # and not the cached latents
        ("denoise", {}, (*latest, "--num_words", "2"), "num_words was 0, now 2"),
        ("denoise", {"SHARDS": str(tmp_path / "others")}, latest, r"train_data_dir\.photos was"),
        ("reward", {}, (*latest, "--unet_lora_rank", "2"), "stage was 'denoise', now 'reward'"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(stage, files | changed, run, flags)
    moved = Path(shutil.move(run, tmp_path / "moved"))
    (tmp_path / "link").symlink_to(files["SHARDS"])
    _, card = train("denoise", files | {"SHARDS": str(tmp_path / "link")}, moved, (*latest, "--max_train_steps", "2"))
    assert "| updates | 2 of 2 samples per process |" in card
    assert [row["step"] for row in read_rows(moved / "metrics.jsonl")] == [1, 2]


def test_a_run_is_resumed_with_the_contents_of_its_files_or_refused(files: dict[str, str], tmp_path: Path) -> None:
    """Weights and pictures may be written anew under the same name."""
    names = {"OLDER": "older", "VAE": "vae", "STYLE": "style", "PRIOR": "prior"}
    own = files | {name: str(shutil.copytree(files[name], tmp_path / place)) for name, place in names.items()}
    base = tmp_path / "base"
    load_tiny_base().save_pretrained(base)
    shutil.copy(TINY_PATH / "framing.json", base)
    losses = ("--losses", "style_distance=0.1", "triplet=0.1@1", "relation=0.1@1")
    flags = ("--base", str(base), "--losses.styles", "{STYLE}", "{STYLE}", *PRIOR[:4], "--faces.vae", "{VAE}", *losses)
    latest = ("--resume_from_checkpoint", "latest")
    train("denoise", own, tmp_path / "run", flags)
    weights = "diffusion_pytorch_model.safetensors"
    changed = {
        "base.unet": base / "unet" / weights,
        "base.vae": base / "vae" / weights,
        own["OLDER"]: Path(own["OLDER"]) / weights,
        own["VAE"]: Path(own["VAE"]) / weights,
    }
    before = {file: file.read_bytes() for file in (*changed.values(), Path(own["STYLE"]) / "1.png")}
    for file in changed.values():
        known = load_file(file)  # cached latents tell another encoder of a VAE
        trained = {name: weight * 1.01 for name, weight in known.items() if not name.startswith("encoder.")}
        save_file({**known, **trained}, file, {"format": "pt"})
    sets.save(sets.portrait(256, shift=3), Path(own["STYLE"]) / "1.png")
    with pytest.raises(TrainingError, match="began with other contents of") as error:
        train("denoise", own, tmp_path / "run", (*flags, *latest))
    found = str(error.value).partition("contents of ")[2].partition(". Resume")[0]
    assert sorted(found.split(", ")) == sorted([*changed, own["STYLE"]])
    for file, content in before.items():
        file.write_bytes(content)
    train("denoise", own, tmp_path / "run", (*flags, *latest, "--max_train_steps", "2"))


def test_prompts_are_checked_before_the_first_update(files: dict[str, str], tmp_path: Path) -> None:
    """A caption that is too long for `<id>` is refused with its photo, and so is a validation prompt."""
    sets.save(sets.portrait(512), tmp_path / "photos" / "anna" / "1.jpg")
    (tmp_path / "photos" / "anna" / "1.txt").write_text("a very " * 40 + "old photo of <id>")
    sets.make_set(tmp_path / "photos", tmp_path / "shards")
    long = files | {"SHARDS": str(tmp_path / "shards")}
    with pytest.raises(DataError, match=r"captions of 'anna/1\.jpg' are too long.*num_words"):
        train("denoise", long, tmp_path / "run", ("--num_words", "2"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    base = BaseModel.open("tiny", torch.float32, torch.device("cpu"))
    wordless, adapter = (
        make_adapter(base.unet, **words) for words in ({}, {"num_words": 2, "text_encoders": base.text_encoders})
    )
    check_prompts(
        ["a photo of <id>" + ", smiling" * 80], "validation_prompts", base, adapter
    )  # text after <id> may be truncated
    for one, prompt, message in (
        (wordless, "a photo of <id>", "has no pseudo-words"),
        (adapter, "a very " * 40 + "old photo of <id>", "Move it forward"),
    ):
        with pytest.raises(TrainingError, match=f"validation_prompts .*{message}"):
            check_prompts(["a person", prompt], "validation_prompts", base, one)
    room = base.pipeline.tokenizer.model_max_length - 2
    for text in ("a ", "aA", "İ", "é ", "中", "👩", "ﬁ", "&amp;", "\u0345", "..", "1"):  # what is not counted must fit
        for times in range(room):
            caption = text * times + " <id>" * (1 + times % 2)
            if not may_be_long(caption, 2, room):
                check_prompts([caption], "validation_prompts", base, adapter)


def test_a_set_that_does_not_say_how_reliable_names_are(files: dict[str, str], tmp_path: Path) -> None:
    """One person is too few to measure it."""
    with pytest.raises(DataError, match="do not say how reliable the names of their photos are"):
        train("denoise", files, tmp_path, ("--losses", "identity=0.1@1", "--losses.reliability"))


def test_triplets_are_the_pictures_with_another_face_and_others_are_refused(files: dict[str, str]) -> None:
    shards, pairing = files["SHARDS"], Pairing(drop_identity=0, drop_both=0)
    latents = LatentMaker(load_tiny_base().vae, AlignedFraming(128))
    keys: dict[str, Any] = {"latents": latents.key(), "triplets": triplets_key(shards, latents)}
    mirrored = 0
    for flip in (0, 1):
        data = PairedIdentityDataset(shards, framing=latents.framing, pairing=replace(pairing, flip=flip), **keys)
        for sample in map(data.__getitem__, range(len(data))):
            assert sample.swapped is not None
            changed = (sample.swapped.float() - sample.picture.float()).square().mean(0).sqrt()
            corners = [changed[y, x] for y in (0, -1) for x in (0, -1)]
            assert max(corners) < 0.1, "outside of the face it is the picture, mirrored like it"
            assert changed[5:11, 5:11].mean() > 0.2
            mirrored += flip
    assert mirrored == len(data) > 1
    with pytest.raises(DataError, match="the run needs"):
        triplets_key(shards, LatentMaker(latents.vae, AlignedFraming(96)))
    with pytest.raises(DataError, match="Random poses"):
        PairedIdentityDataset(shards, framing=latents.framing, pairing=Pairing(poses=Poses(angle=9)), triplets="any")


def test_missing_rewards_are_named(files: dict[str, str]) -> None:
    for where, message in (("own.py", "FILE.py:NAME"), (files["OWN"] + ":hue", "no function or class 'hue'")):
        with pytest.raises(LossError, match=message):
            load_function(where)
    with pytest.raises(LossError, match="'aesthetic' needs the setting aesthetic_head"):
        RewardsConfig(weights={"aesthetic": 1.0})
    with pytest.raises(LossError, match="'structure' needs the setting structure_scorer"):
        RewardsConfig(weights={"structure": 1.0})
    config = RewardsConfig(weights={"aesthetic": 1.0}, aesthetic_head=files["HEAD"], aesthetic_clip="/nowhere")
    with pytest.raises(CheckpointError, match="CLIP could not be opened"):
        make_rewards(config, FaceEmbedder.dlib(), torch.device("cpu"))
