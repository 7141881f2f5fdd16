"""A process that holds the demo's folder. It imports nothing of Gradio, which would take it seconds."""

from __future__ import annotations

import os
import time

from idgen.demo.temp_folder import temp_folder


def hold_a_folder(parent: str) -> None:
    os.environ["GRADIO_TEMP_DIR"] = parent
    (temp_folder() / "photo.png").touch()
    time.sleep(60)
