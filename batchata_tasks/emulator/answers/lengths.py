"""The lengths and the language of the emulated answers, which remain functions of the request."""

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
"""`default` stands for short answers that echo the first words of their prompt."""
Language: TypeAlias = Literal["en", "ja"]
"""English has four bytes per token, Japanese three: one character is one token."""

LONGEST = 100_000
"""The most tokens of any answer, whatever length is drawn."""
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
    """The tail's exponent, for `pareto`: above 1; the closer to 1, the heavier the tail."""
    seed: int = 0
    """Another seed draws other lengths for the same requests."""
    language: Language = "en"

    @classmethod
    def parse(cls, given: JSON) -> Lengths:
        """Read the settings of a control call; raises ValueError if they are invalid."""
        unknown = sorted(set(given) - {item.name for item in fields(cls)})
        if unknown:
            message = f"unknown settings {unknown}"
            raise ValueError(message)
        parsed = cls(**given)
        kinds, languages = get_args(Distribution), get_args(Language)
        if parsed.lengths not in kinds or parsed.language not in languages:
            message = f"lengths must be one of {kinds}, language one of {languages}"
            raise ValueError(message)
        if not (parsed.mean > 0 and parsed.sigma >= 0 and parsed.alpha > 1):
            message = "mean must be above 0, sigma at least 0, and alpha above 1"
            raise ValueError(message)
        if parsed.lengths == "default" and parsed != cls():
            message = "the default answers have no settings"
            raise ValueError(message)
        return parsed

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
        """Return a text of the drawn length that begins with `head`; `head` if that is longer."""
        tokens, words = self.tokens(digest), _TEXTS[self.language]
        if tokens <= text_tokens(head):
            return head
        start = digest[0] % len(words)
        # Every character counts at least a quarter of a token.
        filler = (words * (2 + 4 * tokens // len(words)))[start:]
        return cut(f"{head} {filler}", tokens)
