"""The recipe's own stages: who is held out, what is trained and exported, and that an interrupted run continues."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportPossiblyUnboundVariable=false
# The recipe is no package; `conftest.py` puts its folder on the path.

from __future__ import annotations

import dataclasses
import io
import json
import random
import shutil
import sys
import tarfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderTiny, ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTokenizer

from idgen import Identity, IdentityAdapter, IdentityNet, load_tiny
from idgen.base_model import open_base
from idgen.data.dataset import PairedIdentityDataset
from idgen.data.framing import framing_for
from idgen.data.pairing import Pairing
from idgen.evaluation.prompts import load_prompts
from idgen.tiny import TINY_PATH
from idgen.tiny.usage import USAGE, usage_of
from tests.data import sets


@pytest.fixture(scope="module")
def settings(train_folder, shared, tmp_path_factory):
    """The settings of the shipped model with a tiny budget."""
    return small(train_folder / "tiny" / "tiny.toml", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def settings_128(train_folder, shared, tmp_path_factory):
    """The same for the model of 128 px, which continues one of 64 px."""
    folder = tmp_path_factory.mktemp("tiny128")
    found = small(train_folder / "tiny" / "tiny128.toml", folder)
    write_start(folder / "start" / "model")
    return dataclasses.replace(found, paths=dataclasses.replace(found.paths, start=str(folder / "start" / "model")))


def write_start(model: Path) -> None:
    """A model of 64 px with an IdentityNet: the built-in one with fewer latent channels."""
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(TINY_PATH / part, model / part)
    unet = narrow_unet()
    unet.save_pretrained(model / "unet")
    levels: dict[str, Any] = {"encoder_block_out_channels": (48,) * 3, "decoder_block_out_channels": (8,) * 3}
    blocks: dict[str, Any] = {"num_encoder_blocks": (0, 1, 3), "num_decoder_blocks": (1, 1, 0)}
    AutoencoderTiny(latent_channels=8, scaling_factor=1.1, **levels, **blocks).save_pretrained(model / "vae")
    net = IdentityNet.from_unet(unet, conditioning_embedding_out_channels=(16, 32, 96))
    torch.nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight)
    net.save_pretrained(model.with_name("adapter") / "identity_net")


def narrow_unet() -> UNet2DConditionModel:
    """A UNet of the built-in model's shape for 8 latent channels, with random weights."""
    given: Any = UNet2DConditionModel.from_pretrained(TINY_PATH / "unet")
    return UNet2DConditionModel.from_config({**given.config, "in_channels": 8, "out_channels": 8})  # pyright: ignore


def small(file: Path, folder: Path):
    """Settings of a file with a tiny budget, on eight photos of the astronaut in different colours."""
    from recipe.config import load_config
    from skimage import data

    found = load_config(file)

    face = cv2.resize(data.astronaut()[:256, 96:352], (150, 150), interpolation=cv2.INTER_AREA)
    people = folder / "people.txt"
    people.write_text("# held out\nBea\n")
    (folder / "lfw").mkdir()
    with tarfile.open(folder / "lfw" / "photos.tar", "w") as tar:
        for i in range(8):
            buffer = io.BytesIO()
            Image.fromarray(np.roll(face, i, axis=2)).save(buffer, "JPEG")
            entry = tarfile.TarInfo(f"{'Bea' if i in (3, 4) else 'Ada'}/{i}.jpg")
            entry.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(entry, buffer)
    sizes: dict[str, Any] = {"channels": (16, 32), "heads_of": 16, "text_width": 32}
    return dataclasses.replace(
        found,
        sets=("lfw",),
        people=dataclasses.replace(found.people, same=0.0, between={}),
        paths=dataclasses.replace(
            found.paths,
            data=str(folder),
            cache=str(folder / "cache"),
            test_people=str(people),
            output=str(folder / "model"),
        ),
        autoencoder=dataclasses.replace(
            found.autoencoder,
            encoder_width=found.autoencoder.encoder_width if found.start else 8,
            decoder_width=8,
            phases=tuple(
                dataclasses.replace(phase, samples=12, batch=4, minutes=5) for phase in found.autoencoder.phases
            ),
        ),
        base=found.base and dataclasses.replace(found.base, samples=12, batch=4, minutes=5, **sizes),
    )


