"""The page in a real browser, with the small model of the package and a real photo."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

import idgen
from idgen.faces import draw_keypoints
from idgen.provenance import read_settings
from idgen.tiny import TINY_IDENTITY_NET_PATH
from tests.demo.conftest import Served

playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright: not installed")
expect = playwright.expect

WAIT = 60_000
"""Milliseconds: the machine may have other work."""


@pytest.fixture(scope="module")
def served(serve: Any) -> Served:
    net = idgen.IdentityNet.from_pretrained(TINY_IDENTITY_NET_PATH)
    return serve(idgen.load_tiny(), base="tiny", identity_net=net)


@pytest.fixture(scope="module")
def eileen(astronaut: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of the size that a visitor's screen shows."""
    path = tmp_path_factory.mktemp("photos") / "eileen.png"
    Image.fromarray(astronaut).save(path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


SLOW_SCREEN = """
window.requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 200)
window.cancelAnimationFrame = clearTimeout
"""
"""Five frames per second: the editors draw all the time, and without a graphics card sixty frames take a core."""


@pytest.fixture(scope="module")
def open_page(served: Served, browser: Any) -> Any:
    """Open the page; it must send no request to another server and report no error."""

    @contextmanager
    def open_page(**options: Any) -> Iterator[Any]:
        asked, complaints = [], []
        context = browser.new_context(**options)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.add_init_script(SLOW_SCREEN)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(error))
        page.goto(served.url)
        page.locator("#generate").wait_for()
        yield page
        context.close()
        assert not [url for url in asked if not url.startswith((served.url, "data:", "blob:"))]
        assert not complaints

    return open_page


@pytest.fixture(scope="module")
def desk(open_page: Any) -> Iterator[Any]:
    """A page as wide as on a desk, which several tests use: opening it takes seconds."""
    with open_page(viewport={"width": 1280, "height": 1000}) as page:
        yield page


@pytest.fixture
def phone(open_page: Any) -> Iterator[Any]:
    with open_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True) as page:
        yield page


@pytest.fixture
def light(open_page: Any) -> Iterator[Any]:
    with open_page(viewport={"width": 1280, "height": 1000}, color_scheme="light") as page:
        yield page


def has_value(page: Any, selector: str, value: str) -> None:
    expect(page.locator(f"{selector} :is(input, textarea)").first).to_have_value(value, timeout=WAIT)


def add_example(page: Any, name: str) -> None:
    page.locator("#examples").get_by_role("button", name=name).click()
    has_value(page, "#person", name)


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).first.click()


def result(page: Any) -> Any:
    """The picture that the open tab shows, once it is complete."""
    page.locator("[role=tabpanel]:visible .panel").get_by_text("1 image in").wait_for()
    picture = page.locator("[role=tabpanel]:visible .images .grid-wrap img")
    expect(picture).to_have_count(1, timeout=WAIT)
    return picture


def seed_of(page: Any) -> str:
    result(page)
    return page.locator("[role=tabpanel]:visible .caption-label").inner_text().removeprefix("seed ").strip()


def file_of(served: Served, picture: Any) -> Path:
    """Where the server has what the page shows."""
    path = Path(unquote(picture.get_attribute("src").split("file=")[1]))
    assert path.is_relative_to(served.folder)
    return path


@contextmanager
def slow(served: Served, seconds: float) -> Iterator[list[int]]:
    """Each step takes longer, so that a test sees it also on a fast computer; yields a list with an entry for each."""
    forwards: list[int] = []

    def wait(*_: Any) -> None:
        forwards.append(1)
        time.sleep(seconds)

    handle = served.pipe.unet.register_forward_hook(wait)
    try:
        yield forwards
    finally:
        handle.remove()


