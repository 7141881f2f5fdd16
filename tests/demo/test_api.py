"""The page's functions, called by a client as its API."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from gradio_client import handle_file
from PIL import Image, ImageOps

from idgen import Identity, ScaleSchedule
from idgen.faces import DlibEncoder
from idgen.provenance import read_settings
from tests.components import SIDE
from tests.demo.conftest import Served, enroll_random, gallery, wait_until

QUICK = {"steps": 3, "style": "As written", "seed": 0, "guidance_scale": 3.0}


def pixels(served: Served, shown: list[dict[str, Any]]) -> list[np.ndarray]:
    return [np.asarray(Image.open(served.path(each["image"]))) for each in shown]


def draw_directly(served: Served, identity: Identity, seed: int = 0, scale: Any = 0.8, **more: Any) -> np.ndarray:
    arguments = {"num_inference_steps": 3, "guidance_scale": 3.0, "width": SIDE, "height": SIDE} | more
    with served.backend.pipeline._turns.turn:
        image = served.pipe(
            "a face",
            id_embeds=identity,
            id_scale=scale,
            negative_prompt="",
            generator=[torch.Generator().manual_seed(seed)],
            **arguments,
        ).images[0]
    return np.asarray(image)


def test_draws_what_the_pipeline_draws(served: Served, client: Any, eileen: Path, tmp_path: Path) -> None:
    found, chosen = client.predict(gallery(eileen), True, api_name="/find_faces")
    assert chosen == [0]
    assert [face["caption"] for face in found] == ["✓ face 1"]
    name, saved = client.predict(gallery(eileen), [], "Eileen", True, api_name="/enroll")
    assert name == "Eileen"
    enrolled = Identity.load(served.path(saved))
    assert torch.equal(enrolled.embeddings, served.pipe.encode_identity(str(eileen)).embeddings)

    settings = QUICK | {"prompt": "a face", "count": 2, "seed": 5, "id_scale": 1.0, "start": 0.2}
    shown, table = client.predict("Eileen", **settings, api_name="/generate")
    schedule = ScaleSchedule(scale=1.0, start=0.2)
    for i, drawn in enumerate(pixels(served, shown)):
        expected = draw_directly(served, enrolled, scale=schedule, seed=5 + i)
        assert np.abs(drawn.astype(int) - expected).max() <= 1  # two at once, and alone
    assert [row[:3] for row in table["data"]] == [[1, "Eileen", DlibEncoder.name], [2, "Eileen", DlibEncoder.name]]

    second = served.path(shown[1]["image"])
    told = read_settings(second)
    assert told is not None
    assert (told["base"], told["seed"], told["start"]) == ("random", 6, 0.2)
    restored = client.predict(handle_file(str(second)), api_name="/read_settings")
    again, _ = client.predict("Eileen", *restored, api_name="/generate")
    assert np.abs(pixels(served, again)[0].astype(int) - pixels(served, shown)[1]).max() <= 1


def test_a_face_of_several_must_be_chosen(served: Served, client: Any, group_photo: Path, eileen: Path) -> None:
    photos = gallery(group_photo, eileen)
    found, chosen = client.predict(photos, True, api_name="/find_faces")
    assert chosen == [-1, 0]
    assert len(found) == 7
    assert found[6]["caption"] == "✓ photo 2"
    with pytest.raises(Exception, match="6 faces were found in photo 1"):
        client.predict(photos, chosen, "", True, api_name="/enroll")
    name, saved = client.predict(gallery(group_photo), [3], "", True, api_name="/enroll")
    assert name == "Person 1"
    expected = served.pipe.encode_identity(str(group_photo), face=3).embeddings
    assert torch.allclose(Identity.load(served.path(saved)).embeddings, expected)


def test_invalid_requests_raise_clear_errors(client: Any, eileen: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(eileen.read_bytes()[:9000])
    Image.new("RGB", (64, 64)).save(tmp_path / "empty.png")
    Image.new("1", (8000, 6000)).save(tmp_path / "huge.png")
    Identity.random("other", 8).save(tmp_path / "other.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"12345678")
    client.predict(gallery(eileen), [], "Eileen", True, api_name="/enroll")
    client.predict(handle_file(str(tmp_path / "other.safetensors")), "Other", api_name="/load_identity")

    def draw(person: str = "Eileen", **settings: Any) -> tuple[str, tuple, dict[str, Any]]:
        return "/generate", (person,), QUICK | settings

    def enroll(*photos: Path, faces: Any = (), name: str = "", consent: bool = True) -> tuple[str, tuple, dict]:
        return "/enroll", (gallery(*photos), list(faces), name, consent), {}

    wrong = [
        (enroll(eileen, consent=False), "has agreed"),
        (enroll(), "Upload a photo first"),
        (enroll(tmp_path / "text.png"), "'text.png' is not a picture"),
        (enroll(tmp_path / "cut.png"), "'cut.png' is truncated"),
        (enroll(tmp_path / "empty.png"), "No face was found"),
        (enroll(tmp_path / "huge.png"), "8000 × 6000 pixels"),
        (enroll(*[eileen] * 9), "At most 8 photos"),
        (enroll(eileen, faces=[1]), "There is no face 1 in the photo"),
        (enroll(eileen, faces=[0, 0]), "each of the 1 photos"),
        (enroll(eileen, name="x" * 41), "at most 40 letters"),
        (
            ("/load_identity", (handle_file(str(tmp_path / "bad.safetensors")), ""), {}),
            "^'bad.safetensors' cannot be read",
        ),
        (("/read_settings", (handle_file(str(eileen)),), {}), "holds no settings"),
        (draw("Anna<b>"), "Unknown person 'Anna&lt;b&gt;'"),
        (draw("Other"), "'other'"),
        (draw(prompt=" "), "Write a prompt"),
        (draw(prompt="<id> in the rain"), "no pseudo-words"),
        (draw(start=0.8, end=0.2), "start must be below end"),
        (draw(width=18), "in steps of 4"),
        (draw(adapter="/etc"), "not in the list of choices"),
    ]
    for (name, values, settings), message in wrong:
        with pytest.raises(Exception, match=message):
            client.predict(*values, **settings, api_name=name)
    assert client.predict("Eileen", **QUICK, api_name="/generate")[0]  # the page goes on


def test_a_new_page_has_no_people(client: Any) -> None:
    with pytest.raises(Exception, match="No person is enrolled"):
        client.predict("Eileen", api_name="/generate")


def test_many_at_once_get_their_own_faces(served: Served, tmp_path: Path) -> None:
    visitors, each = 3, 3
    clients = [served.client() for _ in range(visitors)]
    people, jobs = {}, {}
    for v, visitor in enumerate(clients):
        for n in range(each):  # the same names on every page
            people[v, n] = enroll_random(visitor, tmp_path, seed=100 * v + n, name=f"Person {n}")
    for n in range(each):
        for v, visitor in enumerate(clients):
            jobs[v, n] = visitor.submit(f"Person {n}", **(QUICK | {"steps": 1}), api_name="/generate")
    drawn = {key: pixels(served, job.result(timeout=120)[0])[0] for key, job in jobs.items()}
    for key, person in people.items():
        alone = draw_directly(served, person, num_inference_steps=1)
        assert np.abs(drawn[key].astype(int) - alone).max() <= 1, key  # the last bits differ in a call that is shared
    assert len({picture.tobytes() for picture in drawn.values()}) == visitors * each
    for visitor in clients:
        visitor.close()


def test_requests_are_answered_in_the_order_in_which_they_come(
    served: Served, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll_random(client, tmp_path, seed=1, name="Anna")
    answered: list[int] = []
    save_result = served.backend.save_result

    def note(number: int, picture: Any, settings: Any, *rest: Any) -> Any:
        answered.append(settings.seed)
        return save_result(number, picture, settings, *rest)

    monkeypatch.setattr(served.backend, "save_result", note)
    jobs = []
    for seed in range(12):
        jobs.append(client.submit("Anna", **(QUICK | {"seed": seed}), api_name="/generate"))
        while jobs[-1].status().code.name in ("STARTING", "JOINING_QUEUE"):
            time.sleep(0.01)
    for job in jobs:
        job.result()
    assert all(abs(place - seed) < 8 for place, seed in enumerate(answered))  # two shared calls; see test_batching.py


def test_stop_ends_a_picture_within_two_steps(served: Served, client: Any, tmp_path: Path) -> None:
    enroll_random(client, tmp_path, seed=1, name="Anna")
    forwards = []
    handle = served.pipe.unet.register_forward_hook(lambda *_: forwards.append(time.sleep(0.05)))
    try:
        job = client.submit("Anna", **(QUICK | {"steps": 100}), api_name="/generate")
        while len(forwards) < 5:
            time.sleep(0.01)
        assert client.predict(api_name="/stop") == "Stopped."
        stopped_at = len(forwards)
        with pytest.raises(Exception, match="Stopped"):
            job.result(timeout=30)
        assert len(forwards) <= stopped_at + 2
    finally:
        handle.remove()
    assert client.predict(api_name="/stop") == "Nothing is being generated."
    assert served.pipe.id_adapters["default"].scale == 1.0  # the scale of the call ended with it
    shown, _ = client.predict("Anna", **QUICK, api_name="/generate")
    identity = Identity.load(tmp_path / "1.safetensors")
    assert np.array_equal(pixels(served, shown)[0], draw_directly(served, identity))


def test_no_file_from_elsewhere(served: Served, eileen: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.safetensors"
    Identity.random(DlibEncoder.name, 128).save(secret)
    api = f"{served.url}gradio_api"

    def answer(endpoint: str, *data: Any) -> str:
        event = httpx.post(f"{api}/call/{endpoint}", json={"data": data}).json()["event_id"]
        return httpx.get(f"{api}/call/{endpoint}/{event}", timeout=30).text

    def file(path: Any) -> dict[str, Any]:
        return {"path": str(path), "meta": {"_type": "gradio.FileData"}}

    [sent] = httpx.post(f"{api}/upload", files={"files": secret.open("rb")}).json()
    assert "event: complete" in answer("load_identity", file(sent), "Anna")
    assert httpx.get(f"{api}/file={sent}").status_code == 200

    def refused(endpoint: str, *data: Any) -> bool:
        answer = httpx.post(f"{api}/call/{endpoint}", json={"data": data})
        return answer.status_code == 400 and "Upload files first" in answer.text

    outside = [secret, served.folder / ".." / secret.parent.name / secret.name, f"file://{secret}"]
    for path in outside:
        assert refused("load_identity", file(path), "Anna")
        assert refused("find_faces", [{"image": file(path), "caption": None}], True)
    for path in (*outside, eileen, "/etc/passwd", Path.cwd() / "pyproject.toml"):
        assert httpx.get(f"{api}/file={path}").status_code == 403


def test_too_large_a_file_is_refused(client: Any, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(21 * 2**20))
    with pytest.raises(Exception, match=r"413|[Mm]aximum"):
        client.predict(gallery(tmp_path / "large.png"), True, api_name="/find_faces")


def test_nothing_is_kept_once_the_page_is_closed(served: Served, eileen: Path, tmp_path: Path) -> None:
    photo = tmp_path / "own.png"
    ImageOps.mirror(Image.open(eileen)).save(photo)
    before = set(served.files())
    first, second = served.client(), served.client()
    for client in (first, second):
        _, kept = client.predict(gallery(photo), [], "Eileen", True, api_name="/enroll")
    shown, _ = first.predict("Eileen", **QUICK, api_name="/generate")
    assert served.path(shown[0]["image"]).is_file()
    new = set(served.files()) - before
    assert len(new) == 5  # two photos, two identities and a picture
    first.close()
    wait_until(lambda: len(new & set(served.files())) == 2)  # a closed page is forgotten first, and then its files
    assert {file.name for file in new & set(served.files())} == {"own.png", "Eileen.safetensors"}
    assert served.path(kept).is_file()
    assert first.session_hash not in served.backend.sessions
    second.close()
    wait_until(lambda: not new & set(served.files()))
    assert second.session_hash not in served.backend.sessions
    third = served.client()
    third.session_hash = first.session_hash  # a client that knows the address of the closed page
    with pytest.raises(Exception, match="No person is enrolled"):
        third.predict("Eileen", api_name="/generate")
    third.close()
