"""torchvision's ResNet50 + Mask R-CNN as the baseline uses it: random weights, stamps at their own size, affordable without a GPU.

What is not torchvision's own choice, and why:

- Anchors are 5 to 152 pixels, three sizes and three shapes per scale; torchvision's begin at 32, and half of the objects here are smaller
  than 8. Anchors count as an object's from IoU 0.5 (0.7 suits objects much larger than the stride).
- Normalization is by groups (Wu and He 2018): it learns, needs no large batches and works alike in training and afterwards. torchvision's
  layers for random weights are batch norms, which batches of four make noisy; its frozen ones are for pre-trained weights.
- 64 proposals of a stamp teach the second stage and 128 anchors the first (512 and 256 there): a stamp holds 8 objects, 27 at most.
- Convolutions and matrices are computed in bfloat16; boxes, scores, losses, pooling and weights stay in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import MultiScaleRoIAlign

from galpipe.config import STAMP_SIZE
from galpipe.heads.detection import CLASSES

ANCHORS = ((5, 8, 12), (17, 24, 34), (48, 64, 80), (96, 112, 128), (136, 144, 152))
"""Sides of the anchors, pixels, per scale of the pyramid (strides 4 to 64): 73 % of the objects have one with IoU above 0.5."""

RATIOS = ((0.5, 1.0, 2.0),) * len(ANCHORS)

GROUPS = 32
"""Of channels that are normalized together."""

FEATURES = ["0", "1", "2", "3"]
"""Scales of the pyramid from which boxes are pooled."""

MOST = 100
"""Detections of a stamp at most."""

LOWEST = 0.05
"""Score from which on detections are listed."""


class Narrow(nn.Module):
    """A part of the network computed in bfloat16 whose results are float32 again.

    torchvision decodes boxes in the precision of what is told of them: bfloat16 would round their pixels.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        if hasattr(inner, "out_channels"):
            self.out_channels = inner.out_channels

    def forward(self, *values: Any) -> Any:
        """What the part says, in float32."""
        with torch.autocast(next(self.inner.parameters()).device.type, dtype=torch.bfloat16):
            said = self.inner(*values)
        return _widened(said)


def _widened(said: Any) -> Any:
    if isinstance(said, Tensor):
        return said.float()
    if isinstance(said, dict):
        return type(said)((name, _widened(value)) for name, value in said.items())
    return type(said)(_widened(value) for value in said)


def network(seed: int) -> MaskRCNN:
    """The network with random weights that depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskRCNN(
            resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=partial(nn.GroupNorm, GROUPS), trainable_layers=5),
            num_classes=1 + len(CLASSES),
            min_size=STAMP_SIZE,
            max_size=STAMP_SIZE,
            image_mean=[0.0] * 3,
            image_std=[1.0] * 3,
            rpn_anchor_generator=AnchorGenerator(ANCHORS, RATIOS),
            rpn_fg_iou_thresh=0.5,
            rpn_batch_size_per_image=128,
            rpn_pre_nms_top_n_train=500,
            rpn_pre_nms_top_n_test=500,
            rpn_post_nms_top_n_train=300,
            rpn_post_nms_top_n_test=300,
            box_roi_pool=MultiScaleRoIAlign(FEATURES, output_size=7, sampling_ratio=1),
            mask_roi_pool=MultiScaleRoIAlign(FEATURES, output_size=14, sampling_ratio=1),
            box_batch_size_per_image=64,
            box_score_thresh=LOWEST,
            box_detections_per_img=MOST,
        )
    model.backbone = Narrow(model.backbone)
    model.rpn.head = Narrow(model.rpn.head)
    for name in ("box_head", "box_predictor", "mask_head", "mask_predictor"):
        setattr(model.roi_heads, name, Narrow(getattr(model.roi_heads, name)))
    return model
