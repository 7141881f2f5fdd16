"""Content Credentials, signed with certificates that the test makes."""

from __future__ import annotations

import datetime
import functools
import io
import socket
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from idgen.errors import CheckpointError, ImageError, ProvenanceError
from idgen.provenance import CredentialSigner, mark, read_credentials, read_settings
from idgen.provenance.metadata import open_picture

EC = functools.partial(ec.generate_private_key, ec.SECP256R1())
RSA = functools.partial(rsa.generate_private_key, 65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate


def certificate(subject, key, issuer, issuer_key, authority: bool) -> x509.Certificate:
    """As C2PA's technical specification 2.1, 14.5, wants certificates."""
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, algorithm)


def named(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def write_pair(folder: Path, make_key) -> tuple[Path, Path]:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), make_key()
    root = certificate(named("Test Root"), root_key, named("Test Root"), root_key, authority=True)
    leaf = certificate(named("Test Studio"), key, named("Test Root"), root_key, authority=False)
    pem = serialization.Encoding.PEM
    chain, key_file = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem))
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return chain, key_file


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_pair(tmp_path, EC)


@pytest.fixture
def picture(astronaut: np.ndarray) -> Image.Image:
    return Image.fromarray(astronaut[:128, 128:256])


@pytest.mark.parametrize("make_key", [EC, RSA, ED25519], ids=["ecdsa", "rsa", "ed25519"])
def test_a_signed_picture_says_who_and_what(picture: Image.Image, tmp_path: Path, make_key) -> None:
    signer = CredentialSigner(*write_pair(tmp_path, make_key))
    content = mark(picture, {"prompt": "a façade", "seed": 3}, watermark=False, signer=signer)
    credentials = read_credentials(content)
    assert credentials is not None
    assert credentials.signer == "Test Studio"
    assert credentials.generator.startswith("idgen")
    assert credentials.generated
    assert credentials.state == "Valid"
    assert read_settings(content) == {"generator": credentials.generator, "prompt": "a façade", "seed": 3}
    assert np.array_equal(np.asarray(open_picture(content)), np.asarray(picture))


def test_a_changed_picture_is_invalid(picture: Image.Image, pair: tuple[Path, Path]) -> None:
    content = mark(picture, {}, watermark=False, signer=CredentialSigner(*pair))
    start = content.index(b"IDAT") + 8
    other = mark(picture.transpose(Image.Transpose.ROTATE_180), {}, watermark=False)
    changed = content[: start - 8 - 4] + other[other.index(b"IDAT") - 4 :]
    credentials = read_credentials(changed)
    assert credentials is not None
    assert credentials.state == "Invalid"


def test_a_picture_without(picture: Image.Image, tmp_path: Path) -> None:
    assert read_credentials(mark(picture, {}, watermark=False)) is None
    with pytest.raises(ImageError, match="not a picture"):
        read_credentials(b"no picture")


def test_a_picture_that_names_a_server_does_not_call_it(picture: Image.Image) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/statement.c2pa"
        named = PngInfo()
        named.add_itxt(
            "XML:com.adobe.xmp",
            f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
            <rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{address}"/>
            </rdf:RDF></x:xmpmeta>""",
        )
        content = io.BytesIO()
        picture.save(content, "PNG", pnginfo=named)
        with pytest.raises(ProvenanceError, match=address):
            read_credentials(content.getvalue())
        with pytest.raises(TimeoutError):
            server.accept()


def test_the_key_of_another_certificate_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, wrong_key = write_pair(tmp_path / "other", EC)
    with pytest.raises(ProvenanceError, match="could not be signed"):
        CredentialSigner(pair[0], wrong_key)


def test_files_that_sign_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        CredentialSigner(tmp_path / "nowhere.pem", pair[1])
    with pytest.raises(ProvenanceError, match="private key"):
        CredentialSigner(pair[0], pair[0])
    curve = ec.generate_private_key(ec.SECP256K1())
    odd = tmp_path / "odd.pem"
    pem = serialization.Encoding.PEM
    odd.write_bytes(curve.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    with pytest.raises(ProvenanceError, match="C2PA does not support keys"):
        CredentialSigner(pair[0], odd)
    (tmp_path / "garbage.pem").write_text("no certificate")
    with pytest.raises(ProvenanceError, match="sign"):
        CredentialSigner(tmp_path / "garbage.pem", pair[1])
