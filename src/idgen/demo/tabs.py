"""The tabs that draw."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr
import numpy as np
from PIL import Image

from .comparison import Comparison
from .components import unopened_editor, unopened_picture
from .edits import Edits
from .functions import COLUMNS
from .scenes import BLUE, CANVAS, RED, Scenes, enlarged
from .wiring import Wiring


def picture_tab(wiring: Wiring) -> None:
    """One person."""
    draw = gr.Button("Draw", variant="primary", elem_id="draw")
    wiring.draws(draw.click, wiring.functions.draw, [wiring.person], results(wiring))


def two_tab(wiring: Wiring) -> None:
    """Two people, each with a painted region."""
    scenes = Scenes(wiring.functions)
    with gr.Row():
        first, second = wiring.two_people()
    gr.Markdown("Paint where the first person shall be red, and where the second shall be blue.")
    regions = unopened_editor(
        wiring.sessions.new_folder,
        value={"background": _halves(), "layers": [], "composite": None},
        label="Regions",
        brush=gr.Brush(colors=[_colour(RED), _colour(BLUE)], default_color=_colour(RED), color_mode="fixed"),
        sources=[],
        canvas_size=(CANVAS, CANVAS),
        fixed_canvas=True,
        height=360,
        elem_id="regions",
    )
    draw = gr.Button("Draw both", variant="primary", elem_id="draw-both")
    wiring.draws(draw.click, scenes.draw_two, [first, second, regions], results(wiring))


def pose_tab(wiring: Wiring) -> None:
    """A pose from another photo, or from five clicks."""
    scenes, studio = Scenes(wiring.functions), wiring.functions.studio
    if studio.identity_net is None:
        gr.Markdown("No IdentityNet was given at the start (`--identity-net`): poses are shown here, and not drawn.")
    with gr.Row():
        photo = gr.Gallery(
            label="A photo with the pose",
            sources=["upload", "webcam"],
            file_types=["image"],
            type="filepath",
            interactive=True,
            columns=2,
            fit_columns=False,
            height=260,
            buttons=[],
        )
        pose = unopened_picture(
            enlarged(Image.new("RGB", (studio.native, studio.native))),
            label="Or click eyes, nose, ends of the mouth",
            type="filepath",
            format="png",
            interactive=False,
            image_mode=None,
            height=260,
            buttons=[],
            elem_id="pose",
        )
    points = gr.JSON([], visible=False, label="points")
    strength = gr.Slider(0, 2, 0.8, step=0.05, label="Pose strength")
    draw = gr.Button("Draw in this pose", variant="primary", interactive=studio.identity_net is not None)
    sides = [wiring.controls["width"], wiring.controls["height"]]
    forgotten = photo.upload(lambda: [], None, points, api_visibility="private", show_progress="hidden")
    wiring.api(forgotten.then, scenes.landmarks, [photo, points, *sides], pose)
    wiring.inside(pose.select, scenes.click_landmark, [pose, points, *sides], [pose, points], show_progress="hidden")
    wiring.draws(draw.click, scenes.draw_pose, [wiring.person, pose, strength], results(wiring))


def mix_tab(wiring: Wiring) -> None:
    """Somebody between two people."""
    scenes = Scenes(wiring.functions)
    with gr.Row():
        first, second = wiring.two_people()
    share = gr.Slider(0, 1, 0.5, step=0.05, label="Share of the second person")
    draw = gr.Button("Draw somebody between", variant="primary")
    wiring.draws(draw.click, scenes.mix, [first, second, share], results(wiring))


def edit_tab(wiring: Wiring) -> None:
    """A picture that is there already."""
    edits = Edits(wiring.functions)
    gr.Markdown("Upload a picture, and paint over what shall be drawn again; or have all of it drawn again.")
    picture = unopened_editor(
        wiring.sessions.new_folder,
        label="Picture",
        brush=gr.Brush(colors=["#ffffff"], default_color="#ffffff", color_mode="fixed"),
        sources=["upload", "clipboard"],
        height=400,
        elem_id="editor",
    )
    strength = gr.Slider(0.05, 1, 0.7, step=0.05, label="Strength", info="1 keeps nothing of what is drawn again")
    with gr.Row():
        whole, painted = (
            gr.Button("Draw all of it again", elem_id="draw-all"),
            gr.Button("Draw what is painted", variant="primary", elem_id="draw-painted"),
        )
    shown = results(wiring)
    wiring.draws(whole.click, edits.redraw, [wiring.person, picture, strength], shown)
    wiring.draws(painted.click, edits.inpaint, [wiring.person, picture, strength], shown)


def compare_tab(wiring: Wiring) -> None:
    """Scales and adapters side by side."""
    names = list(wiring.functions.studio.adapters)
    scales = gr.Textbox("0, 0.4, 0.8, 1.2", label="Scales")
    adapters = gr.CheckboxGroup(names, value=names, label="Adapters", visible=True if names[1:] else "hidden")
    draw = gr.Button("Draw each", variant="primary")
    gallery = _gallery(columns=4)
    plot = gr.LinePlot(
        x="scale",
        y="cosine",
        color="curve",
        label="How like the person",
        show_label=False,  # Gradio leaves no room for it, and cuts the legend off
        x_title="scale",
        y_title="cosine to the reference",
        height=340,
    )
    inputs = [wiring.person, scales, adapters]
    wiring.draws(draw.click, Comparison(wiring.functions).compare, inputs, [gallery, plot])


def results(wiring: Wiring) -> tuple[gr.Gallery, gr.Dataframe]:
    """Where a tab shows what it drew."""
    gallery = _gallery(columns=3)
    with gr.Accordion("How like the person?", open=False):
        table = gr.Dataframe(headers=COLUMNS, interactive=False, label="Likeness", show_label=False)
        gr.Markdown(
            "Cosine to the reference photos, by each face encoder. One that the adapter reads is easily pleased; "
            "cosines of different encoders do not compare."
        )
        if len(wiring.functions.likeness.encoders) == 1:
            gr.Markdown(
                "Here only the adapter's own encoder judges: start with `--encoder` to add one that says more."
            )
    return gallery, table


def _gallery(columns: int) -> gr.Gallery:
    return gr.Gallery(
        label="Pictures",
        interactive=False,
        columns=columns,
        fit_columns=False,
        object_fit="contain",
        height="auto",
        buttons=["download", "fullscreen"],
        elem_classes="pictures",
    )


def _halves() -> Image.Image:
    pixels = np.full((CANVAS, CANVAS, 3), BLUE, np.uint8)
    pixels[:, : CANVAS // 2] = RED
    return Image.fromarray(pixels)


def _colour(paint: Sequence[int]) -> str:
    return "#" + bytes(paint).hex()
