"""`AugmentationSequential`: Kornia's container, with labels mixed along with their images."""

from __future__ import annotations

from typing import Any

from mosaicaug.kornia.operation import DataKey, K, Operation, ops


class _LabelOps(ops.AugmentationSequentialOps):
    """Operations of a container, with labels sent along with the images; Kornia's own sends labels to none."""

    def transform(self, *arg: Any, module: Any, param: Any, extra_args: Any, data_keys: Any = None) -> Any:
        """Transform as Kornia does, and put the labels that operations mixed in their place."""
        keys = self.preproc_datakeys(data_keys)
        places = [place for place, key in enumerate(keys) if key == DataKey.CLASS]
        mixing = [part for part in module.modules() if isinstance(part, Operation) and part.augmentation.mixes]
        if not places or not mixing:
            return super().transform(*arg, module=module, param=param, extra_args=extra_args, data_keys=keys)
        if DataKey.INPUT not in keys:
            raise ValueError(
                f"{mixing[0].name}: labels are mixed with their images, got none; pass 'input' too, or use "
                "transform_classes(labels, params)"
            )
        carried = [arg[place] for place in places]
        extra_args = extra_args | {DataKey.INPUT: extra_args.get(DataKey.INPUT, {}) | {"carried": carried}}
        outputs: Any = super().transform(*arg, module=module, param=param, extra_args=extra_args, data_keys=keys)
        for place, labels in zip(places, carried, strict=True):
            outputs[place] = labels
        return outputs


class AugmentationSequential(K.AugmentationSequential):
    """Kornia's ``AugmentationSequential`` with labels mixed along with their images, in nested containers too.

    Takes Kornia's arguments and calls: ``data_keys=["input", "class"]``, for example, or a dict with the key "class".

    Raises:
        ValueError: labels do not fit, or a second operation mixes what the first one left as `Targets`.

    Examples:
        >>> import torch
        >>> from mosaicaug.kornia import AugmentationSequential, RandomCutMix, RandomJigsaw
        >>> pipeline = AugmentationSequential(RandomJigsaw(), RandomCutMix(), data_keys=["input", "class"])
        >>> images, targets = pipeline(torch.rand(4, 3, 32, 32), torch.arange(4))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.transform_op = _LabelOps(self.data_keys)