def test_no_person_is_in_training_and_held_out(settings):
    from recipe.crops import open_crops
    from train import run_stages

    run_stages(settings, until="crops")
    seen, held_out = (open_crops(settings.stages["crops"], part) for part in ("train", "test"))
    assert set(seen["person"]) == {"Ada"}
    assert len(seen["images"]) == 6
    assert set(held_out["person"]) == {"Bea"}


@pytest.fixture(scope="module")
def trained(settings):
    """The folders of all stages."""
    from train import run_stages

    run_stages(settings)
    return settings.stages


def test_one_command_makes_a_pipeline(settings, trained):
    """Diffusers opens it, `idgen` knows how its faces are cut, and running the command again changes nothing."""
    from train import run_stages

    pipe = StableDiffusionPipeline.from_pretrained(trained["pipeline"])
    assert pipe("a cartoon of a face", num_inference_steps=2, output_type="np").images.shape == (1, 64, 64, 3)
    tokenizer = CLIPTokenizer.from_pretrained(trained["base"] / "tokenizer")
    assert pipe.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert np.allclose(framing_for(str(trained["pipeline"]), 512).template, settings.crops.template)
    cache = settings.path("cache")
    before = {file: file.stat().st_mtime_ns for file in cache.rglob("*")}
    run_stages(settings)
    assert before == {file: file.stat().st_mtime_ns for file in cache.rglob("*")}


@pytest.fixture(scope="module")
def shards(trained, tmp_path_factory):
    """The exported photos and styled crops, prepared."""
    output = tmp_path_factory.mktemp("prepared") / "shards"
    sets.make_set(trained["photos"] / "train.tar", output, layout="webdataset")
    return output


def test_exported_photos_are_what_prepare_reads(settings, trained, shards):
    """Photos of the training people with their landmarks, styled crops as targets, and nothing of held-out people."""
    from recipe.crops import open_crops
    from recipe.faces import load_faces

    rows = sets.index(shards).to_pylist()
    assert {row["person"] for row in rows} == {"Ada"}
    photos = [row for row in rows if row["reference"]]
    assert len(photos) == 6
    assert len(rows) - len(photos) == round(6 * settings.photos.styled_share / (1 - settings.photos.styled_share))
    landmarks = load_faces(settings, trained["faces"])["landmarks"].reshape(-1, 10)
    assert all(np.isclose(landmarks, row["landmarks"]).all(1).any() for row in photos)
    assert {file.parent.name for file in trained["photos"].glob("people/*/*")} == {"Bea"}
    assert len(list(trained["photos"].glob("people/Bea/*"))) == 2
    # A styled crop, cut at its landmarks as the base's pictures are, is that crop.
    dataset = PairedIdentityDataset(
        str(shards), framing=framing_for(str(trained["pipeline"]), 64), pairing=Pairing(flip=0, drop_both=0)
    )
    styled = open_crops(trained["crops"], "train")["styled"]
    seen = np.concatenate([styled, styled[:, :, ::-1]]).astype(float)
    for face in range(6, len(dataset)):
        errors = np.abs(seen - dataset[face].picture.numpy()).mean((1, 2, 3))
        assert errors.min() < 4 < np.partition(errors, 2)[2]


