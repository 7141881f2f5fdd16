from .align import ARCFACE_TEMPLATE, DLIB_TEMPLATE, FFHQ_TEMPLATE, align_face, similarity_transform, warp_faces
from .analyzer import FaceAnalyzer
from .clip import ClipFeatures
from .degradation import Degradation, measure_degradation
from .detectors import DlibDetector, FaceDetector
from .dlib_encoder import DlibEncoder
from .encoder import AlignedEncoder, FaceEncoder, NetworkInput
from .eva import EvaFeatures
from .face import Choice, Detection, Face, choose_face
from .image_encoder import ImageEncoder
from .keypoints import draw_keypoints
from .onnx_encoder import OnnxEncoder
from .parsing import FaceParser, SegmentationParser
from .paste import Pasted, face_oval, match_colours, paste_face
from .photo import Photo, load_photo
from .registry import ENCODERS, EncoderRow, EncoderSpec, open_encoder, register_encoder, spec_of
from .statistics import EncoderStatistics, ScoreDistribution
from .whole_photo import WholePhotoFeatures
from .whole_picture import WholePicture

__all__ = [
    "ARCFACE_TEMPLATE",
    "DLIB_TEMPLATE",
    "ENCODERS",
    "FFHQ_TEMPLATE",
    "AlignedEncoder",
    "Choice",
    "ClipFeatures",
    "Degradation",
    "Detection",
    "DlibDetector",
    "DlibEncoder",
    "EncoderRow",
    "EncoderSpec",
    "EncoderStatistics",
    "EvaFeatures",
    "Face",
    "FaceAnalyzer",
    "FaceDetector",
    "FaceEncoder",
    "FaceParser",
    "ImageEncoder",
    "NetworkInput",
    "OnnxEncoder",
    "Pasted",
    "Photo",
    "ScoreDistribution",
    "SegmentationParser",
    "WholePhotoFeatures",
    "WholePicture",
    "align_face",
    "choose_face",
    "draw_keypoints",
    "face_oval",
    "load_photo",
    "match_colours",
    "measure_degradation",
    "open_encoder",
    "paste_face",
    "register_encoder",
    "similarity_transform",
    "spec_of",
    "warp_faces",
]
