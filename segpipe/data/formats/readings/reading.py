"""The type of a reading: a layout, a kind of mask, classes and a pairing of files, with the evidence for and against it."""

from __future__ import annotations

import shlex
from typing import Literal

from pydantic import BaseModel, ConfigDict

from segpipe.data.formats.source import MaskKind

Origin = Literal["names", "pixels"]
"""Where evidence comes from: the names of files and folders, or the pixels of a sample."""

KIND_WORDS: dict[MaskKind, str] = {
    "classes": "each value is a class",
    "instances": "each value is one instance, all of one class",
    "colours": "each colour is a class",
    "binary": "two classes, divided at a threshold",
    "alpha": "the values of the alpha channel are classes",
}
"""The kinds of masks in words."""


class Evidence(BaseModel):
    """One piece of evidence about a reading."""

    model_config = ConfigDict(frozen=True)
    text: str
    origin: Origin
    supports: bool = True
    """False for evidence against the reading."""


class Variant(BaseModel):
    """One way to read the files of a layout that leaves something open."""

    model_config = ConfigDict(frozen=True)
    options: dict[str, str] = {}
    """The options of `segpipe data import` that choose it, by their names without dashes."""
    evidence: tuple[Evidence, ...] = ()


class Reading(BaseModel):
    """One way to read a source."""

    model_config = ConfigDict(frozen=True)
    layout: str
    """The name of the layout, for `--format`."""
    kind: MaskKind | None = None
    """What the pixels of mask files stand for; None if the layout defines it, or if its labels are not mask files."""
    is_kind_implied: bool = False
    """True if the layout alone says what the pixels stand for."""
    pairing: str = ""
    """Which files belong together, in words."""
    classes: str = ""
    """The classes that this reading would give, in words."""
    options: dict[str, str | int | float | bool] = {}
    """Options of `segpipe data import` that belong to the reading, by their names without dashes."""
    evidence: tuple[Evidence, ...] = ()

    @property
    def is_doubtful(self) -> bool:
        """True if there is evidence against it."""
        return any(not evidence.supports for evidence in self.evidence)

    def arguments(self) -> list[str]:
        """Return the arguments of `segpipe data import` that choose this reading."""
        arguments = ["--format", self.layout]
        if self.kind is not None and not self.is_kind_implied and "threshold" not in self.options:
            arguments += ["--kind", self.kind]
        for name, value in self.options.items():
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [f"{value}"])]
        return arguments

    def command(self, prefix: str) -> str:
        """Return the command that imports the source with this reading.

        Args:
            prefix: the command with the user's options, such as ``segpipe data import ../cells --ignore 3``. Values that it ignores
                are ignored in addition to those of the reading.
        """
        words, arguments = shlex.split(prefix), self.arguments()
        if "--ignore" in words and "--ignore" in arguments:  # the last one would replace the others
            at = words.index("--ignore")
            arguments[arguments.index("--ignore") + 1] = f"{words[at + 1]},{self.options['ignore']}"
            prefix = shlex.join(words[:at] + words[at + 2 :])
        return f"{prefix} {shlex.join(arguments)}"

    def title(self) -> str:
        """Return the reading in a few words."""
        words = f": {KIND_WORDS[self.kind]}" if self.kind else ""
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.layout}{words}" + (f" ({options})" if options else "")

    def reasons(self, supports: bool = True) -> str:
        """Return the evidence for the reading, or against it, in one line."""
        return "; ".join(evidence.text for evidence in self.evidence if evidence.supports == supports)

    def kind_words(self) -> str:
        """Return what the pixels of masks stand for, with the evidence from pixels."""
        pixels = "; ".join(e.text for e in self.evidence if e.origin == "pixels" and e.supports)
        words = KIND_WORDS[self.kind] if self.kind else ""
        options = "".join(f", --{name.replace('_', '-')} {value}" for name, value in self.options.items())
        return words + options + (f" ({pixels})" if pixels else "")

    def lines(self) -> list[str]:
        """Return the reading as lines of text: what it is, and its evidence."""
        lines = [self.title() + (f"; {self.classes}" if self.classes else "")]
        return lines + [f"  {'for' if e.supports else 'against'}: {e.text} ({e.origin})" for e in self.evidence]
