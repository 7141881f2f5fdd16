"""Everything that can go wrong, in one small tree.

```
IdgenError
├── ImageError               not a picture, truncated, or too large to open safely
├── FaceError
│   ├── NoFaceError          no face where one is needed
│   └── ManyFacesError       several faces where one is wanted, and nothing said which
├── StatisticsError          an encoder of which too little is known, or measured on too few people
├── IdentityError            an embedding that cannot be used (NaN, wrong shape, no weight)
│   ├── EncoderMismatchError an embedding from another encoder than the adapter was trained with
│   └── BlockedIdentityError a person who is on the blocklist
├── AdapterError             an adapter used in a way that it does not allow
│   └── BaseMismatchError    an adapter made for another base model
├── DataError                photos or shards that cannot be read, written or used together
├── LossError                a loss or a reward that was given what it cannot use
├── TrainingError            a training run that is set up wrongly or cannot go on
├── EvaluationError          an evaluation that is set up wrongly or cannot be compared
├── DemoError                a request to the demo that it cannot answer
├── ProvenanceError          a mark in a picture that cannot be written or read
├── CheckpointError          a file that is missing, unsafe, incomplete or of an unknown form
└── MissingDependencyError   an optional package that is not installed
```
"""


class IdgenError(Exception):
    """Base of all errors that this package raises on purpose."""


class ImageError(IdgenError):
    """The input is not a picture that can be opened safely.

    Attributes:
        reason: How `idgen prepare` counts it: `unreadable`, `too-large` or `needs-heic`.
    """

    def __init__(self, message: str, reason: str = "unreadable") -> None:
        super().__init__(message)
        self.reason = reason


class FaceError(IdgenError):
    """Faces could not be chosen."""


class NoFaceError(FaceError):
    """No face was found where one is needed."""


class ManyFacesError(FaceError):
    """Several faces were found where one is wanted."""


class StatisticsError(IdgenError):
    """A face encoder's similarities are not known well enough for what is asked."""


class IdentityError(IdgenError):
    """An identity holds or was given values that cannot be used."""


class EncoderMismatchError(IdentityError):
    """An identity was made by another encoder than the one that is asked for."""


class BlockedIdentityError(IdentityError):
    """A person is on the blocklist and shall not be drawn."""


class AdapterError(IdgenError):
    """An adapter was used in a way that it does not allow."""


class BaseMismatchError(AdapterError):
    """An adapter was made for another base model."""


class DataError(IdgenError):
    """Photos or shards cannot be read, written or used together."""


class LossError(IdgenError):
    """A loss or a reward was set up wrongly or given values that it cannot use."""


class TrainingError(IdgenError):
    """A training run is set up wrongly or cannot go on."""


class EvaluationError(IdgenError):
    """An evaluation is set up wrongly, or its input cannot be measured or compared."""


class DemoError(IdgenError):
    """The demo was asked for something that it does not do."""


class ProvenanceError(IdgenError):
    """A mark in a picture cannot be written or read."""


class CheckpointError(IdgenError):
    """A checkpoint is missing, unsafe, incomplete or of an unknown form."""


class MissingDependencyError(IdgenError, ImportError):
    """An optional package is needed and not installed."""
