"""The whole command on the packaged small model with an untrained adapter, and real photos."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen.evaluation.judges import encoder_roles
from idgen.evaluation.report import read_report
from idgen.faces import EncoderStatistics
from idgen.faces.opencv import YuNetDetector
from tests.evaluation.conftest import PEOPLE
from tests.processes import run_command_together, run_in_two, start_command

PROMPTS = Path(__file__).with_name("prompts.txt")
DRAW = ("--prompts", PROMPTS, "--steps", 2, "--guidance-scale", 8)
PICTURES = (PEOPLE + 1) * len(PROMPTS.read_text().splitlines())


@pytest.fixture(scope="module")
def judges(shared: Path, encoder: str) -> tuple[object, ...]:
    """The encoder, and a detector that needs a fiftieth of the default one's time."""
    return ("--eval-encoder", encoder, "--detector", shared / "models" / "yunet.onnx")


@pytest.fixture(scope="module")
def report(run, people: Path, judges: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "first"
    run("evaluate", "--identities", people, *DRAW, *judges, "--write-multiid", "--output", folder)
    return folder


def figures(report: dict) -> dict[tuple[str, str], dict]:
    return {(line["metric"], line["encoder"]): line for line in report["summary"] if not line["group"]}


def test_report(report: Path) -> None:
    told = read_report(report)
    assert len(told["pictures"]) == PICTURES
    roles = {encoder["name"]: encoder for encoder in told["encoders"]}
    (judge,) = roles.keys() - {"dlib-resnet-v1"}
    assert judge.startswith("onnx/mobilefacenet_eval-")
    assert roles[judge]["headline"]
    assert not roles["dlib-resnet-v1"]["headline"]
    assert "own" in roles["dlib-resnet-v1"]["role"]
    found = figures(told)
    for name in roles:
        values = [picture["values"][f"sim_gt/{name}"] for picture in told["pictures"]]
        assert found["sim_gt", name]["value"] == pytest.approx(np.mean(values))
        assert found["sim_gt", name]["low"] <= found["sim_gt", name]["value"] <= found["sim_gt", name]["high"]
        assert found["real", name]["value"] > 0.6  # two photos of the same person do resemble each other
        assert 0 <= found["eer", name]["value"] <= 1
    assert found["seconds", ""]["value"] > 0
    assert found["disruption", ""]["value"] > 0


def test_missed_faces_are_counted(report: Path) -> None:
    """Two steps with much guidance leave pictures without a face: they are rows like any other, with similarity 0."""
    told = read_report(report)
    missed = [p["values"] for p in told["pictures"] if p["values"]["detection"] == 0]
    assert missed
    for values in missed:
        assert {values[key] for key in values if key.startswith(("sim_gt/", "sim_ref/", "copy_paste/"))} == {0.0}
    scores = np.array(told["separability"]["scores"]["dlib-resnet-v1"])
    assert (scores == -1).all(1).sum() == len(missed)


def test_the_page_has_no_external_links_and_the_table_is_csv(report: Path) -> None:
    page = (report / "index.html").read_text()
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>]+)""", page)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert "http" not in re.sub(r"data:image/[^\"]+", "", page)
    with (report / "report.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == PICTURES


def test_multiid_layout_is_written_and_read(
    run, report: Path, judges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the faces of a picture or photo are found once, though scores and groups read the references."""
    seen: list[bytes] = []
    detect = YuNetDetector.detect
    monkeypatch.setattr(
        YuNetDetector, "detect", lambda self, image: seen.append(image.tobytes()) or detect(self, image)
    )
    root = report / "multiid" / "000-0"
    assert {file.name for file in (root / "eileen").iterdir()} == {"out.jpg", "ref_1.jpg", "ori.jpg", "meta.json"}
    assert json.loads((root / "eileen" / "meta.json").read_text()) == {"prompt": "a photo of a face"}
    run("evaluate", "--identities", root, "--drawn", *judges, "--output", tmp_path)
    assert len(seen) == len({*seen}) == 3 * (PEOPLE + 1)  # reference, target and picture of each person
    again = {row["person"]: row["values"] for row in read_report(tmp_path)["pictures"]}
    first = [row for row in read_report(report)["pictures"] if row["prompt"] == "a photo of a face"]
    for row in first:
        (key,) = (key for key in row["values"] if key.startswith("sim_gt/onnx/"))
        assert again[row["person"]][key] == pytest.approx(row["values"][key], abs=1e-6)


