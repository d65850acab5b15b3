"""The report: it shows everything, needs no network, and leaves out what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segpipe.config import Params, parse_params
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.shards import ShardReader, write_shards
from segpipe.evaluation.evaluate import evaluate_candidate
from segpipe.evaluation.gallery.pictures import Gallery
from segpipe.gates.choose import choose
from segpipe.inference.segmenter import Segmenter
from segpipe.pages import report
from segpipe.pages.components import confusion
from segpipe.pages.components.gallery import embed_images, read_gallery
from segpipe.pages.report import write_report
from segpipe.samples import ClassTable, Sample
from segpipe.workspace.revisions import Revision
from tests.pages.components.test_curves import write_curve
from tests.pages.html_page import Page
from tests.worlds.evaluated_workspace import PARAMS, make_samples, make_segmenter
from tests.worlds.judged_scores import champion_of, select


@pytest.fixture
def plan(workspace: Path) -> Path:
    """The plan of unet, as `plan` writes it, with the timings of several settings."""
    settings = [{"precision": p, "channels_last": c, "compile": False} for p in ("fp32", "bf16") for c in (False, True)]
    timings = [
        {"setting": s, "ms_per_step": ms, "loss_difference": 0.001, "verdict": v}
        for s, ms, v in zip(settings, (900, 500, 400, 210), ("slower", "slower", "slower", "chosen"), strict=True)
    ]
    timings.append(
        {
            "setting": settings[3] | {"compile": True},
            "ms_per_step": None,
            "loss_difference": None,
            "verdict": "too long",
        }
    )
    path = workspace / "plans" / "unet.json"
    path.parent.mkdir()
    execution = {"setting": settings[3], "timings": timings, "machine": {"processor": "a processor", "threads": 2}}
    path.write_text(json.dumps({"reasons": {"patch": "96: they are small"}, "execution": execution}))
    return path


@pytest.fixture
def report_path(workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path, plan: Path) -> Path:
    """A report without a champion."""
    write_curve(workspace, "unet", "val/iou_macro", [0.2, 0.5, 0.7])
    write_curve(workspace, "deeplab", "val/iou_macro", [0.1, 0.4, 0.6])
    out = workspace / "reports" / "report.html"
    write_report(workspace, select(workspace, params, fingerprint, shards), params, fingerprint, out)
    return out


def test_the_page_shows_everything(
    report_path: Path, workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    page = Page(report_path)
    selection = select(workspace, params, fingerprint, shards)
    assert "Ready to release" in page.text and selection.summary in page.text
    for gate in selection.gates:
        assert gate.sentence in page.text
    for entry in selection.ranking:
        assert f"{entry.test['iou.dataset.macro']:.3f}" in page.text
    for text in (
        "Class by class",
        "Most frequent mistakes",
        "val/iou_macro",
        "bf16, channels-last, compile",
        "96: they are small",
        "dvc repro",
    ):
        assert text in page.text, text
    assert {h[1:] for h in page.hrefs if h.startswith("#")} <= page.ids
    assert len(re.findall(r'<figure class="shot"', page.raw)) == 6


def test_it_needs_no_network(report_path: Path) -> None:
    page = Page(report_path)
    assert {a.split(":")[0] for a in page.addresses if not a.startswith("#")} == {"data"}
    assert not re.search(r"""@import|url\(|https?://(?!www\.w3\.org)""", page.raw)
    assert report_path.stat().st_size < 8e6


def test_the_same_inputs_give_the_same_bytes(
    report_path: Path, workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    again = workspace / "again.html"
    write_report(workspace, select(workspace, params, fingerprint, shards), params, fingerprint, again)
    assert again.read_bytes() == report_path.read_bytes()
    assert str(workspace) not in again.read_text()


def test_the_page_begins_with_why_a_winner_is_held_back(
    workspace: Path, fingerprint: Fingerprint, shards: Path
) -> None:
    strict = parse_params(PARAMS + "gates: {floor: {at_least: 0.99}}")
    selection = select(workspace, strict, fingerprint, shards)
    write_report(workspace, selection, strict, fingerprint, workspace / "r.html")
    page = Page(workspace / "r.html")
    assert "Held back" in page.text and "unet does not pass" in page.text
    assert page.text.index(selection.gates[0].sentence) < page.text.index("Candidates Networks")


def test_what_is_missing_is_left_out(workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path) -> None:
    """No curves, no plans, an empty gallery, no gate, no network."""
    bare = parse_params("candidates: {kmeans: {family: kmeans}}\ngates: {floor: null, baseline: null, champion: null}")
    folder = workspace / "evaluation" / "kmeans" / "gallery"
    Gallery(legend=[], pictures=[]).write(folder)
    write_report(workspace, select(workspace, bare, fingerprint, shards), bare, fingerprint, workspace / "r.html")
    page = Page(workspace / "r.html")
    assert "No winner" in page.text and "Nothing to release" in page.text
    assert not {"training", "plans", "gallery"} & page.ids


@pytest.mark.parametrize(
    "content", [{}, {"execution": None}, {"execution": {"timings": [3, {}]}}, {"reasons": {"steps": "many"}}]
)
def test_a_plan_of_another_shape_shows_less(
    content: dict, workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    (workspace / "plans").mkdir()
    (workspace / "plans" / "unet.json").write_text(json.dumps(content))
    write_report(workspace, select(workspace, params, fingerprint, shards), params, fingerprint, workspace / "r.html")
    assert "How it was computed" in Page(workspace / "r.html").text


def test_names_from_files_are_escaped(tmp_path: Path, params: Params, fingerprint: Fingerprint) -> None:
    """Class names and keys come from the files of users."""
    nasty = "</script><script>alert(1)</script>\"'"
    classes = ClassTable.from_names(["background", nasty, "c"])
    samples = [Sample(f"<b>{nasty}{i}", s.image, s.labels) for i, s in enumerate(make_samples(4))]
    write_shards(tmp_path / "shards", "test", samples, 3)
    for name in params.candidates:
        segmenter = make_segmenter(0.1, name, classes)
        evaluate_candidate(
            segmenter,
            ShardReader(tmp_path / "shards", "test"),
            tmp_path / "evaluation" / name,
            params.evaluate,
            name,
            0.5,
        )
    (tmp_path / "champion.json").write_text('{"version": null}')
    other = fingerprint.model_copy(update={"classes": classes})
    write_report(tmp_path, select(tmp_path, params, other, tmp_path / "shards"), params, other, tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert "<script>alert" not in page.raw and nasty in page.text


def test_the_table_of_classes_holds_their_scores(report_path: Path, workspace: Path) -> None:
    row = re.search(
        r'<tr><th scope="row"><i class="swatch"[^>]*></i>nucleus</th>.*?</tr>', Page(report_path).raw, re.DOTALL
    )
    test = json.loads((workspace / "evaluation" / "unet" / "metrics.json").read_text())["test"]
    assert row, "a row for the class"
    for name in ("iou", "dice", "boundary_iou"):
        assert f">{test[name]['class']['nucleus']:.3f}<" in row[0], name


def test_many_classes_get_a_list_instead_of_a_matrix(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = select(workspace, params, fingerprint, shards)
    monkeypatch.setattr(confusion, "MAX_MATRIX_CLASSES", 2)
    write_report(workspace, selection, params, fingerprint, workspace / "r.html")
    page = Page(workspace / "r.html")
    assert 'class="heat"' not in page.raw and "Most frequent mistakes" in page.text


def test_pictures_are_embedded_within_a_budget(workspace: Path) -> None:
    folder = workspace / "evaluation" / "unet" / "gallery"
    images = read_gallery(folder, Gallery.read(folder))
    assert [e.key for e in embed_images(images, 1 << 20)] == [image.key for image in images]
    size = sum(map(len, embed_images(images, 1 << 20)[0].layers.values()))
    some = embed_images(images, int(3.5 * size))
    assert {e.kind for e in some} == {"worst", "typical", "best"} and len(some) < len(images)
    assert sum(len(uri) for e in some for uri in e.layers.values()) <= 3.5 * size
    assert embed_images(images, 10) == []
    assert all(uri.startswith("data:image/webp;base64,UklGR") for e in some for uri in e.layers.values())


OPTIONAL_SECTIONS = {"changed", "slices", "robustness", "calibration", "costs", "plans", "training", "gallery"}
"""Sections that the page has only if their subject was measured."""


@pytest.fixture
def full_report(
    workspace: Path,
    params: Params,
    fingerprint: Fingerprint,
    shards: Path,
    plan: Path,
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[Segmenter], None],
) -> Path:
    """A report with every section: a champion with its commit, robustness, scores of instances, a bottleneck."""
    write_curve(workspace, "unet", "val/iou_macro", [0.2, 0.5, 0.7])
    serve(make_segmenter(0.02, "unet", segpipe="0.0.1", data="d0"))
    (workspace / "models" / "unet").mkdir(parents=True)
    monkeypatch.setattr(
        "segpipe.inference.trained_model.load_trained", lambda folder: make_segmenter(0.05, folder.name)
    )
    (workspace / "params.yaml").write_text(f"{PARAMS}train: {{seed: 1}}\n")
    files = {"params.yaml": b"train: {seed: 0}\n", "selection.json": b'{"winner": "unet"}'}
    monkeypatch.setattr(
        "segpipe.workspace.revisions.open_revision",
        lambda root, name: Revision(name, name, files.get, lambda *words: False),
    )
    path = workspace / "evaluation" / "unet" / "metrics.json"
    metrics = json.loads(path.read_text())
    blur = {"medium": {"score": 0.5, "drop": 0.3, "low": 0.2, "high": 0.4}}
    metrics["test"] |= {
        "robustness": {"images": 20, "units": 8, "score": 0.8, "by": {"blur": blur}},
        "instance": {"ap50": 0.625},
    }
    path.write_text(json.dumps(metrics | {"model": {"megabytes": 22.75}}))
    (workspace / "training" / "unet" / "bottleneck.json").write_text(
        json.dumps([{"part": "reading <images>", "share": 0.7, "ms": 12.5}])
    )
    outcome = choose(workspace, params, fingerprint, shards, champion_of(workspace))
    out = workspace / "reports" / "report.html"
    write_report(workspace, outcome.selection, params, fingerprint, out, outcome.champion, shards)
    return out


def test_with_a_champion_the_page_shows_what_changed_and_where_the_two_disagree(full_report: Path) -> None:
    page = Page(full_report)
    assert page.ids >= OPTIONAL_SECTIONS and {h[1:] for h in page.hrefs if h.startswith("#")} <= page.ids
    for text in (
        "What changed since the champion v0.2.0",
        "train.seed0 → 1",
        "compared with the champion on the same images",
        "Furthest behind the champion v0.2.0",
        "only v0.2.0 is right",
        "unet minus those of the champion v0.2.0 on parts",
        "blur, medium",
        "−0.300",
        "reading <images>",
        "12.5 ms",
        "22.8",
        "mask AP at IoU 0.5",
        "0.625",
        "Expected calibration error",
    ):
        assert text in page.text, text
    assert full_report.stat().st_size < 8e6
    assert page.raw.count('data-layer="who is right"') >= 2


def test_no_section_is_empty(workspace: Path, fingerprint: Fingerprint, shards: Path) -> None:
    """If a subject was not measured, it has neither a heading nor a link."""
    bare = parse_params("candidates: {kmeans: {family: kmeans}}\ngates: {floor: null, baseline: null, champion: null}")
    folder = workspace / "evaluation" / "kmeans"
    Gallery(legend=[], pictures=[]).write(folder / "gallery")
    (folder / "metrics.json").write_text("{}")
    write_report(workspace, select(workspace, bare, fingerprint, shards), bare, fingerprint, workspace / "r.html")
    page = Page(workspace / "r.html")
    assert not OPTIONAL_SECTIONS & page.ids and not {f"#{name}" for name in OPTIONAL_SECTIONS} & set(page.hrefs)


def test_large_pictures_keep_the_page_small(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    """Pictures that do not fit are left out, and the page says how many. Noise compresses worst."""
    from segpipe.data.images import encode_png

    folder = workspace / "evaluation" / "unet" / "gallery"
    index = json.loads((folder / "index.json").read_text())
    noise = encode_png(np.random.default_rng(0).integers(0, 256, (480, 480, 3), np.uint8))
    (folder / "noise.png").write_bytes(noise)
    picture = index["pictures"][0] | dict.fromkeys(("image", "truth", "prediction", "errors"), "noise.png")
    index["pictures"] = [
        picture | {"key": f"k{i}", "kind": kind} for kind in ("worst", "typical", "best") for i in range(6)
    ]
    (folder / "index.json").write_text(json.dumps(index))
    write_report(workspace, select(workspace, params, fingerprint, shards), params, fingerprint, workspace / "r.html")
    assert 5e6 < (workspace / "r.html").stat().st_size < 8e6
    assert re.search(r"[1-9]\d* more are in evaluation/unet/gallery", (workspace / "r.html").read_text())


def test_parts_of_a_gate_waivers_and_warnings_are_on_the_page(
    workspace: Path, fingerprint: Fingerprint, shards: Path
) -> None:
    waived = "{gate: floor, name: A. Vogel, reason: <b>new</b> stain, until: '2027-01-31'}"
    gates = f"floor: {{at_least: 0.99}}, class_floor: {{mode: warn, at_least: 0.99}}, slice: {{}}, waivers: [{waived}]"
    params = parse_params(f"{PARAMS}gates: {{{gates}}}")
    selection = select(workspace, params, fingerprint, shards, today=date(2027, 1, 31))
    assert selection.promotable and selection.summary.endswith(
        "passes every gate but the floor gate, which is waived, and the class floor gate, which only warns."
    )
    write_report(workspace, selection, params, fingerprint, workspace / "r.html")
    page = Page(workspace / "r.html")
    assert "unet may be released" in page.text and "<b>new</b>" not in page.raw
    for gate in selection.gates:
        assert gate.sentence in page.text
    assert "Waived by A. Vogel until 2027-01-31: <b>new</b> stain." in page.text
    assert "Classes, one by one (3)" in page.text
    later = select(workspace, params, fingerprint, shards, today=date(2027, 2, 1))
    assert not later.promotable and later.gates[0].waiver.expired
    assert later.summary.endswith("but is held back by the floor gate.")


def test_the_champion_costs_what_its_blessing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bless = SimpleNamespace(p50_ms=3.0, p95_ms=5.0)
    release = SimpleNamespace(version="v0.2.0", bless=bless, engine="openvino-int8")
    monkeypatch.setattr("segpipe.release.registry.find_version", lambda root, version: release)
    (row,) = report._champion_cost(tmp_path, SimpleNamespace(version="v0.2.0"))
    assert (row.name, row.latency, row.engine, row.served) == ("v0.2.0", (3.0, 5.0), "openvino-int8", True)
    assert report._champion_cost(tmp_path, None) == []
