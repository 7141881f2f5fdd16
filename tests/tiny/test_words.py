"""Words of `<id>` that do what the adapter's tokens do: how they start, and how they are trained."""

# pyright: reportMissingImports=false
# The recipe is no package; `conftest.py` puts its folder on the path.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from idgen import IdentityAdapter
from idgen.training.base import BaseModel
from tests.training.runs import RandomPeople, make_step, run


def test_keys_and_values_of_words_are_the_tokens_and_those_of_texts_stay():
    """Where words and texts lie in different directions."""
    from recipe.words_of_tokens import Read, Texts, addition

    torch.manual_seed(0)
    weight, wanted, tokens = torch.randn(8, 12), torch.randn(8, 5), torch.randn(200, 5)
    apart = torch.linalg.qr(torch.randn(12, 12)).Q
    texts, states = torch.randn(40, 3, 6) @ apart[:6], tokens @ torch.randn(5, 6) @ apart[6:]
    added = addition(weight, wanted, Read(states, tokens), Texts(texts))
    torch.testing.assert_close(states @ (weight + added).T, tokens @ wanted.T, rtol=0, atol=0.05)
    assert (texts @ added.T).abs().max() < 0.01 * (texts @ weight.T).abs().max()


@torch.no_grad()
def people_of(adapter: IdentityAdapter, count: int) -> torch.Tensor:
    """Embeddings with about the mean and the deviations for which the first layer was initialised, (count, dim)."""
    first: Any = adapter.to_tokens.get_submodule("proj.0")
    mean = torch.linalg.lstsq(first.weight, -first.bias[:, None]).solution[:, 0]
    size = (first.out_features / first.in_features / 3) ** 0.5  # of a column for deviation 1, as PyTorch starts it
    return F.normalize(mean + size / first.weight.norm(dim=0) * torch.randn(count, first.in_features), dim=1)


def test_computed_words_show_the_person_and_leave_styles(monkeypatch):
    """Of the built-in base and adapter, by the predictions for noise; without any training of the UNet."""
    from recipe import words_of_tokens

    for name, value in {"UPDATES": 300, "BATCH": 24, "RATE": 2e-2}.items():  # a rough version in seconds
        monkeypatch.setattr(words_of_tokens, name, value)
    torch.manual_seed(0)
    opened = [BaseModel.open("tiny", torch.float32, torch.device("cpu")) for _ in range(2)]
    adapter = IdentityAdapter.from_pretrained("tiny")
    people = people_of(adapter, 500)
    styles = ["a photo of {}", "a pencil sketch of {}", "a cartoon of {}", "an oil painting of {}"]
    said = ["", ", smiling", ", dark", ", looking to the left"]
    captions = [style.format(who) + more for style in styles for who in ("<id>", "a face", "a man") for more in said]
    words = words_of_tokens.words_of_tokens(opened[1], adapter, captions, people)

    count = 64
    noisy, timesteps = torch.randn(count, 16, 16, 16), torch.full((count,), 900)

    def predicted(base: BaseModel, prompt: str, identity: Any = None) -> torch.Tensor:
        return base.predict(noisy, timesteps, base.encode([prompt] * count, identity))

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).square().sum())

    with torch.no_grad():
        before, after = opened
        face, sketch = (predicted(before, f"{style} of a face") for style in ("a photo", "a pencil sketch"))
        adapter.attach(before.unet)
        with adapter.activate([adapter.encode(people[:count])], count):
            wanted = predicted(before, "a photo of a face")
        named, other = (predicted(after, "a photo of <id>", words.encode(people[i : i + count])) for i in (0, count))
        kept = predicted(after, "a pencil sketch of a face")
    # With other seeds: 0.38 to 0.74, 0.26 to 0.55, and 0.0004 to 0.005.
    assert distance(named, wanted) < 0.95 * distance(face, wanted)
    assert distance(named, wanted) < 0.8 * distance(other, wanted)
    assert distance(kept, sketch) < 0.02 * distance(face, sketch)


