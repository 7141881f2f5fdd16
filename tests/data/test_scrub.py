"""People's data are removed from captions, and nobody prints them."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from idgen.data.command import told
from idgen.data.scrub import SOMEBODY, Scrubber
from idgen.errors import DataError, MissingDependencyError

from .sets import index, make_set, portrait, save

spacy = pytest.importorskip("spacy")

SECRETS = {
    "email": ["anna.schmidt+x@mail.example.org", "ÄNNA@exämple.de", "a_b%c@sub.domain.example.co.uk"],
    "phone": ["+44 20 7946 0958", "(212) 736-5000", "+49 30 901820", "0049 30 901820", "+33 1 40 20 50 50"],
    "date": ["12 March 1968", "March 3rd, 1970", "03/04/1990", "1990-04-03", "born 1968", "DOB: 3.4.90", "b. 1971"],
    "name": ["Zoë Kravchenko", "MARIA", "maria lopez", "Maria's"],
}
FRAMES = ["a photo of a face, {}", "{} in the rain", "a hat ({}), a red coat", "a face\n{}\nsmiling"]
HARMLESS = [
    "a photo of <id>",
    "a woman of 45 in a red coat, 1920s style",
    "8k, 35mm f/1.8, ISO 400, 1024x1024, v1.5",
    "two people @ a table at 10:30",
    "may the rose be red in june",
]


@pytest.fixture(scope="module")
def scrubber(tmp_path_factory: pytest.TempPathFactory) -> Scrubber:
    """A spaCy pipeline with a list of names: spaCy's own are not on the package index."""
    folder = tmp_path_factory.mktemp("pipeline") / "names"
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Zoë Kravchenko"}])
    nlp.to_disk(folder)
    return Scrubber(str(folder))


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_go_wherever_they_stand_and_are_counted(scrubber: Scrubber, kind: str) -> None:
    for secret in SECRETS[kind]:
        for frame in FRAMES:
            text, removed = scrubber(frame.format(secret), "Maria_Lopez")
            assert removed == {kind: 1}, (secret, frame, removed)
            left = text.replace(SOMEBODY, "")
            assert {*re.findall(r"\w+", left)} <= {*re.findall(r"\w+", frame), "s"}, (secret, text)
            assert kind != "name" or SOMEBODY in text


@pytest.mark.parametrize("caption", HARMLESS)
@pytest.mark.parametrize("label", [None, "n000012", "35", "Maria_Lopez"])
def test_other_captions_stay(scrubber: Scrubber, caption: str, label: str | None) -> None:
    assert scrubber(caption, label) == (caption, {})


def test_a_set_holds_no_secret_and_reports_counts_only(
    scrubber: Scrubber, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    save(portrait(), tmp_path / "photos" / "Maria_Lopez" / "1.png")
    caption = tmp_path / "photos" / "Maria_Lopez" / "1.txt"
    caption.write_text("Maria Lopez with Zoë Kravchenko, maria@example.org, born 3 April 1990")
    output = tmp_path / "set"
    kept = make_set(tmp_path / "photos", output)
    assert kept.scrubbed == {}
    manifest = make_set(tmp_path / "photos", output, scrub=scrubber.model)  # the shard is made again
    assert manifest.scrubbed == {"date": 1, "email": 1, "name": 2}
    assert index(output)["caption"].to_pylist() == ["a person with a person"]
    with tarfile.open(output / "000000.tar") as tar:
        member = tar.extractfile("000000000000.json")
        assert member is not None
        assert json.load(member)[0]["caption"] == "a person with a person"
    assert "Removed from captions: 1 date, 1 email, 2 name." in told(manifest)
    printed = caplog.text + "".join(capsys.readouterr()) + told(manifest)
    assert not any(secret in printed for secret in ("Kravchenko", "maria@", "1990"))


def test_what_is_missing_is_said_before_anything_is_read(tmp_path: Path) -> None:
    save(portrait(), tmp_path / "photos" / "anna" / "1.png")
    with pytest.raises(MissingDependencyError, match="spacy download no_such_pipeline"):
        make_set(tmp_path / "photos", tmp_path / "set", scrub="no_such_pipeline")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(DataError, match="recognises no names"):
        make_set(tmp_path / "photos", tmp_path / "set", scrub=str(tmp_path / "blank"))
    assert not (tmp_path / "set").exists()
