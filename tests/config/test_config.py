"""params.yaml is read and checked; valid and invalid examples are in tests/fixtures/params."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from segpipe.config import Params, load_params, parse_budget, parse_params
from segpipe.errors import ConfigError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "params"


def test_the_shipped_params_are_valid_and_show_the_defaults(repo_root):
    shipped = load_params(repo_root)
    defaults = Params(candidates=shipped.candidates)
    assert shipped == defaults


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("valid-*.yaml")), ids=lambda p: p.stem)
def test_valid(path):
    assert parse_params(path.read_text()).candidates


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("invalid-*.yaml")), ids=lambda p: p.stem)
def test_invalid_names_key_and_fix(path):
    """The first line of the example is a comment with a part of the expected message."""
    expected = path.read_text().splitlines()[0].lstrip("# ")
    with pytest.raises(ConfigError) as error_info:
        parse_params(path.read_text())
    assert expected in str(error_info.value)
    assert "\n" not in str(error_info.value)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="segpipe init"):
        load_params(tmp_path)


def test_a_candidate_overrides_the_common_training_settings():
    params = parse_params(
        yaml.safe_dump(
            {"train": {"budget": "3m", "seed": 5}, "candidates": {"a": {"family": "unet", "train": {"budget": "10m"}}}}
        )
    )
    assert params.train_for("a").budget == "10m"
    assert params.train_for("a").seed == 5
    with pytest.raises(ConfigError, match="expected a"):
        params.train_for("b")


def test_explicit_settings_leave_out_defaults():
    common, specific = "{seed: 3, folds: null, augment: off}", "{loss: {dice: 1}, seed: 4}"
    text = f"train: {common}\ncandidates: {{a: {{family: unet, encoder: resnet18, train: {specific}}}}}"
    assert parse_params(text).explicit_settings("a") == {
        "family": "unet",
        "encoder": "resnet18",
        "train.seed": 4,
        "train.augment": "off",
        "train.loss": {"dice": {"weight": 1.0}},
    }


def test_training_settings_of_a_candidate_are_checked():
    params = parse_params("candidates: {a: {family: unet, train: {budgt: 10m}}}")
    with pytest.raises(ConfigError, match="did you mean `budget`"):
        params.train_for("a")


@given(
    st.floats(0.5, 5000).map(lambda x: round(x, 1)),
    st.sampled_from([("s", 1), ("m", 60), ("h", 3600)]),
    st.sampled_from(["", " "]),
)
def test_wall_clock_budgets(amount, unit, space):
    kind, seconds = parse_budget(f"{amount}{space}{unit[0]}")
    assert kind == "seconds"
    assert seconds == pytest.approx(amount * unit[1])


def test_other_budgets():
    assert parse_budget("500 steps") == ("steps", 500)
    assert parse_budget("1 epoch") == ("epochs", 1)
    for wrong in ("0s", "ten minutes", "-5m", "5", ""):
        with pytest.raises(ConfigError, match="not a training budget"):
            parse_budget(wrong)
