"""Measure how fast each family is on this machine, for the columns of docs/families.md.

    python benchmarks/family_speed.py                      # all families, one after another: a quarter of an hour on two cores
    python benchmarks/family_speed.py --only unet fpn      # only these; the numbers of the others are kept

Training: crops per second in the loop that `segpipe plan` times (bfloat16, channels last, including the preparation of batches); crops have
192 x 192 pixels, or 48 x 48 x 48 voxels. Prediction: images of 256 x 256 pixels (volumes of 64 x 64 x 64 voxels) per second, one at a time,
with the network as trained. Each family has its default settings and random weights, and runs in a separate process. The numbers are
written to docs/family_speed.json, which `python docs/write_families.py` reads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from scenes import CLASSES, Cells, fingerprint_of

from segpipe.files import read_json, write_json

NUMBERS = Path(__file__).resolve().parents[1] / "docs" / "family_speed.json"
_TRAIN = {
    "budget": "600 steps",
    "precision": "bf16",
    "channels_last": True,
    "compile": False,
    "cleaning": "none",
}


TIMED_PREDICTIONS = 24
"""Number of predictions that are timed."""
MAX_SECONDS = 8.0


def measure(name: str) -> dict[str, Any]:
    """Return the crops trained and the images predicted per second; for a classical family only the latter."""
    from segpipe.config import Params
    from segpipe.evaluation.cost import time_predictions
    from segpipe.inference.segmenter import Segmenter
    from segpipe.models.registry import FAMILIES
    from segpipe.training.planning.planner import plan_on
    from segpipe.training.scoring import segmenter_spec, validation_segmenter
    from segpipe.training.step import build_stepper

    family = FAMILIES[name]
    volumes = family.dims == 3
    reader = Cells(8, (48,) * 3) if volumes else Cells(24, (320, 320))
    images = Cells(4, (64,) * 3 if volumes else (256, 256))
    candidate = {"family": name}
    if "encoder_weights" in family.config.model_fields:
        candidate["encoder_weights"] = "none"
    crops = {"patch3d": [48] * 3, "batch": 2} if volumes else {"patch": 192, "batch": family.batch}
    params = Params.model_validate({"train": _TRAIN | crops, "candidates": {"speed": candidate}})
    plan = plan_on("speed", params, fingerprint_of(reader), reader, reader)
    result: dict[str, Any] = {}
    if family.kind == "classical":
        samples = (reader[index] for index in range(len(reader)))
        config = family.config.model_validate(plan.options)
        model = family.classical.fit(samples, plan.normalisation.apply, plan.classes, plan.seed, config)
        segmenter = Segmenter(segmenter_spec(plan, CLASSES), model)
    else:
        assert plan.execution is not None and plan.recipe is not None
        machine = plan.execution.machine
        segmenter = validation_segmenter(plan, build_stepper(plan), CLASSES)
        result = {
            "train": round(1000 * plan.recipe.batch / plan.execution.ms_per_step, 1),
            "machine": f"{machine.processor}, {machine.threads} threads, torch {machine.torch}",
        }
    inputs = [{"image": sample.image, "spacing": sample.spacing} for sample in images.samples]
    timing = time_predictions(segmenter, inputs, TIMED_PREDICTIONS, MAX_SECONDS)
    return result | {"predict": round(1000 / timing.p50_ms, 1)}


def main() -> None:
    """Measure each family in a separate process, and write the numbers after each."""
    from segpipe.models.registry import FAMILIES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=[name for name in FAMILIES if name != "custom"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    numbers: dict[str, Any] = read_json(NUMBERS) if NUMBERS.exists() else {"machine": "", "families": {}}
    for name in arguments.only:
        process = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, check=False)
        if process.returncode:
            raise SystemExit(f"{name}: {process.stderr[-2000:]}")
        result = json.loads(process.stdout.splitlines()[-1])
        numbers["machine"] = result.pop("machine", numbers["machine"])
        numbers["families"][name] = result
        write_json(NUMBERS, numbers)
        print(f"{name:<20} {result}", flush=True)


if __name__ == "__main__":
    main()
