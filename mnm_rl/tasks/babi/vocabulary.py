"""The fixed set of symbols of the bAbI tasks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsInt

from mnm_rl.tasks.babi.stories import PLACEHOLDER, Line, Story

EXAMPLES_SHOWN = 5


@dataclass(frozen=True)
class Vocabulary:
    """Symbols and their numbers, 0, 1, ... in the order given.

    Attributes:
        symbols: words, punctuation and the answer placeholder, all different.
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.numbers) != len(self.symbols):
            raise ValueError("A vocabulary cannot hold a symbol twice.")
        missing = [symbol for symbol in (".", "?", PLACEHOLDER) if symbol not in self.numbers]
        if missing:
            raise ValueError(
                f"A vocabulary must hold '.', '?' and '{PLACEHOLDER}'; missing: {' '.join(missing)}."
            )

    @classmethod
    def from_stories(cls, stories: Iterable[Story]) -> Vocabulary:
        """All words of the stories, answers included, in alphabetical order."""
        lines: set[Line] = set()
        for story in stories:
            lines.update(story)
        words = {word for line in lines for word in (*line.words, *line.answer)}
        return cls(tuple(sorted(words | {".", "?", PLACEHOLDER})))

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Symbol -> its number."""
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def placeholder(self) -> int:
        """Number of the answer placeholder."""
        return self.numbers[PLACEHOLDER]

    def encode(self, words: Iterable[str]) -> list[int]:
        """Numbers of the words.

        Raises:
            ValueError: if words are not in the vocabulary.
        """
        words = list(words)
        self.require(words, "text")
        return [self.numbers[word] for word in words]

    def decode(self, numbers: Iterable[SupportsInt]) -> str:
        """The symbols with blanks between them."""
        return " ".join(self.symbols[int(number)] for number in numbers)

    def require(self, words: Iterable[str], name: str) -> None:
        """Raise a :class:`ValueError` with count and examples if the vocabulary lacks words of ``name``."""
        unknown = sorted({word for word in words if word not in self.numbers})
        if unknown:
            shown = ", ".join(unknown[:EXAMPLES_SHOWN]) + (", ..." if len(unknown) > EXAMPLES_SHOWN else "")
            noun = "word is" if len(unknown) == 1 else "words are"
            raise ValueError(
                f"{name}: {len(unknown)} {noun} not in the vocabulary of {len(self)} symbols: {shown}; "
                "a model can only be used with texts that its vocabulary covers."
            )

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; see :meth:`from_dict`."""
        return {"symbols": list(self.symbols)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Vocabulary:
        """The vocabulary that :meth:`to_dict` saved.

        Raises:
            ValueError: if it saved something else.
        """
        symbols = saved.get("symbols") if isinstance(saved, dict) else None
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise ValueError("A saved vocabulary must have a list of words, symbols.")
        return cls(tuple(symbols))
