"""The types of settings that `train:` in params.yaml and the recipe of a plan have in common: range and meaning, declared once.

`segpipe.config.TrainParams` adds defaults and the values `auto` and null; `segpipe.training.plan.Recipe` holds what was chosen.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from segpipe.config.losses import LossParams

AugmentStrength = Literal["off", "light", "medium", "strong"]

Patch = Annotated[int, Field(ge=32, multiple_of=32)]
Batch = Annotated[int, Field(ge=1)]
Accumulate = Annotated[
    int,
    Field(
        ge=1,
        description="Parts in which a batch is computed, one after another, to need less memory; if memory runs short, there "
        "will be more.",
    ),
]
LearningRate = Annotated[float, Field(gt=0)]
EncoderRate = Annotated[
    float,
    Field(
        gt=0,
        le=10,
        description="Factor on the learning rate of the encoder: below 1, its pretrained weights change little.",
    ),
]
Momentum = Annotated[float, Field(ge=0, lt=1, description="Momentum of sgd.")]
Nesterov = Annotated[bool, Field(description="Whether sgd uses Nesterov momentum.")]
WeightDecay = Annotated[float, Field(ge=0)]
Schedule = Annotated[
    Literal["cosine", "poly", "one_cycle", "constant"],
    Field(
        description="Course of the learning rate after the warm-up; one_cycle rises over 30 % of the steps and has no warm-up."
    ),
]
Loss = Annotated[
    LossParams,
    Field(
        description="The terms that are summed, e.g. {cross_entropy: 1.0, dice: 0.5} or {focal: {weight: 1.0, gamma: 3}}; see "
        "below. A detector has its own loss."
    ),
]
RareCrops = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Share of the crops that are centred on a pixel of a class drawn at random, so that rare classes are seen.",
    ),
]
Ema = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="Decay of the running average of the weights, which is what is evaluated and kept; 0 turns it off.",
    ),
]
Augment = Annotated[
    AugmentStrength, Field(description="Strength of the augmentation of crops: flips, scale, rotation and colour.")
]
Elastic = Annotated[
    bool,
    Field(
        description="Whether crops are also deformed elastically, as soft tissue is, if augment is medium or strong; not for "
        "volumes."
    ),
]
Cleaning = Annotated[
    Literal["auto", "none"],
    Field(
        description="Whether the finished model's segmentation masks are cleaned: by the threshold between two classes (of more "
        "classes: by how far rare ones are favoured), and by the smallest region of each class that is kept (specks and holes). "
        "auto: chosen on the validation split, and used only if the gain there is statistically significant."
    ),
]
Tta = Annotated[
    Literal["none", "mirror", "flips", "d4", "multi_scale"],
    Field(
        description="Test-time augmentation of the finished model, in evaluation and in service: the mean over the image and its "
        "mirror image (2 runs of the network), all flips (4; for a volume 8), or flips and quarter turns (8); multi_scale: the "
        "image and its mirror image at 0.75, 1 and 1.25 times its size (as much as 6 runs; not for volumes). Each run costs time. "
        "Validations during training do without it."
    ),
]
Patience = Annotated[
    int | None,
    Field(
        ge=1,
        description="Stop after this many validations without a better score than the best so far; null: never before the budget "
        "is spent.",
    ),
]
