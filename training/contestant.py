"""A method of a comparison: what is trained of it, and how it is evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A method of the comparison, trained with every seed or evaluated as it is."""

    name: str  # in rows and tables
    train: Sequence[str] | None = None  # arguments of train.py; None: nothing is trained
    run: str = ""  # run folder of the training, with {seed}
    file: str = ""  # the method's file in that folder
    base: "Contestant | None" = None  # trained before, whose file an argument KEY={base} names
    source: str = "method.source"  # key of scripts/evaluate.py that takes the file
    evaluate: Sequence[str] = ()  # arguments of scripts/evaluate.py
    lists: Sequence[str] | None = None  # lists of pictures it is evaluated on; None: all

    @classmethod
    def read(cls, name: str, values: Any) -> "Contestant":
        """Reads a contestant from its configuration.

        Raises:
            UsageError: if it trains without run and file, or nothing says what to evaluate.
        """
        try:
            contestant = cls(name=name, **values)
            if contestant.base is not None:
                base = cls.read(f"base of {name}", contestant.base)
                contestant = replace(contestant, base=base)
        except TypeError as error:
            raise UsageError(f"contestant.{name} is {values!r}: {error}") from error
        based = [one for one in contestant.train or () if one.endswith("={base}")]
        if based and contestant.base is None:
            raise UsageError(f"contestant.{name} has {based[0]} and no base")
        if contestant.train is None and not contestant.evaluate:
            raise UsageError(f"contestant.{name} has neither train nor evaluate")
        if contestant.train is not None and not (contestant.file and "{seed}" in contestant.run):
            raise UsageError(f"contestant.{name} is trained: expected file and a run with {{seed}}")
        return contestant

    def label(self, seed: int | None) -> str:
        """Returns the name, with the seed of a training."""
        return self.name if seed is None else f"{self.name}, seed {seed}"
