"""A run resumed with another value of a setting uses it, or is refused with the name of the setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
import torch

from idgen.errors import TrainingError
from idgen.losses import LossConfig
from idgen.rewards import RewardsConfig
from idgen.training.config import DenoisingConfig, LoopConfig, OptimizerConfig, RewardConfig
from idgen.training.distil.config import DistilConfig
from idgen.training.files_read import PLACES, contents
from idgen.training.loop import Loop
from idgen.training.optimization import make_schedule
from idgen.training.optimizer_config import Schedule
from idgen.training.person.config import PersonConfig
from idgen.training.resume import ENDLESS_SCHEDULES, FROZEN, MAY_CHANGE, check_start, check_unchanged
from idgen.training.tracking import flatten

from .runs import make_loop
from .test_folder import rows_of

CONFIGS = [
    DenoisingConfig(train_data_dir="shards", output_dir=Path("run"), losses=LossConfig().fitted()),
    RewardConfig(
        train_data_dir="shards", output_dir=Path("run"), id_adapter="adapter", rewards=RewardsConfig().fitted()
    ),
    PersonConfig(photos=Path("photos"), output_dir=Path("run")),
    DistilConfig(train_data_dir="shards", output_dir=Path("run")),
]


def another(kind: Any, value: Any) -> Any:
    """Another value for a field, by its type; the dataclass may refuse it."""
    options = [option for option in get_args(kind) if option is not NoneType]
    if value is None:
        return another(options[0], options[0]()) if not get_args(options[0]) else get_args(options[0])[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return (*value, "another")
    return next((option for option in options if option != value and isinstance(option, str)), f"{value}-another")


def changed_ones(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a nested configuration, with another value for it."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from changed_ones(value, f"{prefix}{field.name}.")
        elif field.name == "weights":
            yield from ((prefix + name, weight._replace(value=weight.value + 1)) for name, weight in value.items())
        elif isinstance(value, Mapping):
            yield f"{prefix}{field.name}.another", 1.0
        else:
            yield prefix + field.name, another(hints[field.name], value)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stage)
def test_every_setting_is_used_or_refused_by_its_name(config: Any) -> None:
    before = flatten(asdict(config))
    seen = set()
    for name, value in changed_ones(config):
        now = before | flatten({name: value})
        assert now[name] != before.get(name), name
        seen.update({name} & before.keys())
        if name in MAY_CHANGE:
            check_unchanged(before, now, "run/checkpoint-1")
        else:
            with pytest.raises(TrainingError, match=rf"settings: ({name}|{name.partition('.')[2]}) was .*, now "):
                check_unchanged(before, now, "run/checkpoint-1")
    assert seen == before.keys()  # a new field is refused until it is added to MAY_CHANGE


def test_settings_that_may_change_exist() -> None:
    assert {name for config in CONFIGS for name in flatten(asdict(config))} >= MAY_CHANGE


def test_the_guide_lists_the_settings_that_may_change() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    table = guide.partition("| what may change when a run is resumed |")[2].partition("\n\n")[0]
    named = {name for name in MAY_CHANGE if name.rpartition(".")[2] in table}
    assert named == MAY_CHANGE - {"loop.dry_run", "loop.resume_from_checkpoint"}


NO_FILES = {
    *("base", "train_data_dir", "adapter.id_adapter", "id_adapter"),  # weights and photos are compared; a start
    *("encoder", "losses.encoder", "rewards.encoder", "data.encoder"),  # names of ONNX files have a hash
    *("class_word", "rare_word", "word_list", "blocklist", "face"),
    *("adapter.projection", "adapter.blocks", "faces.scheduler", "rollout.scheduler", "faces.prompt", "losses.edits"),
}
"""Settings with text that name no files which a run reads at every update."""


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stage)
def test_a_setting_with_text_names_files_or_is_known_not_to(config: Any) -> None:
    """A new setting that names a file is added to `PLACES`, so that a resumed run finds the same contents."""
    found = set(texts(type(config)))
    assert found <= MAY_CHANGE | NO_FILES | {*PLACES}


def texts(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every setting of a configuration that may be text or a mapping from names."""
    hints = get_type_hints(kind)
    for name in (field.name for field in fields(kind)):
        options = [hints[name], *get_args(hints[name])]
        if nested := [option for option in options if is_dataclass(option)]:
            yield from (text for option in nested for text in texts(option, f"{prefix}{name}."))
        elif {str, Path} & {*options} and name not in ("weights", "name"):
            yield prefix + name


def test_the_contents_of_files_are_compared_unless_a_checkpoint_lacks_them(tmp_path: Path) -> None:
    """Checkpoints of earlier versions lack them."""
    (tmp_path / "vae").mkdir()
    weights = tmp_path / "vae" / "weights.safetensors"
    keys = []
    for content in (b"1", b"2"):
        weights.write_bytes(content)
        (tmp_path / "vae" / "README.md").write_bytes(content)
        keys.append(flatten({FROZEN: contents({"faces": {"vae": str(weights.parent), "detector": "a hub/id"}})}))
    before, now = keys
    assert [*before] == [*now] == [f"frozen.{weights.parent}"]
    check_unchanged({}, now, "run/checkpoint-1")
    check_unchanged(before, before, "run/checkpoint-1")
    with pytest.raises(TrainingError, match=f"began with other contents of {weights.parent}"):
        check_unchanged(before, now, "run/checkpoint-1")


