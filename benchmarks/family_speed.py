"""How fast each family is on this machine: the column of docs/families.md.

    python benchmarks/family_speed.py                      # all of them, one after another: a quarter of an hour on two cores
    python benchmarks/family_speed.py --only unet fpn      # these alone; figures of the others stay

Training: crops a second of the loop that `segpipe plan` times (bf16, channels last, batches included), 192 x 192 of images, 48 x 48 x 48
of volumes. Prediction: images of 256 x 256 (volumes of 64 x 64 x 64) a second, one at a time, by the network as it trains. Each family has
its default settings and random weights; each is measured in a process of its own. Writes docs/family_speed.json, from which
`python docs/write_families.py` takes the column.
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

PAGE = Path(__file__).resolve().parents[1] / "docs" / "family_speed.json"
_TRAIN = {
    "budget": "600 steps",
    "precision": "bf16",
    "channels_last": True,
    "compile": False,
    "cleaning": "none",
}


def measure(name: str) -> dict[str, Any]:
    """Crops trained and images predicted a second; of a classical family the latter alone."""
    from segpipe.config import Params
    from segpipe.evaluation.cost import time_predictions
    from segpipe.inference.segmenter import Segmenter
    from segpipe.models.registry import FAMILIES
    from segpipe.training.planning.planner import plan_on
    from segpipe.training.scoring import segmenter_spec, validation_segmenter
    from segpipe.training.step import build_stepper

    of = FAMILIES[name]
    volumes = of.dims == 3
    reader = Cells(8, (48,) * 3) if volumes else Cells(24, (320, 320))
    seen = Cells(4, (64,) * 3 if volumes else (256, 256))
    own = {"encoder_weights": "none"} if "encoder_weights" in of.config.model_fields else {}
    crops = {"patch3d": [48] * 3, "batch": 2} if volumes else {"patch": 192, "batch": of.batch}
    params = Params.model_validate({"train": _TRAIN | crops, "candidates": {"speed": {"family": name} | own}})
    plan = plan_on("speed", params, fingerprint_of(reader), reader, reader)
    if of.kind == "classical":
        samples = (reader[place] for place in range(len(reader)))
        config = of.config.model_validate(plan.options)
        model = of.classical.fit(samples, plan.normalisation.apply, plan.classes, plan.seed, config)
        segmenter, found = Segmenter(segmenter_spec(plan, CLASSES), model), {}
    else:
        assert plan.execution is not None and plan.recipe is not None
        machine = plan.execution.machine
        segmenter = validation_segmenter(plan, build_stepper(plan), CLASSES)
        found = {
            "train": round(1000 * plan.recipe.batch / plan.execution.ms_per_step, 1),
            "machine": f"{machine.processor}, {machine.threads} threads, torch {machine.torch}",
        }
    inputs = [{"image": sample.image, "spacing": sample.spacing} for sample in seen.samples]
    return found | {"predict": round(1000 / time_predictions(segmenter, inputs, 24, 8.0).p50_ms, 1)}


def main() -> None:
    """Measure each family in a process of its own, and write the figures after each."""
    from segpipe.models.registry import FAMILIES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=[name for name in FAMILIES if name != "custom"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    figures: dict[str, Any] = read_json(PAGE) if PAGE.exists() else {"machine": "", "families": {}}
    for name in arguments.only:
        done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        figures["machine"] = found.pop("machine", figures["machine"])
        figures["families"][name] = found
        write_json(PAGE, figures)
        print(f"{name:<20} {found}", flush=True)


if __name__ == "__main__":
    main()
