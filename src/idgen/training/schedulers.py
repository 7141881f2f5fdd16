"""Schedulers of diffusers with the noise schedule of another one."""

from __future__ import annotations

import inspect
from typing import Any

NOISE_SCHEDULE = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("prediction_type", "rescale_betas_zero_snr"),
)
"""Settings that define the noise schedule and what the network predicts."""


def with_schedule_of(kind: Any, scheduler: Any, **options: Any) -> Any:
    """A scheduler of a class of diffusers with the noise schedule of another one.

    `from_config` alone drops the settings that are defaults of the other class, and schedulers differ in them: a
    `DDIMScheduler()` would become an `LCMScheduler` of other noise levels.

    Args:
        kind: Class of the scheduler.
        scheduler: Any scheduler of diffusers.
        options: Further settings.
    """
    known = inspect.signature(kind.__init__).parameters
    config = scheduler.config
    same = {name: config[name] for name in NOISE_SCHEDULE if name in config and name in known}
    return kind.from_config(config, **{**same, **options})
