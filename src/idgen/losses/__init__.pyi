from .alignment import layout_alignment_loss, semantic_alignment_loss
from .attention import increment_loss, localisation_loss, value_regulariser, word_regulariser
from .config import LossConfig, make_losses
from .contrastive import ContrastiveLoss, MannWhitneyLoss, ThresholdLoss
from .decode import FaceCrops, FaceDecoder, WholePictures
from .denoising import DenoisingLoss
from .face_embedder import FaceEmbedder, Landmarks, find_landmarks, find_people
from .features import feature_loss
from .gates import Between, Decay, Gate, SignalPower, UpTo
from .groups import OrthogonalityLoss, WithinGroupLoss
from .identity_head import IdentityHeadLoss
from .identity_losses import TripletLoss, identity_loss
from .inputs import Inputs
from .learned_similarity import LearnedSimilarity
from .mixup import MixedContrastiveLoss, make_contrastive
from .negatives import Bank, Negatives
from .norm_direction import NormDirectionLoss
from .parametrisation import Parametrisation
from .patches import patch_loss
from .people import DisentanglementLoss, correspondence_loss, in_box_loss
from .preservation import background_loss, base_preservation_loss, editing_direction_loss, mix_identities
from .prototypes import PrototypeLoss, RelationLoss
from .rates import ErrorRateLoss
from .recorder import AttentionRecorder, LayerRecord, Recording
from .robust import RobustContrastiveLoss
from .row import Row, Table
from .settings import LossSettings
from .several_encoders import over_encoders
from .symmetry import symmetry_loss
from .table import LOSSES
from .term import Term
from .two_phase import TwoPhaseLoss
from .weighted import TermLog, Weighted, WeightedTerms, learned_parts
from .weights import Weight

__all__ = [
    "LOSSES",
    "AttentionRecorder",
    "Bank",
    "Between",
    "ContrastiveLoss",
    "Decay",
    "DenoisingLoss",
    "DisentanglementLoss",
    "ErrorRateLoss",
    "FaceCrops",
    "FaceDecoder",
    "FaceEmbedder",
    "Gate",
    "IdentityHeadLoss",
    "Inputs",
    "Landmarks",
    "LayerRecord",
    "LearnedSimilarity",
    "LossConfig",
    "LossSettings",
    "MannWhitneyLoss",
    "MixedContrastiveLoss",
    "Negatives",
    "NormDirectionLoss",
    "OrthogonalityLoss",
    "Parametrisation",
    "PrototypeLoss",
    "Recording",
    "RelationLoss",
    "RobustContrastiveLoss",
    "Row",
    "SignalPower",
    "Table",
    "Term",
    "TermLog",
    "ThresholdLoss",
    "TripletLoss",
    "TwoPhaseLoss",
    "UpTo",
    "Weight",
    "Weighted",
    "WeightedTerms",
    "WholePictures",
    "WithinGroupLoss",
    "background_loss",
    "base_preservation_loss",
    "correspondence_loss",
    "editing_direction_loss",
    "feature_loss",
    "find_landmarks",
    "find_people",
    "identity_loss",
    "in_box_loss",
    "increment_loss",
    "layout_alignment_loss",
    "learned_parts",
    "localisation_loss",
    "make_contrastive",
    "make_losses",
    "mix_identities",
    "over_encoders",
    "patch_loss",
    "semantic_alignment_loss",
    "symmetry_loss",
    "value_regulariser",
    "word_regulariser",
]
