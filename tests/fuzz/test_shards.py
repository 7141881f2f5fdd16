"""Hostile tars, zips, tables and shards end in errors of ours, or in inputs that are dropped and counted."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from idgen.data.bank import FOLDER, IdentityBank
from idgen.data.bank_writing import write_bank
from idgen.data.columns import Column
from idgen.data.dataset import PairedIdentityDataset
from idgen.data.framing import PhotoFraming
from idgen.data.index import FORMAT, SCHEMA, write_index
from idgen.data.manifest import Manifest
from idgen.data.read_photos import read_photo
from idgen.data.sources import find_sources
from idgen.errors import DataError

from .cases import Tally, mutate_bytes, mutate_json, mutate_safetensors, to_json

DIM, FACES, PEOPLE = 8, 6, 3
NAME = "000000"


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, format="PNG")
    return buffer.getvalue()


# -- what `idgen prepare` reads


def header(name: str, size: int, kind: bytes = b"0", **changes: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    block[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else b"\x80" + (size % (1 << 88)).to_bytes(11, "big")
    if changes.get("negative"):
        block[124:136] = b"\xff" + (2**88 - size).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def hostile_tar(chance: random.Random) -> bytes:
    photo = padded(picture())
    whole = header("anna/1.png", len(picture())) + photo
    pax = [b"30 size=99999999999999999999\n", b"12 size=-9\n\n", b"999999 path=x\n", b"13 path=a\0b\n\n", b"\xff" * 20]
    sparse = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n26 GNU.sparse.name=a/b.png\n"
    made: tuple[Callable[[], bytes], ...] = (
        lambda: header("././@PaxHeader", 1 << 40, b"x") + photo,
        lambda: header("a/2.png", 1 << 87),
        lambda: header("a/2.png", (1 << 88) - 1),
        lambda: header("a/2.png", chance.choice((512, 1024, 4096)), negative=True),
        lambda: header("././@LongLink", 1 << 39, b"L") + photo,
        lambda: (
            header("p", len(p := chance.choice(pax)), b"x") + padded(p) + header("a/2.png", 10) + padded(b"a" * 10)
        ),
        lambda: b"".join(header("p", 12, b"x") + padded(b"12 path=a/b\n") for _ in range(3000)),
        lambda: header("p", len(sparse), b"x") + padded(sparse) + header("a/b.png", 512) + padded(b"9" * 300),
        lambda: header("a/s.png", 512, b"S") + photo,
        lambda: header("a/l.png", 0, b"2") + header("a/h.png", 0, b"1"),
        lambda: mutate_bytes(chance, whole + header("ben/2.png", len(picture())) + photo),
        lambda: chance.randbytes(2048),
    )
    return whole + b"".join(chance.choice(made)() for _ in range(chance.randint(1, 2))) + b"\0" * 1024


def hostile_zip(chance: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("anna/1.png", picture())
        archive.writestr("anna/2.png", b"\0" * (1 << 22))
        archive.writestr(chance.choice(("../../a.png", "/", "a" * 5000, "b\\c.png", "é/ü.png")), picture())
    data = bytearray(buffer.getvalue())
    if chance.random() < 0.4:  # sizes and places in the directory
        place = data.rfind(b"PK\x01\x02") + chance.choice((10, 20, 24, 28, 42))
        data[place : place + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, struct.pack("<I", 1 << 31)))
        return bytes(data)
    return mutate_bytes(chance, bytes(data)) if chance.random() < 0.7 else bytes(data)


def hostile_parquet(chance: random.Random) -> bytes:
    paths = ([1, 2, 3], ["a", None, "\0"], [{"x": 1}] * 3, [[]] * 3, ["file:///etc/passwd"] * 3)
    images = ([picture()] * 3, [1, 2, 3], [{"bytes": b"x", "path": "y"}] * 3, [None] * 3, ["../a"] * 3, [[]] * 3)
    columns: dict[str, Any] = {
        "image": chance.choice(images),
        "person": [["a"], ["b"], None],
        "caption": [b"\xff\xfe", b"", None],
        "path": chance.choice(paths),
        "licence": chance.choice(([1.5, float("nan"), None], [True] * 3, ["\x1b[31m"] * 3)),
    }
    if chance.random() < 0.1:  # a small file that says two megabytes a thousand times
        often = pa.array(np.zeros(1000, np.int32))
        columns = {
            "image": pa.DictionaryArray.from_arrays(often, pa.array([b"\0" * (1 << 20)])),
            "caption": pa.DictionaryArray.from_arrays(often, pa.array(["x" * (1 << 20)])),
        }
    table = {name: values for name, values in columns.items() if chance.random() < 0.9}
    buffer = io.BytesIO()
    pq.write_table(pa.table(table or {"a": [1]}), buffer, compression="zstd", store_schema=False)
    return mutate_bytes(chance, buffer.getvalue()) if chance.random() < 0.4 else buffer.getvalue()


def hostile_text(chance: random.Random, suffix: str) -> bytes:
    if suffix == "jsonl":
        rows = [to_json(mutate_json(chance, {"path": "a.png", "person": "anna", "caption": "x"})) for _ in range(20)]
        text = "\n".join([*rows, "", "[" * 100_000, "nul"]).encode("utf-8", "surrogatepass")
    else:
        cells = [
            "a.png",
            "anna",
            "",
            '"',
            "x" * 200_000,
            "\0",
            "é",
            "a,b,c,d,e",
            "\r",
            "=cmd()",
            "../../a",
            "http://[::1",
        ]
        rows = [",".join(chance.choices(cells, k=chance.randint(0, 6))) for _ in range(20)]
        names = chance.choice(("path,person,caption", "path,path", "", "person", "path;person", "\0path", "file_name"))
        text = "\n".join([names, *rows]).encode(chance.choice(("utf-8", "utf-16", "utf-8-sig")))
    return mutate_bytes(chance, text) if chance.random() < 0.4 else text


INPUTS: dict[str, tuple[str, Callable[[random.Random], bytes]]] = {
    "tar": ("webdataset", hostile_tar),
    "zip": ("webdataset", hostile_zip),
    "parquet": ("parquet", hostile_parquet),
    "csv": ("csv", lambda chance: hostile_text(chance, "csv")),
    "jsonl": ("jsonl", lambda chance: hostile_text(chance, "jsonl")),
}


def open_all(path: Path, layout: Any) -> None:
    """As `idgen prepare` does, until faces are looked for."""
    for i, source in enumerate(find_sources(str(path), layout)):
        photo = read_photo(source, f"{i:06d}")
        assert (photo.pixels is None) == (photo.dropped is not None)
        source.told()


@pytest.mark.parametrize("suffix", INPUTS)
def test_hostile_inputs(suffix: str, tmp_path: Path, fuzz: Callable[[int], int]) -> None:
    layout, make = INPUTS[suffix]
    tally, path = Tally(), tmp_path / f"photos.{suffix}"
    for number in range(fuzz(20)):
        path.write_bytes(make(random.Random(f"{suffix}{number}")))
        tally.run(f"case {number} ({suffix})", lambda: open_all(path, layout))
    print(suffix, tally)
    assert not tally.failures, "\n".join([str(tally), *tally.failures])


# -- what training reads


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished set of six faces of three people, written by the functions that write real ones."""
    folder = tmp_path_factory.mktemp("set")
    data, random = picture(), np.random.default_rng(0)
    (folder / f"{NAME}.tar").write_bytes(header("0.png", len(data)) + padded(data) + b"\0" * 1024)
    row = {"offset": 512, "length": len(data), "width": 64, "height": 64, "box": [8.0, 8.0, 56.0, 56.0], "size": 48.0}
    row |= {"landmarks": [24.0, 26.0, 40.0, 26.0, 32.0, 34.0, 26.0, 42.0, 38.0, 42.0], "split": "train", "centre": 0.5}
    rows = [
        row | {"face": 0, "person": f"p{i % PEOPLE}", "embedding": random.normal(size=DIM).tolist()}
        for i in range(FACES)
    ]
    digest = hashlib.sha256((folder / f"{NAME}.tar").read_bytes()).hexdigest()
    told = {"encoder": "test", "dim": str(DIM), "fingerprint": "", "tar_sha256": digest}
    told |= {"format": FORMAT, "tar_bytes": str((folder / f"{NAME}.tar").stat().st_size)}
    write_index(str(folder / f"{NAME}.parquet"), pa.Table.from_pylist(rows, SCHEMA.with_metadata(told)))
    write_bank(str(folder), [NAME], DIM)
    counts: dict[str, Any] = {name: {} for name in ("counts", "dropped", "aside", "splits", "settings")}
    manifest = Manifest(format=FORMAT, encoder="test", dim=DIM, detector="test", shards={NAME: digest}, **counts)
    manifest.save(str(folder))
    column = {"values": torch.rand(FACES * 4), "starts": torch.arange(FACES + 1) * 4}
    column["shapes"] = torch.full((FACES, 1), 4)
    save_file(column, folder / f"{NAME}.latents.safetensors", metadata={"idgen": json.dumps({"model": "key"})})
    return folder


