"""What is demanded of a dataset: a table. One line says what Great Expectations holds against which numbers, how bad a failure
is, and the words for it (templates over the columns of `segpipe.validation.frames` and the thresholds of params.yaml).

To add a check: a column there, a line here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from segpipe.config import ValidateParams
from segpipe.errors import ConfigError
from segpipe.validation.frames import About

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The worst first."""

Words = Mapping[Hashable, Any]


class Finding(BaseModel):
    """One failure: what, how bad, where, and what to do."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    expectation: str
    severity: Severity
    file: str | None
    """Relative to data/; None where the whole dataset is meant."""
    other: str | None = None
    """A second file that the finding is about, as a copy is."""
    found: str
    expected: str
    fix: str


@dataclass(frozen=True)
class Threshold:
    """A threshold that params.yaml sets, by its name under `validate:`."""

    name: str


@dataclass(frozen=True)
class Check:
    """One demand on every row of one frame (`about`): a Great Expectations class with its arguments, and words for a failure."""

    name: str
    severity: Severity
    about: About
    title: str
    expectation: str
    arguments: Mapping[str, Any]
    """Of the expectation; a `Setting` stands for its value."""
    found: str
    expected: str
    fix: str
    other: str | None = None
    """The column that names a second file."""
    many: str | None = None
    """What was found, in one sentence, where more images than `validate.many` fail; only for what is no error."""

    def arguments_for(self, params: ValidateParams) -> dict[str, Any]:
        """The arguments with today's thresholds."""
        values = params.model_dump()
        return {k: values[v.name] if isinstance(v, Threshold) else v for k, v in self.arguments.items()}

    def findings(self, rows: Sequence[Words], total: int, severity: Severity, params: ValidateParams) -> list[Finding]:
        """The failures of this check on some of the `total` rows of its frame."""
        if self.many is None or severity == "error" or len(rows) <= params.many:
            return [self._finding(row, severity, params) for row in rows]
        named = ", ".join(str(row["subject"]) for row in rows[:3])
        words = {**rows[0], "count": len(rows), "total": total}
        summed = self._finding(words, severity, params, self.many + f" ({named} and {len(rows) - 3} more)")
        return [summed.model_copy(update={"file": None, "other": None})]

    def _finding(self, row: Words, severity: Severity, params: ValidateParams, found: str | None = None) -> Finding:
        words = params.model_dump() | {str(column): value for column, value in row.items()}
        other = row[self.other] if self.other else None
        return Finding(
            expectation=self.name,
            severity=severity,
            file=str(row["subject"]) if self.about == "image" else None,
            other=other if isinstance(other, str) else None,
            found=(found or self.found).format_map(words),
            expected=self.expected.format_map(words),
            fix=self.fix.format_map(words),
        )


def _at_most(column: str, most: float | Threshold) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnValuesToBeBetween", {"column": column, "max_value": most}


def _at_least(column: str, least: float | Threshold) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnValuesToBeBetween", {"column": column, "min_value": least}


def _missing(column: str) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnValuesToBeNull", {"column": column}


def _equal(column: str, other: str, ignore: str = "either_value_is_missing") -> tuple[str, dict[str, Any]]:
    return "ExpectColumnPairValuesToBeEqual", {"column_A": column, "column_B": other, "ignore_row_if": ignore}


