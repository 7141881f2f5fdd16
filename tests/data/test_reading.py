"""What training reads: pairs of one person, exact resume, cached columns, negatives."""

from __future__ import annotations

import copy
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from idgen.attributes import Direction
from idgen.data.bank import IdentityBank
from idgen.data.bank_writing import write_bank, write_embeddings
from idgen.data.cache import write_caches
from idgen.data.columns import BATCH, Column, Entry, write_column
from idgen.data.dataset import CAPTION, PairedIdentityDataset
from idgen.data.engines import LocalProcesses
from idgen.data.framing import AlignedFraming, PhotoFraming
from idgen.data.loader import PairedLoader
from idgen.data.makers import AugmentedMaker, EmbeddingMaker, LatentMaker, TextMaker, encode_images
from idgen.data.pairing import Pairing
from idgen.errors import DataError, StatisticsError
from idgen.faces import ENCODERS
from idgen.faces.expression import EXPRESSION, mirrored
from idgen.tiny import load_tiny_base
from idgen.training.base import BaseModel
from idgen.training.shard_batches import ShardBatches
from tests.faces.dots import ROW, Dots

PLAIN = Pairing(drop_text=0, drop_identity=0, drop_both=0, flip=0)
FRAMING = AlignedFraming(64)


@pytest.fixture(scope="module")
def cached(lfw_set: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LatentMaker]:
    """The set with latents of the small model and augmented embeddings."""
    folder = str(tmp_path_factory.mktemp("cached") / "set")
    shutil.copytree(lfw_set, folder)
    maker = LatentMaker(load_tiny_base().vae, FRAMING)
    write_column(folder, maker)
    write_column(folder, AugmentedMaker("dlib-resnet-v1"))
    return folder, maker


def test_the_reference_is_another_photo_of_the_same_person(lfw_set):
    data = PairedIdentityDataset(lfw_set, framing=FRAMING, pairing=PLAIN)
    lonely = paired = 0
    for face in range(len(data)):
        sample = data[face]
        (reference,) = sample.references
        assert data.bank.person_of(sample.references)[0] == sample.person
        if data.bank.counts[sample.person] == 1:
            lonely += 1
            assert reference == face
        else:
            paired += 1
            assert reference != face
        assert torch.equal(sample.id_embeds[0], torch.from_numpy(np.array(data.bank.embeddings[reference])))
        assert sample.prompt == CAPTION
    assert lonely
    assert paired


def test_half_paired_means_half(lfw_set):
    data = PairedIdentityDataset(lfw_set, framing=FRAMING, pairing=Pairing(paired_ratio=0.5, references=3))
    faces = [face for face in range(len(data)) if data.bank.counts[data.bank.person_of(np.array([face]))[0]] > 2]
    own = [data[epoch, face].references[0] == face for face in faces for epoch in range(8)]
    assert 0.35 < np.mean(own) < 0.65
    assert data[faces[0]].id_embeds.shape == (3, 128)


def test_drop_rates_are_those_of_the_settings(lfw_set):
    pairing = Pairing(drop_text=0.2, drop_identity=0.3, drop_both=0.1, component_dropout=0.25, flip=0)
    data = PairedIdentityDataset(lfw_set, framing=FRAMING, pairing=pairing)
    samples = [data[epoch, face] for epoch in range(3) for face in range(len(data))]
    kinds = [(sample.prompt == "", not sample.has_identity) for sample in samples]
    for kind, share in {(True, False): 0.2, (False, True): 0.3, (True, True): 0.1}.items():
        assert abs(kinds.count(kind) / len(kinds) - share) < 0.08
    assert all(not sample.id_embeds.any() for sample in samples if not sample.has_identity)
    kept = torch.cat([sample.id_embeds for sample in samples if sample.has_identity])
    assert abs((kept == 0).float().mean() - 0.25) < 0.02


