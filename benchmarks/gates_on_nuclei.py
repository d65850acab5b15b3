"""Verdicts of the gates on real images: for models that differ by chance, a worse model, and a model that fails on some images.

    python benchmarks/gates_on_nuclei.py --data NUCLEI --work FOLDER [--steps 300 --seeds 8]

NUCLEI is the folder of the 2018 Data Science Bowl subset (images/, masks/, images.csv). There are three experiments:

1. K U-Nets that differ only by their seed: every pair is judged as winner and champion, both ways. How many pairs are declared different?
   They may differ, since another seed makes another model. So each pair is judged again with its scores exchanged at random, image by
   image: then neither model is better, and one pair in twenty may be declared different by chance.
2. A U-Net with a tenth of the steps, compared with each of them: is it blocked?
3. A champion with few steps and a winner with all of them, whose histology images are blurred: does the slice gate block it although its
   mean is better?

Every training and evaluation stays in FOLDER, and a stopped run continues. Pairs share models, so the rate of 1 varies more than that of
the same number of independent pairs.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from segpipe import stages
from segpipe.config import ChampionGate, EvaluateParams, GateParams, Params, SliceGate, load_params
from segpipe.data.importer import ImportOptions, import_dataset
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.shards import ShardReader
from segpipe.evaluation.evaluate import CandidateFacts, evaluate_candidate
from segpipe.evaluation.robustness.corruptions import blur
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.evaluation.slice_attributes import AttributeValue, read_columns
from segpipe.evaluation.slices import Slice
from segpipe.files import write_json, write_text
from segpipe.gates.case import Case, Champion
from segpipe.gates.judge import judge
from segpipe.gates.verdicts import GateVerdict
from segpipe.inference.spec import WEIGHTS_FILE
from segpipe.inference.trained_model import load_trained
from segpipe.metrics import MAIN_METRIC
from segpipe.samples import Sample

PARAMS = """
split: {{method: stratified, val: 0.12, test: 0.38}}
validate: {{quarantine: true}}
train: {{budget: "{steps} steps", patch: {patch}, batch: {batch}}}
candidates:
  unet: {{family: unet, encoder: {encoder}}}
evaluate: {{gallery: 0, surface: false}}
"""
SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Strengths of the blur in experiment 3; the first one is used at which the slice is clearly worse than the champion's."""
CLEARLY_WORSE = 0.1
"""The loss of the main metric that is clearly worse."""
STAINS = {"histology": "histology", "fluorescence": "fluorescence", "brightfield": "brightfield"}

Columns = Mapping[str, Mapping[str, AttributeValue]]


class OutOfFocus:
    """A split in which some images are blurred."""

    def __init__(self, reader: ShardReader, keys: set[str], sigma: float) -> None:
        self.reader, self.split, self.keys, self.sigma = reader, reader.split, keys, sigma

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Sample:
        sample = self.reader[index]
        if sample.key not in self.keys:
            return sample
        one = np.ones(sample.image.shape[-1], np.float32)
        return replace(sample, image=blur(sample.image, (0 * one, one), self.sigma, np.random.default_rng(0)))


