"""`idgen prepare` as users type it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageOps
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from idgen.cli import main
from idgen.data.cache import write_caches
from idgen.data.columns import Column
from idgen.data.index import usable_rows
from idgen.data.manifest import Manifest
from idgen.errors import DataError

from .sets import index, portrait, save


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small random image encoder."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    folder = str(tmp_path_factory.mktemp("clip"))
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def idgen(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["idgen", "prepare", *map(str, arguments)])
    main()


def test_a_set_its_columns_and_its_report(tmp_path, monkeypatch, capsys, clip):
    photos, shards = tmp_path / "photos", tmp_path / "shards"
    save(portrait(), photos / "anna" / "1.png")
    save(ImageOps.mirror(portrait()), photos / "anna" / "2.png")
    save(portrait().convert("L"), photos / "ben" / "1.png")
    save(portrait(100), photos / "anna" / "copy.png")
    save(portrait(), photos / "anna" / "1.mask.png")
    (photos / "anna" / "1.txt").write_text("a photo of <id>")
    (tmp_path / "held-out.txt").write_text("ben\n\n")
    shares = ("--test-share", "0", "--validation-share", "0", "--test-people", tmp_path / "held-out.txt")
    idgen(monkeypatch, photos, "--output", shards, "--engine", "inprocess", "--shard-size", "2", *shares)
    manifest = Manifest.open(str(shards))
    assert manifest.splits["test"]["people"] == manifest.splits["train"]["people"] == 1
    out, err = capsys.readouterr()
    assert out.strip() == str(shards / "report.html")
    assert "2 people, 1 of them with two photos or more; 3 usable faces from 5 inputs." in err
    assert "Dropped: 1 companion." in err
    assert "Set aside: 1 near-duplicate." in err
    assert (shards / "000001.augmented.safetensors").exists()  # by default

    columns = ("--cache", "latents", "text", "--base", "tiny", "--engine", "inprocess")
    idgen(monkeypatch, "--output", shards, *columns)
    idgen(monkeypatch, "--output", shards, "--cache", "features", "--base", clip, "--engine", "inprocess")
    rows = index(shards)
    usable = np.flatnonzero(usable_rows(rows)).tolist()
    values: dict[str, list[torch.Tensor | None]] = {}
    for name in ("latents", "text", "features"):
        open_columns = [Column(str(shards), shard, name) for shard in manifest.shards]
        values[name] = [open_columns[row // 2][row % 2] for row in usable]
    assert len(usable) == 3
    assert all(value is not None and value.shape[0] == 2 for value in values["latents"])  # and mirrored
    assert all(value is not None and value.shape == (17, 16) for value in values["features"])
    assert [value is not None for value in values["text"]] == [
        caption is not None for caption in rows["caption"].take(usable).to_pylist()
    ]

    (shards / "report.html").unlink()
    idgen(monkeypatch, "--report", shards)
    assert (shards / "report.html").exists()


def test_features_of_another_model_are_refused(lfw_set, clip, tmp_path):
    shutil.copytree(lfw_set, tmp_path / "set")
    write_caches(str(tmp_path / "set"), ["features"], base=clip, resolution=64)
    torch.manual_seed(1)
    model = CLIPVisionModelWithProjection.from_pretrained(clip)
    torch.nn.init.normal_(model.vision_model.embeddings.class_embedding)
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(DataError, match=r"was made by 'clip-\w+', not 'clip-\w+'"):
        write_caches(str(tmp_path / "set"), ["features"], base=str(tmp_path / "other"), resolution=64)


def test_what_the_command_cannot_do_is_our_error(tmp_path, monkeypatch, capsys):
    with pytest.raises(DataError, match="Unknown columns"):
        write_caches(str(tmp_path), ["latent"], base="tiny", resolution=64)
    for arguments, message in (
        ((tmp_path,), "Photos and --output are required"),
        (("--report", tmp_path), "not a finished set"),
        (("--output", tmp_path), "not a finished set"),
        ((tmp_path, "--output", tmp_path / "x"), "among the photos"),
        ((tmp_path, "--output", f"{tmp_path}-set", "--test-people", tmp_path / "none"), "There is no file or folder"),
        ((tmp_path, "--output", f"{tmp_path}-set", "--test-share", "1.5"), "shares of the splits"),
    ):
        with pytest.raises(SystemExit) as ended:
            idgen(monkeypatch, *arguments)
        assert ended.value.code
        assert message in " ".join(capsys.readouterr().err.split())
