from .blocklist import IdentityBlocklist
from .credentials import Credentials, CredentialSigner, read_credentials
from .marks import mark
from .metadata import read_settings
from .picture_index import PictureIndex
from .picture_latents import LatentReader
from .tracing_key import TracingKey
from .watermark import Watermark, add_watermark, read_watermark

__all__ = [
    "CredentialSigner",
    "Credentials",
    "IdentityBlocklist",
    "LatentReader",
    "PictureIndex",
    "TracingKey",
    "Watermark",
    "add_watermark",
    "mark",
    "read_credentials",
    "read_settings",
    "read_watermark",
]