class Study:
    """A work folder with data, plans, models and evaluations, each made once."""

    def __init__(self, data: Path, work: Path, text: str, short_text: str) -> None:
        self.paths = stages.Paths(work)
        work.mkdir(parents=True, exist_ok=True)
        if (work / "params.yaml").exists() and (work / "params.yaml").read_text() != text:
            raise SystemExit(f"{work} was started with other options: {text.splitlines()[3]} is requested now")
        if not self.paths.shards.exists():
            import_dataset(data, self.paths.data, "coco", ImportOptions(replace=True))
            write_text(work / "params.yaml", text)
            for stage in (stages.ingest, stages.validate, stages.prepare):
                stage(work)
        self.params: Params = load_params(work)
        self.test = ShardReader(self.paths.shards, "test")
        self.columns = self._stains()
        self._plan("all", text)
        self._plan("tenth", short_text)
        write_text(work / "params.yaml", text)

    def _stains(self) -> Columns:
        """Read the stains: the modality without its details, such as histology for purple and for purple on white."""
        columns = read_columns(self.paths.splits)
        stains = {key: str(row["modality"]).split("_")[0] for key, row in columns.items()}
        return {key: {"stain": STAINS[stain]} for key, stain in stains.items()}

    def _plan(self, name: str, text: str) -> None:
        path = self.paths.root / "plans" / f"{name}.json"
        if not path.exists():
            write_text(self.paths.root / "params.yaml", text)
            stages.plan(self.paths.root, "unet")
            self.paths.plan("unet").rename(path)

    def scores(self, name: str, plan: str, seed: int, sigma: float = 0.0) -> Scores:
        """Score a model that is trained by a plan with this seed; histology images are blurred by `sigma` pixels."""
        self._train(name, plan, seed)
        folder = self.paths.evaluation(f"{name}-blur-{sigma:g}" if sigma else name)
        if not (folder / "metrics.json").exists():
            histology = {key for key, row in self.columns.items() if row["stain"] == "histology"}
            reader = OutOfFocus(self.test, histology, sigma) if sigma else self.test
            segmenter = load_trained(self.paths.model(name))
            facts = CandidateFacts(self.columns)
            evaluate_candidate(segmenter, reader, folder, self.params.evaluate, folder.name, facts=facts)  # type: ignore[arg-type]
        return read_scores(folder / "per_image.parquet")

    def _train(self, name: str, plan: str, seed: int) -> None:
        from segpipe.training.plan import Plan
        from segpipe.training.train import train

        model = self.paths.model(name)
        if (model / WEIGHTS_FILE).exists() and (model / "history.json").exists():
            return
        print(f"training {name}", flush=True)
        # All models use the execution settings of one plan, so that they do not differ by what was fastest at planning time.
        full, requested = (Plan.read(self.paths.root / "plans" / f"{which}.json") for which in ("all", plan))
        adapted = full.model_copy(update={"recipe": requested.recipe, "seed": seed})
        fingerprint = Fingerprint.read(self.paths.fingerprint)
        shards_fingerprint = self.paths.shards / "fingerprint.json"
        fingerprint = Fingerprint.read(shards_fingerprint) if shards_fingerprint.exists() else fingerprint
        live, checkpoints = self.paths.training(name), self.paths.checkpoints(name)
        train(adapted, fingerprint, self.paths.shards, model, live, checkpoints)


def judged(winner: Scores, live: Scores, params: EvaluateParams, **gates: object) -> list[GateVerdict]:
    """Return the verdicts of these gates about a winner, with a live model as champion."""
    params_of_gates = GateParams.model_validate(
        {"floor": None, "baseline": None, "champion": None, "test_size": None} | gates
    )
    return judge(params_of_gates, Case(params, winner, champion=Champion(live.candidate, live)))


def by_luck(models: list[Scores], params: EvaluateParams, lots: int) -> dict[str, object]:
    """Run experiment 1: count the pairs that are declared different, as they are and after `lots` random exchanges."""
    print(f"\n1. {len(models)} U-Nets that differ only by their seed")
    values = [scores.value(MAIN_METRIC) or 0.0 for scores in models]
    print(
        f"   test IoU (macro, dataset): {', '.join(f'{v:.4f}' for v in values)}; deviation {np.std(values, ddof=1):.4f}"
    )
    counts: Counter[str] = Counter()
    different = 0
    pairs = list(itertools.combinations(models, 2))
    for one, other in pairs:
        for winner, champion in ((one, other), (other, one)):
            (verdict,) = judged(winner, champion, params, champion=ChampionGate())
            counts[verdict.verdict] += 1
        is_different = declared_different(one, other, params)
        different += is_different
        print(f"   {sentence(verdict)}; p = {verdict.p_value:.2g}{', declared different' if is_different else ''}")
    print(f"   declared different: {different} of {len(pairs)} pairs")
    print(f"   the champion gate, both ways: {', '.join(f'{n} {verdict}' for verdict, n in counts.most_common())}")
    by_lot = [
        declared_different(*exchanged(*pair, (i, lot)), params) for i, pair in enumerate(pairs) for lot in range(lots)
    ]
    rate, nominal = float(np.mean(by_lot)), 1 - params.confidence
    print(f"   with scores exchanged at random: {sum(by_lot)} of {len(by_lot)}, {rate:.1%}; nominal rate {nominal:.0%}")
    return {
        "pairs": len(pairs),
        "different": different,
        "values": values,
        "gate": dict(counts),
        "by_lot": rate,
        "lots": len(by_lot),
    }


