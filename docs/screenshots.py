"""Take the screenshots of the demo again.

    python docs/screenshots.py [--eval-encoder imagenet:FILE.onnx]

Starts `idgen demo`, visits it with Chromium as on a desk and on a phone, and writes docs/images/demo/. The photo is
NASA's of Eileen Collins (public domain); the other people are invented. Takes about five minutes on two
cores, half of them for a training of ten updates and an evaluation to show. `--eval-encoder` names a second face
encoder to judge by, as for `idgen demo`.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import tyro
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from skimage import data

from idgen.faces import DlibEncoder

OUTPUT = Path(__file__).parent / "images" / "demo"
IDGEN = str(Path(sys.executable).with_name("idgen"))
PORT = 7899
WAIT = 120_000
"""Milliseconds, at most."""

SETTLED = 3000
"""Milliseconds: plots and editors say nowhere that they are ready."""

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 1210}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
SEED = 2
"""One of the better ones; the small model draws worse faces too."""


def main(eval_encoder: str | None = None) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    judge = () if eval_encoder is None else ("--eval-encoder", eval_encoder)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        work = Path(folder)
        make_people(work)
        make_records(work, judge)
        browser = driver.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        with serve(work, judge):
            visit_desk(browser.new_context(**DESK).new_page(), work)
            visit_phone(browser.new_context(**PHONE).new_page(), work)
        browser.close()


def make_people(work: Path) -> None:
    """Write the photo, and crops of it as a training set."""
    photo = Image.fromarray(data.astronaut())
    photo.save(work / "eileen.png")
    (work / "people" / "eileen").mkdir(parents=True)
    for i, left in enumerate((110, 118, 126)):
        photo.crop((left, 0, left + 240, 240)).save(work / "people" / "eileen" / f"{i}.png")
    photo.crop((130, 15, 320, 205)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(work / "pose.png")


def make_records(work: Path, judge: tuple[str, ...]) -> None:
    """Write a training run and a report."""
    shares = ("--test-share", "0", "--validation-share", "0")
    command("prepare", "people", "--output", "shards", "--engine", "inprocess", *shares, work=work)
    size = ("--resolution", "64", "--max_train_steps", "10")
    command("train", "denoise", "--train_data_dir", "shards", "--output_dir", "run", *size, work=work)
    judges = ("--eval-encoder", DlibEncoder.name, *judge[1:])
    drawing = ("--identities", "people", "--prompts", "tiny", "--guidance-scale", "3")
    command("evaluate", *drawing, "--output", "report", *judges, work=work)


def command(*words: str, work: Path) -> None:
    print("idgen", *words, flush=True)
    subprocess.run([IDGEN, *words], cwd=work, check=True)


@contextmanager
def serve(work: Path, judge: tuple[str, ...]) -> Iterator[None]:
    words = ("demo", "--port", str(PORT), "--run", "run", "--report", "report", *judge)
    server = subprocess.Popen([IDGEN, *words], cwd=work)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield
    finally:
        server.terminate()
        server.wait()


def visit_desk(page: Page, work: Path) -> None:
    open_page(page)
    enroll(page, work / "eileen.png", "Eileen")
    set_seed(page)
    generate(page, "Generate", images=1)
    show(page, "generate", whole=False)
    for tab in ("Training", "Report"):
        open_tab(page, tab)
        show(page, tab)
    open_tab(page, "Compare")
    generate(page, "Compare", images=4)
    show(page, "compare")
    open_tab(page, "Pose")
    page.set_input_files("[role=tabpanel]:visible input[type=file]", work / "pose.png")
    page.wait_for_timeout(SETTLED)
    generate(page, "Generate in this pose", images=1)
    show(page, "pose")
    open_tab(page, "Edit")
    paint_face(page, work / "pose.png")
    generate(page, "Inpaint painted area", images=1)
    show(page, "edit")
    open_tab(page, "Protect")
    page.set_input_files("[role=tabpanel]:visible input[type=file]", work / "eileen.png")
    generate(page, "Protect", images=2)
    show(page, "protect")
    page.locator("#examples").get_by_role("button", name="Ada").click()
    expect(page.locator("#person input")).to_have_value("Ada", timeout=WAIT)
    open_tab(page, "Several people")
    generate(page, "Generate these people", images=1)
    show(page, "several")


def visit_phone(page: Page, work: Path) -> None:
    open_page(page)
    page.locator("#examples").get_by_role("button", name="Astronaut").tap()
    expect(page.locator("#person input")).to_have_value("Astronaut", timeout=WAIT)
    set_seed(page)
    generate(page, "Generate", images=1)
    page.evaluate("document.querySelector('#tabs-panel').scrollIntoView()")
    show(page, "phone", whole=False)


def open_page(page: Page) -> None:
    page.set_default_timeout(WAIT)
    page.goto(f"http://127.0.0.1:{PORT}")


def set_seed(page: Page) -> None:
    page.fill("#seed :is(input, textarea)", str(SEED))


def enroll(page: Page, photo: Path, name: str) -> None:
    page.set_input_files("#photos input[type=file]", [photo])
    page.get_by_label("Everyone in these photos").check()
    expect(page.locator("#faces img").first).to_be_visible(timeout=WAIT)
    page.fill("#name input, #name textarea", name)
    page.click("#enroll")
    expect(page.locator("#person input")).to_have_value(name, timeout=WAIT)


def paint_face(page: Page, photo: Path) -> None:
    """Paint over the middle of an image, line by line."""
    with page.expect_file_chooser() as chooser:
        page.locator("#editor").get_by_text("Upload an image").click()
    chooser.value.set_files(photo)
    page.wait_for_timeout(SETTLED)
    page.locator("#editor button[aria-label*=rush], #editor button[title*=rush]").first.click()
    box = page.locator("#editor canvas").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for down in range(-60, 91, 15):
        page.mouse.move(x - 50, y + down)
        page.mouse.down()
        page.mouse.move(x + 50, y + down, steps=2)
        page.mouse.up()


def open_tab(page: Page, name: str) -> None:
    """Open a tab; a narrow page has most of its tabs behind a button."""
    tab = page.get_by_role("tab", name=name).first
    if tab.is_visible():
        tab.click()
    else:
        page.get_by_label("More tabs").click()
        page.locator(".overflow-dropdown button", has_text=name).click()


def generate(page: Page, button: str, images: int) -> None:
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator("[role=tabpanel]:visible .images img")).to_have_count(images, timeout=WAIT)


def show(page: Page, name: str, whole: bool = True) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(SETTLED)
    file = OUTPUT / f"{name.lower()}.webp"
    Image.open(io.BytesIO(page.screenshot(full_page=whole))).save(file, quality=90, method=6)
    print(file, flush=True)


if __name__ == "__main__":
    tyro.cli(main)
