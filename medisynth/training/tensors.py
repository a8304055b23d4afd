"""Saving and restoring of weights, buffers and optimiser moments as named tensors."""

import hashlib
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from governance.records.errors import WeightsError

MODULE, OPTIMISER = "module", "optimiser"


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Make a moving average of a network's weights, exponential, with a short memory at first.

    Args:
        network: Network whose weights are followed; copied.
        decay: Share of the old average kept at each update in the long run, 0 to 1.
    """

    def follow(
        average: tuple[torch.Tensor, ...] | list[torch.Tensor],
        current: tuple[torch.Tensor, ...] | list[torch.Tensor],
        n: torch.Tensor | int,
    ) -> None:
        now = min(decay, (1 + int(n)) / (10 + int(n)))
        get_ema_multi_avg_fn(now)(average, current, n)  # type: ignore[no-untyped-call]

    return AveragedModel(network, multi_avg_fn=follow)


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copy a network's tensors to the CPU, in plain memory order."""
    return {name: _copy(value) for name, value in network.state_dict().items()}


def gather_state(
    modules: Mapping[str, nn.Module], optimisers: Mapping[str, Optimizer]
) -> dict[str, torch.Tensor]:
    """Copy all tensors that an update changes to the CPU, in plain memory order.

    Args:
        modules: Name to network or moving average, never wrapped.
        optimisers: Name to optimiser. One that has made no update yet has no tensors.

    Returns:
        "module/NAME/KEY" and "optimiser/NAME/INDEX/KEY" to tensor. A stage adds further tensors
        under other names.

    Raises:
        WeightsError: An optimiser's state has a value that is no tensor.
    """
    tensors = {
        f"{MODULE}/{name}/{key}": value
        for name, module in modules.items()
        for key, value in snapshot(module).items()
    }
    for name, optimiser in optimisers.items():
        for index, (parameter, _) in enumerate(_parameters(optimiser)):
            for key, value in optimiser.state.get(parameter, {}).items():
                if not isinstance(value, torch.Tensor):
                    raise WeightsError(
                        f"optimiser {name!r}: expected tensors alone in its state, found "
                        f"{type(value).__name__} for {key!r}; use an optimiser such as AdamW"
                    )
                tensors[f"{OPTIMISER}/{name}/{index}/{key}"] = _copy(value)
    return tensors


def restore_state(
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, Optimizer],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Restore what `gather_state` copied, bit by bit; change nothing unless all of it fits.

    Args:
        modules: The same names and networks of the same shapes.
        optimisers: The same names and parameters in the same order.
        tensors: The tensors of `gather_state`; other names are ignored.

    Raises:
        WeightsError: A tensor is missing, unknown, or of another shape or type.
    """
    expected = {
        f"{MODULE}/{name}/{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    found = {name for name in tensors if name.startswith(f"{MODULE}/")}
    _require_same_names(set(expected), found)
    for name, value in expected.items():
        _require_fit(name, tensors[name], value.shape, value.dtype)
    states = _optimiser_states(optimisers, tensors)

    with torch.no_grad():
        for name, value in expected.items():
            value.copy_(tensors[name])
    for name, optimiser in optimisers.items():
        optimiser.state.clear()
        for index, (parameter, group) in enumerate(_parameters(optimiser)):
            if index in states[name]:
                optimiser.state[parameter] = {
                    key: _beside(parameter, group, key, value)
                    for key, value in states[name][index].items()
                }


def moments_fingerprint(tensors: Mapping[str, torch.Tensor]) -> int:
    """Number below 2**62 that tells whether two processes hold bitwise equal optimiser moments.

    Only moments: running means of batch normalisation may differ.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if name.startswith(f"{OPTIMISER}/")):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest()[:8]) >> 2


def n_parameters(*networks: nn.Module) -> int:
    """Count trainable parameters."""
    return sum(p.numel() for network in networks for p in network.parameters() if p.requires_grad)


def _copy(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)


def _parameters(optimiser: Optimizer) -> list[tuple[nn.Parameter, dict[str, object]]]:
    return [(p, group) for group in optimiser.param_groups for p in group["params"]]


def _optimiser_states(
    optimisers: Mapping[str, Optimizer], tensors: Mapping[str, torch.Tensor]
) -> dict[str, dict[int, dict[str, torch.Tensor]]]:
    """Check all optimiser tensors; return optimiser name -> parameter index -> key -> tensor."""
    states: dict[str, dict[int, dict[str, torch.Tensor]]] = {name: {} for name in optimisers}
    for full_name, tensor in tensors.items():
        kind, _, rest = full_name.partition("/")
        if kind != OPTIMISER:
            continue
        name, index, key = (rest.rsplit("/", 2) + ["", ""])[:3]
        parameters = _parameters(optimisers[name]) if name in optimisers else []
        if not index.isdecimal() or int(index) >= len(parameters):
            _require_same_names(set(), {full_name})
        shape = parameters[int(index)][0].shape
        if tensor.ndim:  # counters of updates have none
            _require_fit(full_name, tensor, shape, tensor.dtype)
        states[name].setdefault(int(index), {})[key] = tensor
    return states


def _beside(
    parameter: nn.Parameter, group: Mapping[str, object], key: str, value: torch.Tensor
) -> torch.Tensor:
    """Copy a tensor to the device and memory layout that the optimiser needs for a parameter."""
    if value.shape == parameter.shape and key != "step":
        # In the parameter's own memory order: fused optimisers walk both side by side.
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    on_device = bool(group.get("fused") or group.get("capturable"))
    return value.to(parameter.device if on_device else "cpu", copy=True)


def _require_same_names(expected: set[str], found: set[str]) -> None:
    if expected != found:
        missing, unknown = sorted(expected - found)[:3], sorted(found - expected)[:3]
        raise WeightsError(
            f"training state: expected the {len(expected)} tensors of these networks, found "
            f"{len(found)} (missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(unknown) or 'none'}); resume with the settings it was written with"
        )


def _require_fit(name: str, tensor: torch.Tensor, shape: torch.Size, dtype: torch.dtype) -> None:
    if tensor.shape != shape or tensor.dtype != dtype:
        raise WeightsError(
            f"training state: {name}: expected shape {tuple(shape)} of {dtype}, found "
            f"{tuple(tensor.shape)} of {tensor.dtype}; resume with the settings it was written with"
        )
