"""Recognisers from ONNX files as torch modules: the same embeddings as onnxruntime, and a gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from idgen.errors import CheckpointError
from idgen.faces.onnx_module import OnnxModule

from .onnx_pack import write_iresnet

SMALL = {"depths": (1, 2, 2, 1), "width": 8, "side": 32, "dim": 16}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_iresnet(tmp_path_factory.mktemp("onnx") / "small.onnx", **SMALL)


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """By onnxruntime, one image at a time."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([np.asarray(session.run(None, {name: image[None]})[0]).reshape(1, -1) for image in images])


def random_images(count: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 3, *size)).astype(np.float32)


@pytest.mark.parametrize("depths", [(3, 4, 14, 3), (3, 13, 30, 3)], ids=["IResNet-50", "IResNet-100"])
def test_arcface_networks_equal_onnxruntime(tmp_path: Path, depths: tuple[int, ...]) -> None:
    path = write_iresnet(tmp_path / "arcface.onnx", depths, width=16, dim=512)
    module, images = OnnxModule(path), random_images(2, (112, 112))
    expected = run(path, images)
    assert (module.size, module.dim) == ((112, 112), 512)
    maps, embeddings = module.inner_features(torch.from_numpy(images))
    assert np.abs(embeddings.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    assert torch.equal(module(torch.from_numpy(images)), embeddings)
    assert [each.shape[-1] for each in maps][-3:] == [28, 14, 7]
    assert all(each.ndim == 4 and len(each) == 2 for each in maps)


@pytest.mark.parametrize("name", ["mobilefacenet_eval", "face-reidentification-retail-0095"])
def test_published_recognisers_equal_onnxruntime_in_batches(shared: Path, name: str) -> None:
    """Both were exported for one image; the second stores its weights in half precision."""
    path = shared / "models" / f"{name}.onnx"
    module = OnnxModule(path)
    images = random_images(3, module.size)
    expected = run(path, images)
    assert np.abs(module(torch.from_numpy(images)).numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_equals_finite_differences(small: Path, checkpointing: bool) -> None:
    module = OnnxModule(small, checkpointing).double()
    images = torch.from_numpy(random_images(1, module.size)).double().requires_grad_()
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.autograd.gradcheck(lambda x: module(x)[:, :4], images, fast_mode=True)


def test_checkpointing_keeps_less_and_changes_nothing(small: Path) -> None:
    kept: dict[bool, int] = {}
    gradients = []
    for checkpointing in (False, True):
        module = OnnxModule(small, checkpointing)
        images = torch.from_numpy(random_images(4, module.size)).requires_grad_()
        saved: dict[int, int] = {}

        def note(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            embeddings = module(images)
        kept[checkpointing] = sum(saved.values())
        gradients.append(torch.autograd.grad(embeddings.square().sum(), images)[0])
    assert torch.equal(*gradients)
    assert kept[True] < kept[False] / 2


def test_batch_size_changes_no_embedding(small: Path) -> None:
    module, images = OnnxModule(small), torch.from_numpy(random_images(5, (32, 32)))
    one_by_one = torch.cat([module(image[None]) for image in images])
    assert torch.allclose(module(images), one_by_one, atol=1e-6)


def test_flattening_by_computed_shapes(tmp_path: Path) -> None:
    """PyTorch exports `x.view(x.size(0), -1)` as Shape, Gather, Unsqueeze, Concat and Reshape."""
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])
    constants = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["count"], axis=0),
        helper.make_node("Unsqueeze", ["count", "axis"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], ["sides"], axis=0),
        helper.make_node("Reshape", ["x", "sides"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 48])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    path = tmp_path / "view.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "view", [shape], [output], weights)), path)
    images = torch.from_numpy(random_images(2, (4, 4)))
    assert torch.equal(OnnxModule(path)(images), images.flatten(1))


def damaged(path: Path, small: Path, kind: str) -> Path:
    """An ONNX file that is wrong in one way."""
    model = onnx.load(small)
    if kind == "missing":
        return path
    if kind == "text":
        path.write_text("not a network")
        return path
    if kind == "operator":
        model.graph.node[0].op_type = "Loop"
    if kind == "size":
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 10**6
    if kind == "shape":
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(3, np.float32), "Conv_0.0"))
    if kind == "weight":
        del model.graph.initializer[0]
    if kind == "external":
        onnx.save(model, path, save_as_external_data=True, size_threshold=0)
        return path
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "file"),
        ("text", "could not be read"),
        ("operator", "not supported: Loop"),
        ("size", "input of shape"),
        ("shape", "could not be run"),
        ("weight", "could not be run"),
        ("external", "other files"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, small: Path, kind: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        OnnxModule(damaged(tmp_path / "wrong.onnx", small, kind))