def test_from_photos_to_a_person(desk: Any, group_photo: Path, eileen: Path, tmp_path: Path) -> None:
    """Consent is asked for each choice of photos. One error is shown at a time, without badges."""
    consent, faces = desk.get_by_label("Everyone in these photos"), desk.locator("#faces img")
    message = desk.locator(".toast-message-item:visible")
    expect(desk.locator("#photos").get_by_text("Click to Upload")).to_be_visible()
    expect(consent).to_be_hidden()
    Image.new("RGB", (64, 64)).save(tmp_path / "<b>empty.png")
    desk.set_input_files("#photos input[type=file]", str(tmp_path / "<b>empty.png"))
    consent.check()
    expect(message).to_contain_text("No face was found", timeout=WAIT)
    desk.locator("#photos button[aria-label=Clear], #photos button[title=Clear]").first.click()
    expect(consent).to_be_hidden(timeout=WAIT)

    desk.set_input_files("#photos input[type=file]", [str(group_photo), str(eileen)])
    expect(consent).not_to_be_checked(timeout=WAIT)
    expect(faces).to_have_count(0)
    consent.check()
    expect(faces).to_have_count(7, timeout=WAIT)
    desk.click("#generate")
    expect(message).to_contain_text("No person is enrolled", timeout=WAIT)
    desk.click("#enroll")
    expect(message).to_contain_text("6 faces were found in photo 1", timeout=WAIT)
    expect(message).to_have_count(1)
    expect(desk.locator("[data-testid=status-tracker] .error:visible")).to_have_count(0)
    desk.locator("#faces button:has(img)").nth(2).click()
    expect(desk.locator("#faces .caption-label").nth(2)).to_have_text("✓ photo 1", timeout=WAIT)
    desk.click("#enroll")
    has_value(desk, "#person", "Person 1")


def test_from_a_person_to_a_picture_and_back(served: Served, desk: Any, tmp_path: Path) -> None:
    """A live preview with the time left, a random seed that can be used again, and settings inside the image."""
    add_example(desk, "Ada")
    desk.fill("#prompt textarea, #prompt input", "<id> in the rain")
    with slow(served, 0.05):
        desk.click("#generate")
        desk.locator(".live img").wait_for()
        expect(desk.locator(".live")).to_contain_text(re.compile(r"Step \d+ of 25 · about \d+ s left"), timeout=WAIT)
    seed = seed_of(desk)
    expect(desk.locator(".live")).to_have_count(0)
    shown = desk.locator("[role=tabpanel]:visible .panel")
    expect(shown.locator(".warning")).to_contain_text("rain")
    expect(shown.locator(".similarity .threshold")).to_have_count(1)
    expect(shown.locator(".similarity")).to_contain_text("strangers have 0.83")
    desk.locator("#prompts button").first.click()
    has_value(desk, "#prompt", "<id>, looking to the left")

    result(desk).click()  # opens it, with a way to download it
    with desk.expect_download() as download:
        desk.locator("[role=tabpanel]:visible button[title=Download]").click()
    file = tmp_path / "picture.png"
    download.value.save_as(file)
    desk.keyboard.press("Escape")
    told = read_settings(file)
    assert told is not None
    assert (told["base"], told["prompt"], told["style"], str(told["seed"])) == (
        "tiny",
        "<id> in the rain",
        "Photo",
        seed,
    )

    has_value(desk, "#seed", "")
    desk.click("#last-seed")
    has_value(desk, "#seed", seed)
    desk.fill("#seed :is(input, textarea)", "")
    desk.get_by_text("More settings").click()
    desk.set_input_files("#restore input[type=file]", str(file))
    has_value(desk, "#seed", seed)
    has_value(desk, "#prompt", "<id> in the rain")
    desk.fill("#prompt textarea, #prompt input", "<id>")
    desk.fill("#seed :is(input, textarea)", "")


def test_stop(served: Served, desk: Any) -> None:
    add_example(desk, "Ben")
    open_tab(desk, "Generate")
    with slow(served, 0.2) as forwards:
        desk.click("#generate")
        desk.locator(".live img").wait_for()
        desk.click("#stop")
        expect(desk.get_by_text("Stopped.").first).to_be_visible(timeout=WAIT)
        drawn = len(forwards)
        desk.wait_for_timeout(1500)
        assert len(forwards) <= min(drawn + 2, 24)


def test_pose_by_five_clicks(desk: Any, served: Served) -> None:
    page = desk
    open_tab(page, "Pose")
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
        drawn = np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.NEAREST), int)
    expected = draw_keypoints(128 * np.array([places]), (128, 128)).astype(int)
    for colour in range(3):  # a click has whole pixels of the screen
        a, b = (centre(picture[..., colour]) for picture in (drawn, expected))
        assert np.abs(a - b).max() < 2


def centre(light: np.ndarray) -> np.ndarray:
    """Of a picture of one colour: row and column."""
    return np.array([np.average(places, weights=light) for places in np.indices(light.shape)])


