"""What the arms of benchmarks/score.py share: their options, device and number format."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from curator.core.devices import choose_device, choose_dtype


def arm_options(description: str | None) -> argparse.ArgumentParser:
    """Data, model, batch size, device and dtype; an arm may add its own."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("data", type=Path)
    options.add_argument("model", type=Path)
    options.add_argument("--batch-size", type=int, required=True)
    options.add_argument("--device")
    options.add_argument("--dtype")
    return options


def chosen(args: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """As `curator score` chooses them."""
    device = choose_device(args.device)
    return device, choose_dtype(args.dtype, device)


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given: a lap ends there."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
