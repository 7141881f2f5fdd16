"""The demo with the small model of the package: `python demos/app.py`. `idgen demo` accepts any model."""

import idgen
from idgen.demo import build_demo
from idgen.tiny import TINY_IDENTITY_NET_PATH

net = idgen.IdentityNet.from_pretrained(TINY_IDENTITY_NET_PATH)
demo = build_demo(idgen.load_tiny(), base="tiny", identity_net=net)

if __name__ == "__main__":
    demo.launch()