def test_several_changes_are_named_at_once() -> None:
    before = {"losses.identity": 0.0, "loop.train_batch_size": 8}
    now = {"losses.identity": 0.5, "loop.train_batch_size": 2, "new.field": 1}
    with pytest.raises(TrainingError) as raised:
        check_unchanged(before, now, "run/checkpoint-8")
    for part in (
        "losses.identity was 0.0, now 0.5",
        "; train_batch_size was 8, now 2",
        "new.field was not set, now 1",
    ):
        assert part in str(raised.value)
    assert "--id_adapter 'run/checkpoint-8'" in str(raised.value)


def learning_rates(schedule: Any, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


def schedule_of(name: Any, length: int, done: int = 0) -> Any:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    return make_schedule(OptimizerConfig(lr_scheduler=name, lr_warmup_steps=3), optimizer, length, done)


@pytest.mark.parametrize("name", get_args(Schedule))
def test_a_schedule_depends_on_the_configuration_alone(name: str) -> None:
    whole = learning_rates(schedule_of(name, 20), 20)
    for done in (1, 3, 7, 19):
        assert learning_rates(schedule_of(name, 20, done), 20 - done) == whole[done:]
    depends_on_length = learning_rates(schedule_of(name, 40), 20) != whole
    assert depends_on_length == (name not in ENDLESS_SCHEDULES)
    before = {"optimizer.lr_scheduler": name, "loop.max_train_steps": 20}
    if depends_on_length:  # it has come down, and would rise again
        with pytest.raises(TrainingError, match="max_train_steps was 20, now 40"):
            check_unchanged(before, before | {"loop.max_train_steps": 40}, "run/checkpoint-20")
    else:
        check_unchanged(before, before | {"loop.max_train_steps": 40}, "run/checkpoint-20")


def with_settings(loop: Loop, folder: Path, **optimizer: Any) -> Loop:
    """A loop as another one, with other settings of the optimizer."""
    settings = replace(loop.settings, **optimizer)
    return Loop(loop.trained, loop.batches, folder, loop.config, settings, loop.accelerator)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four updates at a constant learning rate."""
    folder = tmp_path_factory.mktemp("runs") / "begun"
    loop = make_loop(folder, steps=4, ema=0.0)
    with_settings(loop, folder, lr_scheduler="constant").run()
    return folder


def go_on(folder: Path, loop: dict[str, Any], **optimizer: Any) -> Loop:
    made = make_loop(folder, ema=0.0, resume_from_checkpoint="latest", **loop)
    return with_settings(made, folder, **{"lr_scheduler": "constant", **optimizer})


def test_new_values_are_used(begun: Path) -> None:
    found = go_on(begun, {"steps": 6}, learning_rate=1e-3, weight_decay=0.5, explosion=7.0, max_grad_norm=0.5)
    assert found.run() == 6
    assert [row["lr"] for row in rows_of(begun)] == [1e-2] * 4 + [1e-3] * 2
    assert found.optimizer.param_groups[0]["weight_decay"] == 0.5
    assert (found.filter.ratio, found.settings.max_grad_norm) == (7.0, 0.5)
    shorter = go_on(begun, {"steps": 5}, learning_rate=1e-3, weight_decay=0.5)
    assert shorter.run() == 6  # nothing is trained, and nothing is lost


@pytest.mark.parametrize(
    ("name", "loop", "optimizer"),
    [
        ("optimizer.ema_decay was 0.0, now 0.5", {}, {"ema_decay": 0.5}),
        ("optimizer.lr_scheduler was 'constant', now 'cosine'", {}, {"lr_scheduler": "cosine"}),
        ("optimizer.lr_warmup_steps was 2, now 3", {}, {"lr_warmup_steps": 3}),
        ("train_batch_size was 2, now 4", {"train_batch_size": 4}, {}),
    ],
)
def test_the_loop_refuses_before_it_changes_anything(
    name: str, loop: dict[str, Any], optimizer: dict[str, Any], begun: Path
) -> None:
    before = sorted(str(path) for path in begun.rglob("*"))
    metrics = (begun / "metrics.jsonl").read_bytes()
    with pytest.raises(TrainingError, match=name):
        go_on(begun, {"steps": 8, **loop}, **optimizer).run()
    assert sorted(str(path) for path in begun.rglob("*")) == before
    assert (begun / "metrics.jsonl").read_bytes() == metrics


def test_other_weights_are_refused(begun: Path) -> None:
    loop = make_loop(begun, ema=0.0, resume_from_checkpoint="latest")
    assert loop.trained.adapter is not None
    loop.trained.adapter.branches.requires_grad_(False)
    with pytest.raises(TrainingError, match=r"trained weights\.adapter was \d+, now \d+"):
        with_settings(loop, begun, lr_scheduler="constant").run()


def test_changed_settings_are_refused_before_anything_is_loaded(begun: Path) -> None:
    settings = {"loop": asdict(LoopConfig(train_batch_size=3))}
    with pytest.raises(TrainingError, match="train_batch_size was 2, now 3"):
        check_start(begun, "latest", settings)
    with pytest.raises(TrainingError, match="stage was not set, now 'reward'"):
        check_start(begun, "latest", {"stage": "reward"})
    with pytest.raises(TrainingError, match="already holds a run"):
        check_start(begun, None, settings)
