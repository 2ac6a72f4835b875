"""Refining masks: the official pipeline, clips, files of results, what is odd."""

import json

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.models.invariants import TOLERANCE, read_record
from tests.models.test_boundary_refiner import SMALL, plans
from tests.ops.test_boundary_patches import disk, rule_of
from videonet.checkpoint import load_checkpoint
from videonet.data.datasets.results import read_results
from videonet.errors import ConfigError, DataError
from videonet.inference.refined_results import (
    coarse_results,
    frame_tables,
    refine_results,
    result_scores,
)
from videonet.inference.refinement import MaskRefiner, windows_of
from videonet.models.boundary_refiner import make_boundary_refiner
from videonet.ops.boundary_patches import PatchRule, Reassembly, cut_patches, find_patches
from videonet.ops.resize import resize_bytes


def pipelines(shared_dir):
    """The recorded runs of all official steps."""
    for path in sorted((shared_dir / "reference" / "bpr").glob("*.json")):
        record, tensors, state = read_record(path)
        if state:
            yield record, tensors, state


@torch.no_grad()
def test_official_pipeline(shared_dir):
    records = list(pipelines(shared_dir))
    assert records
    for record, tensors, state in records:
        theirs = record["constructor"]
        model = make_boundary_refiner(
            "hrnet",
            align_corners=theirs["decode_head"]["align_corners"],
            **plans(theirs["backbone"]["extra"]),
        )
        assert not load_checkpoint(model, {"state_dict": state}).unexpected
        mean, std = ([value / 255 for value in theirs[name]] for name in ("mean", "std"))
        refiner = MaskRefiner(
            model,
            rule_of(theirs),
            input_size=theirs["network_input"],
            mean=mean,
            std=std,
            batch_size=9,
        )
        image = tensors["input.image"].flip(-1)  # recorded blue first
        names = record["input"]["mask.<i>"]["instances"]
        masks = torch.stack([tensors[f"input.mask.{k}"] for k in range(len(names))])
        found = refiner(image, masks)
        for k, mask in enumerate(masks):
            corners = find_patches(mask, refiner.rule).corners
            assert torch.equal(corners, tensors[f"feature.corners.{k}"])
            colours = cut_patches(image.movedim(-1, 0)[:, None], corners, refiner.rule)
            before = cut_patches(mask[None], corners, refiner.rule)
            patches = refiner.probabilities(colours, before)[:, 0]
            error = (patches - tensors[f"feature.probabilities.{k}"]).abs().max()
            assert error <= TOLERANCE
            whole = Reassembly(mask, refiner.rule)
            whole.add(corners, patches)
            mean_of = tensors[f"feature.mean_probability.{k}"]
            assert (whole.probabilities() - mean_of).abs().max() <= TOLERANCE
            sure = (mean_of - 0.5).abs() > TOLERANCE
            assert torch.equal(found[k][sure], tensors[f"output.mask.{k}"].bool()[sure])
        first = resize_bytes(colours_of_first(tensors, image, refiner), refiner.size)[0, :, 0]
        network = (first / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(network, tensors["feature.network_image"])


def colours_of_first(tensors, image, refiner):
    """The first patch of the first object, (1, 3, 1, side, side)."""
    corners = tensors["feature.corners.0"][:1]
    return cut_patches(image.movedim(-1, 0)[:, None], corners, refiner.rule)


class RedPixels(torch.nn.Module):
    """Takes the pixels whose red is above the mean, whatever the mask says."""

    align_corners = False

    def forward(self, patches):
        return torch.stack((-patches[:, 0], patches[:, 0]), dim=1)


def by_colour(frames=1, **options):
    rule = PatchRule(16, 0, 0.25, "covered")
    return MaskRefiner(RedPixels(), rule, num_frames=frames, input_size=16, **options)


def picture_of(mask):
    """A picture whose red is the mask."""
    return torch.stack((mask * 255,) * 3, dim=-1).to(torch.uint8)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_masks_become_what_the_network_says_near_their_boundary(frames, batch_size):
    truth = torch.stack([disk(centre=(20, 20 + k)) for k in range(3)])
    coarse = torch.stack([disk(radius=9, centre=(21, 21 + k)) for k in range(3)])
    refiner = by_colour(frames, batch_size=batch_size)
    assert torch.equal(refiner(picture_of(truth), coarse[None])[0], truth)
    assert torch.equal(refiner(picture_of(truth[0]), coarse[:1]), truth[:1])


def test_odd_masks_have_a_result():
    refiner, size = by_colour(), (40, 50)
    assert refiner(picture_of(disk()), torch.zeros(0, *size)).shape == (0, *size)
    assert not refiner(picture_of(disk()), torch.zeros(2, *size)).any()
    pixel = torch.zeros(1, *size)
    pixel[0, 39, 49] = 1
    assert not refiner(picture_of(disk(radius=5)), pixel).any()  # there is nothing red there
    whole = torch.ones(1, 1, 3)
    assert refiner(picture_of(torch.ones(1, 3)), whole).all()
    many = disk().expand(500, -1, -1)
    assert torch.equal(refiner(picture_of(disk()), many), many)


def test_a_frame_without_the_object_stays_without_it():
    truth = torch.stack([disk()] * 3)
    coarse = truth.clone()
    coarse[1] = False
    found = by_colour(3)(picture_of(truth), coarse[None])[0]
    assert torch.equal(found, coarse)


@torch.no_grad()
def test_still_clips_are_refined_as_their_image():
    image = make_boundary_refiner("hrnet", **SMALL)
    clip = make_boundary_refiner("hrnet", num_frames=3, **SMALL)
    load_checkpoint(clip, image.state_dict())
    options = {"rule": PatchRule(16), "input_size": 32}
    picture = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8)
    alone = MaskRefiner(image, **options)(picture, disk()[None])
    found = MaskRefiner(clip, num_frames=3, **options)(
        picture.expand(4, -1, -1, -1), disk().expand(1, 4, -1, -1)
    )
    assert torch.equal(found, alone[:, None].expand_as(found))