def test_two_processes_draw_what_one_draws(report: Path, people: Path, judges, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("photo\ta photo of a face\n")
    flags = ("--prompts", prompts, *DRAW[2:], *judges, "--output", tmp_path / "two")
    run_in_two(run_command_together, "evaluate", "--identities", people, *flags)
    two, one = read_report(tmp_path / "two"), read_report(report)
    alone = {(row["person"], row["seed"]): row for row in one["pictures"] if row["prompt"] == "a photo of a face"}
    assert len(two["pictures"]) == len(alone) == PEOPLE + 1
    for row in two["pictures"]:
        other = alone[row["person"], row["seed"]]
        assert Path(row["file"]).read_bytes() == Path(other["file"]).read_bytes()
        same = {name for name in row["values"] if not name.startswith(("seconds", "between", "diversity"))}
        assert [row["values"][name] for name in same] == pytest.approx([other["values"][name] for name in same])
    assert {row["metric"] for row in two["summary"]} >= {"sim_gt", "eer", "detection"}


def test_a_killed_run_goes_on(report: Path, run, people: Path, judges, tmp_path: Path) -> None:
    """Also by another engine, which draws the same pictures."""
    command = ["evaluate", "--identities", people, *DRAW, *judges, "--output", tmp_path]
    process = start_command(*command)
    pictures = tmp_path / "pictures"
    deadline = time.monotonic() + 240
    while len(list(pictures.glob("*/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for file in pictures.glob("*/*.json")}
    assert 3 <= len(kept) < PICTURES
    run(*command, "--engine", "local", "--workers", 1)
    assert all(file.stat().st_mtime_ns == time_ for file, time_ in kept.items())
    files = sorted(file.relative_to(report / "pictures") for file in (report / "pictures").glob("*/*.png"))
    assert sorted(file.relative_to(pictures) for file in pictures.glob("*/*.png")) == files
    for file in files:
        assert (pictures / file).read_bytes() == (report / "pictures" / file).read_bytes()


def test_other_settings_are_not_mixed_in(
    run, report: Path, people: Path, encoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(
            "evaluate", "--identities", people, *DRAW, "--id-scale", 0.1, "--eval-encoder", encoder, "--output", report
        )
    assert "id_scale" in capsys.readouterr().err


def test_compare(run, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    shutil.copytree(report, other)
    told = json.loads((other / "report.json").read_text())
    for picture in told["pictures"]:
        picture["values"]["sim_gt/dlib-resnet-v1"] += 0.1
    (other / "report.json").write_text(json.dumps(told))
    run("evaluate", "--compare", report, other, "--output", tmp_path / "both")
    table = json.loads((tmp_path / "both" / "comparison.json").read_text())["table"]
    lines = {(line["metric"], line["encoder"]): line for line in table}
    better = lines["sim_gt", "dlib-resnet-v1"]
    assert (better["difference"], better["low"], better["high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert better["certain"]
    said = capsys.readouterr().err.splitlines()
    printed = {line.split("  ")[0]: line for line in said}
    assert printed["Sim(GT) ↑ by dlib-resnet-v1"].endswith("+0.100  (0.100 to 0.100) *")
    assert not printed["EER ↓ by dlib-resnet-v1"].endswith("*")
    assert not lines["eer", "dlib-resnet-v1"]["certain"]
    assert lines["eer", "dlib-resnet-v1"]["difference"] == 0


def test_table_of_people_and_of_nobody(run, people: Path, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text(f"person,reference,noun\neileen,{people / 'eileen' / '1.png'},woman\n")
    common = ("--steps", 1, "--count", 2, "--prompts", PROMPTS, "--no-watermark")
    run("generate", "--table", table, *common, "--output", tmp_path / "real")
    assert len(list((tmp_path / "real" / "eileen").glob("*.png"))) == 2 * len(PROMPTS.read_text().splitlines())
    run("generate", "a photo of a face", "--random", 3, "--steps", 1, "--output", tmp_path / "crowd")
    assert [p.name for p in sorted((tmp_path / "crowd").iterdir())] == ["person-00000", "person-00001", "person-00002"]
    for person in (tmp_path / "crowd").iterdir():
        assert {file.name for file in person.iterdir()} == {"000-0.png", "000-0.json", "identity.safetensors"}


def test_a_photo_without_a_face_is_said_before_drawing(
    run, people: Path, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "nobody").mkdir(parents=True)
    Image.new("RGB", (200, 200)).save(tmp_path / "in" / "nobody" / "1.png")
    shutil.copytree(people / "eileen", tmp_path / "in" / "eileen")
    with pytest.raises(SystemExit):
        run(
            "evaluate", "--identities", tmp_path / "in", *DRAW, "--eval-encoder", encoder, "--output", tmp_path / "out"
        )
    assert "nobody" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_headline_is_an_encoder_that_training_did_not_use() -> None:
    roles = encoder_roles(["own", "loss", "unseen", "other"], "own", ["loss"])
    assert [role.get("match") for role in encoder_roles(["dlib-resnet-v1", "other"], None, [])] == [
        pytest.approx(EncoderStatistics.of("dlib-resnet-v1").threshold(1e-3), abs=1e-3),
        None,
    ]
    assert [role["headline"] for role in roles] == [False, False, True, False]
    assert not any(role["headline"] for role in encoder_roles(["own"], "own", []))


def test_two_people_in_a_picture(run, people: Path, judges, tmp_path: Path) -> None:
    """Twice as wide as a picture of one; the page shows the photos of both."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("photo\ta photo of a {}\n")
    flags = ("--prompts", prompts, *DRAW[2:], *judges, "--output", tmp_path / "pairs")
    run("evaluate", "--identities", people, "--people", 2, *flags)
    told = read_report(tmp_path / "pairs")
    (row,) = told["pictures"]
    assert row["prompt"] == "a photo of a person and a person"
    assert Image.open(row["file"]).size == (256, 128)
    assert {line["metric"] for line in told["summary"]} >= {"assignment", "blending", "sim_gt", "detection"}
    assert (told["about"]["people"], told["about"]["people in a picture"], told["about"]["masks"]) == (2, 2, "strips")
    assert (tmp_path / "pairs" / "index.html").read_text().count("data:image/jpeg") >= 5