def test_the_joint_training_changes_the_unet_and_continues(settings, trained, shards, tmp_path, train_folder):
    """What it writes is a base and an adapter that `idgen train` takes; with its IdentityNet they are packaged."""
    from average import average
    from joint import JointDenoiser
    from recipe.captions import words
    from recipe.package import assemble, make_package
    from recipe.with_base import BASE

    from idgen.training.parsing import parse
    from idgen.training.run import train_denoising

    def config(name, output, *flags):
        AcceleratorState._reset_state(reset_partial_state=True)
        places = ("--train_data_dir", str(shards), "--output_dir", str(tmp_path / output))
        settings = ("--config", str(train_folder / "tiny" / f"{name}.toml"), "--train_batch_size", "2")
        return parse("denoise", [*settings, *places, "--resume_from_checkpoint", "latest", *flags], name)

    base = ("--base", str(trained["pipeline"]), "--optimizer.lr_scheduler", "constant")
    for steps in ("1", "2"):
        assert train_denoising(config("joint", "joint", *base, "--max_train_steps", steps), JointDenoiser) == int(
            steps
        )
    joint = tmp_path / "joint" / BASE
    before, after = (
        UNet2DConditionModel.from_pretrained(folder, subfolder="unet") for folder in (trained["pipeline"], joint)
    )
    changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert sum(changed) > 0.9 * len(changed)
    shutil.copy(trained["pipeline"] / USAGE, joint)  # by the command, which `train_denoising` is a part of
    assembled = tmp_path / "assembled"
    assemble(settings, joint, assembled)

    net = ("--base", str(assembled), "--id_adapter", str(tmp_path / "joint"), "--max_train_steps", "1")
    train_denoising(config("identity_net", "net", *net))
    average(tmp_path / "joint", tmp_path / "net", tmp_path / "averaged", 0.5)
    package = tmp_path / "package" / "model"
    package.parent.mkdir()
    make_package(assembled, tmp_path / "averaged", tmp_path / "net", package)
    pipe = StableDiffusionPipeline.from_pretrained(package)
    pipe.load_id_adapter(package.with_name("adapter"))
    IdentityNet.from_pretrained(package.with_name("adapter") / "identity_net")
    assert not any("_name_or_path" in file.read_text() for file in package.parent.rglob("*.json"))
    assert framing_for(str(package), 512).resolution == usage_of(str(package)).resolution == 64
    assert (
        {"sketch", "someone"} < {*usage_of(str(package)).words} < words()
    )  # "smiling" is in no label of these photos
    assert "smiling" not in usage_of(str(package)).words  # no photo of this set has the label


def test_new_words_and_the_unet_learn_and_nothing_else_changes(shards, tmp_path, train_folder, monkeypatch):
    import words_alone
    from recipe import words_of_tokens

    monkeypatch.setattr(words_of_tokens, "UPDATES", 3)
    places = ("--base", "tiny", "--train_data_dir", str(shards), "--output_dir", str(tmp_path / "words"))
    given = ("--id_adapter", "tiny", "--train_batch_size", "2", "--max_train_steps")
    config = str(train_folder / "tiny" / "words_alone.toml")
    rate = ("--optimizer.lr_scheduler", "constant", "--optimizer.ema_decay", "0", "--resume_from_checkpoint", "latest")
    for steps in ("1", "2"):
        AcceleratorState._reset_state(reset_partial_state=True)
        monkeypatch.setattr(sys, "argv", ["words_alone.py", "--config", config, *places, *rate, *given, steps])
        words_alone.main()
    folders = TINY_PATH.with_name("adapter"), tmp_path / "words" / "start", tmp_path / "words"
    given_weights, start, learned = (IdentityAdapter.from_pretrained(folder).state_dict() for folder in folders)
    changed = {name for name, weight in learned.items() if not torch.equal(weight, start[name])}
    assert changed == {name for name in given_weights if name.startswith("to_words.")}
    before, after = (open_base(str(folder), torch.float32) for folder in (TINY_PATH, tmp_path / "words" / "base"))
    same = [torch.equal(a, b) for a, b in zip(before.unet.parameters(), after.unet.parameters(), strict=True)]
    assert sum(same) < 0.1 * len(same)
    weights = before.text_encoder.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in after.text_encoder.state_dict().items())
    assert usage_of(str(tmp_path / "words" / "base")) == usage_of("tiny")
    for given in (TINY_PATH / "tokenizer").iterdir():  # of use it keeps no trace
        assert (tmp_path / "words" / "base" / "tokenizer" / given.name).read_bytes() == given.read_bytes()


