"""Usage reports of libraries, switched off: nothing here talks to a server that the user did not name.

`import idgen` does it before it imports anything else. The libraries read these variables from the environment, so
processes that are started from here inherit them. A variable that is set already keeps its value.
"""

from __future__ import annotations

import os

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: usage events, and a device id in the user's cache
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, diffusers, transformers, gradio_client
    "GRADIO_ANALYTICS_ENABLED": "False",  # Gradio: usage events, a look for its newest version
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray: reports of each cluster
    "WANDB_ERROR_REPORTING": "false",  # Weights & Biases: crashes, to another server than the tracker's
}
"""Environment variables, and the values that switch the reports of a library off."""

for _name, _value in SWITCHES.items():
    os.environ.setdefault(_name, _value)
