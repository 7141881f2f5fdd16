"""`idgen demo`: options → the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..errors import AdapterError, DemoError
from ..provenance.command import MarkOptions
from ..terminal import show
from ..tiny import TINY_IDENTITY_NET_PATH


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What `idgen demo` is told. Visitors can choose among what is named here, and name nothing else.

    Attributes:
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model that comes with the package.
        id_adapter: Identity adapters for this base: folders, files or hub ids. They must differ in their last name.
        weight_name: File of the first, where its folder or repository holds several.
        identity_net: IdentityNet for poses: a folder, a file or a hub id; the small model brings its own.
        encoder: Face encoder that judges results beside the adapters' own: "dlib-resnet-v1", "insightface/PACK",
            "sface:FILE-OR-HUB-ID", "arcface:FILE.onnx" or "imagenet:FILE.onnx"; the first, if none is given.
        run: Folders of training runs to show.
        report: Folders of evaluation reports to show; their photos are shown to every visitor.
        host: Address to listen at; "0.0.0.0" lets other computers in.
        allow_host: Further names by which the page may be asked for, as that of a server before it. Requests for other
            names are refused.
        password_file: Text file with a line NAME:PASSWORD for each visitor who may log in; without it, anybody may use
            the page.
        port: Port; the first free one from 7860 on if not given.
        device: Where to compute; a GPU if there is one.
        browser: Open the page in a browser.
    """

    base: str = "tiny"
    id_adapter: tuple[str, ...] = ()
    weight_name: str | None = None
    identity_net: str | None = None
    encoder: str | None = None
    run: tuple[Path, ...] = ()
    report: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    allow_host: tuple[str, ...] = ()
    password_file: Path | None = None
    port: int | None = None
    device: str | None = None
    browser: bool = False
    marks: Annotated[MarkOptions, tyro.conf.arg(name="")] = field(default_factory=MarkOptions)


def run_demo(options: DemoOptions, open_pipeline: Callable[..., Any]) -> None:
    """Open the models and serve the page until Ctrl-C or SIGTERM.

    Args:
        options: Of the command line.
        open_pipeline: Base, adapter, file of its weights, device and name of the adapter → pipeline.

    Raises:
        MissingDependencyError: Gradio is not installed.
        DemoError: The password file cannot be read.
    """
    from . import build_demo  # first: what is missing shall be said before gigabytes are read

    auth = None if options.password_file is None else read_passwords(options.password_file)
    demo = build_demo(_open(options, open_pipeline), **_page(options))
    _, url, _ = demo.launch(
        allowed_hosts=options.allow_host,
        auth=auth,
        server_name=options.host,
        server_port=options.port,
        inbrowser=options.browser,
        quiet=True,  # else Gradio advises to share the page
        prevent_thread_lock=True,
    )
    show(f"The demo is at {url} until Ctrl-C.")
    demo.block_thread()


def read_passwords(file: Path) -> list[tuple[str, str]]:
    """Lines NAME:PASSWORD → pairs; raises DemoError."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DemoError(f"The password file '{file}' cannot be read: {error}") from error
    pairs = [(name.strip(), password.strip()) for name, _, password in (line.partition(":") for line in lines)]
    if not pairs or not all(name and password for name, password in pairs):
        raise DemoError(f"The password file '{file}' needs a line NAME:PASSWORD for each visitor.")
    return pairs


def _open(options: DemoOptions, open_pipeline: Callable[..., Any]) -> Any:
    names = [Path(source).name for source in options.id_adapter]
    if len(set(names)) < len(names):
        raise AdapterError(f"The adapters are called {names}: two of one name cannot be told apart.")
    first, *others = options.id_adapter or (None,)
    name = names[0] if names else "default"
    pipe = open_pipeline(options.base, first, options.weight_name, options.device, name)
    for source, other in zip(others, names[1:], strict=True):
        pipe.load_id_adapter(source, adapter_name=other)
    return pipe


def _page(options: DemoOptions) -> dict[str, Any]:
    from ..adapter import IdentityNet

    page: dict[str, Any] = {
        "base": options.base,
        "marks": options.marks,
        "runs": options.run,
        "reports": options.report,
    }
    if options.encoder is not None:
        from ..evaluation.networks import open_encoder

        page["encoder"] = open_encoder(options.encoder)
    net = options.identity_net
    if net is None and options.base == "tiny" and not options.id_adapter:
        net = TINY_IDENTITY_NET_PATH
    if net is not None:
        page["identity_net"] = IdentityNet.from_pretrained(net)
    return page
