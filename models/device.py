"""Devices on which the proxy model is trained: which is there, its name, and settings that repeat its arithmetic."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from models.spec import Device, WantedDevice


def resolved_device(wanted: WantedDevice) -> Device:
    """The device of a name; auto: CUDA, else MPS, else the CPU. ValueError for one that this machine does not have."""
    found: list[Device] = [*available_gpus(), "cpu"]
    if wanted == "auto":
        return found[0]
    if wanted not in found:
        allowed = ", ".join(f"'{name}'" for name in (*found, "auto"))
        raise ValueError(f"found '{wanted}', but torch {torch.__version__} has no such device here; allowed: {allowed}")
    return wanted


def available_gpus() -> list[Device]:
    """Kinds of GPU that torch can use on this machine."""
    found: list[Device] = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


@lru_cache
def device_name(device: Device) -> str:
    """Name of a device with all of its hardware and libraries that can decide the bits of a result."""
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        backends: Any = torch.backends
        libraries = f"CUDA {torch.version.cuda}, cuDNN {backends.cudnn.version()}"
        return f"cuda ({torch.cuda.get_device_name()}, compute capability {major}.{minor}, {libraries})"
    if device == "mps":
        return f"mps ({platform.machine()} {platform.processor()}, macOS {platform.mac_ver()[0]})"
    return "cpu"


@contextmanager
def repeatable(device: Device) -> Iterator[None]:
    """Let a GPU use deterministic algorithms and full fp32 products, and restore the settings afterwards."""
    if device == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when its first handle is made
    debug_mode = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic  # without types
    filled, precision = memory.fill_uninitialized_memory, torch.get_float32_matmul_precision()
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, which would import the compiler
    memory.fill_uninitialized_memory = False  # for debugging: nothing reads such memory here
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_deterministic_debug_mode(debug_mode)
        memory.fill_uninitialized_memory = filled
        torch.set_float32_matmul_precision(precision)
