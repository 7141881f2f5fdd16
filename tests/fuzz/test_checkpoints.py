"""Mutated checkpoints, identities and configurations open, or end in errors of ours, in time and memory."""

from __future__ import annotations

import io
import json
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from idgen import Identity, IdentityAdapter, IdentityNet
from idgen.checkpoints import native, public
from idgen.convert import convert
from idgen.info import info
from idgen.provenance import IdentityBlocklist
from idgen.provenance.metadata import read_settings, write_png
from idgen.rewards.aesthetic import AestheticHead
from idgen.rewards.structure import StructureScorer
from tests.components import SMALL_PROJECTIONS, make_adapter, make_controlnet, make_unet

from .cases import Tally, mutate_bytes, mutate_json, mutate_safetensors, to_json

PROJECTIONS: tuple[dict[str, Any], ...] = (
    {"projection": SMALL_PROJECTIONS["mlp"], "num_tokens": 3},
    {"projection": SMALL_PROJECTIONS["resampler"], "num_tokens": 5},
    {"projection": SMALL_PROJECTIONS["plus"], "lora_rank": 2},
    {"projection": SMALL_PROJECTIONS["idformer"], "num_tokens": 3, "ortho": "ortho_v2", "num_zero": 2},
)


def use_adapter(path: Path) -> None:
    """Open an adapter, and have it make tokens and values of all layers, as the first picture would."""
    base = make_unet(cross_attention_dim=16) if path.suffix == ".bin" else None
    adapter = IdentityAdapter.from_pretrained(path, unet=base)
    torch.nn.Module.to(adapter, torch.float32)
    features = None if adapter.feature_dim is None else torch.ones(1, 11, adapter.feature_dim)
    person = adapter.encode(torch.ones(1, adapter.config["embedding_dim"]), features, features)
    for value in adapter.values(person.tokens):
        assert value.numel() < 1 << 24


