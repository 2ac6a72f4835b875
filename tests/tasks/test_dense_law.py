"""A clip that repeats an image has the image's boxes and masks in every frame, on every family."""

import pytest
import torch

from tests.models.families import family_of, small_arguments, smallest_of
from tests.models.invariants import randomise, relative_error
from videonet.checkpoint import load_checkpoint
from videonet.config import load_config
from videonet.tasks import build_task
from videonet.tasks.task import Trained

NINE = ["mvit", "swin", "vit", "cvt", "dilateformer", "hornet", "cyclemlp", "asmlp", "hrnet"]
HEADS = "{box_fcs: [16], mask_convs: [8], mask_deconv: 8, score_threshold: 0.01, most: 8}"


def model_of(family, frames, neck):
    name = smallest_of(f"{family}_*")
    words = ["MODEL.TASK", "instance_segmentation", "MODEL.NAME", name, "NECK.NAME", neck]
    words += ["NECK.CHANNELS", "8", "NECK.TEMPORAL_KERNEL", "3", "DETECTOR.HEADS", HEADS]
    words += ["DATA.CROP", "short_side", "DATA.NUM_FRAMES", str(frames)]
    cfg = load_config(None, words)
    cfg.defrost()
    arguments = small_arguments(name) | family_of(name).exact
    cfg.DATA.TRAIN_CROP_SIZE = arguments.pop("crop_size", 64)
    for key in ("num_classes", "num_frames", "in_channels"):
        arguments.pop(key, None)
    cfg.MODEL.ARGUMENTS = type(cfg)(arguments)
    return build_task(cfg, None, Trained(names=["a", "b"])).build_model().eval()


@torch.no_grad()
@pytest.mark.parametrize("family", NINE)
@pytest.mark.parametrize("neck", ["auto", "hor_fpn"])
def test_a_still_clip_has_the_objects_of_its_image(family, neck):
    if neck == "hor_fpn" and family == "vit":
        pytest.skip("maps of one resolution have a pyramid of their own")
    image = randomise(model_of(family, 1, neck))
    for head in (*image.roi_heads.box_heads, image.rpn):
        for name, parameter in head.named_parameters():
            if name.startswith(("scores", "objectness", "deltas")):
                parameter.mul_(
                    0.1
                )  # as those of trained ones: neither 0 or 1, nor boxes of any size
    clip = model_of(family, 4, neck)
    load_checkpoint(clip, image.state_dict())
    pixels = torch.randn(1, 3, 59, 67)
    ((expected,),) = image(pixels, masks="regions")
    (found,) = clip(pixels.unsqueeze(2).expand(-1, -1, 4, -1, -1), masks="regions")
    assert len(found) == 4 and len(expected) > 2
    for one in found:
        assert one.labels.equal(expected.labels)
        for key in ("boxes", "scores", "masks"):
            assert relative_error(getattr(one, key), getattr(expected, key)) <= 1e-4, key
