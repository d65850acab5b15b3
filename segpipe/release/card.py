"""The model card: what is known of a model, for people (README.md) and for machines (card.json)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segpipe.files import write_text
from segpipe.gates.selection import Selection
from segpipe.inference.spec import SegmenterSpec
from segpipe.release.bundle import CARD_PAGE, Card, Golden
from segpipe.release.record import RecordedVerdict, Score


def write_card(
    spec: SegmenterSpec,
    selection: Selection,
    agreement: float,
    pairs: Sequence[Golden],
    bundle: Path,
    int8: str | None = None,
) -> Card:
    """Write card.json and README.md into a bundle.

    selection: selection.json, for scores and verdicts. agreement: of the pinned engine with the trained network. int8: what became
    of that, where it was asked for.
    """
    card = Card(
        candidate=spec.candidate,
        family=spec.family,
        options=spec.options,
        classes=spec.classes.names,
        data_hash=selection.data_hash,
        weights_sha256=spec.lineage["weights_sha256"],
        lineage=spec.lineage,
        engine=spec.engine,
        agreement=agreement,
        int8=int8,
        promotable=selection.promotable,
        metric=selection.metric,
        scores=winner_scores(selection, spec.candidate),
        gates=[
            RecordedVerdict(name=gate.name, verdict=gate.verdict, sentence=gate.sentence) for gate in selection.gates
        ],
    )
    card.write(bundle)
    write_text(bundle / CARD_PAGE, card_page(card, spec, pairs))
    return card


def winner_scores(selection: Selection, candidate: str) -> dict[str, Score]:
    """A candidate's test scores, the main one with its interval; a score that does not exist is left out."""
    row = next(ranked for ranked in selection.ranking if ranked.candidate == candidate)
    scores = {name: Score(value=value) for name, value in row.test.items() if value is not None}
    if row.interval and selection.metric in scores:
        value = scores[selection.metric].value
        scores[selection.metric] = Score(value=value, low=row.interval.low, high=row.interval.high)
    return scores


def card_page(card: Card, spec: SegmenterSpec, pairs: Sequence[Golden]) -> str:
    """The card as Markdown."""
    options = ", ".join(f"{key} {value}" for key, value in card.options.items() if value is not None)
    kind, call = (
        ("images", "image") if spec.dims == 2 else ("volumes", "volume, spacing=(depth_mm, height_mm, width_mm)")
    )
    lines = [
        f"# {card.candidate}", "",
        f"Semantic segmentation of {kind} with {spec.normalisation.channels} channel(s) into {len(card.classes)} classes, by "
        f"{card.family}{f' ({options})' if options else ''}.", "",
        "## Classes", "",
        "| id | name | pixel value in masks |", "|---|---|---|",
        *(f"| {i} | {c.name} | {c.value} |" for i, c in enumerate(spec.classes.classes)), "",
        "## Scores on the test images", "",
        "| metric | value | interval |", "|---|---|---|", *(_score_row(name, score) for name, score in card.scores.items()), "",
        "## Gates", "",
        *([f"- **{g.verdict}** {g.name}: {g.sentence}" for g in card.gates] or ["None was set."]), "",
        _outcome(card), "",
        "## Where it comes from", "",
        f"- data: `{card.data_hash}`", *(f"- {name.replace('_', ' ')}: `{value}`" for name, value in card.lineage.items()), "",
        "## How it runs", "",
        f"`segmenter.json` pins the engine `{card.engine}`, which gives the trained network's class on {card.agreement:.4%} of "
        f"the pixels of {len(pairs)} golden image(s). `engines.json` holds what was measured of the others. `golden/` holds "
        "images and the masks that every copy of this model must give for them. "
        f"Probabilities are at temperature {spec.temperature:g}, fitted on the validation images.",
        *([f"Its answers are the mean of what {spec.members} networks say, each trained without one fold of the images."]
          if spec.members > 1 else []),
        *([f"{_sentence(card.int8)} Scores and gates above are those of the network in float32."] if card.int8 else []),
        *([f"Its answers are means over images that are turned or resized ({spec.tta})."] if spec.tta != "none" else []),
        *([f"Masks are mended: {spec.cleaning.in_words(spec.classes)}."] if spec.cleaning else []), "",
        "```python", "from pathlib import Path", "from segpipe.inference.segmenter import Segmenter", "",
        'segmenter = Segmenter.from_bundle(Path("bundle"))', f"class_ids = segmenter.predict({call}).class_ids", "```", "",
        "## Intended use", "",
        f"{kind.capitalize()} of the kind that it was trained on: the same subject, instrument and preparation, "
        "about the same size of things in pixels, the same number of channels.", "",
        "## Limits", "",
        "- The scores hold for images like the test images; nothing is known of others.",
        "- Every pixel gets a class, also where the image shows none of them.",
        "- Not assessed for medical, legal or safety-relevant decisions.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _outcome(card: Card) -> str:
    if not card.promotable:
        return "Not released: a gate did not pass."
    missed = [gate.name for gate in card.gates if gate.verdict != "pass"]
    if missed:
        return f"This model may be released although {', '.join(missed)} did not pass: what is said there only warns, or is waived."
    return "Every gate passed: this model may be released."


def _score_row(name: str, score: Score) -> str:
    interval = f"{score.low:.4f} to {score.high:.4f}" if score.low is not None and score.high is not None else ""
    return f"| {name} | {score.value:.4f} | {interval} |"
