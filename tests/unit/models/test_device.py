"""The device of the training: which one `auto` is, and that none is invented."""

import pytest
import torch

from models import device
from models.device import device_name, repeatable, resolved_device
from models.trajectory import environment_key


@pytest.mark.parametrize(
    ("there", "expected"), [([], "cpu"), (["mps"], "mps"), (["cuda"], "cuda"), (["cuda", "mps"], "cuda")]
)
def test_auto_prefers_cuda_then_mps(monkeypatch, there, expected):
    monkeypatch.setattr(device, "available_gpus", lambda: there)
    assert resolved_device("auto") == expected
    assert all(resolved_device(name) == name for name in (*there, "cpu"))
    for missing in {"cuda", "mps"}.difference(there):
        with pytest.raises(ValueError, match=rf"found '{missing}', but torch .* has no such device here; allowed: '"):
            resolved_device(missing)


def test_gpus_of_two_kinds_have_environments_of_their_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    environment_key.cache_clear()
    device_name.cache_clear()
    found = []
    for name in ("NVIDIA H200", "NVIDIA L4"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        found.append(environment_key("cuda", True))
        assert name in found[-1]
        environment_key.cache_clear()
        device_name.cache_clear()
    assert len({*found, environment_key(), environment_key("cpu", True)}) == 4


def test_settings_of_a_gpu_are_restored():
    before = torch.get_float32_matmul_precision()
    with repeatable("cpu"):
        assert not torch.are_deterministic_algorithms_enabled()
    with repeatable("cuda"):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == before
