"""Face detection, alignment and embedding, and safe loading of photos."""

from .align import ARCFACE_TEMPLATE, DLIB_TEMPLATE, align_face, similarity_transform, warp_faces
from .analyzer import FaceAnalyzer
from .clip import ClipFeatures
from .detectors import DlibDetector, FaceDetector
from .encoders import DlibEncoder, FaceEncoder
from .face import Choice, Detection, Face, choose_face
from .image_encoder import ImageEncoder
from .keypoints import draw_keypoints
from .photo import Photo, load_photo
from .statistics import EncoderStatistics, ScoreDistribution

__all__ = [
    "ARCFACE_TEMPLATE",
    "DLIB_TEMPLATE",
    "Choice",
    "ClipFeatures",
    "Detection",
    "DlibDetector",
    "DlibEncoder",
    "EncoderStatistics",
    "Face",
    "FaceAnalyzer",
    "FaceDetector",
    "FaceEncoder",
    "ImageEncoder",
    "Photo",
    "ScoreDistribution",
    "align_face",
    "choose_face",
    "draw_keypoints",
    "load_photo",
    "similarity_transform",
    "warp_faces",
]
