"""Content Credentials (C2PA): a signed manifest in the file that says how the picture was generated."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .. import __version__
from ..errors import CheckpointError, MissingDependencyError, ProvenanceError
from .metadata import Picture, open_picture, write_png

CURVES = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for a picture that a trained model made."""


OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
"""A picture may name a server that its manifest is fetched from. Reading the picture must not call that server."""


@dataclass(frozen=True)
class Credentials:
    """The manifest in a picture.

    Attributes:
        generator: Program that wrote it.
        signer: Organisation that the certificate names; empty if it names none.
        state: C2PA's validation state: `"Trusted"` (the signer is on the C2PA trust list), `"Valid"` (unchanged since
            it was signed by the owner of the certificate) or `"Invalid"`.
        generated: Whether the manifest says that a model generated the picture.
    """

    generator: str
    signer: str
    state: str
    generated: bool


class CredentialSigner:
    """Signs pictures with your certificate.

    Args:
        certificates: PEM file: the signing certificate first, then its chain up to the root.
        key: PEM file (PKCS #8, not encrypted) of the certificate's private key: ECDSA, RSA or Ed25519.

    Raises:
        MissingDependencyError: `idgen-diffusers[c2pa]` is not installed.
        CheckpointError: A file cannot be read.
        ProvenanceError: C2PA does not support the key, or it does not belong to the certificate.
    """

    def __init__(self, certificates: str | os.PathLike[str], key: str | os.PathLike[str]) -> None:
        self._c2pa = _library()
        chain, private_key = _read(certificates), _read(key)
        info = self._c2pa.C2paSignerInfo(_algorithm(private_key), chain, private_key, None)
        try:
            self._signer = self._c2pa.Signer.from_info(info)
        except self._c2pa.C2paError as error:
            raise ProvenanceError(f"'{os.fspath(certificates)}' cannot be used for signing: {error}") from error
        self.sign(write_png(Image.new("RGB", (1, 1)), {}), {})  # a key that does not fit fails here, before drawing

    def sign(self, png: bytes, settings: Mapping[str, object]) -> bytes:
        """The PNG file with a signed manifest.

        Args:
            png: Content of a PNG file. Its metadata are kept.
            settings: Settings of the generation, for the manifest.

        Raises:
            ProvenanceError: The certificate does not meet C2PA's rules, or the key does not belong to it.
        """
        generator = {"name": "idgen", "version": __version__}
        action = {"action": "c2pa.created", "digitalSourceType": GENERATED, "softwareAgent": generator}
        action["parameters"] = {"com.idgen.settings": dict(settings)}
        manifest = {
            "claim_generator_info": [generator],
            "format": "image/png",
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        signed = io.BytesIO()
        try:
            self._c2pa.Builder(manifest).sign(self._signer, "image/png", io.BytesIO(png), signed)
        except self._c2pa.C2paError as error:
            raise ProvenanceError(f"The picture could not be signed: {error}") from error
        return signed.getvalue()


def read_credentials(picture: Picture) -> Credentials | None:
    """The signed manifest in a picture; None if there is none.

    Raises:
        ImageError: The file is not a picture.
        MissingDependencyError: `idgen-diffusers[c2pa]` is not installed.
        ProvenanceError: The manifest cannot be read.
    """
    c2pa = _library()
    open_picture(picture).close()
    try:
        content = io.BytesIO(picture if isinstance(picture, bytes) else Path(picture).read_bytes())
        with c2pa.Reader(content, context=c2pa.Context(c2pa.Settings.from_dict(OFFLINE))) as reader:
            manifest, state = reader.get_active_manifest(), reader.get_validation_state()
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        raise ProvenanceError(f"The content credentials cannot be read: {error}") from error
    if manifest is None:
        return None
    generator = (manifest.get("claim_generator_info") or [{}])[0]
    return Credentials(
        generator=f"{generator.get('name', '?')} {generator.get('version', '')}".strip(),
        signer=manifest.get("signature_info", {}).get("issuer") or "",
        state=str(state),
        generated=GENERATED in json.dumps(manifest.get("assertions", [])),
    )


def _library() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise MissingDependencyError(
            f"Content credentials need pip install 'idgen-diffusers[c2pa]' ({error})."
        ) from error
    return c2pa


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"'{os.fspath(path)}' cannot be read: {error}") from error


def _algorithm(private_key: bytes) -> bytes:
    """C2PA's name of the key's signature algorithm."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError) as error:
        raise ProvenanceError(f"The private key cannot be read: {error}") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return b"ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    raise ProvenanceError(f"C2PA does not support keys of type {type(key).__name__}; use ECDSA P-256, RSA or Ed25519.")
