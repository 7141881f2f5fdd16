"""Pictures and landmarks must move together."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from idgen.data.framing import AlignedFraming, PhotoFraming, framing_for
from idgen.data.poses import Poses
from idgen.errors import DataError
from idgen.faces import ARCFACE_TEMPLATE, FaceAnalyzer, similarity_transform, warp_faces
from idgen.tiny import TINY_PATH


@pytest.mark.parametrize("framing", [PhotoFraming(256, 64), AlignedFraming(192)], ids=lambda framing: framing.name)
@pytest.mark.parametrize(
    "part", [(slice(None), slice(None)), (slice(0, 300), slice(None)), (slice(None), slice(90, 380))]
)
def test_landmarks_lie_where_the_detector_finds_them_in_the_picture(framing, part, astronaut, analyzer: FaceAnalyzer):
    photo = astronaut[part]
    face = analyzer.find(photo, "largest")
    place = framing.place(photo.shape[1], photo.shape[0], face.box.tolist(), face.landmarks)
    picture = framing.cut(photo, face.box.tolist(), face.landmarks)
    assert picture.shape == (place.height, place.width, 3)
    assert (place.height, place.width) == framing.size(photo.shape[1], photo.shape[0])
    found = analyzer.find(picture, "largest").landmarks
    eyes = np.linalg.norm(found[0] - found[1])
    assert np.abs(found - place.landmarks).max() < 0.12 * eyes
    mirrored = analyzer.find(picture[:, ::-1].copy(), "largest").landmarks
    assert np.abs(mirrored - place.mirrored()).max() < 0.12 * eyes


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (300, 300), (1801, 997)])
def test_landmarks_move_as_pixels_do(size):
    """A bright spot of the photo lies at its landmark in the picture, to a tenth of a pixel."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    points = np.array([[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.42, 0.6], [0.58, 0.6]]) * size
    framing, box = PhotoFraming(128, 64), [0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height]
    place = framing.place(width, height, box, points)
    for point, expected in zip(points, place.landmarks, strict=True):
        spot = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (0.03 * height) ** 2))
        picture = framing.cut(np.repeat(spot.astype(np.uint8)[..., None], 3, 2), box, points)[..., 0].astype(float)
        rows, columns = np.mgrid[: place.height, : place.width]
        found = np.array([(picture * columns).sum(), (picture * rows).sum()]) / picture.sum()
        assert np.abs(found - expected).max() < 0.1


@pytest.mark.parametrize("point", [(400, 300), (10, 8), (790, 590), (-50, 300), (400, -900)])
@pytest.mark.parametrize("zoom", [0.4, 1, 3.3])
def test_an_aligned_picture_is_that_of_the_whole_mirrored_photo(point, zoom):
    photo = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    framing = AlignedFraming(64)
    landmarks = (framing.template - framing.template.mean(0)) * zoom @ [[0.9, 0.4], [-0.4, 0.9]] + point
    wide = np.pad(photo, ((400, 400), (400, 400), (0, 0)), mode="reflect")
    whole = torch.from_numpy(wide).permute(2, 0, 1)[None].double()
    expected = warp_faces(whole, torch.from_numpy(landmarks + 400)[None], framing.template, 64)[0].permute(1, 2, 0)
    assert np.abs(framing.cut(photo, [], landmarks) - expected.numpy()).max() < 0.52


