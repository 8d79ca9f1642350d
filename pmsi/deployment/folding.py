"""Folding of batch norm into the convolution or linear layer beside it, in an exported graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

_CONV, _LINEAR = torch.ops.aten.conv2d.default, torch.ops.aten.linear.default
_NORM = torch.ops.aten.batch_norm.default


def export_folded(module: torch.nn.Module, images: Tensor, most: int | None = None) -> torch.export.ExportedProgram:
    """Export a module for batches of any size, with its batch norms folded.

    Args:
        module: in eval mode.
        images: an example of two images or more, uint8 ``[B, 3, H, W]``.
        most: largest batch, for runtimes that set memory aside for it.
    """
    shapes: Any = ({0: torch.export.Dim("batch", min=1, max=most)},)
    graph = torch.export.export(module, (images,), dynamic_shapes=shapes).module()
    assert isinstance(graph, fx.GraphModule)
    fold_norms(graph)
    return torch.export.export(graph, (images,), dynamic_shapes=shapes)


def fold_norms(module: fx.GraphModule) -> int:
    """Fold the batch norms of a graph in eval mode into their neighbours, and count those that were.

    One that follows a convolution or linear layer scales its outputs, one before a linear layer its inputs. Layers may
    share weights: each gets its own. Folding is done in float64 and rounded once.
    """
    folded = 0
    for node in list(module.graph.nodes):
        if node.target is not _NORM:
            continue
        source, weight, bias, mean, var = node.args[:5]
        scale = _get(module, weight) / (_get(module, var) + node.args[7]).sqrt()
        shift = _get(module, bias) - _get(module, mean) * scale
        users = list(node.users)
        if source.target in (_CONV, _LINEAR) and len(source.users) == 1:
            layer = source
            old = _get(module, layer.args[1])
            made = old * scale.view(-1, *[1] * (old.ndim - 1)), _get_bias(module, layer) * scale + shift
        elif len(users) == 1 and users[0].target is _LINEAR:
            layer = users[0]
            old = _get(module, layer.args[1])
            made = old * scale, _get_bias(module, layer) + old @ shift
        else:
            continue
        _set_weights(module, layer, *made)
        node.replace_all_uses_with(source)
        module.graph.erase_node(node)
        folded += 1
    _drop_idle(module.graph)
    _drop_unused(module)
    module.recompile()
    return folded


def _get(module: fx.GraphModule, node: Any) -> Tensor:
    """Constant that a node stands for, float64."""
    assert node.op == "get_attr", node
    found: Any = module
    for name in node.target.split("."):
        found = getattr(found, name)
    assert isinstance(found, Tensor)
    return found.detach().double()


def _get_bias(module: fx.GraphModule, layer: fx.Node) -> Tensor:
    bias = layer.args[2] if len(layer.args) > 2 else None
    return torch.zeros(1, dtype=torch.float64) if bias is None else _get(module, bias)


def _set_weights(module: fx.GraphModule, layer: fx.Node, weight: Tensor, bias: Tensor) -> None:
    with module.graph.inserting_before(layer):
        nodes = []
        for what, values in (("weight", weight), ("bias", bias)):
            name = f"{layer.name}_folded_{what}"
            if hasattr(module, name):  # folded twice: from both sides
                delattr(module, name)
            module.register_buffer(name, values.float())
            nodes.append(module.graph.get_attr(name))
    layer.args = (layer.args[0], *nodes, *layer.args[3:])


def _drop_idle(graph: fx.Graph) -> None:
    """Erase nodes whose results nobody reads, also those that work in place on a layer's output nobody else reads."""
    for node in reversed(graph.nodes):
        source = node.args[0] if node.args else None
        own = isinstance(source, fx.Node) and source.target in (_CONV, _LINEAR, _NORM) and len(source.users) == 1
        if not node.users and (own or not node.is_impure()):
            graph.erase_node(node)


def _drop_unused(module: fx.GraphModule) -> None:
    """Delete parameters and buffers that no node reads: they would be saved with the others."""
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    for name in names:
        if name not in used:
            owner, _, last = name.rpartition(".")
            delattr(module.get_submodule(owner), last)
