"""What the gates say on real images: of models that differ by luck alone, of one that is worse, and of one that fails a few.

    python benchmarks/gates_on_nuclei.py --data NUCLEI --work FOLDER [--steps 300 --seeds 8]

NUCLEI: the folder of the 2018 Data Science Bowl subset (images/, masks/, images.csv). Three questions:

1. K U-Nets that differ by seed alone, every pair of them judged as winner and champion, both ways. How many are declared
   different? They may well be: a seed makes another model. So each pair is judged again with its answers exchanged, image by
   image, by lot: neither model is better then, and one pair in twenty may be declared different, by luck.
2. A U-Net with a tenth of the steps against each of them: is it caught?
3. A champion with few steps against a winner with all of them, to which histology comes out of focus: does the slice gate block
   although the mean is better?

Every training and evaluation stays in FOLDER: a run that was stopped goes on where it was. Pairs share models, so that the
rate of 1 varies more than that of as many independent pairs.
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
"""How far out of focus histology comes in 3: the first at which the slice is clearly worse than the champion's."""
PLANTED = 0.1
"""What clearly worse is."""
STAINS = {"histology": "histology", "fluorescence": "fluorescence", "brightfield": "brightfield"}

Columns = Mapping[str, Mapping[str, AttributeValue]]


class OutOfFocus:
    """A split of which some images come blurred."""

    def __init__(self, reader: ShardReader, keys: set[str], sigma: float) -> None:
        self.reader, self.split, self.keys, self.sigma = reader, reader.split, keys, sigma

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, place: int) -> Sample:
        sample = self.reader[place]
        if sample.key not in self.keys:
            return sample
        one = np.ones(sample.image.shape[-1], np.float32)
        return replace(sample, image=blur(sample.image, (0 * one, one), self.sigma, np.random.default_rng(0)))


class Study:
    """A work folder: data, plans, models and evaluations, each made once."""

    def __init__(self, data: Path, work: Path, text: str, short_text: str) -> None:
        self.paths = stages.Paths(work)
        work.mkdir(parents=True, exist_ok=True)
        if (work / "params.yaml").exists() and (work / "params.yaml").read_text() != text:
            raise SystemExit(f"{work} was begun with other options: {text.splitlines()[3]} is asked for now")
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
        """The modality without its details: purple and purple on white are histology both."""
        found = read_columns(self.paths.splits)
        stains = {key: str(row["modality"]).split("_")[0] for key, row in found.items()}
        return {key: {"stain": STAINS[word]} for key, word in stains.items()}

    def _plan(self, name: str, text: str) -> None:
        kept = self.paths.root / "plans" / f"{name}.json"
        if not kept.exists():
            write_text(self.paths.root / "params.yaml", text)
            stages.plan(self.paths.root, "unet")
            self.paths.plan("unet").rename(kept)

    def scores(self, name: str, plan: str, seed: int, sigma: float = 0.0) -> Scores:
        """Of a model that is trained by a plan with this seed; histology out of focus by `sigma`."""
        self._train(name, plan, seed)
        folder = self.paths.evaluation(f"{name}-blur-{sigma:g}" if sigma else name)
        if not (folder / "metrics.json").exists():
            histology = {key for key, row in self.columns.items() if row["stain"] == "histology"}
            reader = OutOfFocus(self.test, histology, sigma) if sigma else self.test
            segmenter = load_trained(self.paths.model(name))
            evaluate_candidate(
                segmenter, reader, folder, self.params.evaluate, folder.name, known=CandidateFacts(self.columns)
            )  # type: ignore[arg-type]
        return read_scores(folder / "per_image.parquet")

    def _train(self, name: str, plan: str, seed: int) -> None:
        from segpipe.training.plan import Plan
        from segpipe.training.train import train

        model = self.paths.model(name)
        if (model / WEIGHTS_FILE).exists() and (model / "history.json").exists():
            return
        print(f"training {name}", flush=True)
        # The setting is that of one plan: a model must not differ by what was fastest when it was planned.
        full, own = (Plan.read(self.paths.root / "plans" / f"{which}.json") for which in ("all", plan))
        made = full.model_copy(update={"recipe": own.recipe, "seed": seed})
        fingerprint = Fingerprint.read(self.paths.fingerprint)
        own_print = self.paths.shards / "fingerprint.json"
        fingerprint = Fingerprint.read(own_print) if own_print.exists() else fingerprint
        live, checkpoints = self.paths.training(name), self.paths.checkpoints(name)
        train(made, fingerprint, self.paths.shards, model, live, checkpoints)


def judged(winner: Scores, live: Scores, params: EvaluateParams, **gates: object) -> list[GateVerdict]:
    """The verdicts of these gates of a winner beside what is live."""
    chosen = GateParams.model_validate({"floor": None, "baseline": None, "champion": None, "test_size": None} | gates)
    return judge(chosen, Case(params, winner, champion=Champion(live.candidate, live)))


