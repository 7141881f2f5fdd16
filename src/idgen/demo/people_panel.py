"""The panel of people: photos, the faces in them, and the people enrolled from them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..errors import DemoError, NoFaceError
from ..faces import Face
from ..identity import Identity
from .backend import Backend, Captioned
from .components import face_gallery
from .enrolled import MAX_NAME, checked_name, chosen_faces, enroll_person, person_from_file
from .examples import example as find_example
from .examples import examples, picture
from .page import Page, person_dropdown
from .sessions import Session
from .uploads import MAX_FILE_BYTES, MAX_PHOTOS, gallery_paths, open_photo

CONSENT = "Everyone in these photos has agreed to appear in generated images."


def people_panel(page: Page) -> gr.Textbox:
    """Build the panel; returns the invisible textbox that holds the name of the latest person."""
    gr.Markdown("## 1 · Person")
    newest = gr.Textbox(visible=False, label="newest")
    photos, consent, chosen, enrolment = _photo_inputs(page)
    with enrolment:
        name = gr.Textbox(
            label="Name", placeholder="Person 1", max_length=MAX_NAME, scale=1, min_width=120, elem_id="name"
        )
        use = gr.Button("Enroll", variant="primary", size="md", scale=1, min_width=120, elem_id="enroll")
    page.people_changes = _example_buttons(page, newest)
    page.person = person_dropdown("Person to generate", elem_id="person")
    with gr.Accordion("Save, load or forget people", open=False):
        saved = gr.DownloadButton("Save the latest identity", elem_id="save")
        gr.Markdown("An identity file has a few KB and holds no photo. Nothing is kept after this page is closed.")
        file = gr.File(label="Load an identity file", file_types=[".safetensors"], elem_id="load")
        delete = gr.Button("Forget the selected person")
        left = gr.JSON(visible=False, label="people")
    page.people_changes += [
        page.api(use.click, enroll, [photos, chosen, name, consent], [newest, saved]),
        page.api(file.upload, load_identity, [file, name], newest),
        page.api(delete.click, forget, [page.person], left),
    ]
    return newest


def _photo_inputs(page: Page) -> tuple[gr.Gallery, gr.Checkbox, gr.JSON, gr.Row]:
    """Photos, consent, the index of the chosen face of each photo, and a row that is shown once faces are found."""
    photos = gr.Gallery(
        label=f"Photos of one person (up to {MAX_PHOTOS}, {MAX_FILE_BYTES >> 20} MB each)",
        sources=["upload", "webcam", "clipboard"],
        file_types=["image"],
        type="filepath",
        interactive=True,
        columns=3,
        fit_columns=False,
        height="auto",
        buttons=[],
        elem_id="photos",
    )
    consent = gr.Checkbox(False, label=CONSENT, visible="hidden", elem_id="consent")
    faces = face_gallery("Detected faces: click the one to use", columns=4, visible="hidden", elem_id="faces")
    enrolment = gr.Row(visible=False)
    chosen, places = gr.JSON([], visible=False, label="faces"), gr.State([])
    shows: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    photos.change(_ask_consent, [photos], [consent, faces, enrolment, chosen, places], **shows)
    detected = page.api(consent.input, find_faces, [photos, consent], [faces, chosen, places])
    detected.then(_show_faces, places, [faces, enrolment], **shows)
    faces.select(_choose_face, [faces, chosen, places], [faces, chosen], **shows)
    return photos, consent, chosen, enrolment


def _example_buttons(page: Page, newest: gr.Textbox) -> list[Any]:
    """A button for each example; returns their events."""
    names, events = list(examples(page.backend)), []
    gr.Markdown("Or try an example" + (": a NASA portrait, or people who do not exist." if names[1:] else "."))
    with gr.Row(elem_id="examples"):
        for name in names:
            chosen = gr.Textbox(name, visible=False, label="example")
            button = gr.Button(name, icon=picture(name), size="sm", min_width=60)
            call = page.private if events else page.api
            events.append(call(button.click, add_example, [chosen], newest))
    return events


def _ask_consent(photos: Any) -> tuple[Any, ...]:
    """Ask anew whenever the photos change."""
    shown = True if photos else "hidden"
    return gr.Checkbox(False, visible=shown), gr.Gallery([], visible="hidden"), gr.Row(visible=False), [], []


def _show_faces(places: Any) -> tuple[gr.Gallery, gr.Row]:
    return gr.Gallery(visible=True if places else "hidden"), gr.Row(visible=bool(places))


def find_faces(
    backend: Backend, photos: Any, consent: bool, session: Session
) -> tuple[Captioned, list[int], list[tuple[int, int]]]:
    """Find faces; returns them, the index of each photo's only face or -1, and the photo and index of each face."""
    if not photos:
        return [], [], []
    found = _faces_of(backend, photos, consent)[1]
    places = [(photo, face) for photo, faces in enumerate(found) for face in range(len(faces))]
    chosen = [0 if len(faces) == 1 else -1 for faces in found]
    crops = [Image.fromarray(found[photo][face].crop) for photo, face in places]
    files = [backend.save_png(crop, "face.png", session) for crop in crops]
    return _captioned_faces(files, places, chosen), chosen, places