CHECKS = (
    Check(
        "readable_files", "error", "image", "Every file can be read", *_missing("error"),
        found="{trouble}", expected="{wanted}", fix="{remedy}",
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
        "spacings_match", "error", "image", "Volume and label have the same voxel size", *_equal("spacing", "mask_spacing"),
        found="a label of {mask_spacing} voxels", expected="{spacing} (depth x height x width), as the volume",
        fix="resample the label to the volume's grid, or correct the header that is wrong",
    ),
    Check(
        "orientations_match", "error", "image", "Volume and label lie the same way", *_equal("orientation", "mask_orientation"),
        found="a label in {mask_orientation}", expected="{orientation}, as the volume",
        fix="reorient the label to the volume, or correct the header that is wrong",
    ),
    Check(
        "known_classes", "error", "image", "Masks hold known classes alone", *_at_most("unknown_pixels", 0),
        found="{unknown_text}", expected="{known_text}", fix="{unknown_fix}",
    ),
    Check(
        "same_axes", "error", "image", "All are images, or all are volumes", *_equal("axes", "usual_axes"),
        found="{axes} data", expected="{usual_axes}, as most files", fix="keep images and volumes in datasets of their own",
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
        fix="remove one of them, or give both one group or one split in samples.csv", other="copy",
    ),
    Check(
        "one_mask_an_image", "error", "image", "No image has two different masks", *_at_most("mask_versions", 1),
        found="the same image as {copies}, with another mask", expected="one mask for an image",
        fix="keep the right one of them", other="copy",
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
        "given_groups_stay_together", "error", "group", "Given splits keep groups together", *_at_most("given_splits", 1),
        found="group {subject} is in {splits}, as samples.csv says", expected="one split for a group: its images resemble each other",
        fix="leave the split column empty; or, where scores that come out too high are known of, set "
        "`given_groups_stay_together: warning` under `validate: severity:`",
    ),
    Check(
        "unique_content", "warning", "image", "No image stands there twice", *_at_most("copies_beside", 0),
        found="the same image and mask as {copies}", expected="each image once", fix="remove the copies", other="copy",
    ),
    Check(
        "near_duplicates", "warning", "image", "No image nearly stands in two splits", *_missing("lookalike"),
        found="nearly the same image ({split}) as {lookalike} ({lookalike_split}){lookalike_more}: "
        "perceptual hashes differ in {lookalike_bits:.0f} of 64 bits, and {lookalike_why}",
        expected="test images that the model has not nearly seen", fix="look at both: where they are one scene, remove one of "
        "them, or give both one group in samples.csv", other="lookalike",
    ),
    Check(
        "blank_images", "warning", "image", "No image is blank", *_at_least("contrast", 1e-9),
        found="all pixels have one value", expected="a picture", fix="take it out, if it is a fault of the camera",
    ),
    Check(
        "outlier_intensity", "warning", "image", "No image is far brighter or darker", *_at_most("brightness_z", Threshold("outlier_z")),
        found="mean by channel: {means}; {brightness_z:.0f} robust deviations from the others",
        expected="about {usual_mean}, as usual (at most {outlier_z:g} deviations)",
        fix="check exposure and units; where the data are of several kinds, see that each is in train",
        many="{count} of {total} images are far brighter or darker than usual: means run from {least_mean} to {most_mean}, "
        "values from {least_low} to {most_high}",
    ),
    Check(
        "outlier_size", "warning", "image", "No image is far larger or smaller", *_at_most("size_ratio", Threshold("outlier_size")),
        found="{image_size}: an edge {size_ratio:.1f} times longer or shorter than usual", expected="about {usual_size}",
        fix="check that objects are as large as in the others, in pixels; else resize the image and its mask",
        many="{count} of {total} images have an edge {outlier_size:g} times longer or shorter than usual, or more",
    ),
    Check(
        "blurred_images", "warning", "image", "No image is far less sharp", *_at_most("softness", Threshold("blur_z")),
        found="sharpness {softness:.1f} robust deviations below the others'", expected="no more than {blur_z:g}",
        fix="take it out, if it is out of focus or moved",
        many="{count} of {total} images are far less sharp than usual",
    ),
    Check(
        "near_empty_masks", "warning", "image", "Masks show something", *_at_least("foreground", Threshold("min_foreground")),
        found="{foreground:.3%} of the mask is anything but {main_class}", expected="{min_foreground:.1%} at least",
        fix="check that the image is labelled; nothing to do where there is nothing to see",
        many="{count} of {total} masks are nearly empty (less than {min_foreground:.1%} of anything but {main_class})",
    ),
    Check(
        "tiny_objects", "warning", "image", "Objects are large enough to be seen", *_at_least("object_share", Threshold("tiny_object")),
        found="the median object is as narrow as {object_share:.1%} of a training crop", expected="{tiny_object:.1%} at least",
        fix="enlarge images and masks, or train on smaller crops at their full resolution (`train.patch`)",
        many="in {count} of {total} images the median object is narrower than {tiny_object:.1%} of a training crop",
    ),
    Check(
        "origins_match", "warning", "image", "Volume and label lie at the same place", *_at_most("mask_offset", 0.5),
        found="a label that its header puts {mask_offset:.3g} voxels away from its volume", expected="half a voxel at most",
        fix="compare the two in a viewer that knows headers: where they fit, copy the volume's header to the label; else resample it",
        many="the headers of {count} of {total} labels put them elsewhere than their volumes",
    ),
    Check(
        "volume_dtypes", "warning", "image", "Volumes have the same number type", *_equal("volume_dtype", "usual_dtype"),
        found="{volume_dtype}", expected="{usual_dtype}, as most volumes",
        fix="nothing, where the numbers mean the same; else convert the volume",
        many="{count} of {total} volumes are not {usual_dtype}: values from {least_low} to {most_high} in all",
    ),
    Check(
        "classes_exist", "warning", "class", "Every class occurs", *_at_least("pixels", 1),
        found="class {subject} occurs nowhere", expected="some pixels of it",
        fix="take it out of dataset.yaml, or check that its value ({value}) is what masks store",
    ),
    Check(
        "class_imbalance", "warning", "class", "No class is very rare", *_at_least("train_share", Threshold("min_class_share")),
        found="class {subject} is {train_share:.3%} of the training pixels", expected="{min_class_share:.1%} at least",
        fix="add images with it; `train.class_balance` and `train.rare_crops` in params.yaml help where none can be had",
    ),
    Check(
        "polarity", "warning", "class", "The background is the larger part", *_at_least("background_share", 0.5),
        found="{subject} is just {background_share:.0%} of the pixels", expected="more than half, as is usual",
        fix="if masks are inverted (objects dark, the rest bright), swap the two values in dataset.yaml",
    ),
    Check(
        "drift", "warning", "drift", "The data are as those of the model in production", *_at_most("drifted", 0),
        found="{subject} has drifted: median {before:.4g} then, {now:.4g} now (PSI {psi:.2f}, KS {ks:.2f})",
        expected="PSI under {drift_psi:g} and KS under {drift_ks:g}, or no more than chance (p {drift_p_value:g})",
        fix="look at what is new; where it is meant to be, train on it: the next release is compared with today's data",
    ),
    Check(
        "converted_images", "note", "image", "Images are stored as they are read", *_missing("converted"),
        found="{converted}", expected="no conversion", fix="nothing, where the picture on this page is right",
        many="{count} of {total} images are converted when they are read: {converted}, for one",
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
