"""Choose the device and number format of models that run in this process."""

from __future__ import annotations

import torch

from curator.core.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def gpu_names() -> list[str]:
    """Return the names of this machine's CUDA devices; empty without a GPU."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def choose_device(name: str | None) -> torch.device:
    """Return the named device, e.g. `cuda:1`; without a name the first GPU, else the CPU.

    Raises:
        UsageError: this machine has no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch built without CUDA
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"device is {name!r}: {reason}", hint="e.g. cpu, cuda, cuda:1", reason="option.value"
        ) from error
    return device


def dtype_name(name: str | None, device: str | None) -> str:
    """Return the name of the format that `choose_dtype` chooses: fp32, bf16 or fp16."""
    chosen = choose_dtype(name, choose_device(device))
    return next(short for short, dtype in DTYPES.items() if dtype == chosen)


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """Return the named format (fp32, bf16, fp16); without a name bf16, or fp16 on older GPUs.

    Devices other than CUDA compute in fp32: on CPUs the short formats are slower, not faster.

    Raises:
        UsageError: an unknown name.
    """
    if name is not None:
        if name not in DTYPES:
            raise UsageError(
                f"dtype is {name!r}", hint=f"allowed: {', '.join(DTYPES)}", reason="option.value"
            )
        return DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native_bf16 else torch.float16
