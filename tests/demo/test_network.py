"""Requests that the server refuses before any work is done, and the files that it keeps for each page."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import handle_file
from PIL import Image
from starlette.responses import PlainTextResponse

from idgen.demo.access import MAX_BODY, MAX_WAITING_PER_PAGE, RequestFilter
from idgen.demo.sessions import MAX_IDLE_SECONDS, Sessions
from idgen.demo.temp_folder import PREFIX, YOUNG, delete_dead_folders
from idgen.demo.uploads import MAX_UPLOAD
from tests.components import make_adapter, make_pipeline
from tests.demo.conftest import Served, enroll_random, gallery, wait_until
from tests.demo.folder_holder import hold_a_folder
from tests.processes import start

QUICK = {"style": "As written"}


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize("path", ["", "config", "gradio_api/info", "gradio_api/startup-events", "gradio_api/file=x"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1", "", "192.168.0.7", "a b"])
def test_another_host_is_refused(http: httpx.Client, host: str, path: str) -> None:
    assert http.get(path, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "http://localhost", "null", "x"])
@pytest.mark.parametrize("path", ["gradio_api/upload", "gradio_api/queue/join", "gradio_api/call/stop", "login"])
def test_pages_of_another_site_are_refused(http: httpx.Client, origin: str, path: str) -> None:
    assert http.post(path, headers={"Origin": origin}).status_code == 403


def test_the_page_itself_is_answered(served: Served, http: httpx.Client) -> None:
    port = httpx.URL(served.url).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST", f"[::1]:{port}"):
        assert http.get("config", headers={"Host": host}).status_code == 200
        assert http.get("config", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    ("listening", "allowed", "asked", "answered"),
    [
        ("127.0.0.1", (), "10.0.0.5:7860", False),
        ("127.0.0.1", ("Demo.Example",), "demo.example", True),
        ("10.0.0.5", (), "10.0.0.5:7860", True),
        ("10.0.0.5", (), "10.0.0.6:7860", False),
        ("0.0.0.0", (), "10.0.0.6:7860", True),
        ("0.0.0.0", (), "[fe80::1]:7860", True),
        ("0.0.0.0", (), "evil.example", False),
        ("::", (), "localhost:7860", True),
    ],
)
def test_accepted_host_names(listening: str, allowed: tuple[str, ...], asked: str, answered: bool) -> None:
    request_filter = RequestFilter(PlainTextResponse(), listening, allowed, MAX_UPLOAD)
    scope = {"type": "http", "path": "/", "headers": [(b"host", asked.encode())]}
    assert (request_filter.refusal(scope) is None) == answered


def test_the_server_fetches_nothing_for_visitors(http: httpx.Client, served: Served) -> None:
    for url in ("http://127.0.0.1:9/x", "https://evil.example/x"):
        for route in ("file", "proxy"):
            assert http.get(f"gradio_api/{route}={url}").status_code == 403
        picture = {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}
        answer = http.post("gradio_api/call/find_faces", json={"data": [[{"image": picture, "caption": None}], True]})
        assert (answer.status_code, "Upload files first" in answer.text) == (400, True)
    inside = {"path": None, "url": "data:image/png;base64,AAAA", "meta": {"_type": "gradio.FileData"}}
    answer = http.post("gradio_api/call/read_settings", json={"data": [inside]})
    assert (answer.status_code, "cannot contain a file" in answer.text) == (400, True)


def test_large_requests_are_refused_before_they_are_read(http: httpx.Client) -> None:
    for path, size in (("call/stop", MAX_BODY), ("upload", MAX_UPLOAD), ("component_server", MAX_UPLOAD)):
        connection = HTTPConnection(http.base_url.host, http.base_url.port, timeout=30)
        connection.putrequest("POST", f"/gradio_api/{path}")
        connection.putheader("Content-Length", str(size + 1))
        connection.endheaders()  # and no body
        assert connection.getresponse().status == 413
        connection.close()
    assert http.post("gradio_api/queue/join", content=iter([b"{}"])).status_code == 411  # of unknown length


def test_one_page_cannot_fill_the_queue(served: Served, client: Any, tmp_path: Path) -> None:
    other = served.client()
    for visitor in (client, other):
        enroll_random(visitor, tmp_path, seed=1, name="Anna")
    with served.backend.pipeline._turns.turn:  # nothing is drawn meanwhile
        jobs = [client.submit("Anna", steps=1, **QUICK, api_name="/generate") for _ in range(MAX_WAITING_PER_PAGE + 4)]
        wait_until(lambda: sum(job.done() for job in jobs) == 4)
        theirs = other.submit("Anna", steps=1, **QUICK, api_name="/generate")
        wait_until(lambda: other.session_hash in served.demo.queue_filter.waiting())
    for job in jobs:
        if error := job.exception():
            assert "Queue is full" in str(error)
    assert sum(job.exception() is None for job in jobs) == MAX_WAITING_PER_PAGE
    assert theirs.result()[0]
    other.close()


def png(width: int, height: int, value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def test_small_requests_do_not_cost_much(served: Served, client: Any, tmp_path: Path) -> None:
    """A file of 105 KB that holds 36 million pixels, wherever a picture is taken; many layers; many cells."""
    (tmp_path / "bomb.png").write_bytes(png(6000, 6000))
    (tmp_path / "small.png").write_bytes(png(64, 64))
    bomb, small = handle_file(str(tmp_path / "bomb.png")), handle_file(str(tmp_path / "small.png"))
    for name in ("Anna", "Bruno"):
        enroll_random(client, tmp_path, seed=1, name=name)
    empty = {"background": None, "layers": [], "composite": None, "id": None}
    wrong = [
        ("/several_people", (["Anna", "Bruno"], empty | {"composite": bomb})),
        ("/generate_pose", ("Anna", bomb)),
        ("/inpaint", ("Anna", empty | {"background": small, "layers": [small] * 5})),
        ("/compare", ("Anna", "0," * 1000 + "0", ["default"])),
        ("/landmarks", ([], [[1, 2]] * 5, 10_000, 10_000)),
    ]
    before, spent = peak_memory(), time.process_time()
    for endpoint, values in wrong:
        with pytest.raises(Exception, match=r"pixels|layers|compared|must be between|greater|list of choices"):
            client.predict(*values, api_name=endpoint)
    client.predict(
        "Anna", empty | {"background": bomb, "layers": [bomb] * 4}, steps=2, **QUICK, api_name="/image_to_image"
    )
    assert time.process_time() - spent < 10  # of one core
    assert peak_memory() - before < 600 * 2**20


def peak_memory() -> int:
    """Bytes that this process ever held at once, as Linux counts them."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_twelve_visitors_with_four_photos_come_and_go(served: Served, astronaut: np.ndarray, tmp_path: Path) -> None:
    """Each uploads one of four photos, is answered with their own face, and leaves at once."""
    photos = []
    for shade in range(4):
        photos.append(tmp_path / f"{shade}.png")
        pixels = np.clip(astronaut[:320, 64:384].astype(int) + 2 * shade, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).resize((160, 160)).save(photos[-1])  # small, since finding faces takes longest

    def visit(number: int) -> tuple[int, np.ndarray]:
        client = served.client()
        try:
            shown, chosen = client.predict(gallery(photos[number % 4]), True, api_name="/find_faces")
            assert chosen == [0]
            with Image.open(served.path(shown[0]["image"])) as crop:
                return number % 4, np.asarray(crop)
        finally:
            client.close()

    with ThreadPoolExecutor(8) as visitors:
        answers = list(visitors.map(visit, range(12)))
    crops = {photo: {crop.tobytes() for which, crop in answers if which == photo} for photo in range(4)}
    assert all(len(same) == 1 for same in crops.values())
    assert len(set.union(*crops.values())) == 4


