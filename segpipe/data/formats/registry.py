"""The table of layouts that can be imported.

To add a layout: one module with a recogniser and a reader, and one entry in `FORMATS`. Everything that a recogniser needs to know of a
source comes from its `SourceProbe`, which all recognisers and then the reader share.
"""

from __future__ import annotations

import difflib

from segpipe.data.formats.annotations.coco import read_coco, recognise_coco
from segpipe.data.formats.annotations.label_studio_json import read_label_studio, recognise_label_studio
from segpipe.data.formats.annotations.labelme import read_labelme, recognise_labelme
from segpipe.data.formats.annotations.tools.cvat import read_cvat, recognise_cvat
from segpipe.data.formats.annotations.tools.geojson import read_geojson, recognise_geojson
from segpipe.data.formats.annotations.tools.supervisely import read_supervisely, recognise_supervisely
from segpipe.data.formats.annotations.tools.via import read_via, recognise_via
from segpipe.data.formats.annotations.yolo_seg import explain_yolo_seg, read_yolo_seg, recognise_yolo_seg
from segpipe.data.formats.format import COMMON_OPTIONS, MASK_OPTIONS, Format
from segpipe.data.formats.masks.cityscapes import read_cityscapes, recognise_cityscapes
from segpipe.data.formats.masks.folder import explain_folder, read_folder, recognise_folder
from segpipe.data.formats.masks.label_studio_masks import (
    doubt_label_studio_masks,
    explain_label_studio_masks,
    read_label_studio_masks,
    recognise_label_studio_masks,
)
from segpipe.data.formats.masks.lgg import read_lgg, recognise_lgg
from segpipe.data.formats.masks.mask_per_class import read_mask_per_class, recognise_mask_per_class
from segpipe.data.formats.masks.mask_per_instance import read_mask_per_instance, recognise_mask_per_instance
from segpipe.data.formats.masks.paired_list import read_paired_list, recognise_paired_list
from segpipe.data.formats.masks.paired_names import read_paired_names, recognise_paired_names, variants_of_masks
from segpipe.data.formats.masks.roboflow_masks import read_roboflow_masks, recognise_roboflow_masks
from segpipe.data.formats.masks.voc import read_voc, recognise_voc
from segpipe.data.formats.run_length_table import read_run_length_table, recognise_run_length_table
from segpipe.data.formats.source import PAIRING_FIELDS, ReadOptions
from segpipe.data.formats.volumes.cases import case_variants, read_cases, recognise_cases
from segpipe.data.formats.volumes.dicom_series import read_dicom_series, recognise_dicom_series
from segpipe.data.formats.volumes.nifti_pairs import read_volumes, recognise_volumes
from segpipe.data.formats.volumes.nnunet import read_nnunet, recognise_msd, recognise_nnunet
from segpipe.data.formats.volumes.ome_zarr import ome_zarr_variants, read_ome_zarr, recognise_ome_zarr
from segpipe.errors import ConfigError

AUTO = "auto"


