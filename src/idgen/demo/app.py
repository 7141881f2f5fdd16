"""`build_demo`: the Gradio app."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..adapter import IdentityNet, Restorer
from ..faces import FaceAnalyzer, FaceEncoder
from ..provenance.options import MarkOptions
from . import tabs
from .access import MAX_WAITING, QueueFilter, RequestFilter
from .backend import Backend
from .generation import MAX_COUNT
from .header import header
from .page import Page
from .panel import stopped
from .people_panel import people_panel
from .pipeline import SharedPipeline
from .scores import Scorer
from .second_encoder import encoder_at_hand
from .sessions import MAX_IDLE_SECONDS, Session, Sessions
from .settings_panel import prompt_panel, settings_panel
from .temp_folder import temp_folder
from .uploads import MAX_FILE_BYTES, MAX_UPLOAD, upload_routes

TIDY_SECONDS = MAX_IDLE_SECONDS / 12
"""Seconds between two searches for closed pages and unused files."""

STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("style.css", "page.js"))


class Demo(gr.Blocks):
    """The app, with limits on requests however it is launched.

    Attributes:
        backend: Shared by all visitors.
        queue_filter: Checks which requests may join the queue.
    """

    backend: Backend
    queue_filter: QueueFilter

    def launch(self, *, allowed_hosts: Sequence[str] = (), **options: Any) -> Any:  # pyright: ignore
        """Launch as `gradio.Blocks.launch` does; nothing is shared, recorded or fetched from another server.

        Args:
            allowed_hosts: Host names that are accepted beside the one the server listens at, such as that of a reverse
                proxy.
            options: Gradio's options, such as `auth=[(name, password), …]`.
        """
        listening = options.get("server_name") or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
        middleware = Middleware(RequestFilter, listening=listening, allowed=allowed_hosts, max_upload=MAX_UPLOAD)
        threading.Thread(target=self._tidy, daemon=True).start()
        defaults: dict[str, Any] = {
            "app_kwargs": {"middleware": [middleware], "routes": upload_routes(self.backend.sessions)},
            "max_file_size": MAX_FILE_BYTES,
            "allowed_paths": [],
            "run_history": False,
            "share": False,
            "ssr_mode": False,
            "_frontend": False,  # on a busy computer Gradio's own request to the page times out, and it gives up
            "enable_monitoring": False,
            "footer_links": ["api"],
            "css_paths": [STYLE],
            "js": SCRIPT.read_text(encoding="utf-8"),
            "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        }
        return super().launch(**(defaults | options))

    def _tidy(self) -> None:
        while True:
            time.sleep(TIDY_SECONDS)
            self.backend.sessions.tidy(self.queue_filter.waiting())


def build_demo(
    pipe: Any,
    *,
    base: str = "",
    analyzer: FaceAnalyzer | None = None,
    eval_encoder: FaceEncoder | None = None,
    identity_net: IdentityNet | None = None,
    restorer: Restorer | None = None,
    marks: MarkOptions | None = None,
    runs: Sequence[Path] = (),
    reports: Sequence[Path] = (),
    batch_size: int = MAX_COUNT,
) -> Demo:
    """Build the app for a pipeline: `build_demo(pipe).launch()`.

    Args:
        pipe: A text-to-image pipeline with one or several identity adapters; visitors choose among these.
        base: Name of the base model, written into generated images.
        analyzer: Finds the faces in photos. Defaults to that of the first adapter's encoder.
        eval_encoder: Evaluation encoder: measures similarity beside the adapters' own encoders, and should be one that
            no adapter reads. Defaults to dlib's.
        identity_net: IdentityNet for poses.
        restorer: ControlNet that restores damaged faces, for the tab "Restore".
        marks: How generated images are marked, and who is refused.
        runs: Folders of training runs to show.
        reports: Folders of evaluation reports to show, with their photos.
        batch_size: Maximum of images in a call of the pipeline that requests with the same settings share.

    Raises:
        AdapterError: No adapter is loaded.
        MissingDependencyError: Watermarks are requested and their package is not installed.
    """
    pipeline = SharedPipeline(pipe, identity_net, batch_size, restorer)
    marks = marks or MarkOptions()
    marks.prepare(pipe)
    analyzer = analyzer or FaceAnalyzer.for_encoder(next(iter(pipeline.adapters.values())).config["encoder"])
    scorer = Scorer(analyzer.detector, _encoders(pipeline, analyzer, eval_encoder))
    folder = temp_folder()
    sessions = Sessions(folder / "visitors")
    backend = Backend(pipeline, analyzer, scorer, marks, sessions, base=base, runs=runs, reports=reports)
    demo = Demo(title="idgen", fill_width=True, analytics_enabled=False)
    demo.backend = backend
    with demo:
        _build_page(Page(backend))

        def close(request: gr.Request) -> None:
            sessions.close(request.session_hash)

        demo.unload(close)
    demo.queue(max_size=MAX_WAITING, api_open=False)
    demo.queue_filter = QueueFilter(demo._queue, sessions, folder)
    return demo


def _build_page(page: Page) -> None:
    """The parts in the order in which a phone shows them; on a wide page the tabs are beside the others."""
    gr.HTML(header(page.backend), elem_id="header")
    with gr.Row(elem_id="layout"):
        with gr.Column(elem_id="person-panel", min_width=0):
            newest = people_panel(page)
        with gr.Column(elem_id="prompt-panel", min_width=0):
            prompt_panel(page)
        tabs_column = gr.Column(elem_id="tabs-panel", min_width=0)
        with gr.Column(elem_id="settings-panel", min_width=0):
            settings_panel(page)
    with tabs_column:
        with gr.Row(elem_id="tabs-title"):
            gr.Markdown("## 3 · Generate")
            stop_button = gr.Button("Stop", size="sm", scale=0, min_width=80, elem_id="stop")
        with gr.Tabs():
            for tab in tabs.TABS:
                if tab.is_available(page.backend):
                    with gr.Tab(tab.title) as container:
                        tab.build(page, container)
    message = gr.Textbox(visible=False, label="message")
    done = page.api(stop_button.click, stop, [], message, queue=False, cancels=page.generations)
    update: Any = lambda *shown: [stopped(html) for html in shown]  # noqa: E731
    done.then(update, page.panels, page.panels, api_visibility="private", show_progress="hidden")
    page.update_dropdowns(newest)


def stop(session: Session) -> str:
    """Stop the requests of this page."""
    return "Stopped." if session.stop() else "Nothing is being generated."


def _encoders(
    pipeline: SharedPipeline, analyzer: FaceAnalyzer, eval_encoder: FaceEncoder | None
) -> Mapping[str, FaceEncoder]:
    """The adapters' encoders and an evaluation encoder: the given one, or else one that needs no download."""
    encoders = {analyzer.encoder.name: analyzer.encoder}
    for name in [adapter.config["encoder"] for adapter in pipeline.adapters.values()]:
        if name not in encoders:
            encoders[name] = FaceAnalyzer.for_encoder(name).encoder
    judge = eval_encoder or encoder_at_hand(encoders)
    return encoders if judge is None else {**encoders, judge.name: judge}
