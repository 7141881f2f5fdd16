"""A pack in insightface's layout with small networks of random weights: a detector that fires on bright red, and a
recogniser."""

from __future__ import annotations

import math
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


def write_iresnet(path: Path, depths: tuple[int, ...], width: int = 64, side: int = 112, dim: int = 512) -> Path:
    """ArcFace's network (IResNet, arXiv 1801.07698) with random weights, as insightface's packs store it: the
    normalisation after a convolution is part of it, the one before it is not. Depths (3, 4, 14, 3) make IResNet-50."""
    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: dict[str, np.ndarray] = {}

    def layer(kind: str, source: str, *tensors: np.ndarray, **attributes: Any) -> str:
        name = f"{kind}_{len(nodes)}"
        names = [f"{name}.{i}" for i in range(len(tensors))]
        weights.update(zip(names, (t.astype(np.float32) for t in tensors), strict=True))
        nodes.append(helper.make_node(kind, [source, *names], [name], **attributes))
        return name

    def convolution(source: str, inside: int, outside: int, kernel: int = 3, stride: int = 1) -> str:
        weight = rng.normal(scale=(kernel**2 * inside) ** -0.5, size=(outside, inside, kernel, kernel))
        bias = rng.normal(scale=0.1, size=outside)
        pads, sizes = [kernel // 2] * 4, {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
        return layer("Conv", source, weight, bias, pads=pads, **sizes)

    def normalisation(source: str, channels: int) -> str:
        gain, bias, mean = rng.uniform(0.5, 1.5, channels), *rng.normal(scale=0.1, size=(2, channels))
        variance = rng.uniform(0.5, 1.5, channels)
        return layer("BatchNormalization", source, gain, bias, mean, variance, epsilon=1e-5)

    def slope(source: str, channels: int) -> str:
        return layer("PRelu", source, rng.uniform(0.1, 0.4, (channels, 1, 1)))

    at, channels = slope(convolution("input", 3, width), width), width
    for stage, depth in enumerate(depths):
        inside, channels = channels, width * 2**stage
        for block in range(depth):
            stride, source = 2 if block == 0 else 1, inside if block == 0 else channels
            inner = slope(convolution(normalisation(at, source), source, channels), channels)
            inner = convolution(inner, channels, channels, stride=stride)
            short = at if block else convolution(at, source, channels, kernel=1, stride=2)
            nodes.append(helper.make_node("Add", [inner, short], [f"sum_{len(nodes)}"]))
            at = nodes[-1].output[0]
    cells = math.ceil(side / 2 ** len(depths)) ** 2 * channels
    at = layer("Flatten", normalisation(at, channels))
    at = layer("Gemm", at, rng.normal(scale=cells**-0.5, size=(dim, cells)), np.zeros(dim), transB=1)
    at = normalisation(at, dim)
    output = helper.make_tensor_value_info(at, TensorProto.FLOAT, [None, dim])
    onnx.save(_model(nodes, [None, 3, side, side], [output], weights), path)
    return path


def _model(nodes: list, shape: list, outputs: list, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
