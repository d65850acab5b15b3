"""The table of checks of a dataset.

A check is an expectation of Great Expectations with its arguments, a severity, and the texts of a finding: templates over the columns of
`segpipe.validation.frames` and the thresholds of params.yaml.

To add a check, add a column there and an entry here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segpipe.config import ValidateParams
from segpipe.errors import ConfigError
from segpipe.validation.findings import Finding, Severity
from segpipe.validation.frames import About
from segpipe.words import listed

Row = Mapping[Hashable, Any]
"""A row of a frame, by column."""


@dataclass(frozen=True)
class Threshold:
    """A threshold that params.yaml sets, by its name under `validate:`."""

    name: str


@dataclass(frozen=True)
class Check:
    """One expectation for every row of one frame, with the texts of a finding.

    Attributes:
        name: of the check, as in `validate: severity:`.
        severity: of its findings, unless params.yaml sets another one.
        about: the frame.
        title: the expectation in words.
        expectation: the class of Great Expectations.
        arguments: of the expectation; a `Threshold` is replaced by its value.
        found: template of what was found.
        expected: template of what is expected.
        fix: template of what to do.
        other: the column that names a second file.
        summary: template of what was found, in one sentence, if more than `validate.many` images fail; not for errors.
    """

    name: str
    severity: Severity
    about: About
    title: str
    expectation: str
    arguments: Mapping[str, Any]
    found: str
    expected: str
    fix: str
    other: str | None = None
    summary: str | None = None

    def arguments_for(self, params: ValidateParams) -> dict[str, Any]:
        """Return the arguments of the expectation, with the thresholds of params.yaml."""
        values = params.model_dump()
        return {k: values[v.name] if isinstance(v, Threshold) else v for k, v in self.arguments.items()}

    def findings(self, rows: Sequence[Row], total: int, severity: Severity, params: ValidateParams) -> list[Finding]:
        """Make the findings of this check.

        Args:
            rows: that failed.
            total: the number of rows of the frame.
            severity: of the findings.
            params: the thresholds.

        Returns:
            One finding per row, or a single one if there are more than `params.many` rows and the check has a summary.
        """
        if self.summary is None or severity == "error" or len(rows) <= params.many:
            return [self._finding(row, severity, params) for row in rows]
        examples = listed((row["subject"] for row in rows), at_most=3)
        values = {**rows[0], "count": len(rows), "total": total}
        finding = self._finding(values, severity, params, self.summary, f" ({examples})")
        return [finding.model_copy(update={"file": None, "other": None})]

    def _finding(
        self, row: Row, severity: Severity, params: ValidateParams, found: str | None = None, examples: str = ""
    ) -> Finding:
        """Make one finding. `examples` are names of files, which may hold braces, so they are added after the template is filled."""
        values = params.model_dump() | {str(column): value for column, value in row.items()}
        other = row[self.other] if self.other else None
        return Finding(
            expectation=self.name,
            severity=severity,
            file=str(row["subject"]) if self.about == "image" else None,
            other=other if isinstance(other, str) else None,
            found=(found or self.found).format_map(values) + examples,
            expected=self.expected.format_map(values),
            fix=self.fix.format_map(values),
        )


def _at_most(column: str, maximum: float | Threshold) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnValuesToBeBetween", {"column": column, "max_value": maximum}


def _at_least(column: str, minimum: float | Threshold) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnValuesToBeBetween", {"column": column, "min_value": minimum}


def _missing(column: str) -> tuple[str, dict[str, Any]]:
    return "ExpectColumnValuesToBeNull", {"column": column}


def _equal(column: str, other: str, ignore: str = "either_value_is_missing") -> tuple[str, dict[str, Any]]:
    return "ExpectColumnPairValuesToBeEqual", {"column_A": column, "column_B": other, "ignore_row_if": ignore}


CHECKS = (
    Check(
        "readable_files", "error", "image", "Every file can be read", *_missing("error"),
        found="{trouble}", expected="{required}", fix="{remedy}",
    ),
    Check(
        "masks_present", "error", "image", "Every image has a mask", *_missing("without_mask"),
        found="no mask", expected="masks/{key}.png", fix="label the image, or remove it from the data",
    ),
    Check(
        "sizes_match", "error", "image", "Image and mask have the same size", *_equal("image_size", "mask_size"),
        found="a mask of {mask_size}", expected="{image_size}, like the image", fix="export image and mask at the same size",
    ),
    Check(
        "spacings_match", "error", "image", "Volume and label have the same voxel size", *_equal("spacing", "mask_spacing"),
        found="a label with voxels of {mask_spacing}", expected="{spacing} (depth x height x width), like the volume",
        fix="resample the label to the grid of the volume, or correct the header that is wrong",
    ),
    Check(
        "orientations_match", "error", "image", "Volume and label have the same orientation", *_equal("orientation", "mask_orientation"),
        found="a label in {mask_orientation}", expected="{orientation}, like the volume",
        fix="reorient the label to the volume, or correct the header that is wrong",
    ),
    Check(
        "known_classes", "error", "image", "Masks contain only known classes", *_at_most("unknown_pixels", 0),
        found="{unknown_text}", expected="{known_text}", fix="{unknown_fix}",
    ),
    Check(
        "same_axes", "error", "image", "All files are images, or all are volumes", *_equal("axes", "usual_axes"),
        found="{axes} data", expected="{usual_axes}, like most files", fix="keep images and volumes in separate datasets",
    ),
    Check(
        "same_channels", "error", "image", "All images have the same number of channels", *_equal("channels", "usual_channels"),
        found="{channels} channel(s)", expected="{usual_channels}, like most images", fix="convert it, or import again with --to rgb",
    ),
    Check(
        "same_dtype", "error", "image", "All images have the same number type", *_equal("dtype", "usual_dtype"),
        found="{dtype}", expected="{usual_dtype}, like most images", fix="convert the image to this number type",
    ),
    Check(
        "no_copies_across_splits", "error", "image", "No image is in two splits", *_at_most("copy_splits", 1),
        found="the same image as {copies}, which is in another split ({split} here)",
        expected="test images that the model was not trained on",
        fix="remove one of them, or give both the same group or split in samples.csv", other="copy",
    ),
    Check(
        "one_mask_an_image", "error", "image", "No image has two different masks", *_at_most("mask_versions", 1),
        found="the same image as {copies}, with another mask", expected="one mask per image",
        fix="keep the image with the right mask, and remove the others", other="copy",
    ),
    Check(
        "min_images", "error", "split", "Every split has enough images", *_equal("enough", "yes"),
        found="{images} usable image(s) in {subject}", expected="at least {least}",
        fix="add images, or move some with samples.csv (key,group,split), or change `split` in params.yaml",
    ),
    Check("split_sizes", "warning", "split", "No split has only one or two images", *_at_most("few", 0),
        found="{subject} has {images} of {total} images", expected="at least 3: one or two images neither choose nor measure a model",
        fix="divide the images into more groups, or assign groups to splits with samples.csv (key,group,split)",
    ),
    Check(
        "classes_in_train", "error", "class", "Every class is in the training split", *_at_most("unseen", 0),
        found="class {subject} is in val or test ({unseen} pixels), but not in train", expected="every class in train",
        fix="add training images of it, move some with samples.csv, or try another `split.seed` in params.yaml",
    ),
    Check(
        "classes_in_every_split", "error", "presence", "Every class is in every split", *_at_least("pixels", 1),
        found="class {name} does not occur in {split} ({others})", expected="some pixels of it in {split}: what val lacks is not tuned, "
        "what test lacks is not measured",
        fix="move images of it to {split} with samples.csv, or set `split.method: stratified`; or, if it is too rare, accept it with "
        "`classes_in_every_split: warning` under `validate: severity:`",
    ),
    Check(
        "labels_not_all_background", "error", "labels", "Some labels are not background", *_at_least("foreground_pixels", 1),
        found="all labels are {background}", expected="pixels of another class",
        fix="check how the source was read (data/import.json, `segpipe data inspect SRC`) and import it again; or, if all images are "
        "really empty, add images with {others}",
    ),
    Check(
        "groups_stay_together", "error", "group", "No group is in two splits", *_at_most("drawn_splits", 1),
        found="group {subject} is in {splits}", expected="one split per group",
        fix="give all rows of the group the same split in samples.csv, or none of them a split",
    ),
    Check(
        "given_groups_stay_together", "error", "group", "Given splits keep groups together", *_at_most("given_splits", 1),
        found="group {subject} is in {splits} according to samples.csv", expected="one split per group: its images resemble each other",
        fix="leave the split column empty; or, if scores that are too high are acceptable, set "
        "`given_groups_stay_together: warning` under `validate: severity:`",
    ),
    Check(
        "unique_content", "warning", "image", "No image is duplicated", *_at_most("copies_beside", 0),
        found="the same image and mask as {copies}", expected="each image once", fix="remove the copies", other="copy",
    ),
    Check(
        "near_duplicates", "warning", "image", "No image has a near-duplicate in another split", *_missing("lookalike"),
        found="nearly the same image ({split}) as {lookalike} ({lookalike_split}){lookalike_more}: "
        "perceptual hashes differ in {lookalike_bits:.0f} of 64 bits, and {lookalike_why}",
        expected="test images that are not nearly equal to training images",
        fix="compare the two images; if they show the same scene, remove one of them, or give both the same group in samples.csv",
        other="lookalike",
    ),
    Check(
        "blank_images", "warning", "image", "No image is blank", *_at_least("contrast", 1e-9),
        found="all pixels have the same value", expected="an image with contrast", fix="remove it if the camera failed",
    ),
    Check(
        "outlier_intensity", "warning", "image", "No image is far brighter or darker", *_at_most("brightness_z", Threshold("outlier_z")),
        found="mean by channel: {means}; {brightness_z:.0f} robust deviations from the others",
        expected="about {usual_mean}, as usual (at most {outlier_z:g} deviations)",
        fix="check exposure and units; if there are several kinds of images, check that each kind is in train",
        summary="{count} of {total} images are far brighter or darker than usual: means range from {least_mean} to {most_mean}, "
        "values from {least_low} to {most_high}",
    ),
    Check(
        "outlier_size", "warning", "image", "No image is far larger or smaller", *_at_most("size_ratio", Threshold("outlier_size")),
        found="{image_size}: an edge is {size_ratio:.1f} times longer or shorter than usual", expected="about {usual_size}",
        fix="check that instances are as large in pixels as in other images; if not, resize image and mask",
        summary="{count} of {total} images have an edge at least {outlier_size:g} times longer or shorter than usual",
    ),
    Check(
        "blurred_images", "warning", "image", "No image is far less sharp", *_at_most("softness", Threshold("blur_z")),
        found="sharpness is {softness:.1f} robust deviations below that of the others", expected="at most {blur_z:g}",
        fix="remove it, if it is out of focus or blurred by motion",
        summary="{count} of {total} images are far less sharp than usual",
    ),
    Check(
        "near_empty_masks", "warning", "image", "No mask is nearly empty", *_at_least("foreground", Threshold("min_foreground")),
        found="{foreground:.3%} of the mask is another class than {main_class}", expected="at least {min_foreground:.1%}",
        fix="check that the image is labelled; if it shows nothing to label, no action is needed",
        summary="{count} of {total} masks are nearly empty (less than {min_foreground:.1%} of other classes than {main_class})",
    ),
    Check(
        "tiny_objects", "warning", "image", "Instances are large enough to be found", *_at_least("object_share", Threshold("tiny_object")),
        found="the edge of the median instance is {object_share:.1%} of that of a training crop", expected="at least {tiny_object:.1%}",
        fix="enlarge images and masks, or train on smaller crops at full resolution (`train.patch`)",
        summary="in {count} of {total} images the edge of the median instance is less than {tiny_object:.1%} of that of a training crop",
    ),
    Check(
        "origins_match", "warning", "image", "Volume and label are at the same position", *_at_most("mask_offset", 0.5),
        found="the header of the label puts it {mask_offset:.3g} voxels away from its volume", expected="at most half a voxel",
        fix="compare the two in a viewer that uses headers; if they fit, copy the header of the volume to the label; else resample it",
        summary="the headers of {count} of {total} labels put them at other positions than their volumes",
    ),
    Check(
        "voxel_sizes_agree", "warning", "image", "The header states one voxel size", *_missing("size_conflict"),
        found="{size_conflict}", expected="the same size in both", fix="write the header again with the values of the scanner",
        summary="the headers of {count} of {total} volumes state two voxel sizes, for example: {size_conflict}",
    ),
    Check(
        "volume_dtypes", "warning", "image", "All volumes have the same number type", *_equal("volume_dtype", "usual_dtype"),
        found="{volume_dtype}", expected="{usual_dtype}, like most volumes",
        fix="if the values mean the same, no action is needed; else convert the volume",
        summary="{count} of {total} volumes are not {usual_dtype}: values range from {least_low} to {most_high} in all volumes",
    ),
    Check(
        "classes_exist", "error", "class", "Every class occurs", *_at_least("pixels", 1),
        found="class {subject} does not occur", expected="some pixels of it",
        fix="remove it from dataset.yaml, or check that its value ({value}) is the one in the masks; or, if it will come later, accept it "
        "with `classes_exist: warning` under `validate: severity:`",
    ),
    Check(
        "class_imbalance", "warning", "class", "No class is very rare", *_at_least("train_share", Threshold("min_class_share")),
        found="class {subject} has {train_share:.3%} of the training pixels", expected="at least {min_class_share:.1%}",
        fix="add images of it; if there are none, `train.class_balance` and `train.rare_crops` in params.yaml help",
    ),
    Check(
        "polarity", "warning", "class", "The background is the larger part", *_at_least("background_share", 0.5),
        found="{subject} has only {background_share:.0%} of the pixels", expected="more than half, as usual",
        fix="if masks are inverted (dark instances on a bright background), swap the two values in dataset.yaml",
    ),
    Check(
        "drift", "warning", "drift", "The data resemble those of the model in production", *_at_most("drifted", 0),
        found="{subject} has drifted: the median was {before:.4g} and is {now:.4g} now (PSI {psi:.2f}, KS {ks:.2f})",
        expected="PSI below {drift_psi:g} and KS below {drift_ks:g}, or a change that chance explains (p at least {drift_p_value:g})",
        fix="look at the new images; if they are intended, train on them: the next release is compared with today's data",
    ),
    Check(
        "converted_images", "note", "image", "No image is converted when it is read", *_missing("converted"),
        found="{converted}", expected="no conversion", fix="if the picture on this page is right, no action is needed",
        summary="{count} of {total} images are converted when they are read, for example: {converted}",
    ),
)  # fmt: skip
"""All checks, errors first, in the order in which they are reported."""


def chosen_checks(params: ValidateParams) -> list[tuple[Check, Severity]]:
    """Return the checks that are on, with their severity.

    Raises:
        ConfigError: params.yaml names a check that does not exist.
    """
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
