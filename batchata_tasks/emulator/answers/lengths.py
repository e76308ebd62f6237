"""How long the emulated answers are and what language they are in; still a function of the request."""

from __future__ import annotations

from dataclasses import dataclass, fields
from hashlib import blake2b
from math import ceil, exp, log
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from batchata_tasks.emulator.answers.tokens import cut, text_tokens

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON

Distribution: TypeAlias = Literal["default", "lognormal", "pareto"]
"""`default` are the short answers that echo the first words of their prompt."""
Language: TypeAlias = Literal["en", "ja"]
"""English has four bytes a token, Japanese three: one character is one token."""

LONGEST = 100_000
"""Tokens that no answer exceeds, whatever was drawn."""
_STEPS = 1 << 53
_TEXTS: dict[str, str] = {
    "en": (
        "the clerk opened the ledger at the page of the week and read every line aloud while rain "
        "fell on the roof and a cart went by with barrels of salt for the harbour where nobody had "
        "seen a ship since the storm took the lamp from the tower and the keeper from his chair "
    ),
    "ja": (
        "帳簿係は今週の頁を開き一行ずつ声に出して読んだ屋根には雨が降り塩の樽を積んだ荷車が港へ向かって"
        "通り過ぎたが嵐が塔の灯りを奪ってから誰も船を見ていなかった"
    ),
}


@dataclass(frozen=True, slots=True)
class Lengths:
    """The distribution of answer lengths, in tokens before the cap of the request cuts them."""

    lengths: Distribution = "default"
    mean: float = 200.0
    sigma: float = 1.0
    """Of the logarithm, for `lognormal`."""
    alpha: float = 1.5
    """The tail's exponent, for `pareto`: above 1, and the closer to it, the heavier the tail."""
    seed: int = 0
    """Another seed draws other lengths for the same requests."""
    language: Language = "en"

    @classmethod
    def parse(cls, given: JSON) -> Lengths:
        """Return the setting of a control call; `ValueError` says what is wrong with it."""
        unknown = sorted(set(given) - {item.name for item in fields(cls)})
        if unknown:
            message = f"unknown settings {unknown}"
            raise ValueError(message)
        found = cls(**given)
        if found.lengths not in get_args(Distribution) or found.language not in get_args(Language):
            message = f"lengths must be one of {get_args(Distribution)}, language one of {get_args(Language)}"
            raise ValueError(message)
        if not (found.mean > 0 and found.sigma >= 0 and found.alpha > 1):
            message = "mean must be above 0, sigma at least 0, and alpha above 1"
            raise ValueError(message)
        if found.lengths == "default" and found != cls():
            message = "the default answers have no settings"
            raise ValueError(message)
        return found

    def tokens(self, digest: bytes) -> int:
        """Return the length drawn for a request's digest."""
        drawn = blake2b(digest + str(self.seed).encode(), digest_size=8).digest()
        chance = ((int.from_bytes(drawn, "big") >> 11) + 0.5) / _STEPS
        if self.lengths == "pareto":
            smallest = self.mean * (self.alpha - 1) / self.alpha
            length = smallest * chance ** (-1 / self.alpha)
        else:
            middle = log(self.mean) - self.sigma**2 / 2
            length = exp(middle + self.sigma * NormalDist().inv_cdf(chance))
        return max(1, min(LONGEST, ceil(length)))

    def text(self, head: str, digest: bytes) -> str:
        """Return a text that begins with `head` and has the drawn length, or that of `head` if longer."""
        wanted, words = self.tokens(digest), _TEXTS[self.language]
        if wanted <= text_tokens(head):
            return head
        start = digest[0] % len(words)
        # Every character counts at least a quarter of a token.
        return cut(f"{head} {(words * (2 + 4 * wanted // len(words)))[start:]}", wanted)
