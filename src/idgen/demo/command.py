"""`idgen demo`: options of the command line → the app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..commands.shared import load_expression_adapter, open_identity_net
from ..errors import AdapterError, DemoError
from ..inputs import AdapterName, BaseName, EncoderSpec, InputPath, NetworkName
from ..provenance.options import MarkOptions
from ..terminal import show


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `idgen demo`. Visitors can only choose among the models and folders that are named here.

    Attributes:
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model of the package.
        id_adapter: Identity adapters for this base: folders, files or hub ids. Their last names must differ.
        weight_name: File of the first adapter, if its folder or repository holds several.
        encoder: Face encoder that the adapters read; needed only if it is a file or code of your own.
        expression_adapter: Adapter that reads expressions, for the tab Expression: a folder, a file or a hub id.
            `idgen train denoise --encoder expression-v1` trains one.
        identity_net: IdentityNet for poses: a folder, a file or a hub id. Defaults to that in the folder
            of the first adapter.
        restorer: Restorer for damaged photos, written by `idgen train restorer`: a folder or a hub id.
        eval_encoder: Face encoder that measures similarity beside the adapters' own; docs/encoders.md describes them.
            Defaults to dlib-resnet-v1.
        run: Folders of training runs to show.
        report: Folders of evaluation reports to show. Every visitor can see their photos.
        batch_size: Maximum of images that are generated at once, of requests with the same settings that wait.
        host: Address to listen at. "0.0.0.0" accepts requests from other computers.
        allow_host: Further host names that requests may use, such as that of a reverse proxy. Requests for other host
            names are refused.
        password_file: Text file with a line NAME:PASSWORD for each visitor. Without it no login is needed.
        port: Port. Defaults to the first free one from 7860 on.
        device: Device to compute on. Defaults to a GPU if there is one.
        browser: Open the page in a browser.
        marks: How generated images are marked, and who is refused.
    """

    base: BaseName = "tiny"
    id_adapter: tuple[AdapterName, ...] = ()
    weight_name: str | None = None
    encoder: EncoderSpec | None = None
    expression_adapter: NetworkName | None = None
    identity_net: NetworkName | None = None
    restorer: NetworkName | None = None
    eval_encoder: EncoderSpec | None = None
    run: tuple[InputPath, ...] = ()
    report: tuple[InputPath, ...] = ()
    batch_size: int = 4
    host: str = "127.0.0.1"
    allow_host: tuple[str, ...] = ()
    password_file: InputPath | None = None
    port: int | None = None
    device: str | None = None
    browser: bool = False
    marks: Annotated[MarkOptions, tyro.conf.arg(name="")] = field(default_factory=MarkOptions)


def run_demo(options: DemoOptions, open_pipeline: Callable[..., Any]) -> None:
    """Open the models and serve the page until Ctrl-C or SIGTERM.

    Args:
        options: Options of the command line.
        open_pipeline: `(base, adapter, weight_name, device, adapter_name)` → a pipeline with an adapter.

    Raises:
        MissingDependencyError: Gradio is not installed.
        DemoError: The password file cannot be read, or a folder does not exist.
    """
    from . import build_demo  # raises MissingDependencyError before the models are opened

    _ = options.marks.people, options.marks.signer  # reads their files before the models are opened
    for folder in (*options.run, *options.report):
        if not folder.is_dir():
            raise DemoError(f"There is no folder '{folder}'.")
    auth = None if options.password_file is None else read_passwords(options.password_file)
    from ..faces import open_encoder, register_encoder

    if options.encoder is not None:
        register_encoder(options.encoder)
    pipe = _open_pipeline(options, open_pipeline)
    eval_encoder = None if options.eval_encoder is None else open_encoder(options.eval_encoder)
    from ..adapter import Restorer

    demo = build_demo(
        pipe,
        base=options.base,
        eval_encoder=eval_encoder,
        identity_net=open_identity_net(options.identity_net, options.base, next(iter(options.id_adapter), None)),
        restorer=None if options.restorer is None else Restorer.from_pretrained(options.restorer),
        marks=options.marks,
        runs=options.run,
        reports=options.report,
        batch_size=options.batch_size,
    )
    _, url, _ = demo.launch(
        allowed_hosts=options.allow_host,
        auth=auth,
        server_name=options.host,
        server_port=options.port,
        inbrowser=options.browser,
        quiet=True,  # without it Gradio advises to share the page
        prevent_thread_lock=True,
    )
    show(f"The demo is at {url} until Ctrl-C.")
    demo.block_thread()


def read_passwords(file: Path) -> list[tuple[str, str]]:
    """The names and passwords of a file with lines NAME:PASSWORD; raises DemoError."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DemoError(f"The password file '{file}' cannot be read: {error}") from error
    pairs = [(name.strip(), password.strip()) for name, _, password in (line.partition(":") for line in lines)]
    if not pairs or not all(name and password for name, password in pairs):
        raise DemoError(f"The password file '{file}' needs a line NAME:PASSWORD for each visitor.")
    return pairs


def _open_pipeline(options: DemoOptions, open_pipeline: Callable[..., Any]) -> Any:
    names = [Path(source).name for source in options.id_adapter]
    if len(set(names)) < len(names):
        raise AdapterError(f"The last names of the adapters must differ, got {', '.join(names)}.")
    first, *others = options.id_adapter or (None,)
    name = names[0] if names else "default"
    pipe = open_pipeline(options.base, first, options.weight_name, options.device, name)
    for source, other in zip(others, names[1:], strict=True):
        pipe.load_id_adapter(source, adapter_name=other)
    if options.expression_adapter is not None:
        load_expression_adapter(pipe, options.expression_adapter)
    return pipe
