"""The tables of losses and rewards: a new row is found wherever losses and rewards are named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from idgen.errors import LossError, TrainingError
from idgen.losses import LOSSES, FaceEmbedder, LossConfig, Parametrisation, Row, Table, Weight, make_losses
from idgen.losses.row import load_function
from idgen.losses.settings import WeightedConfig
from idgen.rewards import REWARDS, RewardsConfig, make_rewards
from idgen.training.config import LoopConfig, OptimizerConfig
from idgen.training.distributed import make_accelerator
from idgen.training.loop import Loop
from idgen.training.parsing import parse
from idgen.training.summary import describe_training
from idgen.training.tracking import read_rows
from tests.components import ONE_LEVEL
from tests.training.runs import RandomPeople, make_step
from tests.training.test_card import MANIFEST
from tests.training.test_policy_gradient import make_step as make_policy_gradient_step

ROOT = Path(__file__).parents[2]
NEEDED = ("--train_data_dir", "shards", "--output_dir", "run")
TABLES = {"denoise": ("losses", LOSSES, LossConfig), "reward": ("rewards", REWARDS, RewardsConfig)}


@dataclass(frozen=True)
class Dummy:
    """Reads what losses and rewards both have, and settings of each."""

    margin: float = 0.0
    hinge: float = 0.0

    def __call__(self, target_embeds: torch.Tensor) -> torch.Tensor:
        return target_embeds.mean(1) + self.margin + self.hinge


@pytest.fixture
def _dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row(make=Dummy, weight=0.5, help="a dummy", formula="mean", source="none", cost="none", use="in tests")
    for _, table, _ in TABLES.values():
        monkeypatch.setitem(table.rows, "dummy", row)


def step_of(stage: str, config: Any) -> Any:
    """A step with the dummy."""
    if stage == "denoise":
        return make_step(losses=config.losses, unet=ONE_LEVEL)
    rewards = make_rewards(config.rewards, FaceEmbedder.dlib(), torch.device("cpu"))
    step = make_policy_gradient_step(group=2, learned=1, steps=2)
    step.rewards = rewards
    return step


@pytest.mark.usefixtures("_dummy")
@pytest.mark.parametrize("stage", TABLES)
def test_a_row_is_everywhere(stage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part, table, kind = TABLES[stage]
    others = [f"{name}=0" for name, row in table.rows.items() if row.weight and name not in ("dummy", "denoising")]
    with pytest.raises(SystemExit):
        parse(stage, [*NEEDED, "--help-all"], "idgen")
    assert "dummy=0.5: a dummy" in capsys.readouterr().out
    assert kind().active["dummy"] == (0.5, None)
    config = parse(stage, [*NEEDED, f"--{part}", "dummy=0.25", *others], "idgen")
    described: WeightedConfig = getattr(config, part).fitted()
    assert described.read_settings >= {"margin" if stage == "denoise" else "hinge"}
    describe_training(tmp_path, MANIFEST, config, updates=1)
    assert "dummy=0.25" in (tmp_path / "README.md").read_text()
    page = load_function(f"{ROOT / 'docs' / 'site.py'}:with_tables")((ROOT / "docs" / "losses.md").read_text())
    assert page.count("| `dummy` | `Dummy` | 0.5 | mean | none | none | in tests |") == 2
    assert all(f"| `{name}` |" in page for name in table.rows)
    loop = LoopConfig(max_train_steps=1, train_batch_size=2, checkpointing_steps=2)
    accelerator = make_accelerator(loop, tmp_path / "run")
    Loop(step_of(stage, config), RandomPeople(2), tmp_path / "run", loop, OptimizerConfig(), accelerator).run()
    (row,) = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert isinstance(row["dummy"], float)
    file = tmp_path / "run.toml"
    file.write_text(f'train_data_dir = "a"\noutput_dir = "b"\n[{part}]\ndummy = 0.125\n')
    from_file = parse(stage, ["--config", str(file)], "idgen")
    assert getattr(from_file, part).active["dummy"] == (0.125, None)


@pytest.mark.parametrize("stage", TABLES)
def test_no_row_has_the_name_of_a_setting(stage: str) -> None:
    """They stand side by side in a TOML table."""
    _, table, kind = TABLES[stage]
    assert not table.rows.keys() & kind().settings.keys()
    assert "weights" not in table.rows


def test_a_setting_that_a_row_reads_or_needs_exists() -> None:
    networks = {"parametrisation", "embedder", "device", "embedding_dim", "centres", "groups"}
    for _, table, kind in TABLES.values():
        for row in table.rows.values():
            assert row.reads_settings - networks <= kind().settings.keys()
            assert {*row.needs} <= kind().settings.keys()


@pytest.mark.parametrize("value", [0.0, 2.0, 0.1, -0.5, 1e-4, 1 / 3])
@pytest.mark.parametrize("window", [None, "decay", 0.0, 0.6, 1.0, (0.0, 1.0), (0.2, 0.6), (1e-05, 1 / 3)])
def test_a_weight_is_what_its_text_says(value: float, window: Any) -> None:
    weight = Weight(value, window)
    assert Weight.parse("a", str(weight)) == (weight if value else Weight(0.0))


MALFORMED = (
    "|x|1@|1@2|1@-0.1|1@soft|nan|inf|1@nan|1@0.5@0.6|1@0.2-|1@-0.6|1@0.6-0.2|1@0.5-0.5|1@0.5-1.5|1@0.1-0.2-0.3|1@.-."
)


@pytest.mark.parametrize("given", MALFORMED.split("|"))
def test_malformed_weights(given: str) -> None:
    with pytest.raises(LossError, match=r"identity=.*: a weight is a number"):
        LossConfig(weights={"identity": given})


def test_unknown_names_and_missing_settings(tmp_path: Path) -> None:
    with pytest.raises(LossError, match=r"'contrastiv' is not known as a loss\. Did you mean 'contrastive'\?.*FILE"):
        parse("denoise", [*NEEDED, "--losses", "contrastiv=1"], "idgen")
    with pytest.raises(LossError, match=r"'beauty' is not known as a reward\. Use one of identity, "):
        parse("reward", [*NEEDED, "--rewards", "beauty=1"], "idgen")
    with pytest.raises(LossError, match="'triplet' needs the setting prior_dir"):
        LossConfig(weights={"triplet": 1.0})
    with pytest.raises(LossError, match="no timestep"):
        RewardsConfig(weights={"identity": "1@0.5"})
    with pytest.raises(SystemExit):
        parse("denoise", [*NEEDED, "--losses", "identity"], "idgen")
    file = tmp_path / "run.toml"
    file.write_text('train_data_dir = "a"\noutput_dir = "b"\n[losses]\nt_min = 0.85\n')
    with pytest.raises(TrainingError, match=r"run\.toml: 't_min' is not known as a loss"):
        parse("denoise", ["--config", str(file)], "idgen")


def test_custom_functions(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "def level(latents):\n    return latents.mean((1, 2, 3))\n\ndef identity(latents):\n    return latents\n"
    )
    parametrisation = Parametrisation(torch.linspace(0.99, 0.1, 10))
    terms = make_losses(LossConfig.only(**{f"{file}:level": "0.5@0.2"}), parametrisation).terms
    assert (terms["level"].weight, terms["level"].valid) == (0.5, None)
    assert terms["level"].gate is not None
    assert terms["level"].gate(torch.tensor([2, 3])).tolist() == [1, 0]
    with pytest.raises(LossError, match="Two loss functions have the name 'identity'"):
        make_losses(LossConfig(weights={f"{file}:identity": 1.0}), parametrisation)


def test_what_reads_a_generated_face_is_valid_where_one_was_found() -> None:
    def sees(generated_embeds: torch.Tensor) -> torch.Tensor:
        return generated_embeds.mean(1)

    def looks(face_images: torch.Tensor) -> torch.Tensor:
        return face_images.mean((1, 2, 3))

    def blind(latents: torch.Tensor) -> torch.Tensor:
        return latents.mean((1, 2, 3))

    rows = {each.__name__: Row(function=each, weight=1.0, help="") for each in (sees, looks, blind)}
    found = {name: term.valid for name, term in Table("loss", rows).terms({}, {}).items()}
    assert found == {"sees": "face_found", "looks": "face_found", "blind": None}