def test_a_small_crop_of_a_large_photo_takes_little_memory():
    photo = np.zeros((4000, 6000, 3), np.uint8)
    tracemalloc.start()
    AlignedFraming(64).cut(photo, [], ARCFACE_TEMPLATE * 2 + (3000, 2000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("resolution", [512, 1024])
def test_buckets_have_about_the_same_number_of_pixels(resolution):
    buckets = PhotoFraming(resolution).buckets
    assert (resolution, resolution) in buckets
    assert all(h % 64 == w % 64 == 0 and 0.75 * resolution**2 <= h * w <= resolution**2 for h, w in buckets)
    assert all((w, h) in buckets or h != w for h, w in buckets)


def test_a_crop_holds_the_face_that_lies_at_the_edge():
    framing = PhotoFraming(256, 64, max_ratio=1)
    box = [5.0, 20.0, 65.0, 90.0]
    points = np.array([[20.0, 40], [50, 40], [35, 55], [25, 75], [45, 75]])
    place = framing.place(800, 200, box, points)
    assert ((place.landmarks >= 0) & (place.landmarks < 256)).all()
    assert place.time_ids == (200, 800, 0, 0, 256, 256)


def test_sdxl_is_told_where_the_crop_lies():
    place = PhotoFraming(512, max_ratio=1).place(1000, 600, [900.0, 100, 960, 180], np.full((5, 2), 130.0))
    height, width, top, left, rows, columns = place.time_ids
    assert (height, width) == (600, 1000)
    assert top == 0
    assert left > 0
    assert (rows, columns) == (place.height, place.width)


def test_nonsense_is_refused():
    with pytest.raises(DataError, match="multiple of 8"):
        PhotoFraming(512, step=10)


def test_a_base_says_in_its_folder_how_its_pictures_are_cut(tmp_path):
    assert framing_for("tiny", 512) == framing_for(str(TINY_PATH), 512) == AlignedFraming(128)
    assert framing_for("stable-diffusion-v1-5/stable-diffusion-v1-5", 512) == PhotoFraming(512)
    (tmp_path / "framing.json").write_text('{"resolution": 128, "zoom": 0.75, "rise": 0}')
    assert framing_for(str(tmp_path), 512) == AlignedFraming(128, 0.75, 0.0)
    for damaged in ("{", "[]", '{"side": 64}', '{"resolution": "64"}'):
        (tmp_path / "framing.json").write_text(damaged)
        with pytest.raises(DataError, match=r"framing\.json"):
            framing_for(str(tmp_path), 512)


@pytest.mark.parametrize("seed", range(4))
def test_a_posed_face_lies_where_its_pose_says(seed, astronaut, analyzer: FaceAnalyzer):
    """Turned, scaled and shifted as drawn, within the ranges, with landmarks where the detector finds them."""
    face = analyzer.find(astronaut, "largest")
    poses, upright = Poses(angle=25, scale=(0.7, 1.05), shift=0.1), AlignedFraming(192)
    pose = poses.draw(np.random.default_rng(seed))
    assert poses
    assert abs(pose.angle) <= 25
    assert 0.7 <= pose.scale <= 1.05
    assert max(map(abs, pose.shift)) <= 0.1
    framing, arguments = replace(upright, pose=pose), (face.box.tolist(), face.landmarks)
    place = framing.place(512, 512, *arguments)
    found = analyzer.find(framing.cut(astronaut, *arguments), "largest").landmarks
    eyes = np.linalg.norm(found[0] - found[1])
    assert np.abs(found - place.landmarks).max() < 0.12 * eyes
    for points, scale in ((place.landmarks, 1.0), (framing.template, pose.scale)):
        turned = similarity_transform(torch.from_numpy(upright.template), torch.from_numpy(points)).numpy()
        assert np.degrees(np.arctan2(turned[1, 0], turned[0, 0])) == pytest.approx(
            pose.angle, abs=1e-6 + 9 * (scale == 1)
        )
    assert np.hypot(*turned[:, 0]) == pytest.approx(pose.scale)
    assert framing.template.mean(0) - upright.template.mean(0) == pytest.approx(np.multiply(pose.shift, 192))


def test_without_poses_nothing_changes():
    assert not Poses()
    still = replace(AlignedFraming(), pose=Poses().draw(np.random.default_rng(0)))
    assert np.allclose(still.template, AlignedFraming().template)
    for angle, scale, shift in (
        (-1.0, (1.0, 1.0), 0.0),
        (0.0, (1.0, 0.5), 0.0),
        (0.0, (0.0, 1.0), 0.0),
        (0.0, (1.0, 1.0), -0.1),
    ):
        with pytest.raises(DataError, match="Poses need"):
            Poses(angle, scale, shift)
