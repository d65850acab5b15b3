"""The page: everything on it, nothing from outside, and what is missing left out in peace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from html.parser import HTMLParser
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
from segpipe.pages.components.gallery import embed_images, read_gallery
from segpipe.pages.report import write_report
from segpipe.samples import ClassTable, Sample
from segpipe.workspace.revisions import Revision
from tests.pages.test_charts import write_curve
from tests.worlds.evaluated_workspace import PARAMS, make_samples, make_segmenter
from tests.worlds.judged_scores import champion_of, select

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Text, addresses and ids of a page; complains about tags that do not nest."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.addresses, self.ids, self.hrefs = "", [], set(), []
        self._open: list[str] = []
        self.raw = path.read_text()
        self.feed(self.raw)
        self.close()
        assert not self._open, self._open
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids |= {found["id"]} if "id" in found else set()
        self.hrefs += [found["href"]] if "href" in found else []
        self.addresses += [v for k, v in attributes if k in ("src", "href", "srcset", "action", "data") and v]
        if tag not in VOID and "/>" not in (self.get_starttag_text() or ""):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture
def plan(workspace: Path) -> Path:
    """The plan of unet, as `plan` writes it."""
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
def page_path(workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path, plan: Path) -> Path:
    """A whole report."""
    write_curve(workspace, "unet", "val/iou_macro", [0.2, 0.5, 0.7])
    write_curve(workspace, "deeplab", "val/iou_macro", [0.1, 0.4, 0.6])
    out = workspace / "reports" / "report.html"
    write_report(workspace, select(workspace, params, fingerprint, shards), params, fingerprint, out)
    return out


def test_the_page_holds_it_all(
    page_path: Path, workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    page = Page(page_path)
    found = select(workspace, params, fingerprint, shards)
    assert "Ready to release" in page.text and found.summary in page.text
    for gate in found.gates:
        assert gate.sentence in page.text
    for entry in found.ranking:
        assert f"{entry.test['iou.dataset.macro']:.3f}" in page.text
    for words in (
        "Class by class",
        "Most frequent mistakes",
        "val/iou_macro",
        "bf16, channels-last, compile",
        "96: they are small",
        "dvc repro",
    ):
        assert words in page.text, words
    assert {h[1:] for h in page.hrefs if h.startswith("#")} <= page.ids
    assert len(re.findall(r'<figure class="shot"', page.raw)) == 6


def test_it_needs_nothing_from_outside(page_path: Path) -> None:
    page = Page(page_path)
    assert {a.split(":")[0] for a in page.addresses if not a.startswith("#")} == {"data"}
    assert not re.search(r"""@import|url\(|https?://(?!www\.w3\.org)""", page.raw)
    assert page_path.stat().st_size < 8e6


def test_the_same_inputs_give_the_same_bytes(
    page_path: Path, workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    again = workspace / "again.html"
    write_report(workspace, select(workspace, params, fingerprint, shards), params, fingerprint, again)
    assert again.read_bytes() == page_path.read_bytes()
    assert str(workspace) not in again.read_text()


def test_a_winner_that_is_held_back_says_why_at_the_top(
    workspace: Path, fingerprint: Fingerprint, shards: Path
) -> None:
    strict = parse_params(PARAMS + "gates: {floor: {at_least: 0.99}}")
    found = select(workspace, strict, fingerprint, shards)
    write_report(workspace, found, strict, fingerprint, workspace / "r.html")
    page = Page(workspace / "r.html")
    assert "Held back" in page.text and "unet does not pass" in page.text
    assert page.text.index(found.gates[0].sentence) < page.text.index("Candidates Networks")


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


def test_names_from_outside_are_text(tmp_path: Path, params: Params, fingerprint: Fingerprint) -> None:
    """Class names and keys come from users' files."""
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
    told = fingerprint.model_copy(update={"classes": classes})
    write_report(tmp_path, select(tmp_path, params, told, tmp_path / "shards"), params, told, tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert "<script>alert" not in page.raw and nasty in page.text


def test_the_table_of_classes_holds_their_scores(page_path: Path, workspace: Path) -> None:
    row = re.search(
        r'<tr><th scope="row"><i class="swatch"[^>]*></i>nucleus</th>.*?</tr>', Page(page_path).raw, re.DOTALL
    )
    test = json.loads((workspace / "evaluation" / "unet" / "metrics.json").read_text())["test"]
    assert row, "a row for the class"
    for name in ("iou", "dice", "boundary_iou"):
        assert f">{test[name]['class']['nucleus']:.3f}<" in row[0], name


def test_many_classes_get_a_list_instead_of_a_matrix(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = select(workspace, params, fingerprint, shards)
    monkeypatch.setattr(report, "MAX_MATRIX", 2)
    write_report(workspace, found, params, fingerprint, workspace / "r.html")
    page = Page(workspace / "r.html")
    assert 'class="heat"' not in page.raw and "Most frequent mistakes" in page.text


def test_pictures_are_embedded_within_a_budget(workspace: Path) -> None:
    folder = workspace / "evaluation" / "unet" / "gallery"
    pictures = read_gallery(folder, Gallery.read(folder))
    assert [e.key for e in embed_images(pictures, 1 << 20)] == [p.key for p in pictures]
    size = sum(map(len, embed_images(pictures, 1 << 20)[0].layers.values()))
    some = embed_images(pictures, int(3.5 * size))
    assert {e.kind for e in some} == {"worst", "typical", "best"} and len(some) < len(pictures)
    assert sum(len(uri) for e in some for uri in e.layers.values()) <= 3.5 * size
    assert embed_images(pictures, 10) == []
    assert all(uri.startswith("data:image/webp;base64,UklGR") for e in some for uri in e.layers.values())


MORE = {"changed", "slices", "robustness", "calibration", "costs", "plans", "training", "gallery"}
"""Sections that are there where something is known of them."""


@pytest.fixture
def full(
    workspace: Path,
    params: Params,
    fingerprint: Fingerprint,
    shards: Path,
    plan: Path,
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[Segmenter], None],
) -> Path:
    """A report with all that there can be: a champion out of a commit, robustness, objects, a bottleneck."""
    write_curve(workspace, "unet", "val/iou_macro", [0.2, 0.5, 0.7])
    serve(make_segmenter(0.02, "unet", segpipe="0.0.1", data="d0"))
    (workspace / "models" / "unet").mkdir(parents=True)
    monkeypatch.setattr(
        "segpipe.inference.trained_model.load_trained", lambda folder: make_segmenter(0.05, folder.name)
    )
    (workspace / "params.yaml").write_text(f"{PARAMS}train: {{seed: 1}}\n")
    then = {"params.yaml": b"train: {seed: 0}\n", "selection.json": b'{"winner": "unet"}'}
    monkeypatch.setattr(
        "segpipe.workspace.revisions.open_revision",
        lambda root, name: Revision(name, name, then.get, lambda *words: False),
    )
    path = workspace / "evaluation" / "unet" / "metrics.json"
    metrics = json.loads(path.read_text())
    blur = {"medium": {"score": 0.5, "drop": 0.3, "low": 0.2, "high": 0.4}}
    metrics["test"] |= {"robustness": {"images": 20, "by": {"blur": blur}}, "instance": {"ap50": 0.625}}
    path.write_text(json.dumps(metrics | {"model": {"megabytes": 22.75}}))
    (workspace / "training" / "unet" / "bottleneck.json").write_text(
        json.dumps([{"part": "reading <images>", "share": 0.7, "ms": 12.5}])
    )
    outcome = choose(workspace, params, fingerprint, shards, champion_of(workspace))
    out = workspace / "reports" / "report.html"
    write_report(workspace, outcome.selection, params, fingerprint, out, outcome.champion, shards)
    return out


def test_with_a_champion_the_page_tells_what_changed_and_where_they_part(full: Path) -> None:
    page = Page(full)
    assert page.ids >= MORE and {h[1:] for h in page.hrefs if h.startswith("#")} <= page.ids
    for words in (
        "What changed since the champion v0.2.0",
        "train.seed0 → 1",
        "beside the champion on the same images",
        "Furthest behind the champion v0.2.0",
        "only v0.2.0 is right",
        "unet less the champion v0.2.0 on parts",
        "blur, medium",
        "−0.300",
        "reading <images>",
        "12.5 ms",
        "22.8",
        "mask AP at IoU 0.5",
        "0.625",
        "Expected calibration error",
    ):
        assert words in page.text, words
    assert full.stat().st_size < 8e6
    assert page.raw.count('data-layer="who is right"') >= 2


def test_no_section_is_empty(workspace: Path, fingerprint: Fingerprint, shards: Path) -> None:
    """Of what nothing is known, there is no heading and no link."""
    bare = parse_params("candidates: {kmeans: {family: kmeans}}\ngates: {floor: null, baseline: null, champion: null}")
    folder = workspace / "evaluation" / "kmeans"
    Gallery(legend=[], pictures=[]).write(folder / "gallery")
    (folder / "metrics.json").write_text("{}")
    write_report(workspace, select(workspace, bare, fingerprint, shards), bare, fingerprint, workspace / "r.html")
    page = Page(workspace / "r.html")
    assert not MORE & page.ids and not {f"#{name}" for name in MORE} & set(page.hrefs)


def test_large_pictures_keep_the_page_small(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    """Noise is what compresses worst: what does not fit is left out, and told."""
    from segpipe.data.images import encode_png

    folder = workspace / "evaluation" / "unet" / "gallery"
    index = json.loads((folder / "index.json").read_text())
    noise = encode_png(np.random.default_rng(0).integers(0, 256, (480, 480, 3), np.uint8))
    (folder / "noise.png").write_bytes(noise)
    one = index["pictures"][0] | dict.fromkeys(("image", "truth", "prediction", "errors"), "noise.png")
    index["pictures"] = [
        one | {"key": f"k{i}", "kind": kind} for kind in ("worst", "typical", "best") for i in range(6)
    ]
    (folder / "index.json").write_text(json.dumps(index))
    write_report(workspace, select(workspace, params, fingerprint, shards), params, fingerprint, workspace / "r.html")
    assert 5e6 < (workspace / "r.html").stat().st_size < 8e6
    assert re.search(r"[1-9]\d* more are in evaluation/unet/gallery", (workspace / "r.html").read_text())


def test_parts_of_a_gate_waivers_and_warnings_are_on_the_page(
    workspace: Path, fingerprint: Fingerprint, shards: Path
) -> None:
    waived = "{gate: floor, name: A. Vogel, reason: <b>new</b> stain, until: '2027-01-31'}"
    text = (
        "gates: {floor: {at_least: 0.99}, class_floor: {mode: warn, at_least: 0.99}, slice: {}, waivers: ["
        + waived
        + "]}"
    )
    params = parse_params(PARAMS + text)
    found = select(workspace, params, fingerprint, shards, today=date(2027, 1, 31))
    assert found.promotable and found.summary.endswith(
        "passes every gate but the floor gate, which is waived, and the class floor gate, which only warns."
    )
    write_report(workspace, found, params, fingerprint, workspace / "r.html")
    page = Page(workspace / "r.html")
    assert "unet may be released" in page.text and "<b>new</b>" not in page.raw
    for gate in found.gates:
        assert gate.sentence in page.text
    assert "Waived by A. Vogel until 2027-01-31: <b>new</b> stain." in page.text
    assert "Classes, one by one (3)" in page.text
    late = select(workspace, params, fingerprint, shards, today=date(2027, 2, 1))
    assert not late.promotable and late.gates[0].waiver.expired
    assert late.summary.endswith("but is held back by the floor gate.")


def test_the_champion_costs_what_its_blessing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bless = SimpleNamespace(p50_ms=3.0, p95_ms=5.0)
    made = SimpleNamespace(version="v0.2.0", bless=bless, engine="openvino-int8")
    monkeypatch.setattr("segpipe.release.registry.find_version", lambda root, version: made)
    (row,) = report._champion_cost(tmp_path, SimpleNamespace(version="v0.2.0"))  # type: ignore[arg-type]
    assert (row.name, row.latency, row.engine, row.served) == ("v0.2.0", (3.0, 5.0), "openvino-int8", True)
    assert report._champion_cost(tmp_path, None) == []