FORMATS = {
    format.name: format
    for format in (
        Format(
            "folder",
            "images/ and masks/ with equal file names; also under train/, val/, test/",
            read_folder,
            recognise_folder,
            (*PAIRING_FIELDS, "overlapping", *MASK_OPTIONS),
            has_mask_files=True,
            explain=explain_folder,
        ),
        Format(
            "paired-names",
            "folders such as train/ and train_masks/, or a.jpg with a_mask.png, at any depth; numbered folders are groups",
            read_paired_names,
            recognise_paired_names,
            ("images", "masks", "suffix", *MASK_OPTIONS),
            in_subfolders="all",
            has_mask_files=True,
            variants=variants_of_masks,
        ),
        Format(
            "label-maps",
            "images/ and masks/ of instance ids (8 or 16 bits), one class for all instances",
            read_folder,
            recognise_folder,
            (*PAIRING_FIELDS, *COMMON_OPTIONS),
            kind="instances",
            has_mask_files=True,
        ),
        Format(
            "colour-masks",
            "images/ and masks/ in RGB, and a palette: labelmap.txt, label_colors.txt, palette.csv or --palette",
            read_folder,
            recognise_folder,
            (*PAIRING_FIELDS, "palette", "tolerance", "unknown_colours", *COMMON_OPTIONS),
            kind="colours",
            has_mask_files=True,
        ),
        Format(
            "voc",
            "JPEGImages/, SegmentationClass/, optionally SegmentationObject/ and ImageSets/Segmentation/SPLIT.txt",
            read_voc,
            recognise_voc,
            ("palette",),
            rank=0,
            in_subfolders="all",
        ),
        Format(
            "cityscapes",
            "leftImg8bit/SPLIT/CITY/ and gtFine/SPLIT/CITY/ with labelIds, instanceIds",
            read_cityscapes,
            recognise_cityscapes,
            rank=0,
        ),
        Format(
            "mask-per-class",
            "images/ and masks/CLASS/ with equal file names, one mask per class (--overlapping)",
            read_mask_per_class,
            recognise_mask_per_class,
            ("images", "masks", "overlapping"),
            rank=0,
        ),
        Format(
            "mask-per-instance",
            "ID/images/ID.png and ID/masks/*.png, one file per instance",
            read_mask_per_instance,
            recognise_mask_per_instance,
            rank=0,
        ),
        Format(
            "lgg",
            "TCGA_*/ with *_N.tif and *_N_mask.tif; each patient is a group",
            read_lgg,
            recognise_lgg,
            rank=0,
            in_subfolders="one",
        ),
        Format(
            "paired-list",
            "train.txt, val.txt, test.txt with one line `image label` per pair",
            read_paired_list,
            recognise_paired_list,
            MASK_OPTIONS,
            has_mask_files=True,
            rank=0,
        ),
        Format(
            "coco",
            "a JSON of images, annotations (polygons or run-length codes) and categories, one for each split",
            read_coco,
            recognise_coco,
            ("images", "masks", "overlapping"),
            rank=0,
            in_subfolders="one",
        ),
        Format(
            "yolo-seg",
            "data.yaml, images/SPLIT/ and labels/SPLIT/*.txt with polygons",
            read_yolo_seg,
            recognise_yolo_seg,
            rank=0,
            explain=explain_yolo_seg,
        ),
        Format(
            "run-length-table",
            "a CSV with columns ImageId and EncodedPixels (run-length codes), and the images",
            read_run_length_table,
            recognise_run_length_table,
            rank=2,
        ),
        Format(
            "nnunet",
            "dataset.json with imagesTr/ and labelsTr/, one file per channel (_0000), as nnU-Net reads it",
            read_nnunet,
            recognise_nnunet,
            rank=0,
        ),
        Format(
            "msd",
            "the format of the Medical Segmentation Decathlon: dataset.json lists pairs of NIfTI volumes",
            read_nnunet,
            recognise_msd,
            rank=0,
        ),
        Format(
            "volumes",
            "images/ and labels/ (or imagesTr/, labelsTr/) of NIfTI volumes with equal file names",
            read_volumes,
            recognise_volumes,
            (*PAIRING_FIELDS, "overlapping"),
        ),
        Format(
            "cases",
            "CASE/CASE_flair.nii.gz, CASE_t1.nii.gz, CASE_seg.nii.gz (BraTS), also imaging and segmentation (KiTS, LiTS)",
            read_cases,
            recognise_cases,
            ("channels", "label"),
            rank=0,
            variants=case_variants,
        ),
        Format(
            "dicom-series",
            "folders of DICOM slices, one volume per series; labels as DICOM SEG, NIfTI or one mask per slice",
            read_dicom_series,
            recognise_dicom_series,
        ),
        Format(
            "ome-zarr",
            "NAME.ome.zarr with label images in labels/, or images/NAME.zarr and masks/NAME.zarr",
            read_ome_zarr,
            recognise_ome_zarr,
            ("label", "channels", "kind"),
            rank=0,
            variants=ome_zarr_variants,
        ),
        Format(
            "labelme",
            "a JSON of shapes for each image, next to it or in another folder (labelme, X-AnyLabeling)",
            read_labelme,
            recognise_labelme,
            rank=0,
            in_subfolders="all",
        ),
        Format(
            "cvat",
            "annotations.xml of CVAT 1.1 with images/, for images or for the frames of a video",
            read_cvat,
            recognise_cvat,
            ("images", "masks", "overlapping"),
            rank=0,
            in_subfolders="all",
        ),
        Format(
            "supervisely",
            "meta.json, DATASET/img/a.jpg and DATASET/ann/a.jpg.json, as Supervisely exports projects",
            read_supervisely,
            recognise_supervisely,
            ("images", "overlapping"),
            rank=0,
            in_subfolders="all",
        ),
        Format(
            "via",
            "a JSON or CSV of regions of the VGG Image Annotator (1 and 2); the class is a region attribute",
            read_via,
            recognise_via,
            ("images", "masks", "attribute", "overlapping"),
            rank=0,
            in_subfolders="all",
        ),
        Format(
            "geojson",
            "a GeoJSON in pixels for each image, as QuPath exports its objects",
            read_geojson,
            recognise_geojson,
            ("images", "attribute", "overlapping"),
            rank=0,
            in_subfolders="all",
        ),
        Format(
            "label-studio",
            "the JSON or JSON-MIN export of Label Studio, and the images",
            read_label_studio,
            recognise_label_studio,
            ("masks",),
            rank=0,
            in_subfolders="one",
        ),
        Format(
            "label-studio-masks",
            "task-1-annotation-2-by-1-tag-LABEL-0.png as Label Studio exports brushes, and the images",
            read_label_studio_masks,
            recognise_label_studio_masks,
            rank=0,
            explain=explain_label_studio_masks,
            doubt=doubt_label_studio_masks,
        ),
        Format(
            "roboflow-masks",
            "train/, valid/, test/ with images, their _mask.png and _classes.csv, as Roboflow exports them",
            read_roboflow_masks,
            recognise_roboflow_masks,
            rank=0,
        ),
    )
}


def find_format(name: str) -> Format:
    """Return the layout of this name.

    Raises:
        ConfigError: there is none; the error lists those there are.
    """
    if name not in FORMATS:
        similar = difflib.get_close_matches(name.lower(), [AUTO, *FORMATS], n=1)
        fix = f"did you mean `{similar[0]}`?" if similar else "`segpipe data formats` shows what each looks like"
        raise ConfigError("no such format", found=name, expected=" or ".join([AUTO, *FORMATS]), fix=fix)
    return FORMATS[name]


def check_options(format: Format, options: ReadOptions) -> None:
    """Check that a layout uses all options that the user has set.

    Raises:
        ConfigError: it does not use one; the error lists the layouts that do.
    """
    for name in options.names_set():
        if name not in format.options:
            users = [other.name for other in FORMATS.values() if name in other.options]
            raise ConfigError(
                f"--{name.replace('_', '-')} is not used by the layout {format.name}",
                expected="one of the layouts " + ", ".join(users),
                fix=f"omit --{name.replace('_', '-')}, or choose another --format",
            )
