"""ONNX files of face recognisers as frozen torch modules, with the gradient to the pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import CheckpointError, MissingDependencyError
from ..files import file_size
from .onnx_operators import BATCH_OPERATORS, OPERATORS

MAX_BYTES = 2**30
"""Largest file that is read; the recogniser of antelopev2 has 261 MB."""
MAX_SIDE = 1024
"""Largest input, pixels."""


class Node(NamedTuple):
    """One operation of the graph.

    Attributes:
        operator: Its name in the ONNX standard.
        inputs: Names of the tensors it reads; "" for an optional one that is left out.
        output: Name of the tensor it makes.
        attributes: Its settings.
    """

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class OnnxModule(nn.Module):
    """A network with one image input and one output, read from an ONNX file and run by torch.

    It covers the operators that face recognisers use (ArcFace's IResNet, MobileFaceNet, SFace); the weights are frozen
    buffers, and gradients flow to the input. A network that was exported for one image takes batches here.

    Args:
        path: ONNX file whose input is (batch, 3, height, width).
        checkpointing: Run parts of the graph again in the backward pass instead of keeping what they computed. A
            backward pass then needs about the square root of the memory and a third more time.

    Attributes:
        size: (height, width) of the input, pixels.
        dim: Numbers in the output per image.

    Raises:
        CheckpointError: The file is missing, damaged, too large, or uses an operator that is not supported.
        MissingDependencyError: onnx is not installed.
    """

    def __init__(self, path: str | Path, checkpointing: bool = False) -> None:
        super().__init__()
        model = _read(Path(path))
        self.checkpointing = checkpointing
        entry = _only_input(model, path)
        self._input, self.size = entry.name, _size(entry, path)
        try:
            nodes, constants = _folded(*_graph(model, path))
            self._names = {name: f"constant_{i}" for i, name in enumerate(constants)}
            for name, value in constants.items():
                self.register_buffer(self._names[name], value)
            self._parts = _split(nodes, self._input)
            with torch.no_grad():
                self.dim = self(torch.zeros(1, 3, *self.size)).shape[1]
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise CheckpointError(f"'{path}' could not be run as a face recogniser: {error}") from error
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            images: (batch, 3, height, width), in the range that the network was trained with.

        Returns:
            (batch, dim).
        """
        *_, embeds = self._outputs(images)
        return embeds.flatten(1)

    def inner_features(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Feature maps at places where a single tensor leads on, the last one of each resolution; and embeddings."""
        *inner, embeds = self._outputs(images)
        return list({each.shape[-2:]: each for each in inner if each.ndim == 4}.values()), embeds.flatten(1)

    def _outputs(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """The output of each part."""
        values, name = images, self._input
        for part in self._parts:
            if self.checkpointing and torch.is_grad_enabled() and values.requires_grad:
                values = checkpoint(self._run, part, name, values, use_reentrant=False)
            else:
                values = self._run(part, name, values)
            name = part[-1].output
            yield values

    def _run(self, nodes: Sequence[Node], name: str, values: torch.Tensor) -> torch.Tensor:
        """Run consecutive nodes, the first of which reads the tensor `name`."""
        found = {name: values}
        for node in nodes:
            inputs = [
                None if not i else found[i] if i in found else getattr(self, self._names[i]) for i in node.inputs
            ]
            found[node.output] = BATCH_OPERATORS[node.operator](*inputs, **node.attributes)
        return found[nodes[-1].output]


def _read(path: Path) -> Any:
    """The file as an `onnx.ModelProto`. Weights in other files are refused: their paths could lead anywhere."""
    try:
        import onnx
        from onnx.external_data_helper import uses_external_data
    except ImportError as error:
        raise MissingDependencyError("This needs onnx: pip install 'idgen-diffusers[insightface]'") from error
    file_size(path, MAX_BYTES)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises kinds of its own
        raise CheckpointError(f"'{path}' could not be read as an ONNX network: {error}") from error
    if any(uses_external_data(weight) for weight in model.graph.initializer):
        raise CheckpointError(f"'{path}' keeps its weights in other files; export it as a single file.")
    return model


def _only_input(model: Any, path: str | Path) -> Any:
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise CheckpointError(
            f"'{path}' has {len(inputs)} inputs and {len(model.graph.output)} outputs; a recogniser has one of each."
        )
    return inputs[0]


def _size(entry: Any, path: str | Path) -> tuple[int, int]:
    """Height and width of the input, pixels."""
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    if len(shape) != 4 or shape[1] != 3 or not all(1 <= side <= MAX_SIDE for side in shape[2:]):
        raise CheckpointError(f"'{path}' takes an input of shape {shape}, not (batch, 3, height, width).")
    return shape[2], shape[3]


def _graph(model: Any, path: str | Path) -> tuple[list[Node], dict[str, torch.Tensor]]:
    """Nodes, and constants by name."""
    from onnx import helper

    unknown = sorted({node.op_type for node in model.graph.node} - {*OPERATORS, "Constant"})
    if unknown:
        raise CheckpointError(f"'{path}' uses operators that are not supported: {', '.join(unknown)}.")
    nodes, constants = [], {weight.name: _tensor(weight) for weight in model.graph.initializer}
    for node in model.graph.node:
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = _tensor(attributes["value"])
        else:
            nodes.append(Node(node.op_type, tuple(node.input), node.output[0], attributes))
    return nodes, constants


def _tensor(stored: Any) -> torch.Tensor:
    """Convert half precision to float32."""
    from onnx import numpy_helper

    value = torch.from_numpy(numpy_helper.to_array(stored).copy())
    return value.float() if value.is_floating_point() else value


def _folded(
    nodes: Sequence[Node], constants: Mapping[str, torch.Tensor]
) -> tuple[list[Node], dict[str, torch.Tensor]]:
    """Evaluate the nodes that read constants alone, and leave out the constants that nothing reads afterwards."""
    known, left = dict(constants), []
    for node in nodes:
        if node.inputs and all(name in known for name in node.inputs if name):
            inputs = [known[name] if name else None for name in node.inputs]
            known[node.output] = OPERATORS[node.operator](*inputs, **node.attributes)
        else:
            left.append(node)
    read = {name for node in left for name in node.inputs}
    return left, {name: value for name, value in known.items() if name in read}


def _split(nodes: Sequence[Node], entry: str) -> list[list[Node]]:
    """Cut the nodes into about √n parts, at places where a single tensor leads from one part to the next."""
    last_read = {name: i for i, node in enumerate(nodes) for name in node.inputs}
    length = math.ceil(math.sqrt(len(nodes)))
    parts: list[list[Node]] = [[]]
    alive: set[str] = {entry}
    for i, node in enumerate(nodes):
        parts[-1].append(node)
        alive = {name for name in alive | {node.output} if last_read.get(name, -1) > i}
        if len(parts[-1]) >= length and alive == {node.output}:
            parts.append([])
    return [part for part in parts if part]
