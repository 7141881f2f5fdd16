"""The page in a real browser, with the small model of the package and a real photo."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

import idgen
from idgen.faces import draw_keypoints
from idgen.provenance import read_settings
from tests.demo.conftest import Served

playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright: not installed")
expect = playwright.expect

WAIT = 60_000
"""Milliseconds: the machine may have other work."""


@pytest.fixture(scope="module")
def served(serve: Any) -> Served:
    return serve(idgen.load_tiny(), base="tiny")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(served: Served, browser: Any) -> Iterator[Any]:
    """Open the page; it must send no request to another server and report no error."""
    contexts, asked, complaints = [], [], []

    def open_page(**options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(error))
        page.goto(served.url)
        expect(page.locator("#generate")).to_be_visible(timeout=WAIT)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [url for url in asked if not url.startswith((served.url, "data:", "blob:"))]
    assert not complaints


def upload(page: Any, *photos: Path) -> None:
    page.get_by_label("Everyone in these photos").check()
    page.set_input_files("#photos input[type=file]", [str(photo) for photo in photos])
    expect(page.locator("#faces img").first).to_be_visible(timeout=WAIT)


def enroll(page: Any, photo: Path, name: str) -> None:
    upload(page, photo)
    page.fill("#name input, #name textarea", name)
    page.click("#enroll")
    expect(page.locator("#person input")).to_have_value(name, timeout=WAIT)


def result(page: Any) -> Any:
    """The picture that the open tab shows."""
    picture = page.locator("[role=tabpanel]:visible .grid-wrap img")
    expect(picture).to_have_count(1, timeout=WAIT)
    return picture


def file_of(served: Served, picture: Any) -> Path:
    """Where the server has what the page shows."""
    path = Path(unquote(picture.get_attribute("src").split("file=")[1]))
    assert path.is_relative_to(served.folder)
    return path


def test_from_a_photo_to_a_picture_and_back(open_page: Any, eileen: Path, tmp_path: Path) -> None:
    page = open_page()
    expect(page.locator("#photos")).to_be_hidden()  # until the box is ticked
    enroll(page, eileen, "Eileen")
    page.get_by_text("More settings").click()
    page.fill("#seed input", "7")
    page.click("#generate")
    expect(result(page)).to_be_visible()
    expect(page.locator("[role=tabpanel]:visible .caption-label")).to_contain_text("seed 7 ·")

    result(page).click()  # opens it, with a way to download it
    with page.expect_download() as download:
        page.locator("[role=tabpanel]:visible button[title=Download]").click()
    file = tmp_path / "picture.png"
    download.value.save_as(file)
    told = read_settings(file)
    assert told is not None
    assert (told["base"], told["prompt"], told["style"], told["seed"]) == ("tiny", "<id>", "Photo", 7)

    other = open_page()
    other.get_by_text("More settings").click()
    expect(other.locator("#seed input")).to_have_value("0", timeout=WAIT)
    other.set_input_files("#restore input[type=file]", str(file))
    expect(other.locator("#seed input")).to_have_value("7", timeout=WAIT)


def test_one_of_several_faces(open_page: Any, group_photo: Path, eileen: Path) -> None:
    page = open_page()
    upload(page, group_photo, eileen)
    expect(page.locator("#faces img")).to_have_count(7, timeout=WAIT)
    page.click("#enroll")
    error = page.locator(".toast-body.error, .toast-wrap .error").first
    expect(error).to_contain_text("6 faces were found in photo 1", timeout=WAIT)
    page.locator("#faces button:has(img)").nth(2).click()
    expect(page.locator("#faces .caption-label").nth(2)).to_have_text("✓ photo 1", timeout=WAIT)
    page.click("#enroll")
    expect(page.locator("#person input")).to_have_value("Person 1", timeout=WAIT)


def test_errors_are_shown(open_page: Any, tmp_path: Path) -> None:
    page = open_page()
    page.click("#generate")
    error = page.locator(".toast-body.error, .toast-wrap .error").first
    expect(error).to_contain_text("No person is enrolled", timeout=WAIT)
    Image.new("RGB", (64, 64)).save(tmp_path / "<b>empty.png")
    page.get_by_label("Everyone in these photos").check()
    page.set_input_files("#photos input[type=file]", str(tmp_path / "<b>empty.png"))
    expect(page.locator(".toast-wrap")).to_contain_text("No face was found", timeout=WAIT)


def test_stop(open_page: Any, served: Served, eileen: Path) -> None:
    page = open_page()
    enroll(page, eileen, "Eileen")
    page.get_by_text("More settings").click()
    page.fill("#steps input[type=number]", "100")
    forwards: list[int] = []

    def slow(*_: Any) -> None:
        forwards.append(1)
        time.sleep(0.2)  # or a busy machine's browser clicks when all is drawn

    handle = served.pipe.unet.register_forward_hook(slow)
    try:
        page.click("#generate")
        expect(page.get_by_text("/100 steps").first).to_be_visible(timeout=WAIT)
        page.click("#stop")
        expect(page.get_by_text("/100 steps").first).to_be_hidden(timeout=WAIT)
        page.wait_for_timeout(500)
        drawn = len(forwards)
        assert drawn < 100
        page.wait_for_timeout(1500)
        assert len(forwards) == drawn
    finally:
        handle.remove()
    page.fill("#steps input[type=number]", "3")
    page.click("#generate")
    expect(result(page)).to_be_visible()


def test_two_people_side_by_side(open_page: Any, eileen: Path) -> None:
    page = open_page()
    enroll(page, eileen, "Eileen")
    page.fill("#name input, #name textarea", "Again")
    page.click("#enroll")
    expect(page.locator("#person input")).to_have_value("Again", timeout=WAIT)
    page.get_by_role("tab", name="Two people").click()
    expect(page.locator("#regions canvas").first).to_be_visible(timeout=WAIT)
    page.wait_for_timeout(1000)  # the editor says nowhere that it is ready
    page.click("#generate-both")
    expect(result(page)).to_be_visible()


def test_paint_over_a_picture(open_page: Any, served: Served, eileen: Path) -> None:
    page = open_page()
    enroll(page, eileen, "Eileen")
    page.get_by_role("tab", name="Edit").click()
    page.locator("#editor canvas").first.wait_for()
    page.wait_for_timeout(2000)  # Gradio's editor fails on what comes before its scripts have run
    with page.expect_file_chooser() as chooser:
        page.locator("#editor").get_by_text("Upload an image").click()
    chooser.value.set_files(str(eileen))
    page.wait_for_timeout(3000)
    page.locator("#editor button[aria-label*=rush], #editor button[title*=rush]").first.click()
    box = page.locator("#editor canvas").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 20, middle[1] + 20, steps=5)
    page.mouse.up()
    page.click("#inpaint")
    with Image.open(file_of(served, result(page))) as drawn, Image.open(eileen) as photo:
        before, after = (np.asarray(image.convert("RGB").resize((64, 64)), int) for image in (photo, drawn))
    changed = np.abs(after - before).max(-1) > 40
    assert 5 < changed.sum() < 2000
    assert not changed[:10].any()


def test_pose_by_five_clicks(open_page: Any, served: Served) -> None:
    page = open_page()
    page.get_by_role("tab", name="Pose").click()
    canvas = page.locator("#pose img")
    places = [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)]
    for x, y in places:
        page.wait_for_function("document.querySelector('#pose img').naturalWidth > 0")
        before = canvas.get_attribute("src")
        box = canvas.bounding_box()
        side = min(box["width"], box["height"])  # the square in the middle of the element
        left, top = (box["width"] - side) / 2, (box["height"] - side) / 2
        canvas.click(position={"x": left + x * side, "y": top + y * side})
        expect(canvas).not_to_have_attribute("src", before, timeout=WAIT)
    with Image.open(file_of(served, canvas)) as image:
        drawn = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.NEAREST), int)
    expected = draw_keypoints(64 * np.array([places]), (64, 64)).astype(int)
    for colour in range(3):  # a click has whole pixels of the screen
        a, b = (centre(picture[..., colour]) for picture in (drawn, expected))
        assert np.abs(a - b).max() < 1


def centre(light: np.ndarray) -> np.ndarray:
    """Of a picture of one colour: row and column."""
    return np.array([np.average(places, weights=light) for places in np.indices(light.shape)])


def test_on_a_phone(open_page: Any, eileen: Path) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    enroll(page, eileen, "Eileen")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    prompt, draw = (page.locator(name).bounding_box() for name in ("#prompt", "#generate"))
    assert draw["y"] > prompt["y"] + prompt["height"]  # one column
    assert draw["x"] >= 0
    assert draw["x"] + draw["width"] <= 390
    page.locator("#generate").tap()
    expect(result(page)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
