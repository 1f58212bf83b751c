"""Peaks of GPUs, compared with published figures. Names that are not fully known stay unknown."""

import pytest

from kogpt.train.gpu_peaks import peak_flops


@pytest.mark.parametrize(
    ("name", "dtype", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "fp16", 989),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "fp32", 19.5),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("Tesla T4", "tf32", 8.1),  # no such unit: plain fp32
        ("Tesla T4", "fp16", 65),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA L40", "bf16", 181),
        ("NVIDIA GeForce RTX 3060", "bf16", 25.5),
        ("NVIDIA GeForce RTX 3080", "fp16", 59.5),
        ("NVIDIA A10G", "bf16", 70),
        ("NVIDIA RTX 6000 Ada Generation", "bf16", 364.2),
        ("NVIDIA H20", "bf16", 148),
    ],
)
def test_peaks_of_known_gpus(name, dtype, teraflops):
    assert peak_flops(name, dtype) == teraflops * 1e12


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("Tesla T4", "bf16"),  # no such unit
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),  # other chips under the same number
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16"),
        ("NVIDIA GeForce RTX 3060 Ti", "bf16"),
        ("NVIDIA A10G-24Q", "bf16"),
        ("cpu", "fp32"),
        ("", "bf16"),
    ],
)
def test_unknown_stays_unknown(name, dtype):
    assert peak_flops(name, dtype) is None
