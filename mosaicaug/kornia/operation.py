"""`Operation`: an augmentation behind Kornia's interface, for its containers or by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from mosaicaug.annotations import Placed, apply_boxes, apply_keypoints, apply_masks
from mosaicaug.apply import apply
from mosaicaug.augmentation import Augmentation
from mosaicaug.checks import check_chance, check_images, convert_labels
from mosaicaug.plan import Plan, arange
from mosaicaug.targets import mix_labels

try:
    import kornia.augmentation as K
    from kornia.augmentation.container import ops
    from kornia.constants import DataKey
    from kornia.geometry.boxes import Boxes
    from kornia.geometry.keypoints import Keypoints
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "kornia":
        raise
    raise ImportError("mosaicaug.kornia: needs Kornia, which is missing; pip install 'mosaicaug[kornia]'") from error

__all__ = ["DataKey", "K", "Operation", "Options", "ops"]

Params = dict[str, Tensor]
Keys = Sequence[str | int | DataKey]

_FIELDS = ("tiles", "overlay", "from_box", "to_box", "opacity")
_BOX_MODES = {DataKey.BBOX: "vertices", DataKey.BBOX_XYXY: "xyxy", DataKey.BBOX_XYWH: "xywh"}


class Options(TypedDict, total=False):
    """Arguments of every operation, by Kornia's names."""

    p: float
    same_on_batch: bool
    keepdim: bool
    data_keys: Keys | None