def use_identity(path: Path) -> None:
    person = Identity.load(path)
    for normalised in {True, person.normalised}:
        assert person.embedding(normalised=normalised).isfinite().all()
    repr(person)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that can be opened."""
    folder = tmp_path_factory.mktemp("good")
    unet = make_unet(cross_attention_dim=16)
    for i, projection in enumerate(PROJECTIONS):
        adapter = make_adapter(unet, **projection)
        adapter.save_pretrained(folder / f"adapter{i}")
        public.write(native.plain_config(adapter), adapter.state_dict(), folder / f"adapter{i}.safetensors")
        if not i:  # the others' heads are narrower than any published ones
            public.write(native.plain_config(adapter), adapter.state_dict(), folder / "public.bin")
    net: Any = IdentityNet.from_config(make_controlnet(unet).config)
    net.save_pretrained(folder / "net")
    shutil.copytree(folder / "adapter0", folder / "both")
    shutil.copytree(folder / "net", folder / "both" / "identity_net")
    convert(str(folder / "both"), folder / "both.safetensors")
    person = Identity(embeddings=torch.rand(2, 8), encoder="test", name="Anna", features=torch.rand(2, 3, 4))
    person.save(folder / "identity.safetensors")
    IdentityBlocklist.of(person, threshold=0.5).save(folder / "blocklist.safetensors")
    (folder / "picture.png").write_bytes(write_png(Image.new("RGB", (8, 8)), {"prompt": "a", "scale": {"up": 1.0}}))
    StructureScorer((8, 16)).save(folder / "scorer.safetensors")
    native_head = {"layers.0.weight": torch.ones(4, 8), "layers.0.bias": torch.ones(4)}
    native_head |= {"layers.2.weight": torch.ones(1, 4), "layers.2.bias": torch.ones(1)}

    save_file(native_head, folder / "head.safetensors")
    return folder


def readers(place: Path) -> dict[str, list[Callable[[Path], Any]]]:
    """Name of a file or folder → what reads it."""
    out = place / "converted"

    def there(path: Path) -> Any:
        shutil.rmtree(out, ignore_errors=True)
        return convert(str(path), out)

    show = [lambda path: info(str(path))]
    return {
        **{f"adapter{i}": [use_adapter, *show] for i in range(len(PROJECTIONS))},
        **{f"adapter{i}.safetensors": [use_adapter, there, *show] for i in range(len(PROJECTIONS))},
        "public.bin": [use_adapter],
        "net": [IdentityNet.from_pretrained],
        "both": [there],
        "both.safetensors": [IdentityNet.from_pretrained, there],
        "identity.safetensors": [use_identity, *show],
        "blocklist.safetensors": [IdentityBlocklist.load, *show],
        "picture.png": [read_settings],
        "scorer.safetensors": [StructureScorer.load],
        "head.safetensors": [AestheticHead.load],
    }


def damage(chance: random.Random, path: Path) -> str:
    """Change one file, or one in a folder; what was done."""
    if path.is_dir():
        file = chance.choice([file for file in sorted(path.rglob("*")) if file.suffix in (".json", ".safetensors")])
    else:
        file = path
    content = file.read_bytes()
    if file.suffix == ".json" and chance.random() < 0.85:
        content, how = to_json(mutate_json(chance, json.loads(content))).encode("utf-8", "surrogatepass"), "values"
    elif file.suffix == ".safetensors" and chance.random() < 0.8:
        content, how = mutate_safetensors(chance, content), "header"
    elif file.suffix == ".png" and chance.random() < 0.8:
        text = to_json(mutate_json(chance, {"prompt": "a", "scale": {"up": 1.0}, "seeds": [1]}))
        content, how = _png_with(text), "settings"
    elif file.suffix == ".bin" and chance.random() < 0.8:
        content, how = hostile_pickle(chance, file), "pickle"
    else:
        content, how = mutate_bytes(chance, content), "bytes"
    file.write_bytes(content)
    return f"{file.name}, {how}"


def _png_with(text: str) -> bytes:
    chunk, buffer = PngInfo(), io.BytesIO()
    chunk.add_itxt("idgen", text)
    Image.new("RGB", (8, 8)).save(buffer, format="PNG", pnginfo=chunk)
    return buffer.getvalue()


class Calls:
    """Is pickled as a call of a function that `torch.load` allows, or does not."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile_pickle(chance: random.Random, file: Path) -> bytes:
    """The same tree with one tensor replaced, or the same archive written otherwise."""
    tree = torch.load(file, weights_only=True)
    part = chance.choice(list(tree))
    name = chance.choice(list(tree[part]))
    tensor, itself = tree[part][name], {}
    itself["itself"] = itself
    doubled: Any = torch.ones(1)
    for _ in range(60):
        doubled = {"a": doubled, "b": doubled}
    quantised = torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
    indices, size = torch.zeros(1, 1).long(), (1 << 40,)
    rebuild = torch._utils._rebuild_sparse_tensor  # pyright: ignore[reportAttributeAccessIssue]
    replacements: list[Any] = [
        *(torch.zeros(1).expand(1 << 31), torch.zeros(1).expand(1 << 34), torch.zeros(1, 1).expand(1 << 16, 1 << 16)),
        *(torch.zeros(2, 2).to_sparse(), torch.empty(1 << 20, 1 << 20, device="meta"), quantised, tensor.long()),
        *(torch.nn.Parameter(tensor), tensor.half(), tensor[..., None], tensor.flatten()[0], tensor.flatten()[:0]),
        *(None, 3, "a", [], {}, b"a" * 1000, itself, doubled, {1: tensor}, {"": tensor}),
        *(Calls(bytearray, 3_000_000_000), Calls(set, [1]), Calls(print, "code")),
        Calls(rebuild, torch.sparse_coo, (indices, tensor, size)),
    ]
    kind = chance.random()
    new = file.with_name("new.bin")
    if kind < 0.75:
        tree[part][name] = chance.choice(replacements)
        if chance.random() < 0.1:
            tree = tree[part][name]
        torch.save(tree, new, _use_new_zipfile_serialization=chance.random() < 0.85)
    else:  # packed, or with one member made of nothing: megabytes that unpack to gigabytes
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as packed:
            grown = chance.choice(old.namelist())
            for member in old.namelist():
                content = old.read(member)
                if member == grown and kind > 0.9:
                    content = b"\0" * (chance.choice((1, 4)) << 24)
                packed.writestr(member, content, zipfile.ZIP_STORED if chance.random() < 0.5 else zipfile.ZIP_DEFLATED)
    return mutate_bytes(chance, new.read_bytes()) if kind > 0.97 else new.read_bytes()


def test_mutated_files(good: Path, tmp_path: Path, fuzz: Callable[[int], int]) -> None:
    tally, table = Tally(), readers(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, reads in table.items():  # what is not damaged opens
            for read in reads:
                path = tmp_path / name
                _copy(good / name, path)
                if (name, read) != ("blocklist.safetensors", reads[-1]):  # which is no identity
                    read(path)
        for number in range(fuzz(150)):
            chance = random.Random(number)
            name = chance.choice(list(table))
            _copy(good / name, tmp_path / name)
            how = damage(chance, tmp_path / name)
            read = chance.choice(table[name])
            tally.run(f"case {number} ({name}: {how})", lambda read=read, name=name: read(tmp_path / name))
    print(tally)
    assert not tally.failures, "\n".join([str(tally), *tally.failures])


def _copy(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
