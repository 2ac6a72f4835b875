"""Every dialect that is recognised, one file per architecture.

Order matters: the first one whose marks are all there is taken, so looser marks come later.
"""

from videonet.checkpoint.dialects import (
    asmlp,
    cvt,
    cyclemlp,
    dense,
    dilateformer,
    hiera,
    hornet,
    hrnet,
    mvit,
    swin,
    video_vit,
    vit,
    vjepa2,
)

DIALECTS = (
    *swin.DIALECTS,
    *hiera.DIALECTS,
    *video_vit.DIALECTS,
    *vit.DIALECTS,
    *cvt.DIALECTS,
    *cyclemlp.DIALECTS,
    *asmlp.DIALECTS,
    *hrnet.DIALECTS,
    *dilateformer.DIALECTS,
    *hornet.DIALECTS,
    *vjepa2.DIALECTS,
    *mvit.DIALECTS,
    *dense.DIALECTS,
)

__all__ = ["DIALECTS"]
