"""`trimtab-trainer estimate`: memory, time and accelerator seconds of a run on each type of accelerator."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..base.agreement import check_model
from ..base.architecture import check_trainable
from ..base.base_model import find_base_model
from ..base.decoders import shapes_of_config
from ..config import at_the_mirror, read_config, read_found
from ..contract import Mirrored, RunConfig, from_hub
from ..errors import SettingsInvalid
from ..pages.wording import duration, figure
from ..training.distributed.sharing import check_batch
from .devices import DEVICES, GIB, Device, find_device
from .dimensions import Dimensions, dimensions
from .estimate import Estimate, estimate


def run(options: argparse.Namespace) -> int:
    """Estimate and print; 0 whatever does not fit, for it says so.

    Raises:
        SettingsInvalid: the configuration or the base model cannot be read, `prepare` would refuse them, or there is no
            such accelerator.
    """
    config = read_config(options.config)
    if not isinstance(config, RunConfig):
        raise SettingsInvalid(f"{options.config} is no configuration of a run")
    if options.model_config is not None:
        model = read_model_config(options.model_config)
        shapes = shapes_of_config(model)
    else:
        if from_hub(config.base_model.uri):
            config = at_the_mirror(config, read_found(options.mirrored, Mirrored, "--mirrored"))
        found = find_base_model(config.base_model)
        model, shapes = found.config, check_model(found)
    check_trainable(config, model, shapes)  # of a run that `prepare` refuses there is nothing to tell
    dims = dimensions(shapes, model, config.adapter)
    accelerators = options.accelerators * options.nodes
    check_batch(config.training, accelerators)
    found_all = [
        estimate(dims, config, device, options.tokens, accelerators=accelerators)
        for device in devices_of(options.accelerator)
    ]
    if options.json:
        print(json.dumps({"weights": dims.weights, "estimates": [each.to_json() for each in found_all]}, indent=2))
    else:
        print(table(dims, config, found_all), flush=True)
    return 0


def read_model_config(file: Path) -> dict[str, Any]:
    """Return a config.json.

    Raises:
        SettingsInvalid: it is none.
    """
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"--model-config {file}: {error}; give the config.json of a model") from error
    if not isinstance(value, dict):
        raise SettingsInvalid(f"--model-config {file} is no JSON object; give the config.json of a model")
    return value


def devices_of(names: list[str] | None) -> list[Device]:
    """Return the accelerators that are asked for, all of them if none is.

    Raises:
        SettingsInvalid: one is not known.
    """
    if not names:
        return list(DEVICES)
    found = []
    for name in names:
        device = find_device(name)
        if device is None:
            known = ", ".join(each.name for each in DEVICES)
            raise SettingsInvalid(f"--accelerator {name} is not known; there are {known}")
        found.append(device)
    return found


def table(dims: Dimensions, config: RunConfig, estimates: list[Estimate]) -> str:
    """Return the estimates for people, one accelerator a line."""
    timed = any(each.seconds is not None for each in estimates)
    trained = "adapter" if config.adapter is not None else "weights"
    head = ("accelerator", "fits", "peak", "of", "base", trained, "activations", "a moment", "micro-batch")
    several = any(each.accelerators > 1 for each in estimates)
    times = ("time", "accelerator time") if several else ("time = accelerator time",)
    head += ("tokens/s", *(times if timed else ()))
    lines = [head]
    for each in estimates:
        memory = each.memory
        sizes = (memory.peak, each.device.memory, memory.base, memory.adapter, memory.activations, memory.moment)
        lines.append(
            (
                each.device.name,
                ("yes" if each.fits else "no") + (", divided" if each.among > 1 else ""),
                *(f"{size / GIB:.1f}" for size in sizes),
                f"{each.micro_batch}{', twice' if each.recomputed else ''}",
                figure(each.tokens_per_second, 0),
                *((duration(each.seconds),) if timed else ()),
                *((duration(each.seconds and each.seconds * each.accelerators),) if timed and several else ()),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    about = (
        f"{dims.weights / 1e9:.2f} billion weights, {_trained(config)}, "
        f"{'pairs of ' if config.training.method.is_paired else ''}sequences of up to "
        f"{config.training.max_sequence_length:,} tokens; sizes in GiB; "
        "twice: activations are computed twice"
        + (f"; {estimates[0].accelerators} accelerators, sizes are of each" if several else "")
        + ("; divided: each holds its part of the base model" if any(each.among > 1 for each in estimates) else "")
    )
    return "\n".join([about, "", *rows])


def _trained(config: RunConfig) -> str:
    """Return in words what is trained of a model that is held how."""
    if config.adapter is None:
        return "all of them trained in float32"
    return f"{config.quantization.type.value}, rank {config.adapter.rank}"
