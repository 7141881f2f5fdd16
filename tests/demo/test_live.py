"""Progress of a request, and what the page shows when it has ended."""

from __future__ import annotations

import time

import pandas as pd
import pytest
from PIL import Image

from idgen.demo.backend import COLUMNS
from idgen.demo.generation import STYLES, GenerationSettings
from idgen.demo.live import LiveCall, OnStep, Progress
from idgen.demo.panel import finished, stopped
from idgen.demo.settings_panel import SMALL_EXAMPLES
from idgen.errors import DemoError
from idgen.faces import DlibEncoder, EncoderStatistics
from idgen.tiny.usage import usage_of


def test_the_steps_come_with_previews_and_the_time_left() -> None:
    def work(on_step: OnStep) -> str:
        for done in range(1, 6):
            time.sleep(0.25)
            on_step(done, 5, lambda: Image.new("RGB", (8, 8)))
        return "result"

    call = LiveCall(work)
    steps = list(call)
    assert call.result == "result"
    assert [step.done for step in steps] == [1, 2, 3, 4, 5]
    assert steps[0].preview is not None
    assert steps[0].seconds_left is None
    left = [step.seconds_left or 0 for step in steps[1:]]
    assert left == sorted(left, reverse=True)
    assert left[0] == pytest.approx(0.75, abs=0.5)
    assert left[-1] == 0


def test_an_error_of_the_call_is_raised() -> None:
    def fail(on_step: OnStep) -> None:
        on_step(1, 2, lambda: None)
        raise DemoError("no")

    with pytest.raises(DemoError, match="no"):
        list(LiveCall(fail))


def test_progress_in_words() -> None:
    assert Progress(7, 25, 3.4).text == "Step 7 of 25 · about 3 s left"
    assert Progress(1, 25).text == "Step 1 of 25"
    assert Progress(2, 99, 400).text == "Step 2 of 99 · about 7 min left"


def test_bars_have_the_threshold_and_what_strangers_have() -> None:
    table = pd.DataFrame(
        [[1, "<b>", DlibEncoder.name, 0.95], [1, "B", "unknown", 0.3], [1, "C", "x", None]], columns=COLUMNS
    )
    shown = finished(1, 7, 2.0, ["rain"], table)
    statistics = EncoderStatistics.of(DlibEncoder.name)
    assert f"{statistics.threshold(1e-3):.2f} (line)" in shown
    assert f"strangers have {statistics.impostor.mean:.2f}" in shown
    assert shown.count('class="threshold"') == 1
    assert "no statistics of this encoder are known" in shown
    assert "No face was found" in shown
    assert "<b>" not in shown
    assert "rain" in shown
    assert "1 image in 2 s, seed 7." in shown
    below = finished(1, 7, 2.0, [], table.assign(cosine=0.9))
    assert "below the threshold" in below
    assert "do not" not in below


def test_stop_leaves_results_that_are_shown() -> None:
    assert "Stopped" in str(stopped(Progress(1, 2).html))
    assert stopped("<p>1 image</p>") == "<p>1 image</p>"


def test_the_built_in_model_knows_the_words_of_styles_and_examples() -> None:
    usage = usage_of("tiny")
    for text in (*STYLES.values(), *SMALL_EXAMPLES):
        assert not usage.unknown_words(text.replace("{}", "<id>"))
    assert usage.unknown_words("<id> in the rain, Rain") == ["rain"]


def test_seeds_are_random_unless_one_is_given() -> None:
    assert len({GenerationSettings(prompt="a face").seed for _ in range(20)}) > 10
    for empty in (None, "", " "):
        assert GenerationSettings(prompt="a face", seed=empty).seed >= 0  # pyright: ignore[reportArgumentType]
    for given in (7, 7.0, "7", " 7 "):
        assert GenerationSettings(prompt="a face", seed=given).seed == 7  # pyright: ignore[reportArgumentType]
    for wrong in ("seven", "-1", 2**32, 0.5):
        with pytest.raises(DemoError, match="seed"):
            GenerationSettings(prompt="a face", seed=wrong)  # pyright: ignore[reportArgumentType]
