"""A pack in insightface's layout with small networks of random weights: a detector that fires on bright red, and a
recogniser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EMBEDDING_DIM = 32
_STRIDES = (8, 16, 32)
_LANDMARKS = np.array([[-0.4, -0.4], [0.4, -0.4], [0, 0], [-0.3, 0.5], [0.3, 0.5]])


def write_pack(folder: Path, recogniser: bool = True) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    onnx.save(_detector(rng), folder / "detector.onnx")
    if recogniser:
        onnx.save(_recogniser(rng), folder / "recogniser.onnx")
    return folder


def write_recogniser(path: Path, dim: int) -> Path:
    onnx.save(_recogniser(np.random.default_rng(0), dim), path)
    return path


def _detector(rng: np.random.Generator) -> onnx.ModelProto:
    """SCRFD's interface: scores, boxes and landmarks at three strides, two anchors a cell."""
    nodes: list[Any] = []
    weights: dict[str, np.ndarray] = {}
    outputs = []
    biases = {
        "score": np.zeros(2),
        "box": np.full(8, 1.5),
        "landmarks": np.tile(_LANDMARKS.ravel(), 2),
    }
    for kind, bias in biases.items():
        for stride in _STRIDES:
            name, channels = f"{kind}_{stride}", len(bias) // 2
            weight = rng.normal(scale=0.01, size=(len(bias), 3, 1, 1))
            if kind == "score":  # red minus green; only the middle stride fires
                weight[:, 0], weight[:, 1] = (10, -10) if stride == 16 else (0, 0)
                bias = np.full(2, -5.0)
            weights[f"{name}.w"], weights[f"{name}.b"] = weight.astype(np.float32), bias.astype(np.float32)
            weights[f"{name}.shape"] = np.array([-1, channels])
            nodes += [
                helper.make_node(
                    "AveragePool", ["input"], [f"{name}.p"], kernel_shape=[stride] * 2, strides=[stride] * 2
                ),
                helper.make_node("Conv", [f"{name}.p", f"{name}.w", f"{name}.b"], [f"{name}.c"]),
                helper.make_node("Transpose", [f"{name}.c"], [f"{name}.t"], perm=[0, 2, 3, 1]),
                helper.make_node(
                    "Reshape", [f"{name}.t", f"{name}.shape"], [f"{name}.r" if kind == "score" else name]
                ),
            ]
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", [f"{name}.r"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, channels]))
    return _model(nodes, [1, 3, None, None], outputs, weights)


def _recogniser(rng: np.random.Generator, dim: int = EMBEDDING_DIM) -> onnx.ModelProto:
    weights = {"w": rng.normal(size=(3 * 14 * 14, dim)).astype(np.float32)}
    nodes = [
        helper.make_node("AveragePool", ["input"], ["p"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["embedding"]),
    ]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [None, dim])
    return _model(nodes, [None, 3, 112, 112], [output], weights)


def _model(nodes: list, shape: list, outputs: list, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