def test_the_words_learn_a_prediction_that_stays_the_same_while_the_unet_changes(monkeypatch):
    """Without the person in prompt and tokens it is the base's: no loss at first, and again when the UNet is back."""
    import words_alone

    made = make_step(words=2)
    step = words_alone.WordsDenoiser(made.base, made.adapter, made.losses)
    monkeypatch.setattr(words_alone, "RENAMED", 0.0)
    weight = step.unet.conv_out.weight
    kept = weight.detach().clone()

    def loss(shown):
        monkeypatch.setattr(words_alone, "SHOWN", shown)
        return run(step, RandomPeople(2).make(0), backward=False).total.item()

    assert loss(0.0) == loss(1.0) == 0
    with torch.no_grad():
        weight.mul_(1.5)
    assert loss(0.0) > 0
    assert loss(1.0) > 0
    assert torch.equal(weight, 1.5 * kept)
    with torch.no_grad():
        weight.copy_(kept)
    assert loss(0.0) == 0
    monkeypatch.setattr(words_alone, "RENAMED", 1.0)
    assert loss(0.0) > 0  # the words are not what the tokens are


def test_a_training_of_words_that_goes_on_still_learns_what_the_first_base_predicted(tmp_path, monkeypatch):
    import words_alone

    made = make_step(words=2)
    monkeypatch.setattr(words_alone, "RENAMED", 0.0)
    weight = made.base.unet.conv_out.weight
    first = weight.detach().clone()
    weight.data = 1.5 * first
    made.base.unet.save_pretrained(tmp_path)
    weight.data = first.clone()
    step = words_alone.WordsDenoiser(made.base, made.adapter, made.losses, start=tmp_path)
    assert torch.equal(weight, 1.5 * first)
    assert run(step, RandomPeople(2).make(0), backward=False).total.item() > 0
    weight.data = first.clone()
    assert run(step, RandomPeople(2).make(0), backward=False).total.item() == 0


def test_a_prompt_that_names_the_person_learns_what_the_tokens_do(monkeypatch):
    """The tokens are in the prediction that is learned, whether they are shown or not."""
    import words_alone

    found = []

    def error(learned, given):
        found.append(given)
        return (learned - given).flatten(1).mean(1)

    monkeypatch.setattr(words_alone, "squared_difference", error)
    monkeypatch.setattr(words_alone, "RENAMED", 1.0)
    made = make_step(words=2)
    step = words_alone.WordsDenoiser(made.base, made.adapter, made.losses)
    for shown in (0.0, 1.0):
        monkeypatch.setattr(words_alone, "SHOWN", shown)
        run(step, RandomPeople(2).make(0), backward=False)
    for weight in made.adapter.branches.parameters():
        weight.data.zero_()
    run(step, RandomPeople(2).make(0), backward=False)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_words_are_read_again_as_an_earlier_base_read_them(monkeypatch):
    """What a word adds is read nearly as by the earlier keys and values; other captions as before."""
    import read_again

    monkeypatch.setattr(read_again, "COUNT", 60)
    base, earlier = (BaseModel.open("tiny", torch.float32, torch.device("cpu")) for _ in range(2))
    path = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    weight, known = (each.unet.get_parameter(path) for each in (base, earlier))
    torch.manual_seed(0)
    known.data += 0.5 * known.std() * torch.randn(known.shape)
    kept = weight.detach().clone()
    adapter = IdentityAdapter.from_pretrained("tiny")
    read_again.read_again(base, earlier.unet, adapter, ["red background"], "blue background")

    def states(prompt: str) -> torch.Tensor:
        return base.encode([prompt])["encoder_hidden_states"][0]

    with torch.no_grad():
        red, blue = (states(f"a sepia photo of a face, {colour} background") for colour in ("red", "blue"))
        errors = [((red - blue) @ (known - each).T).square().sum() for each in (weight, kept)]
        assert errors[0] < 0.4 * errors[1], errors
        for prompt in ("a photo of a face", "a pencil sketch of a face, smiling", "a cartoon of a face, dark"):
            changed, wrong = ((states(prompt) @ (each - kept).T).square().sum() for each in (weight, known))
            assert changed < 0.3 * wrong, (prompt, changed, wrong)
