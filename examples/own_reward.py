"""Train an adapter with a custom reward: python examples/own_reward.py"""

import torch

from idgen import Identity, IdentityAdapter
from idgen.faces import DlibEncoder
from idgen.losses import Term
from idgen.rewards import WeightedRewards
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.ddpo import DDPOStep
from idgen.training.methods import DDPOConfig

PICTURES, UPDATES = 8, 5


def warm_colours(images: torch.Tensor) -> list[float]:
    """More red than blue. The reward may be any function: its values need no gradient."""
    return (images[:, 0] - images[:, 2]).mean((1, 2)).tolist()


base = BaseModel.open("tiny", torch.float32, torch.device("cpu"))
torch.manual_seed(0)
adapter = IdentityAdapter.from_unet(base.unet, encoder=DlibEncoder.name, embedding_dim=DlibEncoder.dim)
adapter.attach(base.unet)
step = DDPOStep(base, adapter, WeightedRewards({"warmth": Term(warm_colours)}), DDPOConfig(steps=8, learned=2))
optimizer = torch.optim.AdamW(adapter.parameters(), lr=3e-4)

people = torch.stack([Identity.random(DlibEncoder.name, 128, norm=1.5, seed=i).embedding() for i in range(PICTURES)])
batch = Batch(
    latents=torch.zeros(PICTURES, base.unet.config.in_channels, 16, 16),
    prompts=("a photo of a face",) * PICTURES,
    id_embeds=people,
    encoder=DlibEncoder.name,
    target_embeds=people,
    landmarks=torch.zeros(PICTURES, 5, 2),
    face_found=torch.ones(PICTURES, dtype=torch.bool),
    has_identity=torch.ones(PICTURES, dtype=torch.bool),
    persons=torch.arange(PICTURES),
)
for update in range(UPDATES):
    with step:
        loss = step(batch, torch.Generator().manual_seed(update))
        loss.values.mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    warmth = loss.terms["warmth"]
    print(f"update {update + 1}: warmth {warmth.sum / warmth.samples:+.3f}")
