"""Faces in photographs: landmarks, the crops that networks were trained on, and the way back.

(_, crop), *_ = crop_faces(photo, "largest", size=256, detector=mtcnn_detector())[0]
edited = ...  # of crop.image
result = paste_back(photo, edited, crop.quad)
"""

from clcae.faces.alignment import (
    Crop,
    Detector,
    Face,
    Which,
    align_face,
    check_frontal,
    choose,
    take_crop,
    take_whole,
)
from clcae.faces.crop import (
    check_size,
    crop_quad,
    ffhq_quad,
    is_aligned,
    picture_quad,
    quad_side,
)
from clcae.faces.detector import MTCNNDetector, mtcnn_detector
from clcae.faces.folder import CropFolder, read_record
from clcae.faces.paste import paste_back
from clcae.faces.search import Sighting, crop_faces, find_faces, look_again
from clcae.faces.similarity import fit_similarity, recognition_crop, recognition_quad
from clcae.faces.video import follow, smooth_landmarks

__all__ = [
    "Crop",
    "CropFolder",
    "Detector",
    "Face",
    "MTCNNDetector",
    "Sighting",
    "Which",
    "align_face",
    "check_frontal",
    "check_size",
    "choose",
    "crop_faces",
    "crop_quad",
    "ffhq_quad",
    "find_faces",
    "fit_similarity",
    "follow",
    "is_aligned",
    "look_again",
    "mtcnn_detector",
    "paste_back",
    "picture_quad",
    "quad_side",
    "read_record",
    "recognition_crop",
    "recognition_quad",
    "smooth_landmarks",
    "take_crop",
    "take_whole",
]