def test_on_a_phone(phone: Any) -> None:
    """One column: person, prompt, button, image, settings. The image is in view once it is complete."""
    page = phone
    page.locator("#examples").get_by_role("button", name="Ada").tap()
    has_value(page, "#person", "Ada")
    places = [page.locator(name).bounding_box() for name in ("#photos", "#prompt", "#generate", "#last-seed")]
    assert places == sorted(places, key=lambda box: box["y"])
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in places)
    assert places[2]["y"] < 2 * 844  # the second screen, also with everything on the first that a photo needs
    page.locator("#generate").tap()
    assert result(page).bounding_box()["y"] < 844
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_keyboard_reaches_everything_in_order(desk: Any) -> None:
    page = desk
    open_tab(page, "Generate")
    page.locator("#examples button").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    has_value(page, "#person", "Ada")
    parts = ["examples", "person", "prompt", "prompts", "generate", "stop", "seed", "last-seed"]
    seen = [page.evaluate(PART_WITH_FOCUS, parts)]
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(PART_WITH_FOCUS, parts))
        if seen[-1] == "last-seed":
            break
    found = list(dict.fromkeys(filter(None, seen)))
    assert found == ["examples", "person", "prompt", "prompts", "stop", "generate", "seed", "last-seed"]


PART_WITH_FOCUS = "parts => parts.find(part => document.activeElement?.closest('#' + part)) ?? null"


def test_accessibility(light: Any) -> None:
    """axe-core finds nothing serious in any tab, with an image and an error shown. Only colours differ in the dark."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core comes with axe-playwright-python")
    page = light
    page.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text())
    page.click("#generate")  # an error
    page.locator(".toast-message-item").first.wait_for()
    found = in_light_and_dark(page)
    add_example(page, "Ada")
    page.click("#generate")
    result(page)
    page.get_by_text("More settings").click()
    page.get_by_text("Save, load or forget people").click()
    found += in_light_and_dark(page)
    for tab in page.get_by_role("tab").all():
        if tab.is_visible():
            tab.click()
            page.locator("[role=tabpanel]:visible").wait_for()
            found += in_light_and_dark(page, "[role=tabpanel]")
    assert not found, "\n".join(sorted(set(found)))


def in_light_and_dark(page: Any, part: str = "html") -> list[str]:
    """Serious findings of all rules in a part of the page, and of the contrast of colours in the dark theme."""
    found = page.evaluate(SERIOUS, [part, {}])
    page.evaluate("document.body.classList.add('dark')")
    found += page.evaluate(SERIOUS, [part, {"runOnly": ["color-contrast"]}])
    page.evaluate("document.body.classList.remove('dark')")
    return found


SERIOUS = """async ([part, rules]) => {
  const ending = document.getAnimations().filter(each => each.effect.getComputedTiming().endTime !== Infinity)
  ending.forEach(each => each.finish())
  return (await axe.run(part, {...rules, resultTypes: ["violations"]})).violations
    .filter(rule => ["serious", "critical"].includes(rule.impact))
    .flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 200)} ${node.failureSummary}`))
}"""
"""Serious and critical findings of axe-core, of text that has faded in."""


def test_several_people_with_the_default_settings(desk: Any) -> None:
    for name in ("Ada", "Ben"):
        add_example(desk, name)
    open_tab(desk, "Several people")
    desk.locator("#regions canvas").first.wait_for()
    desk.wait_for_timeout(1000)  # the editor says nowhere that it is ready
    desk.click("#generate-several")
    result(desk)
    expect(desk.locator("[role=tabpanel]:visible .similarity .row")).to_have_count(2)


def test_paint_over_a_picture(desk: Any, served: Served, eileen: Path) -> None:
    add_example(desk, "Astronaut")
    open_tab(desk, "Edit")
    desk.locator("#editor canvas").first.wait_for()
    desk.wait_for_timeout(1000)  # Gradio's editor fails on what comes before its scripts have run
    with desk.expect_file_chooser() as chooser:
        desk.locator("#editor").get_by_text("Upload an image").click()
    chooser.value.set_files(str(eileen))
    expect(desk.locator("#editor").get_by_text("Upload an image")).to_be_hidden(timeout=WAIT)
    desk.wait_for_timeout(1000)
    desk.locator("#editor button[aria-label*=rush], #editor button[title*=rush]").first.click()
    desk.locator("#editor canvas").first.scroll_into_view_if_needed()
    box = desk.locator("#editor canvas").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    desk.mouse.move(*middle)
    desk.mouse.down()
    desk.mouse.move(middle[0] + 20, middle[1] + 20, steps=5)
    desk.mouse.up()
    desk.click("#inpaint")
    with Image.open(file_of(served, result(desk))) as drawn, Image.open(eileen) as photo:
        before, after = (np.asarray(image.convert("RGB").resize((64, 64)), int) for image in (photo, drawn))
    changed = np.abs(after - before).max(-1) > 40
    assert 5 < changed.sum() < 2000
    assert not changed[:10].any()