def enroll(
    backend: Backend, photos: Any, faces: Sequence[int], name: str, consent: bool, session: Session
) -> tuple[str, str]:
    """Enroll a person from photos; returns the name and the path of the identity file."""
    images, found = _faces_of(backend, photos, consent)
    chosen = chosen_faces(found, faces)
    name = checked_name(name, list(session.people))
    with backend.faces_lock:
        person = enroll_person(backend.pipeline.pipe, images, chosen, name, backend.scorer.encoders)
    session.add(person)
    safe_name = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
    path = backend.sessions.new_file(f"{safe_name}.safetensors", session)
    person.identities[0].save(path)
    return name, os.fspath(path)


def add_example(backend: Backend, example: str, session: Session) -> str:
    """Add one of the people to try the demo with; returns the name."""
    person = find_example(backend, example)
    session.add(person)
    return person.name


def load_identity(backend: Backend, file: str | None, name: str, session: Session) -> str:
    """Add a person from an identity file; returns the name."""
    if not file:
        raise DemoError("Choose an identity file first.")
    identity = Identity.load(file)
    name = checked_name(name or identity.name, list(session.people))
    session.add(person_from_file(identity, name))
    return name


def forget(person: str, session: Session) -> list[str]:
    """Forget a person; returns the names of the others."""
    del session.people[session.person(person).name]
    return list(session.people)


def _faces_of(backend: Backend, photos: Any, consent: bool) -> tuple[list[np.ndarray], list[list[Face]]]:
    """The photos and the faces of each, largest first."""
    paths = gallery_paths(photos)
    if not consent:
        raise DemoError("Confirm first that everyone in the photos has agreed: tick the box below the photos.")
    images = [open_photo(path) for path in paths]
    with backend.faces_lock:
        found = backend.analyzer.analyze_batch(images)
    if not any(found):
        raise NoFaceError("No face was found. Use a photo with an upright, well-lit face at least 40 px wide.")
    return images, found


def _choose_face(
    faces: Sequence[tuple[str, str]], chosen: list[int], places: Sequence[Sequence[int]], event: gr.SelectData
) -> tuple[gr.Gallery, list[int]]:
    """Choose the clicked face for its photo."""
    photo, face = places[int(event.index)]  # pyright: ignore[reportArgumentType]
    chosen = [face if i == photo else old for i, old in enumerate(chosen)]
    captioned = _captioned_faces([file for file, _ in faces], places, chosen)
    return gr.Gallery(value=captioned, selected_index=None), chosen


def _captioned_faces(files: Sequence[str], places: Sequence[Sequence[int]], chosen: Sequence[int]) -> Captioned:
    """Faces with captions, the chosen ones with a check mark."""
    several = len(chosen) > 1
    captions = [
        ("✓ " if chosen[photo] == face else "") + (f"photo {photo + 1}" if several else f"face {face + 1}")
        for photo, face in places
    ]
    return list(zip(files, captions, strict=True))
