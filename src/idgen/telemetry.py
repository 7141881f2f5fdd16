"""Disable the telemetry of libraries: nothing contacts a server that the user did not name.

`import idgen` imports this module first. The libraries read these variables from the environment, so child processes
inherit them. A variable that is already set keeps its value.
"""

from __future__ import annotations

import os

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: usage events, and a device id in the user's cache
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, diffusers, transformers, gradio_client
    "GRADIO_ANALYTICS_ENABLED": "False",  # Gradio: usage events, check for updates
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray: reports of each cluster
    "WANDB_ERROR_REPORTING": "false",  # Weights & Biases: crash reports
}
"""Environment variables and the values that disable telemetry."""

for _name, _value in SWITCHES.items():
    os.environ.setdefault(_name, _value)
