"""`build_demo`: the page."""

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
from ..provenance.command import MarkOptions
from . import tabs
from .admission import MAX_WAITING, Admission
from .folder import own_folder
from .functions import Functions
from .gate import Gate
from .likeness import Likeness
from .panels import people_panel, settings_panel
from .records import Records
from .records_tabs import report_tab, training_tab
from .sessions import MAX_IDLE_SECONDS, Sessions
from .studio import Studio
from .uploads import MAX_FILE_BYTES, MAX_UPLOAD, upload_routes
from .wiring import Wiring

TIDY_SECONDS = MAX_IDLE_SECONDS / 12
"""Seconds between two searches for closed pages and unused files."""

TABS = {
    "Picture": tabs.picture_tab,
    "Two people": tabs.two_tab,
    "Pose": tabs.pose_tab,
    "Mix": tabs.mix_tab,
    "Change a picture": tabs.edit_tab,
    "Compare": tabs.compare_tab,
}

STYLE = """
.gradio-container > .main {max-width: 1440px; margin: 0 auto}
#photos .grid-wrap, #faces .grid-wrap {padding-top: 2rem; height: auto; min-height: 0; max-height: 17rem}
.pictures .grid-wrap {padding-top: 2rem; max-height: none; min-height: 0}
.pictures .thumbnail-item {aspect-ratio: auto; height: auto; display: block; border-radius: 0; box-shadow: none}
.pictures .thumbnail-item img {height: auto}
.pictures .caption-label {
  position: static; display: block; max-width: none; white-space: normal; border: 0; background: none; padding: .3rem 0
}
@media (max-width: 640px) {.pictures .grid-container {grid-template-columns: 1fr !important}}
"""
"""Results are shown whole, with what is said of them below them and not over them."""


class Demo(gr.Blocks):
    """The page, which keeps to itself however it is launched.

    Attributes:
        wiring: What answers its events.
        admission: Says which requests may join the queue.
    """

    wiring: Wiring
    admission: Admission

    def launch(self, *, allowed_hosts: Sequence[str] = (), **options: Any) -> Any:  # pyright: ignore
        """As Gradio's, with limits on requests, and nothing shared, recorded or fetched from elsewhere.

        Args:
            allowed_hosts: Names by which the page may be asked for, beside the one that it listens at: that of a
                server before it, for example.
            options: As Gradio's, among them `auth=[(name, password), …]`.
        """
        listening = options.get("server_name") or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
        gate = Middleware(Gate, listening=listening, allowed=allowed_hosts, max_upload=MAX_UPLOAD)  # pyright: ignore
        threading.Thread(target=self._tidy, daemon=True).start()
        own: dict[str, Any] = {
            "app_kwargs": {"middleware": [gate], "routes": upload_routes(self.wiring.sessions)},
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
        return super().launch(**(own | options))

    def _tidy(self) -> None:
        while True:
            time.sleep(TIDY_SECONDS)
            self.wiring.sessions.tidy(self.admission.waiting())


def build_demo(
    pipe: Any,
    *,
    base: str = "",
    analyzer: FaceAnalyzer | None = None,
    encoder: FaceEncoder | None = None,
    identity_net: IdentityNet | None = None,
    marks: MarkOptions | None = None,
    runs: Sequence[Path] = (),
    reports: Sequence[Path] = (),
) -> Demo:
    """The page for a pipeline, to be launched: `build_demo(pipe).launch()`.

    Args:
        pipe: Text to image, with one or several identity adapters: those, and no others, can be chosen.
        base: Name of the base model, that is written into pictures.
        analyzer: Finds the faces in photos; that of the first adapter's encoder if not given.
        encoder: Judges results beside the adapters' own; one that no adapter reads says most. If not given it is
            dlib's, which is an adapter's own where adapters read that one.
        identity_net: For poses.
        marks: How pictures are marked, and who is refused.
        runs: Folders of training runs to show.
        reports: Folders of evaluation reports to show; their photos are shown too.

    Raises:
        AdapterError: No adapter is loaded.
        MissingDependencyError: Watermarks are wanted, and cannot be made.
    """
    studio = Studio(pipe, identity_net)
    marks = marks or MarkOptions()
    marks.prepare(pipe)
    analyzer = analyzer or FaceAnalyzer.for_encoder(next(iter(studio.adapters.values())).config["encoder"])
    likeness = Likeness(analyzer.detector, _judges(studio, analyzer, encoder))
    folder = own_folder()
    sessions = Sessions(folder / "visitors")
    functions = Functions(studio, analyzer, likeness, marks, sessions, base)
    wiring, records = Wiring(functions, sessions), Records(runs, reports)
    with Demo(title="idgen", fill_width=True, analytics_enabled=False) as demo:
        gr.Markdown("# idgen\nOne person's face in any picture. Nothing is kept once this page is closed.")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                newest = people_panel(wiring)
                settings_panel(wiring, studio)
            with gr.Column(scale=2, min_width=320):
                with gr.Row():
                    gr.Markdown("### 3 · Draw")
                    stop = gr.Button("Stop", size="sm", scale=0, elem_id="stop")
                with gr.Tabs():
                    for name, tab in TABS.items():
                        with gr.Tab(name):
                            tab(wiring)
                    if records.runs:
                        with gr.Tab("Training") as training:
                            training_tab(wiring, records, training)
                    if records.reports:
                        with gr.Tab("Report") as report:
                            report_tab(wiring, records, report)
        said = gr.Textbox(visible=False, label="said")
        wiring.api(stop.click, functions.stop, [], said, queue=False, cancels=wiring.drawings)
        wiring.finish(newest)

        def close(request: gr.Request) -> None:
            wiring.sessions.close(request.session_hash)

        demo.unload(close)
    demo.wiring = wiring
    demo.queue(max_size=MAX_WAITING, api_open=False)
    demo.admission = Admission(demo._queue, sessions, folder)
    return demo


def _judges(studio: Studio, analyzer: FaceAnalyzer, encoder: FaceEncoder | None) -> Mapping[str, FaceEncoder]:
    """The adapters' own, and one that they do not read: the given one, or else the one that needs no download."""
    encoders = {analyzer.encoder.name: analyzer.encoder}
    names = [adapter.config["encoder"] for adapter in studio.adapters.values()]
    for name in names if encoder else [*names, DlibEncoder.name]:
        if name not in encoders:
            encoders[name] = FaceAnalyzer.for_encoder(name).encoder
    return encoders if encoder is None else {**encoders, encoder.name: encoder}
