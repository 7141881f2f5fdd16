"""The table of projections: a new row is found everywhere, and configurations of version 0.1 give the same model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from idgen import IdentityAdapter
from idgen.adapter.projection import Projection
from idgen.adapter.projection_config import SHARED
from idgen.adapter.projections import PROJECTIONS, projection_class
from idgen.checkpoints import native, public
from idgen.errors import AdapterError, CheckpointError
from idgen.info import info
from idgen.training.parsing import parse
from tests.components import SMALL_PROJECTIONS, make_adapter, make_unet, seeded

ROOT = Path(__file__).parents[2]


class Bottleneck(Projection):
    """Two linear layers without a bias (a test).

    Args:
        embedding_dim: Length of an embedding.
        num_tokens: Tokens per identity.
        cross_attention_dim: Width of a token.
        width: Width between the layers.
        doubled: Whether tokens are doubled.
    """

    def __init__(
        self, embedding_dim: int, num_tokens: int, cross_attention_dim: int, width: int = 3, doubled: bool = False
    ) -> None:
        super().__init__()
        self.num_tokens, self.doubled = num_tokens, doubled
        self.down = nn.Linear(embedding_dim, width, bias=False)
        self.up = nn.Linear(width, num_tokens * cross_attention_dim, bias=False)

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        tokens = self.up(self.down(id_embeds)).unflatten(-1, (self.num_tokens, -1))
        return tokens * 2 if self.doubled else tokens


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROJECTIONS, "bottleneck", Bottleneck)


@pytest.mark.usefixtures("table")
def test_a_new_row_is_saved_loaded_and_described(tmp_path: Path) -> None:
    adapter = make_adapter(make_unet(), projection={"type": "bottleneck", "width": 5})
    assert adapter.config["projection"] == {"type": "bottleneck", "width": 5, "doubled": False}
    id_embeds = torch.randn(2, 8, generator=seeded(1))
    adapter.save_pretrained(tmp_path / "folder")
    public.write(native.plain_config(adapter), adapter.state_dict(), tmp_path / "one.safetensors")
    for place in ("folder", "one.safetensors"):
        again = IdentityAdapter.from_pretrained(tmp_path / place)
        assert isinstance(again.to_tokens, Bottleneck)
        assert native.plain_config(again) == native.plain_config(adapter)
        assert torch.equal(again(id_embeds), adapter(id_embeds))
        assert info(str(tmp_path / place))["projection"].startswith("bottleneck, 4 tokens of width 16 (width 5")
    assert "bottleneck, 4 tokens" in (tmp_path / "folder" / "README.md").read_text()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("size", [{"width": 0}, {"width": 2**40}, {"width": 2.5}, {"width": True}, {"breadth": 1}])
def test_the_limits_of_checkpoints_hold_for_a_new_row(size: dict[str, Any], tmp_path: Path) -> None:
    adapter = make_adapter(make_unet(), projection="bottleneck")
    adapter.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["projection"] |= size
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=next(iter(size))):
        IdentityAdapter.from_pretrained(tmp_path)


@pytest.mark.usefixtures("table")
def test_a_new_row_is_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        parse("denoise", ["--help-all"], "idgen train denoise")
    assert "bottleneck} [SIZE=VALUE ...]" in " ".join(capsys.readouterr().out.split())
    needed = ["--train_data_dir", "shards", "--output_dir", str(tmp_path)]
    parsed = parse("denoise", ["--projection", "bottleneck", "width=5", "doubled=true", *needed], "idgen")
    assert parsed.adapter.projection == {"type": "bottleneck", "width": 5, "doubled": True}
    (tmp_path / "run.toml").write_text(
        'train_data_dir = "shards"\noutput_dir = "run"\n[adapter.projection]\ntype = "bottleneck"\nwidth = 5'
    )
    parsed = parse("denoise", ["--config", str(tmp_path / "run.toml")], "idgen")
    assert parsed.adapter.projection == {"type": "bottleneck", "width": 5}
    with pytest.raises(AdapterError, match="depth"):
        parse("denoise", ["--projection", "bottleneck", "depth=5", *needed], "idgen")


@pytest.mark.usefixtures("table")
def test_a_new_row_is_in_the_documentation() -> None:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    tables = hooks.with_tables((ROOT / "docs" / "how.md").read_text())
    assert "| `bottleneck` | Two linear layers without a bias (a test). | `width=3`, `doubled=false` |" in tables
    assert all(f"| `{name}` |" in tables for name in PROJECTIONS)


def test_a_projection_that_is_not_known_is_refused() -> None:
    unet = make_unet()
    for config, message in [
        ("magic", "must be one of mlp, resampler, plus, .*, got 'magic'"),
        ({"depth": 2}, "must be one of"),
        ({"type": "mlp", "depth": 2}, "'mlp' has no size depth; its sizes are hidden_dim"),
        ({"type": "resampler", "depth": 0}, "depth must be >= 1, got 0"),
    ]:
        with pytest.raises(AdapterError, match=message):
            make_adapter(unet, projection=config)
    with pytest.raises(AdapterError, match="needs pseudo-words"):
        make_adapter(unet, projection="none")


@pytest.mark.parametrize("kind", ["mlp", "resampler", "plus"])
def test_adapters_of_version_0_1_open_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    """Version 0.1 wrote the sizes of all projections beside the type, `null` for sizes that follow from others."""
    adapter = make_adapter(make_unet(), projection=SMALL_PROJECTIONS[kind])
    adapter.save_pretrained(tmp_path / "folder")
    config = native.plain_config(adapter)
    earlier = {"hidden_dim": None, "depth": 4, "dim_head": 64, "heads": None, "feature_dim": 1280, "shortcut": False}
    sizes = dict(config.pop("projection"))
    flat = config | earlier | {"projection": sizes.pop("type"), **sizes}
    public.write(config | {"projection": SMALL_PROJECTIONS[kind]}, adapter.state_dict(), tmp_path / "one.safetensors")
    rewrite_header(tmp_path / "one.safetensors", flat)
    saved = json.loads((tmp_path / "folder" / "config.json").read_text())
    notes = {name: value for name, value in saved.items() if name.startswith("_")}
    (tmp_path / "folder" / "config.json").write_text(json.dumps(notes | flat))
    for place in ("folder", "one.safetensors"):
        again = IdentityAdapter.from_pretrained(tmp_path / place)
        assert native.plain_config(again) == native.plain_config(adapter)
        weights = again.state_dict()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in adapter.state_dict().items())


def rewrite_header(file: Path, config: dict[str, Any]) -> None:
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"][public.CONFIG] = json.dumps(config)
    new = json.dumps(header).encode()
    file.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + length :])


def test_every_row_has_a_size_for_its_features_and_documents_its_sizes() -> None:
    for name in PROJECTIONS:
        kind = projection_class(name)
        words = {"num_words": 1, "text_dims": [4]}
        projection = make_adapter(make_unet(), projection=SMALL_PROJECTIONS[name], num_tokens=6, **words)
        assert (projection.feature_dim is not None) == kind.reads_features
        documented = kind.__doc__ or ""
        assert all(f"{size}:" in documented for size in (*SHARED, *projection.config["projection"]) if size != "type")


@torch.no_grad()
def test_rows_are_read_as_they_are_stored() -> None:
    """(18, 512), as W+ has it, row after row. With positions the order of the rows matters, without it does not."""
    rows = torch.randn(1, 18, 512, generator=seeded(1))
    turned = rows.flip(1)
    for positions in (True, False):
        config = SMALL_PROJECTIONS["rows"] | {"rows": 18, "positions": positions}
        adapter = make_adapter(make_unet(), embedding_dim=18 * 512, projection=config)
        tokens = adapter(rows.flatten(1))
        assert tokens.shape == (1, 4, 16)
        assert torch.allclose(adapter(turned.flatten(1)), tokens, atol=1e-5) != positions
        changed = rows.clone()
        changed[0, 17, 511] += 5
        assert not torch.allclose(adapter(changed.flatten(1)), tokens, atol=1e-5)
    with pytest.raises(AdapterError, match="512 numbers do not have 18 rows"):
        make_adapter(make_unet(), embedding_dim=512, projection={"type": "rows"})
