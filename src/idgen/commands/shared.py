"""What several commands share: opening a pipeline, and the option `--face`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import AdapterError, CheckpointError, IdgenError
from ..terminal import working

if TYPE_CHECKING:
    from ..faces import Choice

FaceOption = Annotated[str | None, tyro.conf.arg(metavar="largest|INDEX|X0,Y0,X1,Y1")]


def check_adapter(base: str, adapter: str | None) -> None:
    """Raise AdapterError if another base than the built-in model is given without an adapter."""
    if adapter is None and base != "tiny":
        raise AdapterError(f"--id-adapter is required for the base '{base}'.")


def open_pipeline(
    base: str,
    adapter: str | None,
    weight_name: str | None,
    device: str | None,
    adapter_name: str = "default",
    lora: str | None = None,
) -> Any:
    """Open a base model with an identity adapter, and with the LoRA that lies in the adapter's folder.

    Args:
        base: A folder, a hub id, or "tiny".
        adapter: "tiny", a folder, a file or a hub id. The small model has its own adapter.
        weight_name: File of the adapter.
        device: Defaults to a GPU if there is one.
        adapter_name: Name that the adapter is loaded under.
        lora: A LoRA, see `load_lora`.

    Raises:
        AdapterError: Another base than "tiny" is given without an adapter.
        CheckpointError: The base or the adapter cannot be opened.
    """
    check_adapter(base, adapter)
    with working(f"Opening {base} …"):
        import torch

        from ..base_model import open_base
        from ..tiny import load_tiny

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if base == "tiny" or device == "cpu" else torch.float16
        pipeline: Any = load_tiny() if base == "tiny" and adapter is None else open_base(base, dtype)
        if adapter is not None:
            pipeline.load_id_adapter(adapter, adapter_name=adapter_name, weight_name=weight_name)
        loras = [place for place in (adapter, lora) if place is not None and (place is lora or has_lora(place))]
        for number, place in enumerate(loras):
            load_lora(pipeline, place, f"lora{number}")
        if len(loras) > 1:
            pipeline.set_adapters([f"lora{number}" for number in range(len(loras))])
    return pipeline.to(device)


def load_expression_adapter(pipeline: Any, adapter: str) -> None:
    """Load an adapter that reads expressions, under the name "expression".

    Args:
        pipeline: A pipeline with an identity adapter.
        adapter: A folder, a file or a hub id.

    Raises:
        AdapterError: It reads people, or an adapter of this name is loaded.
        BaseMismatchError, CheckpointError: See `load_id_adapter`.
    """
    if "expression" in pipeline.id_adapters:
        raise AdapterError("The expression adapter gets the name 'expression': rename the folder of the other one.")
    pipeline.load_id_adapter(adapter, adapter_name="expression")
    if not pipeline.id_adapters["expression"].reads_expression:
        pipeline.unload_id_adapter("expression")
        raise AdapterError(f"The adapter '{adapter}' reads people, not expressions: pass it as --id-adapter.")


def open_identity_net(net: str | None, base: str, adapter: str | None) -> Any:
    """Open an IdentityNet: the given one, or that in the folder of the adapter; None if there is none.

    Args:
        net: A folder, a file or a hub id.
        base: A folder, a hub id, or "tiny".
        adapter: "tiny", a folder, a file or a hub id. The small model has its own adapter.

    Raises:
        CheckpointError: It cannot be opened.
    """
    from ..adapter import IdentityNet
    from ..convert import NET
    from ..tiny import adapter_place

    folder = Path(adapter_place("tiny" if adapter is None and base == "tiny" else adapter or ""))
    source = folder / NET if net is None else net
    return None if net is None and not Path(source).is_dir() else IdentityNet.from_pretrained(source)


def has_lora(adapter: str) -> bool:
    """Whether a LoRA lies in the folder of an adapter, as `idgen train` writes it."""
    from ..tiny import adapter_place

    return (Path(adapter_place(adapter)) / "pytorch_lora_weights.safetensors").is_file()


def load_lora(pipeline: Any, lora: str, name: str) -> None:
    """Load a LoRA, and the scheduler that it is made for, if its folder has one (`idgen train distil`).

    Args:
        pipeline: A pipeline of diffusers.
        lora: A folder, a file or a hub id.
        name: Name that it is loaded under.

    Raises:
        CheckpointError: It cannot be opened, or does not fit the base model.
    """
    try:
        pipeline.load_lora_weights(lora, adapter_name=name)
        if (Path(lora) / "scheduler").is_dir():
            from diffusers import LCMScheduler

            pipeline.scheduler = LCMScheduler.from_pretrained(lora, subfolder="scheduler", local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"The LoRA '{lora}' could not be loaded: {error}") from error


def read_face_option(face: str | None) -> Choice | None:
    """The value of `--face` as `choose_face` takes it; raises IdgenError if it has none of its forms."""
    if face is None or face == "largest":
        return face
    try:
        numbers = [float(number) for number in face.split(",")]
    except ValueError as error:
        raise IdgenError(f"--face must be 'largest', an index or X0,Y0,X1,Y1, got '{face}'.") from error
    return int(numbers[0]) if len(numbers) == 1 else numbers
