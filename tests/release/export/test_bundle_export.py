"""Tests of the export: a bundle predicts what the trained network predicts, is complete, and is reproducible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segpipe.config import ExportParams
from segpipe.errors import ConfigError, DataError, GateBlocked
from segpipe.files import sha256_file
from segpipe.inference.cleaning import Cleaning
from segpipe.inference.engines.engine import GRAPH_ENGINES, precision_is_native
from segpipe.inference.engines.graph_export import export_graph
from segpipe.inference.segmenter import Segmenter
from segpipe.release.bundle import Card, bundle_sha256, compare_masks, golden_pairs, model_sha256, replay_golden
from segpipe.release.export.bundle_export import write_bundle
from segpipe.release.export.engine_selection import EngineTrial, choose_engine, median_ms
from segpipe.release.export.golden import centre_crop, choose_images, encode_image
from tests.worlds.bundles import CLASSES, toy_image, toy_reader, toy_segmenter, toy_selection, write_toy_bundle


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_graph_gives_the_networks_logits_at_any_size(tmp_path: Path, engine: str, channels: int) -> None:
    trained = toy_segmenter(3, channels)
    export_graph(trained, tmp_path / "model.onnx")
    run = GRAPH_ENGINES[engine](tmp_path / "model.onnx", 1)
    rng = np.random.default_rng(0)
    for n, height, width in ((1, 8, 8), (2, 32, 64), (1, 100, 36)):
        batch = rng.standard_normal((n, channels, height, width)).astype(np.float32)
        np.testing.assert_allclose(run(batch), trained.engine(batch), atol=1e-4, rtol=1e-3)


def test_a_bundle_gives_the_trained_networks_masks(bundle: Path) -> None:
    trained, exported = toy_segmenter(0), Segmenter.from_bundle(bundle, engine="onnxruntime")
    for height, width in ((70, 90), (64, 64), (150, 201)):  # the last one is predicted in tiles
        image = toy_image(11, height, width)
        same = trained.predict(image).class_ids == exported.predict(image).class_ids
        assert same.mean() > 0.9995, f"{(~same).sum()} pixels differ at {height} x {width}"


def test_golden_masks_come_from_the_pinned_engine(bundle: Path) -> None:
    comparison = replay_golden(Segmenter.from_bundle(bundle), bundle)
    assert (
        comparison.identical
        and comparison.images == 3
        and comparison.pixels == sum(p.class_ids().size for p in golden_pairs(bundle))
    )
    assert all(len(np.unique(p.class_ids())) == len(CLASSES) for p in golden_pairs(bundle)), (
        "every class occurs, so the test can fail"
    )


def test_another_model_is_detected(bundles: list[Path]) -> None:
    comparison = replay_golden(Segmenter.from_bundle(bundles[1]), bundles[0])
    assert not comparison.identical
    assert comparison.worst is not None and "input-" in comparison.worst


def test_a_mask_of_another_size_differs_everywhere(bundle: Path) -> None:
    pairs = golden_pairs(bundle)[:1]
    expected = pairs[0].class_ids()
    one_off = expected.copy()
    one_off[3, 5] ^= 1
    assert compare_masks(pairs, [one_off]).differing == 1
    assert compare_masks(pairs, [expected[:-1]]).differing == expected.size


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"onnxruntime": GRAPH_ENGINES["onnxruntime"]}  # the choice between several depends on timings
    monkeypatch.setattr("segpipe.release.export.bundle_export.GRAPH_ENGINES", one)
    a, b = (write_toy_bundle(tmp_path / name) for name in "ab")
    for out in (a, b):
        (out / "engines.json").unlink()
    assert {p.name: sha256_file(p) for p in a.rglob("*.*")} == {p.name: sha256_file(p) for p in b.rglob("*.*")}
    assert bundle_sha256(a) == bundle_sha256(b)


def test_signals_are_handled_after_an_engine_is_gone(bundle: Path) -> None:
    code = f"""
import gc, signal, subprocess, sys
from pathlib import Path
from segpipe.inference.engines.engine import graph_engine
caught = []
signal.signal(signal.SIGCHLD, lambda *_: caught.append(1))
engines = [graph_engine("openvino", Path({str(bundle)!r}) / "model.onnx", 1) for _ in range(2)]
while engines:
    engines.pop(0)  # the oldest one first, as when a server swaps models
    gc.collect()
subprocess.run([sys.executable, "-c", ""], check=True)
assert caught
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"


def test_the_graph_contains_no_path_of_this_machine(bundle: Path, repo_root: Path) -> None:
    content = (bundle / "model.onnx").read_bytes()
    assert str(repo_root).encode() not in content and b"site-packages" not in content


def test_card_and_engines(bundle: Path) -> None:
    card = Card.read(bundle)
    assert card.scores["iou.dataset.macro"].model_dump() == {"value": 0.71, "low": 0.68, "high": 0.74}
    assert "dice.none" not in card.scores, "a score that does not exist is left out"
    assert card.weights_sha256 == "00" * 32 == Segmenter.from_bundle(bundle).spec.lineage["weights_sha256"]
    trials = json.loads((bundle / "engines.json").read_text())
    assert [t["engine"] for t in trials] == list(GRAPH_ENGINES)
    assert all(t["reason"] and (t["median_ms"] or 0) > 0 for t in trials if t["eligible"])
    page = (bundle / "README.md").read_text()
    for words in ("nucleus | 255", "da7a", "0.6800 to 0.7400", "is above 0.30", "Intended use", "Limits"):
        assert words in page


