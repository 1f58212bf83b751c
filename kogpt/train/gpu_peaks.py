"""Peak FLOP/s of real GPUs, for MFU. In: the name that torch gives a GPU. Out: FLOP/s, or None rather than a guess.

These are the maker's dense peaks: tensor cores with float32 accumulation for fp16 and bf16 (figures "with sparsity" are
twice as high), CUDA cores for fp32. TF32 is half of bf16 on every card that has both.

Sources: NVIDIA's data sheets; for GeForce and RTX cards the GA102, Ada, and RTX Blackwell whitepapers. The RTX 3060 is
computed from its units and boost clock (3,584 cores, 112 tensor cores of 64 FMA, 1.777 GHz). The A10G is from AWS's
data sheet, the H20 from resellers' copies of NVIDIA's. The values equal torchtitan's (A100, H100, H200, B200, L40S) and
Lightning's (V100, T4, A100, H100).
"""

import re
from typing import Literal

Dtype = Literal["bf16", "fp16", "tf32", "fp32"]

UNITS: dict[str, Dtype] = {"autocast": "bf16", "bf16": "bf16", "fp16": "fp16", "fp32": "tf32"}
"""The type in which a GPU computes the matrix products of each precision (kogpt.common.numerics)."""

# TFLOP/s; None: the GPU has no such unit. A pattern must match the whole name, so that laptop variants, MIG slices, and
# cut-down models stay unknown instead of being confused with another card.
_PEAKS: list[tuple[str, dict[str, float | None]]] = [
    (r"V100-SXM2-(16|32)GB", {"bf16": None, "fp16": 125, "fp32": 15.7}),
    (r"V100-PCIE-(16|32)GB", {"bf16": None, "fp16": 112, "fp32": 14}),
    (r"V100S-PCIE-32GB", {"bf16": None, "fp16": 130, "fp32": 16.4}),
    (r"T4", {"bf16": None, "fp16": 65, "fp32": 8.1}),
    (r"A10", {"bf16": 125, "fp16": 125, "fp32": 31.2}),
    (r"A10G", {"bf16": 70, "fp16": 70, "fp32": 35}),
    (r"A30", {"bf16": 165, "fp16": 165, "fp32": 10.3}),
    (r"A40", {"bf16": 149.7, "fp16": 149.7, "fp32": 37.4}),
    (r"A100-SXM4-(40|80)GB|A100-PCIE-40GB|A100 80GB PCIe", {"bf16": 312, "fp16": 312, "fp32": 19.5}),
    (r"RTX A6000", {"bf16": 154.8, "fp16": 154.8, "fp32": 38.7}),
    (r"RTX 3060", {"bf16": 25.5, "fp16": 25.5, "fp32": 12.7}),
    (r"RTX 3080", {"bf16": 59.5, "fp16": 59.5, "fp32": 29.8}),  # 10 GB; the 12 GB card of the same name has 3 % more
    (r"RTX 3090", {"bf16": 71, "fp16": 71, "fp32": 35.6}),
    (r"L4", {"bf16": 121, "fp16": 121, "fp32": 30.3}),
    (r"L40", {"bf16": 181, "fp16": 181, "fp32": 90.5}),
    (r"L40S", {"bf16": 362, "fp16": 362, "fp32": 91.6}),
    (r"RTX 4080", {"bf16": 97.5, "fp16": 97.5, "fp32": 48.7}),
    (r"RTX 4090", {"bf16": 165.2, "fp16": 165.2, "fp32": 82.6}),
    (r"RTX 6000 Ada Generation", {"bf16": 364.2, "fp16": 364.2, "fp32": 91.1}),
    (r"RTX 5080", {"bf16": 112.6, "fp16": 112.6, "fp32": 56.3}),
    (r"RTX 5090", {"bf16": 209.5, "fp16": 209.5, "fp32": 104.8}),
    (r"H20", {"bf16": 148, "fp16": 148, "fp32": 44}),
    (r"H100 PCIe", {"bf16": 756, "fp16": 756, "fp32": 51}),
    (r"H100 NVL|H200 NVL", {"bf16": 835, "fp16": 835, "fp32": 60}),
    (r"H100 80GB HBM3|H800|H200|GH200 (480|120)GB", {"bf16": 989, "fp16": 989, "fp32": 67}),
    (r"AMD Instinct MI300X", {"bf16": 1307.4, "fp16": 1307.4, "fp32": 163.4}),
    (r"B200", {"bf16": 2250, "fp16": 2250, "fp32": 75}),
]


def peak_flops(device_name: str, dtype: Dtype) -> float | None:
    """Peak FLOP/s of the GPU with this name (as torch reports it); None if it is unknown."""
    name = re.sub(r"\b(NVIDIA|Tesla|GeForce)\b", "", device_name).strip()
    for pattern, peaks in _PEAKS:
        if re.fullmatch(pattern, name):
            peak = peaks["fp32" if dtype == "tf32" else dtype]
            if dtype == "tf32" and (bf16 := peaks["bf16"]) is not None:
                peak = bf16 / 2
            return None if peak is None else peak * 1e12
    return None