def test_windows_cover_a_clip():
    assert windows_of(5, 2) == [[0, 1], [2, 3], [3, 4]]
    assert windows_of(4, 2) == [[0, 1], [2, 3]]
    assert windows_of(2, 3) == [[0, 1, 1]] and windows_of(3, 1) == [[0], [1], [2]]


def test_frames_and_masks_that_do_not_belong_together():
    with pytest.raises(ConfigError, match=r"expected torch.uint8 of \(H, W, 3\)"):
        by_colour()(torch.zeros(3, 8, 8), torch.zeros(1, 8, 8))
    with pytest.raises(ConfigError, match=r"\(1, 8, 9\), expected \(N, 8, 8\)"):
        by_colour()(torch.zeros(8, 8, 3, dtype=torch.uint8), torch.zeros(1, 8, 9))


def write_data(folder, truth, video):
    """An object in pictures of itself, as a JSON of COCO or of YouTube-VIS; the JSON's path."""
    from videonet.data.masks import encode_masks

    for k, mask in enumerate(truth):
        (folder / "clip").mkdir(exist_ok=True)
        Image.fromarray(picture_of(mask).numpy()).save(folder / "clip" / f"{k}.png")
    rles = encode_masks(truth)
    size = {"height": truth.shape[1], "width": truth.shape[2]}
    content = {"categories": [{"id": 3, "name": "disk"}]}
    if video:
        names = [f"clip/{k}.png" for k in range(len(truth))]
        content["videos"] = [{"id": 1, "length": len(truth), "file_names": names, **size}]
        content["annotations"] = [
            {"id": 1, "video_id": 1, "category_id": 3, "segmentations": [*rles[:-1], None]}
        ]
    else:
        content["images"] = [
            {"id": k, "file_name": f"clip/{k}.png", **size} for k in range(len(truth))
        ]
        content["annotations"] = [
            {"id": k, "image_id": k, "category_id": 3, "segmentation": rle}
            for k, rle in enumerate(rles)
        ]
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("video", [False, True])
def test_files_of_results(tmp_path, video):
    pytest.importorskip("pycocotools")
    truth = torch.stack([disk(centre=(20, 20 + k)) for k in range(3)])
    data = write_data(tmp_path, truth, video)
    coarse = coarse_results(data, (3, 3))
    results = tmp_path / "results.json"
    results.write_text(json.dumps(coarse))
    entries = read_results(results)
    refined = refine_results(by_colour(2 if video else 1), data, entries)
    before, after = (result_scores(data, found) for found in (entries, refined))
    assert after == {"box AP": 1.0, "mask AP": 1.0, "boundary AP": 1.0}
    assert before["boundary AP"] < 1
    assert [one["category_id"] for one in refined] == [3] * len(entries)
    y, x = np.nonzero(truth[0].numpy())
    box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
    if video:
        assert refined[0]["bboxes"][0] == box and refined[0]["areas"][0] == len(x)
        assert refined[0]["segmentations"][2] is refined[0]["bboxes"][2] is None
        assert len(frame_tables(data, refined)[1]) == 2
    else:
        assert refined[0]["bbox"] == box and refined[0]["area"] == len(x)


