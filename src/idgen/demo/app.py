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

from ..adapter import IdentityNet
from ..faces import DlibEncoder, FaceAnalyzer, FaceEncoder
from ..provenance.options import MarkOptions
from . import tabs
from .access import MAX_WAITING, QueueFilter, RequestFilter
from .backend import Backend
from .page import Page
from .people_panel import people_panel
from .pipeline import SharedPipeline
from .scores import Scorer
from .sessions import MAX_IDLE_SECONDS, Session, Sessions
from .settings_panel import settings_panel
from .temp_folder import temp_folder
from .uploads import MAX_FILE_BYTES, MAX_UPLOAD, upload_routes

TIDY_SECONDS = MAX_IDLE_SECONDS / 12
"""Seconds between two searches for closed pages and unused files."""

STYLE = """
.gradio-container > .main {max-width: 1440px; margin: 0 auto}
#photos .grid-wrap, #faces .grid-wrap {padding-top: 2rem; height: auto; min-height: 0; max-height: 17rem}
.images .grid-wrap {padding-top: 2rem; max-height: none; min-height: 0}
.images .thumbnail-item {aspect-ratio: auto; height: auto; display: block; border-radius: 0; box-shadow: none}
.images .thumbnail-item img {height: auto}
.images .caption-label {
  position: static; display: block; max-width: none; white-space: normal; border: 0; background: none; padding: .3rem 0
}
@media (max-width: 640px) {.images .grid-container {grid-template-columns: 1fr !important}}
"""
"""Generated images are shown whole, with their captions below them instead of over them."""


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
            "enable_monitoring": False,
            "footer_links": ["api"],
            "css": STYLE,
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
    marks: MarkOptions | None = None,
    runs: Sequence[Path] = (),
    reports: Sequence[Path] = (),
) -> Demo:
    """Build the app for a pipeline: `build_demo(pipe).launch()`.

    Args:
        pipe: A text-to-image pipeline with one or several identity adapters; visitors choose among these.
        base: Name of the base model, written into generated images.
        analyzer: Finds the faces in photos. Defaults to that of the first adapter's encoder.
        eval_encoder: Evaluation encoder: measures similarity beside the adapters' own encoders, and should be one that
            no adapter reads. Defaults to dlib's.
        identity_net: IdentityNet for poses.
        marks: How generated images are marked, and who is refused.
        runs: Folders of training runs to show.
        reports: Folders of evaluation reports to show, with their photos.

    Raises:
        AdapterError: No adapter is loaded.
        MissingDependencyError: Watermarks are requested and their package is not installed.
    """
    pipeline = SharedPipeline(pipe, identity_net)
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
    gr.Markdown("# idgen\nGenerate images of a person from one photo. Nothing is kept after this page is closed.")
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            newest = people_panel(page)
            settings_panel(page)
        with gr.Column(scale=2, min_width=320):
            with gr.Row():
                gr.Markdown("### 3 · Generate")
                stop_button = gr.Button("Stop", size="sm", scale=0, elem_id="stop")
            with gr.Tabs():
                for tab in tabs.TABS:
                    if tab.is_available(page.backend):
                        with gr.Tab(tab.title) as container:
                            tab.build(page, container)
    message = gr.Textbox(visible=False, label="message")
    page.api(stop_button.click, stop, [], message, queue=False, cancels=page.generations)
    page.update_dropdowns(newest)


def stop(session: Session) -> str:
    """Stop the requests of this page."""
    return "Stopped." if session.stop() else "Nothing is being generated."


def _encoders(
    pipeline: SharedPipeline, analyzer: FaceAnalyzer, eval_encoder: FaceEncoder | None
) -> Mapping[str, FaceEncoder]:
    """The adapters' encoders and an evaluation encoder: the given one, or else dlib's, which needs no download."""
    encoders = {analyzer.encoder.name: analyzer.encoder}
    names = [adapter.config["encoder"] for adapter in pipeline.adapters.values()]
    for name in names if eval_encoder else [*names, DlibEncoder.name]:
        if name not in encoders:
            encoders[name] = FaceAnalyzer.for_encoder(name).encoder
    return encoders if eval_encoder is None else {**encoders, eval_encoder.name: eval_encoder}