def by_luck(models: list[Scores], params: EvaluateParams, lots: int) -> dict[str, object]:
    """1: how many pairs are declared different, as they are and exchanged `lots` times, and what the champion gate says."""
    print(f"\n1. {len(models)} U-Nets that differ by seed alone")
    values = [scores.value(MAIN_METRIC) or 0.0 for scores in models]
    print(
        f"   test IoU (macro, dataset): {', '.join(f'{v:.4f}' for v in values)}; deviation {np.std(values, ddof=1):.4f}"
    )
    said: Counter[str] = Counter()
    different = 0
    pairs = list(itertools.combinations(models, 2))
    for one, other in pairs:
        for winner, champion in ((one, other), (other, one)):
            (verdict,) = judged(winner, champion, params, champion=ChampionGate())
            said[verdict.verdict] += 1
        found = declared(one, other, params)
        different += found
        print(f"   {sentence(verdict)}; p = {verdict.p_value:.2g}{', declared different' if found else ''}")
    print(f"   declared different: {different} of {len(pairs)} pairs")
    print(f"   the champion gate, both ways: {', '.join(f'{n} {verdict}' for verdict, n in said.most_common())}")
    by_lot = [declared(*exchanged(*pair, (i, lot)), params) for i, pair in enumerate(pairs) for lot in range(lots)]
    rate, nominal = float(np.mean(by_lot)), 1 - params.confidence
    print(f"   with answers exchanged by lot: {sum(by_lot)} of {len(by_lot)}, {rate:.1%}, where {nominal:.0%} may be")
    return {
        "pairs": len(pairs),
        "different": different,
        "values": values,
        "gate": dict(said),
        "by_lot": rate,
        "lots": len(by_lot),
    }


def declared(one: Scores, other: Scores, params: EvaluateParams) -> bool:
    """Whether the champion gate, asked for better, calls one of two models the better one."""
    gate = ChampionGate(superior=True)
    return any(judged(*pair, params, champion=gate)[0].verdict == "pass" for pair in ((one, other), (other, one)))


def exchanged(one: Scores, other: Scores, seed: tuple[int, int]) -> tuple[Scores, Scores]:
    """Two models with their answers to about half of the images exchanged."""
    swap = np.random.default_rng(seed).integers(0, 2, len(one.keys)).astype(bool)[:, None, None]
    return (
        replace(one, tally=np.where(swap, other.tally, one.tally)),
        replace(other, tally=np.where(swap, one.tally, other.tally)),
    )


def sentence(verdict: GateVerdict) -> str:
    """Without the names of the worst images, which are 64 digits each here."""
    return verdict.sentence.split("; worst on")[0].rstrip(".")


def by_steps(short: Scores, models: list[Scores], params: EvaluateParams) -> dict[str, object]:
    """2: whether a model with a tenth of the steps is caught by the champion gate."""
    print("\n2. A tenth of the steps, against each")
    verdicts = [judged(short, champion, params, champion=ChampionGate())[0] for champion in models]
    for verdict in verdicts:
        print(f"   {sentence(verdict)}")
    caught = sum(verdict.blocks for verdict in verdicts)
    print(f"   blocked by {caught} of {len(verdicts)}, as worse by {sum(v.verdict == 'fail' for v in verdicts)}")
    return {"caught": caught, "of": len(verdicts)}


def by_slice(study: Study, short: Scores) -> dict[str, object]:
    """3: a winner that is better on the whole and worse on histology, which comes to it out of focus."""
    print("\n3. A better model to which histology comes out of focus")
    wanted = on_histology(short)
    for sigma in SIGMAS:
        winner = study.scores("seed-0", "all", 0, sigma)
        if wanted - on_histology(winner) > PLANTED:
            break
    else:
        print(
            f"   no blur up to {SIGMAS[-1]} px makes histology worse than the champion's by {PLANTED}: take more --steps"
        )
        return {"planted": False}
    params = study.params.evaluate
    verdicts = judged(winner, short, params, champion=ChampionGate(), slice=SliceGate())
    ours, theirs = (scores.value(MAIN_METRIC) or 0.0 for scores in (winner, short))
    print(
        f"   blur of {sigma:g} px; the mean goes from {theirs:.3f} to {ours:.3f}, histology from {wanted:.3f} to {on_histology(winner):.3f}"
    )
    for verdict in verdicts:
        print(f"   {verdict.name}: {sentence(verdict)}")
    return {"planted": True, "sigma": sigma, "mean": [theirs, ours], "verdicts": {v.name: v.verdict for v in verdicts}}


def on_histology(scores: Scores) -> float:
    """The main metric on the images of that stain."""
    members = np.array([traits.get("stain") == "histology" for traits in scores.traits])
    return Slice("stain", "histology", members).of(scores).value(MAIN_METRIC) or 0.0


def texts(wanted: argparse.Namespace) -> Iterator[str]:
    """params.yaml with all of the steps, and with a tenth."""
    for steps in (wanted.steps, max(1, wanted.steps // 10)):
        yield PARAMS.format(steps=steps, patch=wanted.patch, batch=wanted.batch, encoder=wanted.encoder)


def main() -> None:
    """Answer the three questions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--lots", type=int, default=20, help="exchanges of each pair")
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    wanted = parser.parse_args()
    study = Study(wanted.data.resolve(), wanted.work.resolve(), *texts(wanted))
    models = [study.scores(f"seed-{seed}", "all", seed) for seed in range(wanted.seeds)]
    short = study.scores("tenth", "tenth", wanted.seeds)
    params = study.params.evaluate
    results = {
        "test_images": len(study.test),
        "luck": by_luck(models, params, wanted.lots),
        "steps": by_steps(short, models, params),
        "slice": by_slice(study, short),
    }
    write_json(study.paths.root / "results.json", results)


if __name__ == "__main__":
    main()
