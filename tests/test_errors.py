import pytest

from segpipe.errors import BusyError, ConfigError, DataError, GateBlocked, MissingError, SegpipeError, UndecidedError


def test_message_is_one_line_with_where_found_expected_and_fix():
    error = DataError(
        "size differs", where="masks/a.png", found="10 x 10", expected="12 x 10", fix="export the\nmask again"
    )
    assert str(error) == "masks/a.png: size differs (found 10 x 10, expected 12 x 10). Fix: export the mask again"


def test_missing_parts_are_left_out_of_the_message():
    assert str(ConfigError("no such candidate")) == "no such candidate"
    assert str(ConfigError("Really?", fix="look")) == "Really? Fix: look"


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError, 2), (DataError, 3), (GateBlocked, 4), (BusyError, 5), (MissingError, 6), (UndecidedError, 7)],
)
def test_each_kind_of_error_has_an_exit_code(error, code):
    assert error.exit_code == code
    assert issubclass(error, SegpipeError)
    assert issubclass(error, ValueError)