def read_all(folder: Path) -> None:
    """Every sample of the set, every row of its column, and draws of other people."""
    dataset = PairedIdentityDataset(str(folder), framing=PhotoFraming(64))
    for face in range(len(dataset)):
        assert dataset[face].id_embeds.isfinite().all()
    column = Column(str(folder), NAME, "latents", "key")
    assert [column[i] is None for i in range(FACES)] == [False] * FACES
    bank = IdentityBank(str(folder), hard=True, too_similar=0.9)
    bank.draw(torch.zeros(2, dtype=torch.int64), 0)


def damage(chance: random.Random, folder: Path) -> str:
    file = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = file.read_bytes()
    if file.suffix == ".npy" and chance.random() < 0.7:
        array = np.load(file)
        how = chance.choice(("nan", "shape", "type", "value"))
        if how == "shape":
            array = chance.choice((array[:-1], array[0], array[:, :1], array[None], array[:0]))
        elif how == "type":
            array = array.astype(chance.choice(("f8", "f2", "c8", "U4", "i2", "u8", "?")))
        else:
            odd = (float("nan"), float("inf"), 1e38) if array.dtype == np.float32 else (-1, 1, 99, 2**62, -(2**63))
            array[chance.randrange(len(array)), chance.randrange(array.shape[1])] = chance.choice(odd)
        np.save(file, array)
    elif file.suffix == ".parquet" and chance.random() < 0.7:
        table = pq.read_table(file)
        name = chance.choice(table.column_names)
        kind = table.schema.field(name).type
        how = f"column {name}"
        if chance.random() < 0.3:
            table = table.drop_columns([name])
        else:
            odd = [-1, 0, 2**62, None] if pa.types.is_integer(kind) else [None]
            odd = [float("nan"), -1e300, 0.0, None] if pa.types.is_floating(kind) else odd
            values = table[name].to_pylist()
            if isinstance(values[0], list):
                odd = [None, [float("nan")] * len(values[0]), [0.0] * len(values[0])]
            values[chance.randrange(len(values))] = chance.choice(odd)
            column = pa.array(values, kind) if chance.random() < 0.8 else pa.array(["x"] * len(values))
            table = table.set_column(table.column_names.index(name), name, column)
        pq.write_table(table.replace_schema_metadata(pq.read_schema(file).metadata), file)
    elif file.suffix == ".json" and chance.random() < 0.8:
        how = "values"
        file.write_bytes(to_json(mutate_json(chance, json.loads(content))).encode())
    elif file.suffix == ".safetensors" and chance.random() < 0.8:
        how = "header"
        file.write_bytes(mutate_safetensors(chance, content))
    else:
        how = "bytes"
        file.write_bytes(mutate_bytes(chance, content))
    return f"{file.name}, {how}"


def test_hostile_shards(shards: Path, tmp_path: Path, fuzz: Callable[[int], int]) -> None:
    read_all(shards)
    tally = Tally()
    for number in range(fuzz(100)):
        folder = tmp_path / "set"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(shards, folder)
        how = damage(random.Random(number), folder)
        tally.run(f"case {number} ({how})", lambda folder=folder: read_all(folder))
    print(tally)
    assert not tally.failures, "\n".join([str(tally), *tally.failures])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bank_without_finite_numbers_is_refused(value: float, shards: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shards, tmp_path / "set")
    array = np.load(folder / FOLDER / "embeddings.npy")
    array[3, 2] = value
    np.save(folder / FOLDER / "embeddings.npy", array)
    with pytest.raises(DataError, match="face 3"):
        IdentityBank(str(folder))
    table, field = pq.read_table(folder / f"{NAME}.parquet"), SCHEMA.field("embedding")
    rows = table["embedding"].to_pylist()
    rows[1][0] = value
    table = table.set_column(table.column_names.index("embedding"), field, pa.array(rows, field.type))
    write_index(str(folder / f"{NAME}.parquet"), table)
    with pytest.raises(DataError, match="not finite"):
        write_bank(str(folder), [NAME], DIM)