def test_embeddings_move_along_attributes(lfw_set):
    """Up to the given amount, otherwise in every sample; nothing else of a sample changes."""
    pairing = Pairing(drop_identity=0, drop_both=0)
    plain = PairedIdentityDataset(lfw_set, framing=FRAMING, pairing=pairing)
    moved = PairedIdentityDataset(lfw_set, framing=FRAMING, pairing=replace(pairing, moves={"age": 0.5}))
    direction, amounts = Direction.of("age", plain.encoder), []
    for face in range(0, 40, 4):
        before, after = plain[0, face], moved[0, face]
        assert torch.equal(after.target_embeds, before.target_embeds)
        if np.array_equal(after.references, before.references):
            amounts.append(float(direction.value(after.id_embeds) - direction.value(before.id_embeds)))
            assert torch.allclose(direction.move(before.id_embeds, amounts[-1]), after.id_embeds, atol=1e-5)
    assert 0.1 < max(map(abs, amounts)) <= 0.5
    assert len(set(amounts)) == len(amounts)
    with pytest.raises(StatisticsError, match="no direction 'beard'"):
        PairedIdentityDataset(lfw_set, framing=FRAMING, pairing=Pairing(moves={"beard": 1}))
    with pytest.raises(DataError, match="finite numbers"):
        Pairing(moves={"age": -1})