@pytest.fixture(scope="module")
def start_128(tmp_path_factory):
    """A base of 128 px with 8 latent channels, and its adapter with an IdentityNet: the built-in ones made small."""
    folder = tmp_path_factory.mktemp("start")
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(TINY_PATH / part, folder / "base" / part)
    shapes: dict[str, Any] = {"encoder_block_out_channels": (48,) * 4, "decoder_block_out_channels": (8,) * 4}
    blocks: dict[str, Any] = {"num_encoder_blocks": (0, 0, 1, 3), "num_decoder_blocks": (1, 1, 0, 0)}
    vae = AutoencoderTiny(latent_channels=8, scaling_factor=1.1, **shapes, **blocks)
    vae.save_pretrained(folder / "base" / "vae")
    unet = narrow_unet()
    unet.save_pretrained(folder / "base" / "unet")
    shutil.copytree(TINY_PATH.with_name("adapter"), folder / "adapter")
    net = IdentityNet.from_unet(unet, conditioning_embedding_out_channels=(16, 16, 32, 96))
    net.save_pretrained(folder / "adapter" / "identity_net")
    return folder


def test_photos_go_to_a_gpu_and_weights_come_back(settings_128, start_128, tmp_path, monkeypatch):
    """What comes back is what was trained there, up to float16, on all training photos and no other."""
    from gpu import collect, train, write_pack
    from recipe.config import STAGES
    from recipe.crops import open_crops
    from recipe.labels import open_labels
    from recipe.on_device import trainings
    from recipe.on_device.start import open_autoencoder, open_person
    from recipe.pack import unpack
    from train import run_stages

    monkeypatch.setattr(trainings, "SAMPLE", 16)
    monkeypatch.setattr(trainings, "LASTS", (2,))
    run_stages(settings_128, until="labels")
    folders = settings_128.stages
    there = {name: tmp_path / "there" / name for name in STAGES}
    for folder in there.values():
        folder.mkdir(parents=True)
    pack, out = tmp_path / "pack", tmp_path / "out"
    write_pack(settings_128, start_128 / "base", start_128 / "adapter", pack)
    unpack(settings_128, pack, there)
    here, seen = (open_crops(of["crops"], "train") for of in (folders, there))
    assert np.abs(here["images"].astype(float) - seen["images"]).mean() < 6
    assert (here["styled_as"] == seen["styled_as"]).all()
    assert (open_labels(folders["labels"], "train") == open_labels(there["labels"], "train")).all()

    train(settings_128, pack, out, most=1, batch=4)
    assert max(file.stat().st_size for file in out.iterdir()) < 16 << 20
    assert {json.loads(line)["stage"] for line in (out / "losses.jsonl").open()} == {*settings_128.gpu}
    collect(settings_128, pack, out, tmp_path / "result")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "result" / "base")
    adapters = [
        IdentityAdapter.from_pretrained(tmp_path / "result" / name).state_dict() for name in trainings.ADAPTERS
    ]
    for before, after in pairwise(adapters):
        assert any(not torch.equal(before[name], after[name]) for name in before)
    again = open_person(tmp_path / "result").unet.state_dict()  # a further run continues from the result as it is
    assert all(torch.equal(weight, again[name]) for name, weight in pipeline.unet.state_dict().items())
    assert open_autoencoder(tmp_path / "result", torch.zeros(0)).config["latent_channels"] == 16
    pipeline.load_id_adapter(tmp_path / "result" / trainings.ADAPTERS[-1])
    drawn: Any = pipeline("a face", id_embeds=torch.randn(128), num_inference_steps=1, output_type="np")  # pyright: ignore
    assert drawn.images.shape == (1, 128, 128, 3)
    assert np.isfinite(drawn.images).all()


