"""Watermarks that name a recipient, and adapters whose copies differ by recipient."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch.func import functional_call, grad, stack_module_state, vmap

from idgen import cli
from idgen.adapter import IdentityAdapter
from idgen.errors import ProvenanceError
from idgen.provenance import TracingKey, add_watermark, mark, read_watermark
from idgen.provenance.fingerprint import fingerprint_weights, trace_weights
from idgen.provenance.recipient_code import CORRECTED, FALSE_POSITIVE_RATE, decode_recipient, encode_recipient
from idgen.provenance.tracing_key import RECIPIENTS
from tests.components import make_adapter, make_unet

KEY = TracingKey(b"a secret of 32 bytes for testing")
COPIES = 50


@pytest.fixture(scope="module")
def adapter() -> IdentityAdapter:
    return make_adapter(make_unet())


def test_the_code_corrects_three_bits_for_every_recipient_and_never_names_another() -> None:
    random = np.random.default_rng(0)
    for recipient in range(RECIPIENTS):
        word = encode_recipient(KEY, recipient)
        for wrong in range(9):
            read = word.copy()
            read[random.choice(32, wrong, replace=False)] ^= 1
            assert decode_recipient(KEY, read) == ((recipient, 32 - wrong) if wrong <= 3 else None)


def test_other_keys_read_a_recipient_exactly_as_often_as_stated() -> None:
    words = np.stack([encode_recipient(KEY, recipient) for recipient in range(RECIPIENTS)])
    distances = (words[:, None] != words[None]).sum(-1)
    assert distances[~np.eye(RECIPIENTS, dtype=bool)].min() > 2 * CORRECTED  # no bits are near two words
    assert FALSE_POSITIVE_RATE == RECIPIENTS * (1 + 32 + 496 + 4960) / 2**32
    picture = words[3]
    edited = picture ^ (np.arange(32) == 5)
    keys = [TracingKey(number.to_bytes(16, "big")) for number in range(20_000)]
    read = np.array([[decode_recipient(key, bits) is not None for bits in (picture, edited)] for key in keys])
    for found in read.T:  # keys are independent, copies are not
        assert binomtest(int(found.sum()), len(keys), FALSE_POSITIVE_RATE).pvalue > 1e-3
    assert read.any(1).mean() <= 2 * FALSE_POSITIVE_RATE + 4 * (FALSE_POSITIVE_RATE / len(keys)) ** 0.5


def test_a_watermark_names_the_recipient_after_edits_and_only_with_the_key(astronaut: np.ndarray) -> None:
    marked = add_watermark(Image.fromarray(astronaut), KEY, recipient=201)
    for changed in (marked, marked.resize((256, 256)), marked.crop((30, 0, 512, 480))):
        read = read_watermark(changed)
        recipient, agreeing = read.recipient(KEY) or (None, 0)
        assert recipient == 201
        assert agreeing >= 29
        assert read.recipient(TracingKey.new()) is None
        assert not read.found  # it is not the watermark that everybody can read


@pytest.mark.parametrize("recipient", [-1, 256])
def test_recipients_out_of_range_are_refused(recipient: int, adapter: IdentityAdapter, astronaut: np.ndarray) -> None:
    with pytest.raises(ProvenanceError, match=f"from 0 to 255, got {recipient}"):
        mark(Image.fromarray(astronaut), {}, key=KEY, recipient=recipient)
    with pytest.raises(ProvenanceError, match="from 0 to 255"):
        fingerprint_weights(adapter.state_dict(), KEY, recipient)


def test_a_key_is_written_once_for_its_owner_only_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "own.key"
    KEY.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert TracingKey.load(path) == KEY
    assert "secret of" not in repr(KEY)
    with pytest.raises(ProvenanceError, match="exists"):
        TracingKey.new().save(path)
    assert TracingKey.load(path) == KEY
    for content in (b"short", b"x" * 5000):
        (tmp_path / "bad.key").write_bytes(content)
        with pytest.raises(ProvenanceError, match="bytes"):
            TracingKey.load(tmp_path / "bad.key")


def fine_tuned(adapter: IdentityAdapter, copies: list[dict[str, torch.Tensor]], steps: int) -> list:
    """Train the tokens of all copies at once with Adam, each on data of its own, and round them to float16."""
    projections = []
    for copy in copies:
        projection = make_adapter(make_unet()).to_tokens
        projection.load_state_dict({name[10:]: value for name, value in copy.items() if name.startswith("to_tokens.")})
        projections.append(projection)
    weights, buffers = stack_module_state(projections)
    random = torch.Generator().manual_seed(0)
    people = torch.randn(len(copies), 32, 8, generator=random)
    targets = torch.randn(len(copies), 32, *adapter(people[0]).shape[1:], generator=random)

    def loss(weights, buffers, people, targets):
        return (functional_call(adapter.to_tokens, (weights, buffers), (people,)) - targets).square().mean()

    weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=1e-3)
    for _ in range(steps):
        for value, gradient in zip(
            weights.values(), vmap(grad(loss))(weights, buffers, people, targets).values(), strict=True
        ):
            value.grad = gradient
        optimiser.step()
    return [
        {f"to_tokens.{name}": value[i].detach().half() for name, value in weights.items()} for i in range(len(copies))
    ]


def test_fifty_copies_are_told_apart_after_fine_tuning_and_rounding(adapter: IdentityAdapter) -> None:
    original = adapter.state_dict()
    copies = [fingerprint_weights(original, KEY, recipient) for recipient in range(COPIES)]
    trained = fine_tuned(adapter, copies, steps=50)
    for recipient, copy in enumerate(trained):
        assert (copy["to_tokens.proj.0.weight"] - copies[recipient]["to_tokens.proj.0.weight"]).abs().mean() > 0.005
        first, second = trace_weights(copies[recipient] | copy, KEY, range(COPIES), original)[:2]
        assert (first.recipient, first.found, second.found) == (recipient, True, False)


def test_nobody_is_named_for_the_adapter_itself_another_key_or_unmarked_training(adapter: IdentityAdapter) -> None:
    original = adapter.state_dict()
    (trained,) = fine_tuned(adapter, [original], steps=5)
    marked = fingerprint_weights(original, KEY, 7)
    for copy, key in ((original, KEY), (trained, KEY), (marked, TracingKey.new())):
        assert not trace_weights(copy, key, range(RECIPIENTS), original)[0].found
    assert fingerprint_weights(original, KEY, 7, strength=0).keys() == original.keys()
    for name, value in fingerprint_weights(original, KEY, 7, strength=0).items():
        assert torch.equal(value, original[name])


def test_averaged_and_scaled_copies_name_all_their_recipients(adapter: IdentityAdapter) -> None:
    original = adapter.state_dict()
    first, second = (fingerprint_weights(original, KEY, recipient) for recipient in (3, 200))
    mixed = {name: 0.9 * (first[name] + second[name]) / 2 for name in first}
    traces = trace_weights(mixed, KEY, range(RECIPIENTS), original)
    assert {trace.recipient for trace in traces if trace.found} == {3, 200}


def test_other_adapters_cannot_be_compared(adapter: IdentityAdapter) -> None:
    other = {"x": torch.zeros(3, 3)}
    with pytest.raises(ProvenanceError, match="no matrix in common"):
        trace_weights(adapter.state_dict(), KEY, range(3), other)
    with pytest.raises(ProvenanceError, match="recipient is required"):
        trace_weights(adapter.state_dict(), KEY, [])


def test_commands_trace_pictures_and_adapters(
    adapter: IdentityAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["idgen", *map(str, arguments)])
        cli.main()
        return " ".join(capsys.readouterr().out.split())

    mine, other, folder, file = (tmp_path / name for name in ("mine.key", "other.key", "copy", "copy.safetensors"))
    run("key", mine)
    run("key", other)
    adapter.save_pretrained(tmp_path / "adapter")
    for output in (folder, file):
        run("fingerprint", tmp_path / "adapter", "--tracing-key", mine, "--recipient", 17, "--output", output)
        found = ["trace", output, "--original", tmp_path / "adapter", "--recipients", 20]
        assert run(*found, "--tracing-key", mine).startswith("recipient 17 (score ")
        assert run(*found, "--tracing-key", other).startswith("no recipient (highest score ")

    picture = tmp_path / "picture.png"
    common = ["generate", "a face", "--steps", 1, "--random", 1, "--output", tmp_path / "drawn"]
    run(*common, "--tracing-key", mine, "--recipient", 17)
    (picture,) = (tmp_path / "drawn").rglob("*.png")
    assert "mine.key, recipient 17 (3" in run("inspect", picture, "--tracing-key", other, mine)
    assert "none of these keys" in run("inspect", picture, "--tracing-key", other)
    for wrong, message in (
        (["--recipient", 3], "--recipient requires --tracing-key"),
        (["--tracing-key", mine, "--recipient", 300], "from 0 to 255, got 300"),
        (["--tracing-key", mine, "--no-watermark"], "which --no-watermark disables"),
    ):
        with pytest.raises(SystemExit):
            run(*common, *wrong)
        assert message in " ".join(capsys.readouterr().err.split())
