"""A training set of invented people: its prompts, its shards and its report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from idgen.data.bank import IdentityBank
from idgen.data.manifest import Manifest
from idgen.evaluation.report import read_report
from idgen.evaluation.synthesis import NEAR, random_people
from idgen.evaluation.synthetic_set import nearest_real, real_people
from idgen.evaluation.variations import VARIATIONS, variations
from idgen.faces import DlibEncoder, EncoderStatistics
from idgen.tiny.usage import usage_of
from tests.processes import run_command_together, run_in_two


@pytest.mark.parametrize("count", [2, 7, 16, 40])
def test_every_phrase_is_as_frequent_as_any_other(count: int) -> None:
    """Within each person; and no attribute is tied to another one."""
    found = variations(count, seed=3)
    assert len(found) == count
    for name, phrases in VARIATIONS.items():
        seen = Counter(each.phrases.get(name, "") for each in found)
        times = Counter(phrases)
        shares = [seen[phrase] / times[phrase] for phrase in times]
        assert max(shares) - min(shares) <= 1
    assert variations(count, seed=3) == found
    assert count == 2 or variations(count, seed=4) != found


def test_a_base_is_asked_for_what_it_knows() -> None:
    usage = usage_of("tiny")
    found = variations(40, 0, lambda phrase: not usage.unknown_words(phrase))
    assert not any(usage.unknown_words(each.text) for each in found)
    assert {"style", "pose", "light", "background"} <= {name for each in found for name in each.phrases}


def test_nobody_resembles_a_real_person_more_than_strangers_do() -> None:
    """Even where real people lie exactly where invented ones would be drawn."""
    twins = random_people(8, DlibEncoder.name, DlibEncoder.dim)
    real = np.stack([person.embedding(normalised=True).numpy() for person in twins])
    people = random_people(8, DlibEncoder.name, DlibEncoder.dim, real=real)
    invented = np.stack([person.embedding(normalised=True).numpy() for person in people])
    assert (invented @ real.T).max() <= EncoderStatistics.of(DlibEncoder.name).threshold(NEAR)


def test_a_set_is_shards_and_a_report(run, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn by a worker, to which all options are sent."""
    output = tmp_path / "set"
    flags = ("--steps", 4, "--batch-size", 8, "--no-watermark", "--eval-encoder", encoder)
    flags += ("--engine", "local", "--workers", 1)
    run("generate", "--random", 4, "--pictures", 4, "--set", output, *flags)
    shown = capsys.readouterr()
    assert shown.out.strip().endswith(str(output / "report" / "index.html"))
    manifest, told = Manifest.open(str(output)), read_report(output / "report")
    assert manifest.counts["inputs"] == 16
    bank = IdentityBank(str(output))
    assert {*bank.people} <= {f"person-{i:05d}" for i in range(4)}
    about = told["about"]
    people = 4 - about["people without two pictures that show a face"]
    assert len(told["pictures"]) == 3 * people  # the first picture with a face is what the others are compared with
    assert len(told["separability"]["gallery"]) == people
    assert about["usable faces in the shards"] == manifest.counts["usable"]
    assert {"style", "pose"} <= {by for row in told["pictures"] for by in row["groups"]}
    line = next(one for one in told["summary"] if (one["metric"], one["encoder"]) == ("sim_ref", "dlib-resnet-v1"))
    assert f"strangers {line['strangers']:.3f}" in shown.err
    drawn = {"somebody": random_people(1, DlibEncoder.name, DlibEncoder.dim)[0]}
    assert nearest_real(drawn, str(output))["real people compared with"] == len(bank.people)
    assert real_people(str(output), DlibEncoder.name) == pytest.approx(bank.centres)


def test_processes_draw_a_set_together(encoder: str, tmp_path: Path) -> None:
    """Each picture is drawn once, and one process makes the shards."""
    flags = ("--steps", 2, "--no-watermark", "--eval-encoder", encoder)
    run_in_two(run_command_together, "generate", "--random", 3, "--pictures", 3, "--set", tmp_path / "set", *flags)
    assert Manifest.open(str(tmp_path / "set")).counts["inputs"] == 9
    assert len(list((tmp_path / "set" / "pictures").glob("*/*.png"))) == 9
    assert (tmp_path / "set" / "report" / "index.html").exists()


def test_what_a_set_needs_is_said_before_anything_is_opened(
    run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, said in (
        (("--set", tmp_path / "x"), "--set requires --random"),
        (("--set", tmp_path / "x", "--random", 3, "--prompts", "tiny"), "takes no prompt"),
        (("--set", tmp_path / "x", "--random", 3, "--count", 2), "--pictures instead of --count"),
        (("--pictures", 4, "--random", 3), "--pictures requires --set"),
        (("--real", tmp_path, "a photo"), "requires --random"),
        (("--set", tmp_path / "x", "--random", 3, "--pictures", 1), "--pictures must be at least 2"),
        (("a photo", "--engine", "local"), "requires --table or --random"),
    ):
        with pytest.raises(SystemExit):
            run("generate", *flags)
        assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("count", [3, 300])
def test_people_are_as_far_apart_as_their_number_allows(count: int) -> None:
    people = random_people(count, DlibEncoder.name, DlibEncoder.dim)
    directions = np.stack([person.embedding(normalised=True).numpy() for person in people])
    cosines = (directions @ directions.T)[np.triu_indices(count, 1)]
    assert cosines.max() <= EncoderStatistics.of(DlibEncoder.name).threshold(min(1e-2, 2 / count))
