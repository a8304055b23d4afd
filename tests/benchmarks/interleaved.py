"""Ratios of times on a shared machine: contestants take turns and the least time of each counts."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Contestants = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Times:
    """Seconds of each repeat of one contestant."""

    seconds: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.seconds)

    def times_slower_than(self, other: "Times") -> float:
        """Ratio of the least times."""
        return self.least / other.least

    def against(self, other: "Times") -> str:
        """Ratio of the least times, and the range of the ratios within each turn."""
        turns = [own / its for own, its in zip(self.seconds, other.seconds, strict=True)]
        return f"{self.times_slower_than(other):.2f} ({min(turns):.2f} to {max(turns):.2f})"


def interleaved(contestants: Contestants, repeats: int, *, warm_up: int = 2) -> dict[str, Times]:
    """Time contestants in turns; who begins changes from turn to turn.

    The first turns are not counted: they pay for set-up, e.g. the state of an optimiser.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm_up, repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            contestants[name]()
            took_s = time.perf_counter() - started
            if turn >= 0:
                seconds[name].append(took_s)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table; the first column is text, the others are numbers."""
    print(f"\n### {title}\n")
    print(f"| {' | '.join(header)} |")
    print(f"|{'|'.join(['---', *['---:'] * (len(header) - 1)])}|")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)


def print_machine() -> None:
    """Say what the figures were measured on."""
    names = [line for line in _cpu_facts() if line.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else platform.processor() or "unknown"
    units = " ".join(name for name in ("avx512f", "avx512_bf16", "amx_bf16") if _has(name))
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores ({model}; {units or 'no AVX-512'}), Python "
        f"{platform.python_version()}, torch {torch.__version__} with {torch.get_num_threads()} "
        f"threads, load at the start {load:.1f}"
    )


def flop_of(work: Callable[[], object]) -> int:
    """Floating point operations of matrix products and convolutions, in both directions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def n_weights(network: nn.Module) -> int:
    """Parameters, those that are frozen at the moment included."""
    return sum(parameter.numel() for parameter in network.parameters())


def _cpu_facts() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return []


def _has(flag: str) -> bool:
    return any(line.startswith("flags") and flag in line.split() for line in _cpu_facts())