def test_files_of_the_page_itself_are_kept(served: Served, tmp_path: Path) -> None:
    first, second = served.client(), served.client()
    own = {file for file in served.files() if not file.is_relative_to(served.backend.sessions.folder)}
    for client in (first, second):
        enroll_random(client, tmp_path, seed=1, name="Anna")
        enroll_random(client, tmp_path, seed=2, name="Bruno")
        client.predict(
            ["Anna", "Bruno"], steps=1, style="As written", api_name="/several_people"
        )  # halves, as at the start
        client.close()
        wait_until(lambda key=client.session_hash: key not in served.backend.sessions)
        assert own <= set(served.files())


def test_old_files_without_an_owner_are_deleted(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "visitors")
    session = sessions.open("one")
    owned, waiting, abandoned, new = (sessions.new_folder() / "a.png" for _ in range(4))
    sessions.keep(session, [owned])
    sessions.keep(sessions.open("two"), [waiting])
    sessions.open("two").last_used -= MAX_IDLE_SECONDS + 1
    for file in (owned, waiting, abandoned):
        os.utime(file.parent, (0, 0))
    sessions.tidy(waiting=["two"])
    assert [file.parent.exists() for file in (owned, waiting, abandoned, new)] == [True, True, False, True]
    sessions.open("one").last_used -= MAX_IDLE_SECONDS + 1
    sessions.tidy()
    assert "one" not in sessions
    assert "two" not in sessions
    assert [*sessions.folder.iterdir()] == [new.parent]


def test_folders_of_dead_demos_are_deleted_at_the_start(tmp_path: Path) -> None:
    process = start(hold_a_folder, str(tmp_path))
    wait_until(lambda: [*tmp_path.glob(f"{PREFIX}*/photo.png")])
    [folder] = tmp_path.glob(f"{PREFIX}*")
    os.utime(folder, (0, 0))
    delete_dead_folders(tmp_path)
    assert (folder / "photo.png").is_file()  # its program is alive
    process.kill()
    process.join()
    assert (folder / "photo.png").is_file()  # nothing can be done about SIGKILL
    young = time.time() - YOUNG + 30
    os.utime(folder, (young, young))
    delete_dead_folders(tmp_path)
    assert folder.is_dir()  # a new one may not have taken its lock yet
    os.utime(folder, (0, 0))
    delete_dead_folders(tmp_path)
    assert not folder.exists()


def test_a_password_is_required(serve: Any, eileen: Path) -> None:
    pipe = make_pipeline()
    pipe.load_id_adapter(make_adapter(pipe.unet, encoder="dlib-resnet-v1", embedding_dim=128))
    served = serve(pipe, launch={"auth": [("anna", "secret")]})
    with httpx.Client(base_url=served.url) as stranger:
        assert stranger.get("config").status_code == 401
        assert stranger.post("gradio_api/upload", files={"files": eileen.open("rb")}).status_code == 401
        assert stranger.post("gradio_api/call/stop", json={"data": []}).status_code == 401
        assert stranger.post("login", data={"username": "anna", "password": "wrong"}).status_code == 400
        assert stranger.post("login", data={"username": "anna", "password": "secret"}).status_code == 200
        [sent] = stranger.post("gradio_api/upload", files={"files": eileen.open("rb")}).json()
        assert stranger.get(f"gradio_api/file={sent}").status_code == 200
    assert httpx.get(f"{served.url}gradio_api/file={sent}").status_code == 401
