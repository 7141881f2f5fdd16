"""What `idgen forget` does: opens adapter and people, forgets, writes the adapter, and measures."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ...adapter import IdentityAdapter
from ...base_model import open_base
from ...convert import NET, local_copy, open_net, stored_dtype
from ...data.members import hidden, is_picture
from ...errors import ProvenanceError
from ...evaluation.judges import open_judges
from ...faces import load_photo
from ...identity import Identity
from ...pipelines.loaded import LoadedAdapter
from ...tiny.usage import usage_of
from .drawing import Painter
from .report import ForgettingReport, Subject, measure_forgetting
from .settings import ForgettingSettings
from .tokens import TokenForgetting, forget
from .unet import forget_in_unet

ENOUGH = 0.5
"""Likeness of the tokens that a search finds, above which the LoRA on the UNet is trained too."""
INVENTED = 12


class ForgetCommand:
    """One call of the command.

    Args:
        adapter: "tiny", a folder, a file or a hub id.
        weight_name: File of the adapter.
        base: Name of the base model, or `None`.
        device: Device; a GPU if there is one by default.

    Raises:
        CheckpointError: The adapter cannot be opened.
    """

    def __init__(self, adapter: str, weight_name: str | None, base: str | None, device: str | None) -> None:
        self.place = local_copy(adapter, weight_name)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.base = base
        self._pipeline: Any = None
        unet = None if base is None else self.pipeline.unet
        options: dict[str, Any] = {"weight_name": weight_name, "unet": unet, **stored_dtype(self.place)}
        self.adapter = IdentityAdapter.from_pretrained(self.place, **options)
        torch.nn.Module.to(self.adapter, self.device)
        self.loaded = LoadedAdapter(copy.deepcopy(self.adapter).float())

    @property
    def pipeline(self) -> Any:
        """The base model, opened when it is first read."""
        assert self.base is not None
        if self._pipeline is None:
            self._pipeline = open_base(self.base, torch.float32).to(self.device)
        return self._pipeline

    def forget(
        self, people: Sequence[Path], keep: Sequence[Path], settings: ForgettingSettings, output: Path
    ) -> Iterator[str]:
        """Forget people and write the adapter, with the IdentityNet beside it; yields lines for the terminal."""
        self.people = [self._enroll(place) for place in people]
        kept = [self._enroll(place) for place in keep]
        self.forgotten = forget(self.adapter, self.people, settings, keep=kept, progress=True)
        self.task = TokenForgetting(self.adapter, self.people, settings, kept)
        left = self.task.remaining(copy.deepcopy(self.forgotten).float())
        yield f"Tokens that a search finds near the people have a likeness of {left:.2f} (1: theirs, 0: a stranger's)."
        if settings.unet == "always" or (settings.unet == "auto" and settings.steps and left > ENOUGH):
            if self.adapter.to_tokens.fuses_text:
                yield "The adapter changes the prompt and not the UNet: it forgets in token space only."
            elif self.base is None:
                yield "That is much. Give --base to train the adapter's LoRA on its UNet too."
            else:
                self.forgotten = forget_in_unet(
                    self.pipeline, self.forgotten, self.task, settings.unet_steps, self._prompts, progress=True
                )
        self.forgotten.save_pretrained(output)
        if (net := open_net(self.place)) is not None:
            net.save_pretrained(output / NET)
            yield "The IdentityNet is copied unchanged: it reads the adapter's tokens."

    def report(
        self,
        unseen: Sequence[Path],
        others: Sequence[Path],
        eval_encoder: Sequence[str],
        detector: Path | None,
    ) -> ForgettingReport:
        """Measure the adapter that `forget` made.

        Raises:
            ProvenanceError: The adapter reads image features, and no other people are given.
        """
        if self.adapter.feature_dim is not None and not others:
            raise ProvenanceError("The adapter reads image features, so people cannot be invented: give --others.")
        config, usage = self.adapter.config, usage_of(self.base or "")
        judges = open_judges(config["encoder"], eval_encoder=eval_encoder, detector=detector)
        painter = Painter(
            pipeline=self.pipeline,
            judges=judges,
            prompts=self._prompts,
            steps=usage.num_inference_steps,
            guidance_scale=usage.guidance_scale,
        )
        subjects = [Subject(identity=person) for person in self.people]
        if unseen:
            subjects = [
                Subject(
                    identity=person,
                    unseen=self._enroll(place),
                    photos=[load_photo(file) for file in _photos(place)],
                )
                for person, place in zip(self.people, unseen, strict=True)
            ]
        kept = [self._other(place) for place in others] or [
            Subject(identity=Identity.random(config["encoder"], config["embedding_dim"], seed=10_000 + seed))
            for seed in range(INVENTED)
        ]
        return measure_forgetting(self.forgotten, self.task, painter, subjects, kept)

    @property
    def _prompts(self) -> Sequence[str]:
        return ["a photo of a person <id>" if self.adapter.to_tokens.fuses_text else "a photo of a face"]

    def _other(self, place: Path) -> Subject:
        """A person who is kept: drawn from the first photo of a folder, and compared with the others."""
        if not place.is_dir():
            return Subject(identity=self._enroll(place))
        first, *rest = _photos(place)
        return Subject(identity=self._enroll(first), photos=[load_photo(file) for file in rest])

    def _enroll(self, place: Path) -> Identity:
        """One person: an identity file, a photo or a folder of photos."""
        if place.suffix == ".safetensors":
            return Identity.load(place)
        return self.loaded.enroll(_photos(place))  # pyright: ignore[reportArgumentType]


def _photos(place: Path) -> list[Path]:
    """The photos of a folder, or a photo.

    Raises:
        ProvenanceError: The folder holds no photo.
    """
    if not place.is_dir():
        return [] if place.suffix == ".safetensors" else [place]
    found = sorted(file for file in place.iterdir() if is_picture(file.name) and not hidden([file.name]))
    if not found:
        raise ProvenanceError(f"There is no photo in '{place}'.")
    return found
