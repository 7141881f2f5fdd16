"""`push_to_hub` of this package's models."""

from __future__ import annotations

from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from ..checkpoints import native


class HubMixin(ModelMixin):
    """A model that is saved to the hub with its model card."""

    def push_to_hub(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **kwargs: Any
    ) -> str:
        """Save to a hub repository, with a model card.

        Args:
            repo_id: Repository, `user/name`; created if it does not exist.
            private: Whether a new repository is private.
            token: Access token of the hub; by default that of `hf auth login`.
            kwargs: As in `huggingface_hub.upload_folder` (`commit_message`, `create_pr`, `revision`).

        Returns:
            The URL of the commit.
        """
        return native.push_to_hub(self, repo_id, private=private, token=token, **kwargs)
