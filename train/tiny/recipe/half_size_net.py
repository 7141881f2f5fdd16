"""The IdentityNet of a model of half the resolution, for pictures of twice the side.

All of it is kept but the small network that reads the drawn landmarks. A new one, which starts a level higher, learns
to give the same features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from tqdm import tqdm

from idgen import IdentityNet
from idgen.data.framing import AlignedFraming
from idgen.data.poses import Poses
from idgen.faces import draw_keypoints

UPDATES, BATCH, LEARNING_RATE = 800, 16, 3e-3
POSES = Poses(angle=30, scale=(0.6, 1.1), shift=0.15)


def double_net(start: Path, framing: AlignedFraming, folder: Path, seed: int = 0) -> float:
    """Write an IdentityNet for pictures of `framing`.

    Args:
        start: Folder of the IdentityNet for pictures of half the side.
        framing: Where faces lie in the pictures.
        folder: Where the new one is written.
        seed: Random seed.

    Returns:
        Share of the variance of the features that the new network misses, on the last tenth of the updates.
    """
    torch.manual_seed(seed)
    old = IdentityNet.from_pretrained(start)
    config: dict[str, Any] = {**old.config}
    widths = config["conditioning_embedding_out_channels"]
    config["conditioning_embedding_out_channels"] = [widths[0], *widths]
    new: Any = IdentityNet.from_config(config)
    features = "controlnet_cond_embedding."
    kept = {name: weight for name, weight in old.state_dict().items() if not name.startswith(features)}
    new.load_state_dict(kept, strict=False)
    missed = _distil(new.controlnet_cond_embedding, old.controlnet_cond_embedding, framing, seed)
    new.save_pretrained(folder)
    return missed


def _distil(
    new: ControlNetConditioningEmbedding, old: ControlNetConditioningEmbedding, framing: AlignedFraming, seed: int
) -> float:
    """Train `new` to give what `old` gives of pictures of half the side."""
    numbers = np.random.default_rng(seed)
    torch.nn.init.kaiming_normal_(new.conv_out.weight)  # ControlNets start it at zero
    optimizer = torch.optim.AdamW(new.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=UPDATES)
    missed = []
    for _ in tqdm(range(UPDATES), desc="landmarks"):
        pictures = _drawn(framing, numbers)
        with torch.no_grad():
            wanted = old(F.avg_pool2d(pictures, 2))
        loss = F.mse_loss(new(pictures), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        missed.append(float(loss.detach() / wanted.var()))
    return float(np.mean(missed[-UPDATES // 10 :]))


def _drawn(framing: AlignedFraming, numbers: np.random.Generator) -> torch.Tensor:
    """Landmarks of faces in random poses, as training draws them: (batch, 3, side, side) in [0, 1]."""
    side, pictures = framing.resolution, []
    for _ in range(BATCH):
        points = AlignedFraming(side, framing.zoom, framing.rise, POSES.draw(numbers)).template
        points = points + numbers.normal(0, side * 0.015, points.shape)
        pictures.append(draw_keypoints(points, (side, side)))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
