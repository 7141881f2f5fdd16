"""The demo on the small model that comes with the package: `python demos/app.py`; `idgen demo` takes any model."""

from typing import Any

import torch

import idgen
from idgen.demo import build_demo
from idgen.faces import DlibEncoder
from idgen.tiny import TINY_ADAPTER_PATH

pipe: Any = idgen.load_tiny()
if TINY_ADAPTER_PATH.is_dir():
    pipe.load_id_adapter(TINY_ADAPTER_PATH)
else:  # a new one, that has learnt nobody yet
    torch.manual_seed(0)
    pipe.load_id_adapter(
        idgen.IdentityAdapter.from_unet(pipe.unet, encoder=DlibEncoder.name, embedding_dim=DlibEncoder.dim)
    )

demo = build_demo(pipe, base="idgen-tiny")

if __name__ == "__main__":
    demo.launch()
