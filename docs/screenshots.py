"""Take the pictures of the running demo again: python docs/screenshots.py

Starts `idgen demo`, visits it with Chromium as on a desk and on a phone, and writes docs/images/demo/. The photo is
NASA's of Eileen Collins (public domain); everybody else is drawn by the small model. Takes some minutes, most of them
for a training of ten updates and an evaluation to show.
"""

from __future__ import annotations

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

import torch
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from skimage import data

from idgen.tiny import load_tiny_base

OUTPUT = Path(__file__).parent / "images" / "demo"
IDGEN = str(Path(sys.executable).with_name("idgen"))
PORT = 7899
WAIT = 120_000  # milliseconds
DESK: dict[str, Any] = {"viewport": {"width": 1200, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
COLOURS = 192
"""Of the files: enough for photos on a plain page, and a third of the size."""


def main() -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        work = Path(folder)
        make_photos(work)
        make_records(work)
        browser = driver.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        with serve(work):
            visit(browser.new_context(**DESK).new_page(), work, "desk")
            visit(browser.new_context(**PHONE).new_page(), work, "phone")
        browser.close()


def make_photos(work: Path) -> None:
    """Three crops of the one photo, as a set to train on; and somebody who does not exist."""
    photo = Image.fromarray(data.astronaut())
    photo.save(work / "eileen.png")
    (work / "people" / "eileen").mkdir(parents=True)
    for i, left in enumerate((110, 118, 126)):
        photo.crop((left, 0, left + 240, 240)).save(work / "people" / "eileen" / f"{i}.png")
    pipe: Any = load_tiny_base()
    generator = torch.Generator().manual_seed(3)
    nobody = pipe("a photo of a face", num_inference_steps=25, guidance_scale=3.0, generator=generator).images[0]
    nobody.resize((512, 512), Image.Resampling.BICUBIC).save(work / "nobody.png")


def make_records(work: Path) -> None:
    """A run and a report."""
    shares = ("--test-share", "0", "--validation-share", "0")
    command("prepare", "people", "--output", "shards", "--engine", "inprocess", *shares, work=work)
    size = ("--resolution", "64", "--max_train_steps", "10")
    command("train", "denoise", "--train_data_dir", "shards", "--output_dir", "run", *size, work=work)
    judge = ("--encoder", "dlib-resnet-v1")
    command("evaluate", "--identities", "people", "--prompts", "tiny", "--output", "report", *judge, work=work)


def command(*words: str, work: Path) -> None:
    print("idgen", *words, flush=True)
    subprocess.run([IDGEN, *words], cwd=work, check=True)


@contextmanager
def serve(work: Path) -> Iterator[None]:
    server = subprocess.Popen([IDGEN, "demo", "--port", str(PORT), "--run", "run", "--report", "report"], cwd=work)
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


def visit(page: Page, work: Path, name: str) -> None:
    page.set_default_timeout(WAIT)
    page.goto(f"http://127.0.0.1:{PORT}")
    page.get_by_label("Everybody in these photos").check()
    enroll(page, work / "nobody.png", "Nobody")
    page.locator("#photos button[aria-label*=lear]").first.click()
    expect(page.locator("#faces img")).to_have_count(0, timeout=WAIT)
    enroll(page, work / "eileen.png", "Eileen")
    draw(page, "Draw", pictures=1)
    show(page, f"{name}-picture")
    for tab, button, pictures in (
        ("Two people", "Draw both", 1),
        ("Pose", "", 0),
        ("Mix", "Draw somebody between", 1),
        ("Change a picture", "", 0),
        ("Compare", "Draw each", 4),
        ("Training", "", 0),
        ("Report", "", 0),
    ):
        open_tab(page, tab)
        if button:
            draw(page, button, pictures)
        show(page, f"{name}-{tab.lower().replace(' ', '-')}")


def enroll(page: Page, photo: Path, name: str) -> None:
    page.set_input_files("#photos input[type=file]", [photo])
    expect(page.locator("#faces img").first).to_be_visible(timeout=WAIT)
    page.fill("#name input, #name textarea", name)
    page.click("#use")
    expect(page.locator("#person input")).to_have_value(name, timeout=WAIT)


def open_tab(page: Page, name: str) -> None:
    """A narrow page has most of its tabs behind a button."""
    tab = page.get_by_role("tab", name=name).first
    if tab.is_visible():
        tab.click()
    else:
        page.get_by_label("More tabs").click()
        page.locator(".overflow-dropdown button", has_text=name).click()


def draw(page: Page, button: str, pictures: int) -> None:
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator("[role=tabpanel]:visible .pictures img")).to_have_count(pictures, timeout=WAIT)


def show(page: Page, name: str) -> None:
    page.wait_for_timeout(3000)  # plots and editors say nowhere that they are ready
    file = OUTPUT / f"{name}.png"
    page.screenshot(path=file, full_page=True)
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(COLOURS).save(file, optimize=True)
    print(file, flush=True)


if __name__ == "__main__":
    main()
