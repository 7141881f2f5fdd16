"""`idgen forget`: an adapter → an adapter that no longer draws given people."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from ..errors import ProvenanceError
from ..inputs import AdapterName, BaseName, EncoderSpec, InputPath
from ..provenance.forgetting.settings import ForgettingSettings
from ..terminal import say, show, visible

if TYPE_CHECKING:
    from ..evaluation.intervals import Interval
    from ..provenance.forgetting.report import ForgettingReport


@dataclass(frozen=True, kw_only=True)
class ForgetOptions:
    """Options of `idgen forget`.

    Attributes:
        adapter: The adapter, which is not changed.
        person: People to forget. Each is a photo, a folder of photos, or a file of `idgen enroll`.
        output: Folder of the new adapter.
        settings: Settings.
        keep: Other people who are to stay as they are, as for --person. Adapters that read image features need at
            least two; for others people are invented.
        base: Base model, for the LoRA on its UNet and for --report. Defaults to the built-in model for its adapter.
        weight_name: File of the adapter, if its folder or repository holds several.
        report: Draw people before and after, and print how well they are forgotten and kept, and what attacks bring
            back.
        unseen: Other photos of the people of --person, in the same order, which --report draws from and compares with.
        others: Photos of other people for --report, as for --person. Defaults to twelve invented people.
        eval_encoder: Face encoders that --report measures with beside the adapter's own.
        detector: YuNet file; finds the faces for --report instead of the encoder's own detector.
        device: Defaults to a GPU if there is one.
    """

    adapter: Annotated[AdapterName, tyro.conf.Positional]
    person: tuple[InputPath, ...] = ()
    output: Path = Path("forgotten")
    settings: Annotated[ForgettingSettings, tyro.conf.arg(name="")] = field(default_factory=ForgettingSettings)
    keep: tuple[InputPath, ...] = ()
    base: BaseName | None = None
    weight_name: str | None = None
    report: bool = False
    unseen: tuple[InputPath, ...] = ()
    others: tuple[InputPath, ...] = ()
    eval_encoder: tuple[EncoderSpec, ...] = ()
    detector: InputPath | None = None
    device: str | None = None

    def check(self) -> None:
        """Check what can be checked without a model."""
        if not self.person:
            raise ProvenanceError(
                "--person is required: photos, folders of photos or identity files of people to forget."
            )
        if self.unseen and len(self.unseen) != len(self.person):
            raise ProvenanceError(
                f"--unseen must name as many people as --person: got {len(self.unseen)} and {len(self.person)}."
            )
        if self.base_model is None and (self.report or self.settings.unet == "always"):
            raise ProvenanceError("--base is required for --report and for --unet always.")

    @property
    def base_model(self) -> str | None:
        """The base model, if it is given or known."""
        return "tiny" if self.base is None and self.adapter == "tiny" else self.base


def run(options: Annotated[ForgetOptions, tyro.conf.arg(name="")]) -> None:
    """Make an adapter that no longer draws given people, from photos or identity files of them alone.

    idgen forget tiny --person anna/ --output forgotten/ --report

    idgen forget InstantX/InstantID --person anna/ bruno.safetensors --output forgotten/ --threshold 0.35

    Pictures of these people show somebody else; those of all other people stay nearly the same. docs/consent.md says
    what it does not do: the old adapter still exists, and the base model may know the person by name.
    """
    options.check()
    from ..provenance.forgetting.command import ForgetCommand

    command = ForgetCommand(options.adapter, options.weight_name, options.base_model, options.device)
    for line in command.forget(options.person, options.keep, options.settings, options.output):
        say(line)
    if options.report:
        print_report(command.report(options.unseen, options.others, options.eval_encoder, options.detector))
    show(options.output)


def print_report(found: ForgettingReport) -> None:
    """Print a report."""
    from ..provenance.forgetting.report import LIMITS

    table = Table("pictures of", "encoder", "before", "after", "strangers", "likeness left", "faces")
    for line in found.lines:
        figures = (_spell(each) for each in (line.before, line.after))
        table.add_row(
            line.name,
            visible(line.encoder),
            *figures,
            f"{line.strangers:.3f}",
            _spell(line.left, ".2f"),
            f"{line.found:.0%}",
        )
    Console().print(table)
    rows = {
        "kept people recognised": found.accuracy,
        "membership inference (0.5 is a guess)": found.membership,
        "NoMUS": found.nomus,
        "likeness of tokens that a search finds": found.remaining,
    }
    for name, (before, after) in rows.items():
        say(f"{name}: {before:.3f} before, {after:.3f} after")
    say("What cannot be promised:")
    for limit in LIMITS:
        say(f"- {limit}")


def _spell(figure: Interval, form: str = ".3f") -> str:
    return f"{figure.value:{form}} ({figure.low:{form}} … {figure.high:{form}})"