# Of Kornia's base classes only this one gets masks, boxes and keypoints from containers without a matrix.
class Operation(K.IntensityAugmentationBase2D):
    """Augmentation of `mosaicaug` behind Kornia's interface, for its containers or by itself."""

    def __init__(
        self,
        augmentation: Augmentation,
        *,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
        data_keys: Keys | None = None,
    ) -> None:
        p = check_chance(self.name, "p", p)
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.augmentation = augmentation
        if data_keys is None:
            data_keys = ["input", "class"] if augmentation.mixes else ["input"]
        self.data_keys = [DataKey.get(key) for key in data_keys]
        self.last_boxes: Placed | None = None
        self.last_keypoints: Placed | None = None

    @property
    def name(self) -> str:
        """Name of the class, for messages."""
        return type(self).__name__

    @property
    def last_plan(self) -> Plan | None:
        """Plan of the last call, None before it."""
        return self._read_plan(self._params) if self._params else None

    @property
    def flags(self) -> dict[str, Any]:
        """Settings of the augmentation as they are now, which Kornia's repr shows."""
        names = [name for name in self.augmentation.settings if name not in ("p", "per")]
        return {name: getattr(self.augmentation, name) for name in names}

    @flags.setter
    def flags(self, _: dict[str, Any]) -> None: ...  # by Kornia's constructor

    def forward_parameters(self, batch_shape: Sequence[int], *, generator: Generator | None = None) -> Params:
        """Draw the parameters for images of ``batch_shape``.

        Tiles and partners are counted from each image's own place, so that containers may repeat and select rows.
        """
        self.augmentation.p, self.augmentation.per = self.p, "batch" if self.same_on_batch else "sample"
        plan = self.augmentation.sample(batch_shape, generator=generator)
        params = {name: getattr(plan, name) for name in _FIELDS}
        params["tiles"], params["overlay"] = plan.tiles - plan.home[:, :1], plan.overlay - arange(len(plan))
        if plan.drawn_share is not None:
            params["drawn_share"] = plan.drawn_share
        params["batch_prob"] = ((plan.tiles != plan.home).any(1) | plan.has_overlay).float()
        params["forward_input_shape"] = torch.tensor(batch_shape, device="cpu")
        return params

    def forward(
        self,
        *inputs: Any,
        params: Params | None = None,
        data_keys: Keys | None = None,
        maps: Tensor | None = None,
        carried: list[Any] | None = None,
        generator: Generator | None = None,
        **unknown: Any,
    ) -> Any:
        """Transform ``inputs`` by a new draw, or by ``params``.

        Args:
            inputs: one for each of ``data_keys``: "input" ``[B, C, H, W]`` or video (one plan per clip), "mask"
                ``[B, C, H, W]`` or ``[B, H, W]``, "bbox_xyxy" and "bbox_xywh" ``[B, N, 4]``, "bbox" ``[B, N, 4, 2]``,
                "keypoints" ``[B, K, 2]``, "class" ``[B]`` or soft ``[B, K]``. Boxes are edges in px, half open (in
                containers Kornia takes "bbox" and "bbox_xyxy" by their last pixels); a keypoint at 0 is the centre of
                the first pixel.
            params: ``operation._params`` of a call on images of this shape, to repeat it.
            data_keys: by default those that it was built with.
            maps: SnapMix's class activation maps ``[B, h, w]``.
            carried: labels that travel with the images through containers; replaced in place.
            generator: on the CPU, of a new draw; torch's default one if None.

        Returns:
            One output, or a list of them. A single image comes back as a batch of one unless ``keepdim``.

        Raises:
            ValueError: ``inputs`` do not fit ``data_keys`` or each other, or labels are missing.
        """
        # 1. Names of the inputs.
        if unknown:
            raise TypeError(f"{self.name}: got unknown arguments {sorted(unknown)}")
        keys = self.data_keys if data_keys is None else [DataKey.get(key) for key in data_keys]
        names = [key.name.lower() for key in keys[: len(inputs)]]
        if len(inputs) > len(keys):
            raise ValueError(
                f"{self.name}: data_keys name {names}, got {len(inputs)} inputs; pass data_keys= that name all of them"
            )
        # 2. Images, if there are any: what mixes them needs their labels.
        keys, images = keys[: len(inputs)], None
        if DataKey.INPUT in keys:
            given = inputs[keys.index(DataKey.INPUT)]
            check_images(self.name, given)
            images = given[(None,) * (4 - given.ndim)]
            has_labels = DataKey.CLASS in keys or carried is not None
            if self.augmentation.mixes and self.training and not has_labels and DataKey.CLASS in self.data_keys:
                raise ValueError(
                    f"{self.name}: mixing images mixes labels too, got only {names}; pass them as 'class', in "
                    "containers to mosaicaug.kornia.AugmentationSequential, or build it with data_keys= without 'class'"
                )
        # 3. The draw: a new one, or that of an earlier call.
        if params is None:
            if images is None:
                raise ValueError(f"{self.name}: draws for images, got only {names}; pass them, or params=")
            params = self.forward_parameters(images.shape, generator=generator)
        self._params = params
        # 4. Every input by its kind, and the labels that travel with the images.
        outputs: list[Any] = []
        for key, value in zip(keys, inputs, strict=True):
            if key == DataKey.INPUT:
                pixels = value[(None,) * (4 - value.ndim)]
                made = apply(pixels, self._read_plan(params, pixels))
                outputs.append(made.view(value.shape) if self.keepdim else made)
            elif key == DataKey.MASK:
                outputs.append(self.transform_masks(value, params))
            elif key == DataKey.KEYPOINTS:
                outputs.append(self.transform_keypoints(Keypoints(value), params).data)
            elif key == DataKey.CLASS:
                outputs.append(self.transform_classes(value, params, images=images, maps=maps))
            else:
                boxes = Boxes.from_tensor(value, mode=_BOX_MODES[key], validate_boxes=False)
                outputs.append(self._move_boxes(boxes, params).to_tensor(_BOX_MODES[key]))
        if carried is not None:
            carried[:] = [self.transform_classes(labels, params, images=images, maps=maps) for labels in carried]
        return outputs[0] if len(outputs) == 1 else outputs

    def transform_masks(self, input: Tensor, params: Params, *_: Any, **__: Any) -> Tensor:  # noqa: A002 - Kornia's
        """Move masks ``[B, C, H, W]``, ``[B, H, W]`` or of a single image, without blending or interpolating."""
        one_each = input.ndim == 3 and len(input) == len(params["tiles"])
        masks = input[:, None] if one_each else input[(None,) * (4 - input.ndim)]
        made = apply_masks(masks, self._read_plan(params, masks))
        return made.view(input.shape) if self.keepdim else made

    def transform_boxes(self, input: Boxes, params: Params, *_: Any, **__: Any) -> Boxes:  # noqa: A002
        """Move boxes, each as its largest piece; those that earlier crops left beyond the edges are clipped first."""
        return self._move_boxes(input, params, clip=True)

    def transform_keypoints(self, input: Keypoints, params: Params, *_: Any, **__: Any) -> Keypoints:  # noqa: A002
        """Move keypoints; those that vanish become NaN."""
        points = input.data
        self.last_keypoints = apply_keypoints(points[(None,) * (3 - points.ndim)], self._read_plan(params))
        values, source = self.last_keypoints
        made = input.clone()
        made._data = values.masked_fill((source < 0)[..., None], torch.nan).view(*points.shape[:-2], -1, 2)
        return made

    def transform_classes(
        self,
        input: Any,  # noqa: A002
        params: Params,
        *_: Any,
        images: Tensor | None = None,
        maps: Tensor | None = None,
        **__: Any,
    ) -> Any:
        """Mix labels ``[B]`` or ``[B, K]`` as `mosaicaug` does; SnapMix takes ``maps``, or ``images`` for its cam.

        Raises:
            ValueError: labels or maps are missing or do not fit, or labels were mixed to `Targets` before.
        """
        if not self.augmentation.mixes:
            return input
        plan = self._read_plan(params, of_clips=True)
        labels = convert_labels(self.name, input, len(plan), self.augmentation.num_classes)
        if not self.training and not plan.has_overlay.any():
            return mix_labels(plan, labels, num_classes=self.augmentation.num_classes)
        if images is not None:
            clips = images if len(images) == len(plan) else images.view(len(plan), -1, *images.shape[1:])
            maps = self.augmentation._resolve_maps(clips, labels, maps)
        return self.augmentation.targets(plan, labels, maps=maps)

    def _move_boxes(self, boxes: Boxes, params: Params, *, clip: bool = False) -> Boxes:
        """Boxes in Kornia's form, moved as `apply_boxes` does with one slot for each."""
        plan, edges = self._read_plan(params), boxes.to_tensor("xyxy")
        if isinstance(edges, list):
            edges = pad_sequence(edges, batch_first=True)
        edges = edges[(None,) * (3 - edges.ndim)]
        if clip:
            height, width = plan.size
            edges = edges.clamp(min=0).minimum(edges.new_tensor([width, height] * 2))
        self.last_boxes = apply_boxes(edges, plan, pieces="largest")
        values, source = self.last_boxes
        vertices = Boxes.from_tensor(values, mode="xyxy", validate_boxes=False).data
        made, batch = boxes.clone(), boxes.data.shape[:-3]
        # What is not valid is 0 in all of Kornia's tensors; _N is an older way to say so.
        made._data, made._valid, made._N = vertices.view(*batch, -1, 4, 2), (source >= 0).view(*batch, -1), None
        return made

    def _read_plan(self, params: Params, pixels: Tensor | None = None, *, of_clips: bool = False) -> Plan:
        """Make the plan that ``params`` hold, for ``pixels`` if given; of clips, where `VideoSequential` has frames."""
        missing = {*_FIELDS, "forward_input_shape"} - set(params)
        if missing:
            raise ValueError(f"{self.name}: params lack {sorted(missing)}; pass the _params of an earlier call")
        drawn, *_, height, width = params["forward_input_shape"].tolist()
        rows = {name: params[name].cpu() for name in (*_FIELDS, "drawn_share") if name in params}
        batch = len(rows["tiles"])
        if pixels is not None and (len(pixels), *pixels.shape[-2:]) != (batch, height, width):
            raise ValueError(
                f"{self.name}: the draw is for {batch} of {height}x{width} px, got {list(pixels.shape)}; params= are "
                "for images of one shape, and masks as large as their images"
            )
        frames = max(batch // max(drawn, 1), 1)  # of a clip, in VideoSequential
        if of_clips:
            rows, frames = {name: row[::frames] for name, row in rows.items()}, 1
        own = arange(len(rows["tiles"]))
        tiles, overlay = rows["tiles"] + rows["tiles"].shape[1] * own[:, None], rows["overlay"] * frames + own
        alone = self.augmentation.mixes and drawn not in (batch, int(params.get("video_batch_size", batch)))
        if alone or ((overlay < 0) | (overlay >= len(own))).any():
            raise ValueError(
                f"{self.name}: partners are out of reach; pass masks as one tensor and not as a list, and leave "
                "same_on_batch=False in VideoSequential, which draws for a single clip otherwise"
            )
        return Plan((height, width), **rows | {"tiles": tiles, "overlay": overlay})
