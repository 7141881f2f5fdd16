"""All trainings of `gpu.py`, one after the other."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer

from idgen.convert import NET

from .. import config
from ..device import place
from ..face_loss import FaceLoss
from ..pack import CarriedEncoder, unpack
from ..pieces import save_pieces
from .captured import Captured, Trained, spend
from .faces import LandmarkNet
from .latent_faces import LatentFaces
from .pictures import autoencoder_update, landmark_update
from .posed import open_poses
from .resident import Resident
from .reward import reward_update
from .start import BASE, open_autoencoder, open_net, open_person
from .updates import adapter_update, joint_update, net_update

ADAPTERS = ("joint", "adapter", "reward")
"""The trainings that leave an adapter, in their order."""
LASTS = (1, 3, 6)
"""Numbers of last steps that have a gradient in the reward; they take turns."""
WRITING = 10.0
"""Seconds that are left for the last results."""
PATCH = 64
"""Side of the patches that the autoencoder is trained on first."""
SAMPLE = 1000
"""Pictures that say which details the latents miss."""


class Trainings:
    """The photos on the device, and the networks that are trained.

    Args:
        settings: With the table `gpu`.
        pack: Folder of the pack.
        output: Folder of the results; those of a training are written when it ends.
        most: Updates of each training; 0 for no limit.
        minutes: For everything, from here on; trainings for which too little is left are shorter.
    """

    def __init__(
        self, settings: config.Config, pack: Path, output: Path, most: int = 0, minutes: float = math.inf
    ) -> None:
        self.settings, self.pack, self.output, self.most = settings, pack, output, most
        self.end = time.monotonic() + 60 * minutes - WRITING
        output.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(settings.seed)
        torch.backends.cudnn.benchmark = True
        self.encoder = place(CarriedEncoder(pack / "encoder.safetensors"))
        tokenizer = CLIPTokenizer.from_pretrained(pack / BASE / "tokenizer")
        self.model = open_person(pack)
        marker = tokenizer.bos_token * self.model.adapter.config["num_words"]
        with tempfile.TemporaryDirectory() as temporary:
            folders = {name: Path(temporary) / name for name in config.STAGES}
            for folder in folders.values():
                folder.mkdir()
            unpack(settings, pack, folders)
            self.data = Resident(folders, self.encoder, tokenizer, marker, settings.seed)
        self.autoencoder = open_autoencoder(pack, self.data.pictures(self.data.rows(SAMPLE, 0.3)))

    def run(self) -> None:
        """Train everything."""
        self._train_autoencoder()
        self.data.encode(self.autoencoder)
        faces = LatentFaces(self.autoencoder, self._train_landmarks(), self.encoder)
        self._train_joint()
        self._train_adapter(faces)
        self._train_reward(faces)
        self._train_net()

    def _train_autoencoder(self) -> None:
        """On patches by L1, then on whole pictures with the face loss."""
        net: Any = self.autoencoder.requires_grad_(True)
        faces = place(FaceLoss(self.settings.crops.template, self.settings.crops.size, self.encoder))
        for name, patch, loss in (("patches", PATCH, None), ("pictures", 0, faces)):
            trained = Trained(net.parameters(), 0.995, (0.9, 0.99))
            self._spend(name, [autoencoder_update(self.data, net, trained, self._batch(name), patch, loss)], trained)
        self.autoencoder.requires_grad_(False)
        save_pieces(self.autoencoder, self.output, "autoencoder")

    def _train_landmarks(self) -> LandmarkNet:
        net = place(LandmarkNet())
        trained = Trained(net.parameters(), 0.99)
        self._spend("landmarks", [landmark_update(self.data, net, trained, self._batch("landmarks"))], trained)
        return net.requires_grad_(False)

    def _train_joint(self) -> None:
        """Base and adapter together; the adapter's LoRA is for the frozen base."""
        model = self.model.requires_grad_(True)
        model.adapter.loras.requires_grad_(False)
        trained = Trained(model.parameters(), 0.998)
        self._spend("joint", [joint_update(self.data, model, trained, self._batch("joint"))], trained)
        for name, net in (("unet", model.unet), ("text_encoder", model.text_encoder), ("joint", model.adapter)):
            save_pieces(net, self.output, name)
        model.requires_grad_(False)

    def _train_adapter(self, faces: LatentFaces) -> None:
        trained = Trained(self.model.adapter.requires_grad_(True).parameters(), 0.99)
        update = adapter_update(self.data, self.model, trained, faces, self._batch("adapter"))
        self._spend("adapter", [update], trained)
        save_pieces(self.model.adapter, self.output, "adapter")

    def _train_reward(self, faces: LatentFaces) -> None:
        trained = Trained(self.model.adapter.requires_grad_(True).parameters(), 0.99)
        batch = self._batch("reward")
        updates = [reward_update(self.data, self.model, trained, faces, batch, last) for last in LASTS]
        self._spend("reward", updates, trained)
        self.model.adapter.requires_grad_(False)
        save_pieces(self.model.adapter, self.output, "reward")

    def _train_net(self) -> None:
        net = open_net(self.pack)
        trained = Trained(net.parameters(), 0.99)
        poses = open_poses(self.pack, self.autoencoder)
        self._spend("net", [net_update(self.data, poses, self.model, net, trained, self._batch("net"))], trained)
        save_pieces(net, self.output, NET)

    def _batch(self, name: str) -> int:
        return self.settings.gpu[name].batch

    def _spend(self, name: str, updates: list[Any], trained: Trained) -> None:
        """Record the updates, repeat them until the stage's time is over, and keep the average of the weights."""
        stage, captured = self.settings.gpu[name], list[Captured]()
        for update in updates:
            captured.append(Captured(update, captured[0] if captured else None))
        print(f"{time.strftime('%H:%M:%S')} {name}: batches of {stage.batch}", flush=True)
        seconds = min(stage.seconds, self.end - time.monotonic())
        spend(seconds, name, captured, trained, stage.rate, self.output / "losses.jsonl", self.most)
        trained.use_average()