def declared_different(one: Scores, other: Scores, params: EvaluateParams) -> bool:
    """Return whether the champion gate with `superior` passes one of two models."""
    gate = ChampionGate(superior=True)
    return any(judged(*pair, params, champion=gate)[0].verdict == "pass" for pair in ((one, other), (other, one)))


def exchanged(one: Scores, other: Scores, seed: tuple[int, int]) -> tuple[Scores, Scores]:
    """Return two models with the scores of about half of the images exchanged."""
    swap = np.random.default_rng(seed).integers(0, 2, len(one.keys)).astype(bool)[:, None, None]
    return (
        replace(one, tally=np.where(swap, other.tally, one.tally)),
        replace(other, tally=np.where(swap, one.tally, other.tally)),
    )


def sentence(verdict: GateVerdict) -> str:
    """Return the sentence without the names of the worst images, which have 64 digits each here."""
    return verdict.sentence.split("; worst on")[0].rstrip(".")


def by_steps(short: Scores, models: list[Scores], params: EvaluateParams) -> dict[str, object]:
    """Run experiment 2: count the champions for which the gate blocks a model with a tenth of the steps."""
    print("\n2. A tenth of the steps, compared with each")
    verdicts = [judged(short, champion, params, champion=ChampionGate())[0] for champion in models]
    for verdict in verdicts:
        print(f"   {sentence(verdict)}")
    caught = sum(verdict.blocks for verdict in verdicts)
    print(f"   blocked by {caught} of {len(verdicts)}, as worse by {sum(v.verdict == 'fail' for v in verdicts)}")
    return {"caught": caught, "of": len(verdicts)}


def by_slice(study: Study, short: Scores) -> dict[str, object]:
    """Run experiment 3: judge a winner that is better overall and worse on histology images, which are blurred."""
    print("\n3. A better model with blurred histology images")
    reference = on_histology(short)
    for sigma in SIGMAS:
        winner = study.scores("seed-0", "all", 0, sigma)
        if reference - on_histology(winner) > CLEARLY_WORSE:
            break
    else:
        print(
            f"   no blur up to {SIGMAS[-1]} px makes histology worse than the champion's by {CLEARLY_WORSE}: take more --steps"
        )
        return {"planted": False}
    params = study.params.evaluate
    verdicts = judged(winner, short, params, champion=ChampionGate(), slice=SliceGate())
    ours, theirs = (scores.value(MAIN_METRIC) or 0.0 for scores in (winner, short))
    before, after = f"{reference:.3f}", f"{on_histology(winner):.3f}"
    print(f"   blur of {sigma:g} px; the mean goes from {theirs:.3f} to {ours:.3f}, histology from {before} to {after}")
    for verdict in verdicts:
        print(f"   {verdict.name}: {sentence(verdict)}")
    return {"planted": True, "sigma": sigma, "mean": [theirs, ours], "verdicts": {v.name: v.verdict for v in verdicts}}


def on_histology(scores: Scores) -> float:
    """Compute the main metric on the histology images."""
    members = np.array([attributes.get("stain") == "histology" for attributes in scores.attributes])
    return Slice("stain", "histology", members).select(scores).value(MAIN_METRIC) or 0.0


def texts(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield params.yaml with all steps, and with a tenth of them."""
    for steps in (arguments.steps, max(1, arguments.steps // 10)):
        yield PARAMS.format(steps=steps, patch=arguments.patch, batch=arguments.batch, encoder=arguments.encoder)


def main() -> None:
    """Run the three experiments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--lots", type=int, default=20, help="exchanges of each pair")
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    arguments = parser.parse_args()
    study = Study(arguments.data.resolve(), arguments.work.resolve(), *texts(arguments))
    models = [study.scores(f"seed-{seed}", "all", seed) for seed in range(arguments.seeds)]
    short = study.scores("tenth", "tenth", arguments.seeds)
    params = study.params.evaluate
    results = {
        "test_images": len(study.test),
        "luck": by_luck(models, params, arguments.lots),
        "steps": by_steps(short, models, params),
        "slice": by_slice(study, short),
    }
    write_json(study.paths.root / "results.json", results)


if __name__ == "__main__":
    main()
