"""`EditingMixin`: the methods of a diffusers pipeline that edit pictures of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..adapter import IdentityNet, Restorer, Scale
from ..faces import Choice, Photo
from .arguments import IdEmbeds, IdentityArguments, IdImage
from .face_crop import EditedPicture, FaceChoice


class EditingMixin:
    """Methods that `import idgen` adds to diffusers' pipelines, beside those of `IdentityAdapterMixin`."""

    def swap(
        self,
        picture: Photo,
        *,
        id_image: IdImage | Mapping[str, IdImage] | None = None,
        id_embeds: IdEmbeds | Mapping[str, IdEmbeds] | None = None,
        id_scale: Scale | Mapping[str, Scale] | None = None,
        face: FaceChoice = None,
        landmarks: np.ndarray | None = None,
        prompt: str | None = None,
        strength: float | None = None,
        identity_net: IdentityNet | None = None,
        match_colours: bool = True,
        **kwargs: Any,
    ) -> EditedPicture:
        """Replace a face of a picture by that of a person, and keep the rest of the picture.

        The face is cut out upright, drawn anew at the size of the base model inside of an oval around its landmarks,
        and blended into the picture. Pixels outside of the returned mask are those of the picture.

        Args:
            picture: The picture, of any size, as `idgen.faces.load_photo` takes it.
            id_image: The person, as in a call; see `IdentityArguments`.
            id_embeds: The person, as in a call. For several faces, a list with a person for each, or one for all.
            id_scale: Strength of identity conditioning.
            face: The face to replace if the picture shows several: `"largest"`, an index (largest first) or a box
                (x0, y0, x1, y1), as a tuple; or a list of these, to replace several.
            landmarks: (5, 2), of the face in pixels of the picture, for a picture in which no face is found.
            prompt: Prompt; "a photo of" the person if not given.
            strength: How much of the face is drawn anew, in (0, 1]. Lower values keep expression and light, higher
                ones are more like the person.
            identity_net: Keeps the pose by the landmarks of the face; that of the pipeline if it has one and none is
                given.
            match_colours: Give the drawn face the mean colour and the contrast of the one that it replaces.
            kwargs: Further arguments of the image-to-image pipeline, such as `num_inference_steps`, `guidance_scale`,
                `negative_prompt`, `generator` and `controlnet_conditioning_scale`.

        Raises:
            AdapterError: No adapter is loaded, nobody is given, or diffusers has no image-to-image pipeline of this
                kind.
            NoFaceError, ManyFacesError, ImageError: See `idgen.enroll`.
            BlockedIdentityError: The person, or the one whose face would be replaced, is on `id_blocklist`.
        """
        from .swap import STRENGTH, SwapSettings, swap

        settings = SwapSettings(
            prompt=prompt,
            strength=STRENGTH if strength is None else strength,
            identity_net=identity_net,
            match_colours=match_colours,
            options=kwargs,
        )
        ours = IdentityArguments(id_image=id_image, id_embeds=id_embeds, id_scale=id_scale)
        return swap(self, picture, ours, face, landmarks, settings)

    def restore(
        self,
        photo: Photo,
        *,
        restorer: Restorer,
        id_image: IdImage | Mapping[str, IdImage] | None = None,
        id_embeds: IdEmbeds | Mapping[str, IdEmbeds] | None = None,
        id_scale: Scale | Mapping[str, Scale] | None = None,
        face: Choice | None = None,
        landmarks: np.ndarray | None = None,
        **kwargs: Any,
    ) -> EditedPicture:
        """Restore a face of a damaged photo, with the person from other photos.

        A small photo is enlarged, so that the face has the size that the base model draws.

        Args:
            photo: The photo, of any size.
            restorer: The ControlNet that reads the damaged face.
            id_image: The person, as in a call; nobody if neither this nor `id_embeds` is given.
            id_embeds: The person, as in a call.
            id_scale: Strength of identity conditioning; by the degradation of the photo and the restorer's curve if
                not given. With 0 the photo is restored as without a person.
            face: The face to restore if the photo shows several, as in `encode_identity`.
            landmarks: (5, 2), of the face in pixels of the photo, for a photo in which no face is found.
            kwargs: Further arguments of the image-to-image pipeline, such as `num_inference_steps`, `guidance_scale`,
                `strength`, `generator` and `controlnet_conditioning_scale`.

        Returns:
            The enlarged photo, and where it differs from a plain enlargement.

        Raises:
            AdapterError: No adapter is loaded, or the photo would become too large.
            NoFaceError, ManyFacesError, ImageError: See `idgen.enroll`.
            BlockedIdentityError: The person, or the one in the photo, is on `id_blocklist`.
        """
        from .restore import restore

        scale = id_scale if id_image is not None or id_embeds is not None else None
        ours = IdentityArguments(id_image=id_image, id_embeds=id_embeds, id_scale=scale)
        return restore(self, photo, ours, restorer, face, landmarks, kwargs)
