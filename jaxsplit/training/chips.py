"""Peak FLOP/s of chips, from which model FLOPs utilization (MFU) is computed."""

from __future__ import annotations

# bfloat16 FLOP/s of one JAX device, dense, with float32 sums, by `jax.Device.device_kind`.
#
# TPUs: the pages of the generations under https://docs.cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x), "Peak compute per
# chip". JAX takes a chip as one device, but each of the two halves of a TPU7x (2307 TFLOP/s together) as one. Their names are
# those that JAX's own Pallas (pallas/mosaic/tpu_info.py) tells the generations by.
# GPUs: NVIDIA's data sheets of the A100, H100, H200, GH200, L4 and L40S, and of the HGX B200 and GB200 NVL72 (whole systems,
# divided by their 8 and 72 GPUs); where a sheet counts structured sparsity, half of what it says. The names are those of the
# driver, which is why an H100 SXM is told from the slower PCIe card by its memory.
_TERAFLOPS = {
    "TPU v4": 275,
    "TPU v5 lite": 197, "TPU v5e": 197,
    "TPU v5": 459, "TPU v5p": 459,
    "TPU v6 lite": 918, "TPU v6e": 918,
    "TPU7x": 2307 / 2,
    "NVIDIA A100-SXM4-40GB": 312, "NVIDIA A100-SXM4-80GB": 312, "NVIDIA A100-PCIE-40GB": 312, "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA H100 80GB HBM3": 989.5, "NVIDIA H100 PCIe": 756.5, "NVIDIA H100 NVL": 835.5,
    "NVIDIA H200": 989.5, "NVIDIA H200 NVL": 835.5,
    "NVIDIA GH200 480GB": 989.5,
    "NVIDIA B200": 2250, "NVIDIA GB200": 2500,
    "NVIDIA L4": 121, "NVIDIA L40S": 362,
}


def peak_bf16_flops(device_kind: str) -> float | None:
  """Peak bfloat16 FLOP/s of one such device; None if that is not known, as for CPUs."""
  teraflops = _TERAFLOPS.get(device_kind)
  return None if teraflops is None else teraflops * 1e12