def test_a_sample_follows_from_seed_and_epoch_alone(lfw_set):
    first, second = (PairedIdentityDataset(lfw_set, framing=FRAMING) for _ in range(2))
    assert all(torch.equal(first[2, face].picture, second[2, face].picture) for face in range(0, 40, 7))
    assert any(not torch.equal(first[0, face].picture, first[1, face].picture) for face in range(0, 40, 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_goes_on_where_it_was_cut_also_with_workers_that_ran_ahead(lfw_set, workers):
    data = PairedIdentityDataset(lfw_set, framing=PhotoFraming(128, 32))
    whole = iter(PairedLoader(data, 8, window=2))
    expected = [[sample.face for sample in next(whole)] for _ in range(14)]
    cut = PairedLoader(data, 8, window=2, workers=workers)
    stream = iter(cut)
    assert [[sample.face for sample in next(stream)] for _ in range(5)] == expected[:5]
    resumed = PairedLoader(data, 8, window=2)
    resumed.load_state_dict(cut.state_dict())
    stream = iter(resumed)
    assert [[sample.face for sample in next(stream)] for _ in range(9)] == expected[5:]


def test_cached_latents_are_those_of_the_pictures(cached):
    folder, maker = cached
    for flip in (0.0, 1.0):
        pairing = Pairing(drop_text=0, drop_identity=0, drop_both=0, flip=flip)
        data = PairedIdentityDataset(folder, framing=FRAMING, pairing=pairing, latents=maker.key())
        pictures = PairedIdentityDataset(folder, framing=FRAMING, pairing=pairing)
        wanted = encode_images(maker.vae, pictures[5].picture.numpy()[None])[0]
        torch.testing.assert_close(data[5].picture.float(), wanted, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(data[5].landmarks, pictures[5].landmarks)


class HomeBody(LatentMaker):
    """Cannot be sent anywhere."""

    def __reduce__(self) -> Any:
        raise AssertionError("a large network was sent to a worker")


def test_latents_are_made_in_batches_in_the_main_process(lfw_set, lfw_photos, tmp_path, monkeypatch):
    """Whatever sizes the pictures have, and however many fit into a batch: those of one picture at a time."""
    shutil.copytree(lfw_set, tmp_path / "set")
    maker = HomeBody(load_tiny_base().vae, FRAMING)
    batches = []
    encode = maker.vae.encode
    monkeypatch.setattr(maker.vae, "encode", lambda pixels: batches.append(pixels.shape) or encode(pixels))
    write_column(str(tmp_path / "set"), maker, LocalProcesses(2))
    assert max(shape[0] for shape in batches) == 2 * BATCH
    files = [min(folder.glob("*.jpg")) for folder in sorted(lfw_photos.iterdir())[:5]]
    widths = (150, 90, 150, 90, 150)
    photos = [np.asarray(Image.open(f).crop((0, 0, width, 150))) for f, width in zip(files, widths, strict=True)]
    row = {"box": [50, 50, 80, 80]}
    entries = [Entry(photo, row, np.zeros((5, 2)), False) for photo in photos]
    maker = LatentMaker(maker.vae, PhotoFraming(64, 16))
    alone = [maker([entry])[0] for entry in entries]
    for pixels in (1, 2 * 64 * 64, 4 * 64 * 64, 1 << 30):
        monkeypatch.setattr("idgen.data.makers.PIXELS_ON_CPU", pixels)
        for found, expected in zip(maker(entries), alone, strict=True):
            torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
    assert len({latents.shape for latents in alone}) == 2


def test_a_column_of_another_model_is_refused(cached):
    folder, maker = cached
    with pytest.raises(DataError, match="was made by"):
        PairedIdentityDataset(
            folder, framing=AlignedFraming(96), latents=LatentMaker(maker.vae, AlignedFraming(96)).key()
        )
    with pytest.raises(DataError, match="was made by"):
        write_column(folder, LatentMaker(maker.vae, AlignedFraming(96)))
    with pytest.raises(DataError, match="no column 'text'"):
        Column(folder, "000000", "text")


def test_latents_stay_valid_if_only_the_decoder_changes(cached):
    _, maker = cached
    vae = copy.deepcopy(maker.vae)
    for part, same in ((vae.decoder, True), (vae.encoder, False)):
        next(part.parameters()).data.add_(0.1)
        assert (LatentMaker(vae, FRAMING).key() == LatentMaker(maker.vae, FRAMING).key()) is same


def test_a_damaged_column_is_our_error(cached, tmp_path):
    shutil.copytree(cached[0], tmp_path / "set")
    file = tmp_path / "set" / "000000.latents.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        Column(str(tmp_path / "set"), "000000", "latents")


def test_people_with_one_photo_use_their_augmented_photo(cached):
    folder, _ = cached
    data = PairedIdentityDataset(folder, framing=FRAMING, pairing=PLAIN)
    lonely = [face for face in range(len(data)) if data.bank.counts[data[face].person] == 1]
    own = torch.from_numpy(np.array(data.bank.embeddings[lonely]))
    own = torch.nn.functional.normalize(own, dim=-1)
    given = torch.stack([data[face].id_embeds[0] for face in lonely])
    cosines = torch.cosine_similarity(own, given)
    assert (cosines < 0.9999).all()
    assert cosines.median() > (own @ own.roll(1, 0).T).diagonal().median()  # nearer than somebody else


def test_the_embeddings_of_another_encoder(lfw_set, tmp_path, monkeypatch):
    """Two processes write the columns that one writes; the bank, the dataset and the statistics read them."""
    names = ("alone", "together")
    for name, engine in zip(names, (None, LocalProcesses(2)), strict=True):
        shutil.copytree(lfw_set, tmp_path / name)
        write_column(str(tmp_path / name), EmbeddingMaker("dlib-resnet-v1"), engine)
    files = sorted(path.name for path in (tmp_path / "alone").glob("*.embeds-*"))
    assert len(files) == 4
    assert all((tmp_path / "alone" / f).read_bytes() == (tmp_path / "together" / f).read_bytes() for f in files)
    folder = str(tmp_path / "alone")
    write_embeddings(folder, "dlib-resnet-v1")
    bank, other = IdentityBank(folder), IdentityBank(folder, encoder="dlib-resnet-v1")
    torch.testing.assert_close(np.array(other.embeddings), np.array(bank.embeddings), atol=1e-5, rtol=1e-5)

    monkeypatch.setitem(ENCODERS, "dots", ROW)
    write_caches(folder, ["augmented"], base="", resolution=64, encoders=["dlib-resnet-v1", "dots"])
    pairing = replace(PLAIN, references=2)
    data = PairedIdentityDataset(
        folder, framing=FRAMING, pairing=pairing, encoder="dots", compare=["dlib-resnet-v1", "dots"]
    )
    dots = IdentityBank(folder, encoder="dots").embeddings
    assert dots.shape == (len(data), Dots.dim)
    paired = next(face for face in range(len(data)) if data.bank.counts[data[face].person] > 2)
    sample = data[paired]
    assert sample.id_embeds.numpy() == pytest.approx(np.array(dots[sample.references]))
    assert sample.target_embeds.numpy() == pytest.approx(np.array(bank.embeddings[paired]))
    assert sample.compared["dots"].numpy() == pytest.approx(np.array(dots[[paired]]))
    data.compare_references = True
    assert data[paired].compared["dots"].numpy() == pytest.approx(np.array(dots[[paired, *sample.references]]))
    lonely = next(face for face in range(len(data)) if data.bank.counts[data[face].person] == 1)
    assert data[lonely].id_embeds[0].numpy() != pytest.approx(np.array(dots[lonely]), abs=1e-3)  # it is augmented
    assert len(pickle.dumps(data)) < 1e5  # another process opens the embeddings, and receives no copy

    write_bank(folder, data.names, 128)  # what `prepare` does at the end of every run
    with pytest.raises(DataError, match=r"no embeddings of 'dots'.*--cache embeddings --encoder dots"):
        IdentityBank(folder, encoder="dots")
    with pytest.raises(DataError, match="Give another --encoder"):
        write_caches(folder, ["embeddings"], base="", resolution=64)


def test_an_expression_is_that_of_the_target_and_the_person_that_of_another_photo(lfw_set, tmp_path):
    folder = str(tmp_path / "set")
    shutil.copytree(lfw_set, folder)
    write_caches(folder, ["embeddings"], base="", resolution=64, encoders=["dlib-resnet-v1", EXPRESSION])
    shown, people = (np.array(IdentityBank(folder, encoder=name).embeddings) for name in (EXPRESSION, None))
    for flip in (0, 1):
        pairing = Pairing(drop_text=0.2, drop_identity=0.2, drop_both=0.2, flip=flip)
        data = PairedIdentityDataset(folder, framing=FRAMING, pairing=pairing, encoder=EXPRESSION, beside=True)
        for face in range(len(data)):
            sample, found = data[face], torch.from_numpy(shown[face])
            assert sample.beside is not None
            known = sample.has_identity or sample.prompt != ""
            expected = (mirrored(found) if flip else found) * sample.has_identity
            assert torch.equal(sample.id_embeds, expected[None])
            assert torch.equal(sample.beside, torch.from_numpy(people[sample.references]) * known)


def test_text_is_cached_where_there_is_a_caption(lfw_photos: Path, tmp_path):
    from idgen.data.prepare import PrepareOptions, prepare

    person = min(lfw_photos.iterdir())
    shutil.copytree(person, tmp_path / "photos" / person.name)
    photo = min((tmp_path / "photos" / person.name).glob("*.jpg"))
    photo.with_suffix(".txt").write_text("a photo of <id>, smiling")
    folder = str(tmp_path / "set")
    from idgen.data.assign import AssignOptions

    prepare(PrepareOptions(photos=str(tmp_path / "photos"), output=folder, people=AssignOptions(shares={})))
    pipe = load_tiny_base()
    maker = TextMaker(pipe.text_encoder, pipe.tokenizer)
    write_column(folder, maker)
    value = Column(folder, "000000", "text", maker.key())[0]
    tokens = pipe.tokenizer("a photo of person, smiling", padding="max_length", return_tensors="pt").input_ids
    assert value is not None
    torch.testing.assert_close(value.float(), pipe.text_encoder(tokens)[0][0], atol=2e-2, rtol=2e-3)
    base = BaseModel(pipe, torch.bfloat16, torch.device("cpu"))  # its key is of the weights before they were rounded
    assert base.keys["text_encoder"] == maker.network
    pairing = Pairing(drop_text=0.3, drop_identity=0, drop_both=0)
    data = PairedIdentityDataset(folder, framing=FRAMING, pairing=pairing, text=maker.key())
    read = ShardBatches(PairedLoader(data, 4), vae=base.pipeline.vae, encode=base.encode)
    stream = iter(read)
    for batch in (next(stream) for _ in range(3)):  # captions, prompts of photos without one, and dropped ones
        found = batch.encoder_hidden_states
        assert found is not None
        expected = base.encode(batch.prompts)["encoder_hidden_states"]
        torch.testing.assert_close(found, expected.float(), atol=0.1, rtol=0.05)
    assert 1 <= read._encoded.cache_info().currsize <= 2


def test_a_column_is_written_again_when_its_shard_changed(lfw_set, tmp_path):
    shutil.copytree(lfw_set, tmp_path / "set")
    folder, maker = str(tmp_path / "set"), AugmentedMaker("dlib-resnet-v1")
    write_column(folder, maker)
    file = tmp_path / "set" / "000001.augmented.safetensors"
    before = file.read_bytes()
    index = tmp_path / "set" / "000001.parquet"
    table = pq.read_table(index)
    aside = table["aside"].to_pylist()
    aside[0] = "far-from-person"
    place = table.schema.get_field_index("aside")
    pq.write_table(table.set_column(place, table.schema.field("aside"), pa.array(aside, pa.string())), index)
    write_column(folder, maker)
    assert file.read_bytes() != before


def test_batches_are_what_training_reads(cached):
    folder, maker = cached
    data = PairedIdentityDataset(folder, framing=FRAMING, latents=maker.key())
    batches = ShardBatches(PairedLoader(data, 8), negatives=IdentityBank(folder, count=5))
    stream = iter(batches)
    batch = next(stream)
    assert batch.latents.shape == (8, 16, 8, 8)
    assert batch.id_embeds.shape == batch.target_embeds.shape == (8, 128)
    bank = batches.bank(batch.persons)
    assert bank.embeds.shape == (5, 128)
    assert not set(bank.persons.tolist()) & set(batch.persons.tolist())
    state = batches.state_dict()
    expected, drawn = next(stream), batches.bank(batch.persons)
    again = ShardBatches(PairedLoader(data, 8), negatives=IdentityBank(folder, count=5))
    again.load_state_dict(state)
    got = next(iter(again))
    assert torch.equal(got.latents, expected.latents)
    assert torch.equal(again.bank(batch.persons).embeds, drawn.embeds)


def test_pictures_are_encoded_where_no_latents_are_cached(cached):
    folder, maker = cached
    pictures = PairedIdentityDataset(folder, framing=FRAMING, pairing=PLAIN)
    latents = PairedIdentityDataset(folder, framing=FRAMING, pairing=PLAIN, latents=maker.key())
    a = next(iter(ShardBatches(PairedLoader(pictures, 4), vae=maker.vae)))
    b = next(iter(ShardBatches(PairedLoader(latents, 4))))
    torch.testing.assert_close(a.latents, b.latents, atol=2e-3, rtol=2e-3)


def test_bad_settings_are_our_errors(lfw_set, tmp_path):
    with pytest.raises(DataError, match="Probabilities must be between 0 and 1"):
        Pairing(flip=1.5)
    with pytest.raises(DataError, match="reference"):
        Pairing(references=0)
    with pytest.raises(DataError, match="not a finished set"):
        PairedIdentityDataset(str(tmp_path), framing=FRAMING)
    with pytest.raises(DataError, match="There are no people in the split"):
        PairedIdentityDataset(lfw_set, "validation", framing=FRAMING)