def test_wider_networks_compute_at_first_what_the_given_ones_do(start_128, astronaut):
    """Training with more latent channels continues from a model that draws."""
    from recipe.details import widen_autoencoder, widen_net, widen_unet

    pictures = torch.from_numpy(cv2.resize(astronaut, (256, 256))).permute(2, 0, 1).float() / 255
    pictures = torch.stack([pictures[:, y : y + 128, x : x + 128] for y in (0, 128) for x in (0, 128)])
    given = AutoencoderTiny.from_pretrained(start_128 / "base" / "vae")
    wide = widen_autoencoder(given, pictures, 2)
    with torch.no_grad():
        old, new = (net.encode(2 * pictures - 1).latents for net in (given, wide))
        torch.testing.assert_close(new[:, :8], old, rtol=1e-4, atol=1e-4)
        assert (1.1 * new[:, 8:]).std((0, 2, 3)).sub(0.5).abs().max() < 0.01
        torch.testing.assert_close(wide.decode(new).sample, given.decode(old).sample, rtol=1e-4, atol=1e-4)
        unet = UNet2DConditionModel.from_pretrained(start_128 / "base" / "unet")
        noisy, text = torch.randn(1, 10, 16, 16), torch.randn(1, 4, 128)
        found, wanted = widen_unet(unet, 10)(noisy, 5, text).sample, unet(noisy[:, :8], 5, text).sample
        torch.testing.assert_close(found[:, :8], wanted)
        assert not found[:, 8:].any()
        net = ControlNetModel.from_unet(unet)
        drawn = torch.rand(1, 3, 128, 128)
        wanted = net(noisy[:, :8], 5, text, drawn).mid_block_res_sample
        torch.testing.assert_close(widen_net(net, 10)(noisy, 5, text, drawn).mid_block_res_sample, wanted)


def test_a_picture_of_the_reward_is_what_a_pipeline_draws(start_128):
    """Words of the person in prompts, guidance and sampling are computed without the package's pipeline on a GPU."""
    from recipe.details import wide_autoencoder
    from recipe.on_device.person import trailing
    from recipe.on_device.start import FINE, open_person
    from recipe.package import build_pipeline

    model, other = (open_person(start_128).eval() for _ in range(2))
    other.adapter.detach()
    tokenizer = CLIPTokenizer.from_pretrained(start_128 / "base" / "tokenizer")
    vae = wide_autoencoder(AutoencoderTiny.from_pretrained(start_128 / "base" / "vae"), FINE)
    pipeline = build_pipeline(vae=vae, text_encoder=other.text_encoder, tokenizer=tokenizer, unet=other.unet)
    count = model.adapter.config["num_words"]
    texts = [f"a photo of {tokenizer.bos_token * count}, smiling", "a sketch of a face"]
    tokens = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    nothing = tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]
    identity = torch.nn.functional.normalize(torch.randn(2, 128), dim=1)
    noise = torch.randn(2, 16, 16, 16)
    with torch.no_grad():
        guided = model.guided(tokens, nothing, identity, 3.0)
        drawn = [guided.generate(noise, trailing(4, 1000), last=0, with_id=with_id)[0] for with_id in (True, False)]
    pipeline.load_id_adapter(start_128 / "adapter")
    pipeline.id_adapters["default"].lora_scale = None  # as the scale of the identity
    for scale, found in zip((1.0, 0.0), drawn, strict=True):
        for row, prompt in enumerate(("a photo of <id>, smiling", "a sketch of a face")):
            wanted = pipeline(
                prompt,
                id_embeds=identity[row],
                id_scale=scale,
                latents=noise[row : row + 1],
                num_inference_steps=4,
                guidance_scale=3.0,
                output_type="latent",
            ).images
            torch.testing.assert_close(found[row : row + 1], wanted, rtol=1e-4, atol=1e-4)


def test_a_strengthened_adapter_does_at_1_what_it_did_at_the_factor():
    from strengthen import strengthen

    pipe: Any = load_tiny()
    person = Identity.random("dlib-resnet-v1", 128, seed=1)
    call: dict[str, Any] = {"id_embeds": person, "latents": torch.randn(1, 16, 16, 16), "output_type": "latent"}
    call |= {"prompt": "a photo of <id>", "num_inference_steps": 2}
    expected, weaker = (pipe(id_scale=scale, **call).images for scale in (1.5, 1.0))
    strengthen(pipe.id_adapters["default"], 1.5)
    found = pipe(id_scale=1.0, **call).images
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, weaker, atol=1e-2)


