"""What is demanded of a dataset: a table. One line says what Great Expectations holds against which numbers, how bad a failure
is, and the words for it (templates over the columns of `segpipe.validation.frames`).

To add a check: a column there, a line here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from segpipe.config import ValidateParams
from segpipe.errors import ConfigError
from segpipe.validation.frames import About

Severity = Literal["error", "warning"]


class Finding(BaseModel):
    """One failure: what, how bad, where, and what to do."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    expectation: str
    severity: Severity
    file: str | None
    """Relative to data/; None where the whole dataset is meant."""
    found: str
    expected: str
    fix: str


@dataclass(frozen=True)
class Check:
    """One demand on every row of one frame (`about`): a Great Expectations class with its arguments, and words for a failure."""

    name: str
    severity: Severity
    about: About
    title: str
    expectation: str
    arguments: Mapping[str, Any]
    found: str
    expected: str
    fix: str

    def finding(self, row: Mapping[Hashable, Any], severity: Severity) -> Finding:
        """The failure of this check on a row of its frame."""
        words = {str(column): value for column, value in row.items()}
        return Finding(
            expectation=self.name,
            severity=severity,
            file=str(row["subject"]) if self.about == "image" else None,
            found=self.found.format_map(words),
            expected=self.expected.format_map(words),
            fix=self.fix.format_map(words),
        )


def _at_most(column: str, most: float) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnValuesToBeBetween", {"column": column, "max_value": most}


def _at_least(column: str, least: float) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnValuesToBeBetween", {"column": column, "min_value": least}


def _missing(column: str) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnValuesToBeNull", {"column": column}


def _equal(column: str, other: str) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnPairValuesToBeEqual", {
        "column_A": column,
        "column_B": other,
        "ignore_row_if": "either_value_is_missing",
    }


CHECKS = (
    Check(
        "readable_files", "error", "image", "Every file can be read", *_missing("error"),
        found="{trouble}", expected="a file that can be used", fix="{remedy}",
    ),
    Check(
        "masks_present", "error", "image", "Every image has a mask", *_missing("without_mask"),
        found="no mask", expected="masks/{key}.png", fix="label the image, or take it out of the data",
    ),
    Check(
        "sizes_match", "error", "image", "Image and mask have the same size", *_equal("image_size", "mask_size"),
        found="a mask of {mask_size}", expected="{image_size}, as the image", fix="export image and mask at the same size",
    ),
    Check(
        "known_classes", "error", "image", "Masks hold known classes alone", *_at_most("unknown_pixels", 0),
        found="{unknown_text}", expected="{known_text}", fix="{unknown_fix}",
    ),
    Check(
        "same_channels", "error", "image", "Images have the same channels", *_equal("channels", "usual_channels"),
        found="{channels} channel(s)", expected="{usual_channels}, as most images", fix="convert the image to the others' kind",
    ),
    Check(
        "same_dtype", "error", "image", "Images have the same number type", *_equal("dtype", "usual_dtype"),
        found="{dtype}", expected="{usual_dtype}, as most images", fix="convert the image to the others' kind",
    ),
    Check(
        "no_copies_across_splits", "error", "image", "No image stands in two splits", *_at_most("copy_splits", 1),
        found="the same image as {copies}, which is in another split ({split} here)", expected="test images that were never trained on",
        fix="remove one of them, or give both one group or one split in samples.csv",
    ),
    Check(
        "one_mask_an_image", "error", "image", "No image has two different masks", *_at_most("mask_versions", 1),
        found="the same image as {copies}, with another mask", expected="one mask for an image", fix="keep the right one of them",
    ),
    Check(
        "min_images", "error", "split", "Each split has images", *_equal("enough", "yes"),
        found="{images} usable image(s) in {subject}", expected="{least} at least",
        fix="add images, or move some with samples.csv (key,group,split), or change `split` in params.yaml",
    ),
    Check(
        "classes_in_train", "error", "class", "Every class can be learned", *_at_most("unseen", 0),
        found="class {subject} is in val or test ({unseen} pixels) and never in train", expected="every class in train",
        fix="add training images with it, move some with samples.csv, or try another `split.seed` in params.yaml",
    ),
    Check(
        "groups_stay_together", "error", "group", "No group stands in two splits", *_at_most("drawn_splits", 1),
        found="group {subject} is in {splits}", expected="one split for a group",
        fix="give all its rows the same split in samples.csv, or none of them",
    ),
    Check(
        "given_groups_stay_together", "warning", "group", "Given splits keep groups together", *_at_most("given_splits", 1),
        found="group {subject} is in {splits}, as samples.csv says", expected="one split for a group: its images resemble each other",
        fix="know that scores come out too high, or leave the split column empty",
    ),
    Check(
        "unique_content", "warning", "image", "No image stands there twice", *_at_most("copies_beside", 0),
        found="the same image and mask as {copies}", expected="each image once", fix="remove the copies",
    ),
    Check(
        "blank_images", "warning", "image", "No image is blank", *_at_least("contrast", 1e-9),
        found="all pixels have one value", expected="a picture", fix="take it out, if it is a fault of the camera",
    ),
    Check(
        "near_empty_masks", "warning", "image", "Masks show something", *_at_least("foreground", 0.001),
        found="{foreground:.3%} of the mask is anything but {main_class}", expected="0.1% at least",
        fix="check that the image is labelled; nothing to do where there is nothing to see",
    ),
    Check(
        "classes_exist", "warning", "class", "Every class occurs", *_at_least("pixels", 1),
        found="class {subject} occurs nowhere", expected="some pixels of it",
        fix="take it out of dataset.yaml, or check that its value ({value}) is what masks store",
    ),
    Check(
        "class_imbalance", "warning", "class", "No class is very rare", *_at_least("train_share", 0.001),
        found="class {subject} is {train_share:.3%} of the training pixels", expected="0.1% at least",
        fix="add images with it; `train.class_balance` and `train.rare_crops` in params.yaml help where none can be had",
    ),
    Check(
        "polarity", "warning", "class", "The background is the larger part", *_at_least("background_share", 0.5),
        found="{subject} is just {background_share:.0%} of the pixels", expected="more than half, as is usual",
        fix="if masks are inverted (objects dark, the rest bright), swap the two values in dataset.yaml",
    ),
)  # fmt: skip
"""All checks, errors first, in the order in which they are reported."""


def chosen_checks(params: ValidateParams) -> list[tuple[Check, Severity]]:
    """The checks that are on, each with its severity; ConfigError for the name of a check that there is none of."""
    names = [check.name for check in CHECKS]
    for name in params.severity:
        if name not in names:
            raise ConfigError(
                "no such check", where="params.yaml: validate.severity", found=name, expected=", ".join(names)
            )
    chosen: list[tuple[Check, Severity]] = []
    for check in CHECKS:
        severity = params.severity.get(check.name, check.severity)
        if severity != "off":
            chosen.append((check, severity))
    return chosen