def _trial(engine: str, ms: float | None, agreement: float, eligible: bool = True) -> EngineTrial:
    return EngineTrial(engine=engine, median_ms=ms, agreement=agreement, eligible=eligible, reason="so")


@pytest.mark.parametrize(
    ("times", "chosen"),
    [((10.0, 8.0), "b"), ((10.0, 9.2), "a"), ((9.2, 10.0), "a")],
    ids=["clearly faster", "about as fast: the first", "the first is faster"],
)
def test_the_fastest_engine_that_agrees_is_chosen(times: tuple[float, float], chosen: str) -> None:
    trials = [_trial("a", times[0], 1.0), _trial("b", times[1], 1.0), _trial("c", 1.0, 0.9, eligible=False)]
    assert choose_engine(trials, 0.999).engine == chosen


def test_no_engine_agrees() -> None:
    with pytest.raises(GateBlocked, match=r"no engine .*c so.*min_agreement"):
        choose_engine([_trial("c", 1.0, 0.9, eligible=False)], 0.999)


def test_an_engine_is_timed_after_a_prediction_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """For 60 ms after another engine's prediction, predictions take three times as long, as next to threads that still spin."""
    now, last, disturbed = [0.0], [None], [0.0]
    monkeypatch.setattr("segpipe.release.export.engine_selection.time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Model:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def predict(self, **_: object) -> None:
            if last[0] is not self:
                last[0], disturbed[0] = self, now[0] + 0.06
            now[0] += self.seconds * (3 if now[0] < disturbed[0] else 1)

    assert median_ms({"quick": Model(1 / 128), "slow": Model(0.25)}, {}) == {"quick": 7.81, "slow": 250.0}


def test_engines_that_cannot_be_chosen_are_timed_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("segpipe.release.export.engine_selection.time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Model:
        def __init__(self, seconds: float) -> None:
            self.seconds, self.calls = seconds, 0

        def predict(self, **_: object) -> None:
            self.calls += 1
            now[0] += self.seconds

    def calls(contenders: set[str] | None) -> dict[str, int]:
        seconds = {"quick": 0.25, "close": 0.3125, "slow": 0.5, "wrong": 0.125}
        models = {name: Model(value) for name, value in seconds.items()}
        assert median_ms(models, {}, contenders) == {name: 1000 * value for name, value in seconds.items()}
        return {name: model.calls for name, model in models.items()}

    # A model is called twice in each round: for at least 0.1 s without being timed, and timed.
    assert calls({"quick", "close", "slow"}) == {"quick": 18, "close": 18, "slow": 6, "wrong": 6}
    assert calls({"slow"}) == {"quick": 6, "close": 6, "slow": 6, "wrong": 6}
    assert calls(None)["quick"] == 6, "only the one that is twice as fast is left"


def test_disagreement_is_measured_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = GRAPH_ENGINES["onnxruntime"]

    def upside_down(path: Path, threads: int):
        engine = real(path, threads)
        return type("Broken", (), {"name": "onnxruntime", "__call__": lambda self, batch: -engine(batch)})()

    for name in list(GRAPH_ENGINES):
        monkeypatch.setitem(GRAPH_ENGINES, name, upside_down)
    with pytest.raises(GateBlocked, match="no engine gives"):
        write_bundle(
            toy_segmenter(), "ab" * 32, toy_reader(), toy_selection(), ExportParams(golden=1), tmp_path / "bundle"
        )
    assert not (tmp_path / "bundle").exists()


def test_an_engine_that_does_not_run_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, threads: int):
        raise RuntimeError("unsupported operation")

    monkeypatch.setitem(GRAPH_ENGINES, "openvino", broken)
    trials = json.loads((write_toy_bundle(tmp_path / "b") / "engines.json").read_text())
    assert trials[1] == {
        "engine": "openvino",
        "median_ms": None,
        "agreement": None,
        "eligible": False,
        "reason": "does not run here: unsupported operation",
    }


def test_an_engine_that_would_compute_in_other_numbers_is_not_eligible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "segpipe.release.export.engine_selection.precision_is_native", lambda name: not name.endswith("bf16")
    )
    *others, last = json.loads((write_toy_bundle(tmp_path / "b") / "engines.json").read_text())
    assert all(trial["eligible"] for trial in others) and not last["eligible"]
    assert (last["engine"], last["reason"]) == (
        "openvino-bf16",
        "does not run here: this processor does not support bfloat16",
    )


@pytest.mark.parametrize(("name", "numbers"), [("openvino", "f32"), ("openvino-bf16", "bf16")])
def test_openvino_reports_the_precision_that_it_computes_in(bundle: Path, name: str, numbers: str) -> None:
    compiled = GRAPH_ENGINES[name](bundle / "model.onnx", 1)._compiled
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    assert precision_is_native(name) == (precision == numbers), precision