def test_frames_of_a_film_that_nobody_annotated_do_not_count(tmp_path):
    pytest.importorskip("pycocotools")
    truth = torch.stack([disk(centre=(20, 20 + k)) for k in range(5)])
    data = write_data(tmp_path, truth, video=True)
    content = json.loads(data.read_text())
    with av.open(str(tmp_path / "film.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 50, 40, "rgb24"
        for mask in truth:
            picture = av.VideoFrame.from_ndarray(picture_of(mask).numpy(), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    content["videos"][0] = {"id": 1, "length": 5, "video": "film.mov", "height": 40, "width": 50}
    shapes = content["annotations"][0]["segmentations"]
    content["annotations"][0]["segmentations"] = [shapes[0], None, None, shapes[3], None]
    data.write_text(json.dumps(content))
    coarse = coarse_results(data, (3, 3))
    assert [bool(shape) for shape in coarse[0]["segmentations"]] == [1, 0, 0, 1, 0]
    refined = refine_results(by_colour(), data, coarse)
    refined[0]["segmentations"][2] = shapes[0]
    assert len(frame_tables(data, refined)[0]["images"]) == 2
    assert result_scores(data, refined)["mask AP"] == 1.0


def test_one_of_the_splits_that_share_a_file(tmp_path):
    pytest.importorskip("pycocotools")
    truth = torch.stack([disk(centre=(20, 20 + k)) for k in range(3)])
    data = write_data(tmp_path, truth, video=False)
    content = json.loads(data.read_text())
    for image, split in zip(content["images"], ("train", "val", "train"), strict=True):
        image["split"] = split
    data.write_text(json.dumps(content))
    coarse = coarse_results(data, (3, 3), split="train")
    assert [one["image_id"] for one in coarse] == [0, 2]
    refined = refine_results(by_colour(), data, coarse, split="train")
    assert result_scores(data, refined, split="train")["mask AP"] == 1.0
    assert result_scores(data, refined)["mask AP"] < 1  # the second picture has none
    with pytest.raises(DataError, match="there is no image or video 0 of the split 'val' in"):
        refine_results(by_colour(), data, coarse, split="val")
    with pytest.raises(DataError, match="no image has the split 'extra'"):
        coarse_results(data, (3, 3), split="extra")


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "no JSON that can be read"),
        ('{"images": []}', "expected a list of detections"),
        ('[{"score": 1}]', "detection 0: there is no 'image_id'"),
        ('[{"image_id": 0}]', "detection 0: there is no 'segmentation'"),
        ('[{"image_id": 9, "segmentation": [[0, 0, 1, 1, 0, 1]]}]', "no image or video 9 in"),
        ('[{"image_id": 0, "segmentation": [[0, 0, 1, 1]]}]', "detection 0: a polygon"),
        (
            '[{"image_id": 0, "segmentation": {"size": [4, 4], "counts": [16]}}]',
            r"runs has size \[4, 4\], expected \[40, 50\]",
        ),
    ],
)
def test_results_that_cannot_be_used_are_named(tmp_path, content, message):
    pytest.importorskip("pycocotools")
    data = write_data(tmp_path, disk()[None], video=False)
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        refine_results(by_colour(), data, read_results(path))