def test_pieces_hold_the_whole_network(tmp_path, monkeypatch):
    from recipe import pieces

    monkeypatch.setattr(pieces, "PIECE", 100)
    net, other = (torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(9))) for _ in range(2))
    pieces.save_pieces(net, tmp_path, "net")
    assert all(file.stat().st_size < 1000 for file in tmp_path.iterdir())
    pieces.load_pieces(other, tmp_path, "net")
    assert all(torch.equal(a.half().float(), b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    (tmp_path / "net-1.safetensors").unlink()
    with pytest.raises(RuntimeError, match="Missing key"):
        pieces.load_pieces(other, tmp_path, "net")


def test_a_cut_run_ends_as_an_uncut_one(tmp_path: Path):
    from recipe.loop import Run, random_for

    def train(folder: Path, *budgets: int) -> torch.Tensor:
        folder.mkdir()
        for samples in budgets:
            torch.manual_seed(0)
            net = torch.nn.Linear(4, 1)
            optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
            run = Run(folder, {"net": net, "optimizer": optimizer}, minutes=5, samples=samples, batch=2)

            def step(number, progress, net=net, optimizer=optimizer):
                loss = net(torch.randn(2, 4, generator=random_for(0, number))).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                return {"loss": loss.detach()}

            run.train(step)
            assert run.spent.samples == samples
        return net.weight.detach()

    assert torch.equal(train(tmp_path / "whole", 12), train(tmp_path / "cut", 4, 10, 12))


def test_split_file_follows_its_rule(train_folder, shared):
    from recipe.held_out import held_out, test_people

    count: Counter[str] = Counter()
    for path in (shared / "data" / "lfw").glob("*.tar"):
        with tarfile.open(path) as tar:
            count.update(name.rpartition("/")[0] for name in tar.getnames() if name.endswith(".jpg"))
    people = test_people(train_folder / "splits" / "lfw_test.txt")
    assert people == {name for name, photos in count.items() if held_out(name, photos)}
    assert 0.08 < len(people) / len(count) < 0.12
    assert sum(count[name] >= 2 for name in people) >= 200


def test_every_word_of_a_caption_is_one_token():
    from recipe.attributes import WORDS
    from recipe.captions import build_tokenizer, caption, words

    tokenizer = build_tokenizer(32)
    assert all(len(tokenizer.tokenize(word)) == 1 for word in words())
    dice = random.Random(0)
    largest = np.array([max(range(len(group)), key=lambda i: len(group[i].split())) for group in WORDS.values()])
    texts = [caption(style, largest, dice) for style in range(9) for _ in range(20)]
    assert max(len(ids) for ids in tokenizer(texts).input_ids) <= 32


def test_captions_say_what_is_known_and_nothing_else():
    """Whatever the attributes: what follows the style and the subject is known, and all that is known is said."""
    from recipe.attributes import WORDS
    from recipe.captions import OF_COLOURS, caption

    dice, numbers = random.Random(0), np.random.default_rng(0)
    for _ in range(20):
        style, attributes = int(numbers.integers(9)), [int(numbers.integers(len(group))) for group in WORDS.values()]
        known = {
            WORDS[name][i]
            for name, i in zip(WORDS, attributes, strict=True)
            if i and not (style and name in OF_COLOURS)
        }
        texts = [caption(style, np.array(attributes, np.int8), dice) for _ in range(80)]
        for text in texts:
            said = [part for part in text.split(", ")[1:] if part in {word for g in WORDS.values() for word in g}]
            assert set(said) <= known
            assert len(said) == len(set(said))
        assert all(any(word in text for text in texts) for word in known)


def test_mirrored_heads_look_the_other_way():
    from recipe.attributes import WORDS, mirror

    rows = np.array([[pose, *range(1, len(WORDS))] for pose in range(4)])
    words = [WORDS["pose"][row[0]] for row in mirror(rows)]
    assert words == ["", "looking to the front", "looking to the right", "looking to the left"]
    assert (mirror(rows)[:, 1:] == rows[:, 1:]).all()
    assert (mirror(mirror(rows)) == rows).all()


def test_the_encoder_gives_the_latents_of_pictures_of_half_the_size(settings_128, astronaut):
    """But for one line of pixels in six, which its convolutions do not reach; nothing of it is trained."""
    from recipe.autoencoder import build, to_tensor
    from recipe.half_size import HalfSize, start_encoder

    net = build(settings_128)
    start_encoder(net.encoder, settings_128.start)
    picture = to_tensor(torch.from_numpy(astronaut[None, :256, 96:352].copy()))
    with torch.no_grad():
        wanted, found = HalfSize(settings_128.start)(picture), net.encode(picture).latents
    assert (found - wanted).var() < 0.02 * wanted.var()
    assert net.config.scaling_factor == 1.1


def test_a_base_of_half_the_size_gets_another_decoder(settings_128, trained, tmp_path, monkeypatch):
    """And its IdentityNet gives of pictures of twice the side what it gave."""
    from recipe import half_size_net
    from recipe.package import assemble
    from train import run_stages

    monkeypatch.setattr(half_size_net, "UPDATES", 30)
    monkeypatch.setattr(half_size_net, "BATCH", 2)
    run_stages(settings_128)
    start, whole = trained["pipeline"], tmp_path / "whole"
    assemble(settings_128, start, whole)
    framings: list[Any] = [framing_for(str(folder), 512) for folder in (start, whole)]
    assert np.allclose(framings[0].template * 2, framings[1].template)
    assert usage_of(str(whole)) == dataclasses.replace(usage_of(str(start)), resolution=128)
    sizes = [
        StableDiffusionPipeline.from_pretrained(folder)("a face", num_inference_steps=1).images[0].size
        for folder in (start, whole)
    ]
    assert sizes == [(64, 64), (128, 128)]

    start = settings_128.start.with_name("adapter") / "identity_net"
    assert half_size_net.double_net(start, framings[1], tmp_path / "net") < 0.5
    old, new = (IdentityNet.from_pretrained(folder) for folder in (start, tmp_path / "net"))
    theirs = new.state_dict()
    kept = [name for name, weight in old.state_dict().items() if "cond_embedding" not in name]
    assert all(torch.equal(old.state_dict()[name], theirs[name]) for name in kept)
    features = (net.controlnet_cond_embedding(torch.rand(1, 3, side, side)) for net, side in ((old, 64), (new, 128)))
    assert len({found.shape for found in features}) == 1


def test_a_person_of_two_sets_is_held_out_of_both():
    """Names that share a face, directly or by a third name, are one person; one held-out name holds out all."""
    from recipe.held_out import close_pairs, group_names

    embeds = np.array([[0, 0], [0.3, 0], [0.6, 0], [5, 0], [5, 0.4], [9, 9]], np.float32)
    limits = np.array([[0.35, 0.45], [0.45, 0.35]])
    assert close_pairs(embeds, np.arange(6), limits, np.zeros(6, int)) == [(0, 1), (1, 2)]
    pairs = close_pairs(embeds, np.arange(6), limits, np.array([0, 0, 0, 0, 1, 1]))
    assert pairs == [(0, 1), (1, 2), (3, 4)]
    group, test = group_names(6, pairs, np.array([False, False, True, False, False, False]))
    assert group[0] == group[1] == group[2] != group[3] == group[4] != group[5]
    assert test.tolist() == [True, True, True, False, False, False]


def test_the_prompts_of_the_evaluation_are_trained_ones(train_folder):
    from recipe.captions import PHRASES

    prompts = load_prompts(str(train_folder / "tiny" / "prompts.txt"))
    assert len(prompts) == 4
    assert all(prompt.text == PHRASES[prompt.label][0].format("a face") for prompt in prompts)


@pytest.mark.parametrize("name", ["joint", "adapter", "reward", "identity_net"])
def test_the_configurations_are_read(train_folder, name):
    """Every table is known; the chain of folders is that of `adapter.sh`."""
    from idgen.training.parsing import parse

    file = train_folder / "tiny" / f"{name}.toml"
    config = parse("reward" if name == "reward" else "denoise", ["--config", str(file)], name)
    assert config.train_data_dir == "shards"
    assert str(config.output_dir) == name
    assert f"{name}.toml" in (train_folder / "tiny" / "adapter.sh").read_text()


def test_the_configuration_of_the_last_training_is_read(train_folder):
    """It continues what `gpu.py` and `average.py` write."""
    from idgen.training.parsing import parse

    config = parse("reward", ["--config", str(train_folder / "tiny" / "reward128.toml")], "reward128")
    assert (config.base, config.id_adapter) == ("result/base", "result/averaged")
    assert config.rollout.style > 0
    assert config.rewards.hinge == 1