def test_a_model_without_a_network_is_refused(tmp_path: Path) -> None:
    trained = toy_segmenter()
    classical = Segmenter(trained.spec, lambda batch: batch)
    with pytest.raises(ConfigError, match="is not a network"):
        export_graph(classical, tmp_path / "model.onnx")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
def test_golden_files_decode_to_the_same_image(dtype: type, channels: int) -> None:
    from segpipe.data.images import decode_image

    image = toy_image(2, 33, 41, channels, dtype)
    suffix, content = encode_image(image, "x")
    decoded = decode_image(content, f"x{suffix}", 1)
    assert decoded.dtype == image.dtype
    np.testing.assert_array_equal(decoded, image)


def test_images_that_no_file_format_can_hold_are_refused() -> None:
    with pytest.raises(DataError, match="shape"):
        encode_image(np.zeros((8, 8, 2), np.complex64), "complex")


def test_golden_images_cover_the_classes() -> None:
    counts = np.array([[50, 0, 0], [40, 9, 0], [45, 1, 2], [30, 20, 0], [49, 0, 1]])
    assert choose_images(counts, 3) == [2, 3, 0], "rarest class first, then the others"
    assert sorted(choose_images(counts, 99)) == [0, 1, 2, 3, 4], "each image once"
    assert choose_images(np.array([[5, 0], [6, 0]]), 2) == [1, 0], "a class that never occurs needs no image"


def test_large_golden_images_are_cropped() -> None:
    image = np.arange(40 * 30).reshape(40, 30, 1)
    np.testing.assert_array_equal(centre_crop(image, 10), image[15:25, 10:20])
    assert centre_crop(image, 1000).shape == image.shape


def test_hashes(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    assert bundle_sha256(copy) == bundle_sha256(bundle)
    (copy / "engines.json").write_text("[]")
    assert bundle_sha256(copy) != bundle_sha256(bundle)
    assert model_sha256(copy) == model_sha256(bundle), "other timings are the same model"
    spec = json.loads((copy / "segmenter.json").read_text())
    (copy / "segmenter.json").write_text(json.dumps(spec | {"engine": "another"}))
    assert model_sha256(copy) == model_sha256(bundle), "another engine won a close race"
    (copy / "segmenter.json").write_text(json.dumps(spec | {"overlap": 16}))
    assert model_sha256(copy) != model_sha256(bundle)


def test_a_bundle_ships_the_temperature_of_its_evaluation(tmp_path: Path) -> None:
    """The probabilities change, the classes do not, and the card names the temperature; bundles of earlier versions have 1."""
    params = ExportParams(golden=1)
    plain, warm = (tmp_path / name for name in ("plain", "warm"))
    write_bundle(toy_segmenter(), "ab" * 32, toy_reader(), toy_selection(), params, plain)
    write_bundle(toy_segmenter(), "ab" * 32, toy_reader(), toy_selection(temperature=2.5), params, warm)
    one, other = (Segmenter.from_bundle(folder, engine="onnxruntime") for folder in (plain, warm))
    assert (one.spec.temperature, other.spec.temperature) == (1.0, 2.5)
    image = toy_image(0)
    cold, mild = (segmenter.predict(image, probabilities=True) for segmenter in (one, other))
    np.testing.assert_array_equal(cold.class_ids, mild.class_ids)
    expected = cold.probabilities.astype(float) ** (1 / 2.5)
    np.testing.assert_allclose(mild.probabilities, expected / expected.sum(0), atol=1e-5)
    assert "temperature 2.5" in (warm / "README.md").read_text()
    spec = json.loads((plain / "segmenter.json").read_text())
    del spec["temperature"]
    (plain / "segmenter.json").write_text(json.dumps(spec))
    assert Segmenter.from_bundle(plain).spec.temperature == 1


def test_a_bundle_has_the_augmentation_and_the_cleaning_of_the_trained_model(tmp_path: Path) -> None:
    plain = toy_segmenter()
    cleaning = Cleaning(least=(30,) * len(CLASSES))
    spec = plain.spec.model_copy(update={"tta": "flips", "cleaning": cleaning})
    trained = Segmenter(spec, plain.engine)
    write_bundle(trained, "ab" * 32, toy_reader(), toy_selection(), ExportParams(golden=1), tmp_path / "bundle")
    shipped = Segmenter.from_bundle(tmp_path / "bundle", engine="onnxruntime")
    assert (shipped.spec.tta, shipped.spec.cleaning) == ("flips", cleaning)
    image = toy_image(0) // 2 + np.random.default_rng(0).integers(0, 128, toy_image(0).shape, np.uint8)
    ids = shipped.predict(image).class_ids
    assert (ids == trained.predict(image).class_ids).mean() > 0.999
    assert (ids != plain.predict(image).class_ids).any(), "the settings have an effect here"
    page = (tmp_path / "bundle" / "README.md").read_text()
    assert (
        "means over flipped, rotated or resized copies of the image (flips)" in page
        and f"{CLASSES.names[0]} under 30 pixels" in page
    )
