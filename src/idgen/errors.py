"""All errors of the package.

```
IdgenError
├── ImageError               the file is not a picture, truncated, or too large to open safely
├── FaceError
│   ├── NoFaceError          no face was found where one is needed
│   └── ManyFacesError       several faces were found and none was chosen
├── StatisticsError          the statistics of an encoder are missing or too small
├── IdentityError            an embedding cannot be used (NaN, wrong shape, no weight)
│   ├── EncoderMismatchError the embedding is from another encoder than the adapter was trained with
│   └── BlockedIdentityError the person is on the blocklist
├── AdapterError             an adapter is used in an unsupported way
│   └── BaseMismatchError    the adapter was made for another base model
├── DataError                photos or shards cannot be read, written or used together
├── LossError                a loss or reward got invalid settings or values
├── TrainingError            a training run has invalid settings or cannot continue
├── EvaluationError          an evaluation has invalid settings or input
├── DemoError                the demo cannot answer a request
├── ProvenanceError          a mark in a picture cannot be written or read
├── CheckpointError          a file is missing, unsafe, incomplete or of an unknown format
└── MissingDependencyError   an optional package is not installed
```
"""


class IdgenError(Exception):
    """Base class of all errors that this package raises."""


class ImageError(IdgenError):
    """The input is not a picture that can be opened safely.

    Attributes:
        reason: Why `idgen prepare` drops the photo: `unreadable`, `too-large` or `needs-heic`.
    """

    def __init__(self, message: str, reason: str = "unreadable") -> None:
        super().__init__(message)
        self.reason = reason


class FaceError(IdgenError):
    """No face, or no single face, could be chosen."""


class NoFaceError(FaceError):
    """No face was found where one is needed."""


class ManyFacesError(FaceError):
    """Several faces were found where one is needed."""


class StatisticsError(IdgenError):
    """The statistics of a face encoder are missing or too small for what is asked."""


class IdentityError(IdgenError):
    """An identity has values that cannot be used."""


class EncoderMismatchError(IdentityError):
    """An identity is from another encoder than the one that is needed."""


class BlockedIdentityError(IdentityError):
    """A person is on the blocklist and must not be drawn."""


class AdapterError(IdgenError):
    """An adapter was used in an unsupported way."""


class BaseMismatchError(AdapterError):
    """An adapter was made for another base model."""


class DataError(IdgenError):
    """Photos or shards cannot be read, written or used together."""


class LossError(IdgenError):
    """A loss or a reward got settings or values that it cannot use."""


class TrainingError(IdgenError):
    """A training run has invalid settings or cannot continue."""


class EvaluationError(IdgenError):
    """An evaluation has invalid settings, or its input cannot be measured or compared."""


class DemoError(IdgenError):
    """The demo cannot answer a request."""


class ProvenanceError(IdgenError):
    """A mark in a picture cannot be written or read."""


class CheckpointError(IdgenError):
    """A checkpoint is missing, unsafe, incomplete or of an unknown format."""


class MissingDependencyError(IdgenError, ImportError):
    """An optional package is needed and not installed."""
