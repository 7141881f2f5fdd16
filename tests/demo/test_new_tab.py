"""A tab is one file and one row; nothing else changes when one is added."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from idgen.demo import tabs
from idgen.demo.backend import Backend, GenerationRequest, Results
from idgen.demo.components import results
from idgen.demo.page import Page
from idgen.faces import DlibEncoder
from tests.components import make_adapter, make_pipeline
from tests.demo.conftest import enroll_random


def build(page: Page, tab: gr.Tab) -> None:
    word = gr.Textbox("a face", label="Word")
    page.api(gr.Button("Repeat").click, repeat, [word], gr.Textbox(visible=False))
    page.generates(gr.Button("Draw twice").click, draw_twice, [page.person, word], results(page))


def repeat(backend: Backend, word: str) -> str:
    return f"{word} {word} by {', '.join(backend.pipeline.adapters)}"


def draw_twice(request: GenerationRequest, person: str, word: str) -> Results:
    once, scores = request.generate("text-to-image", [request.session.person(person)])
    return [*once, (once[0][0], word)], scores


def test_a_new_tab_is_in_the_page_and_the_api(serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    rows = [tabs.Tab("New", build), tabs.Tab("Unavailable", build, lambda backend: bool(backend.runs))]
    monkeypatch.setattr(tabs, "TABS", [*tabs.TABS, *rows])
    pipe = make_pipeline()
    pipe.load_id_adapter(make_adapter(pipe.unet, encoder=DlibEncoder.name, embedding_dim=128))
    served = serve(pipe)
    titles = [block.label for block in served.demo.blocks.values() if isinstance(block, gr.Tab)]
    always = ["Generate", "Several people", "Pose", "Mix", "Attributes", "Edit", "Swap", "Compare", "Protect"]
    assert titles == [*always, "New"]
    client = served.client()
    assert client.predict("x", api_name="/repeat") == "x x by default"
    enroll_random(client, tmp_path, seed=1, name="Anna")
    images, table = client.predict("Anna", "again", steps=1, seed=3, style="As written", api_name="/draw_twice")
    assert [image["caption"] for image in images] == ["seed 3", "again"]
    assert table["data"][0][1] == "Anna"
    client.close()
