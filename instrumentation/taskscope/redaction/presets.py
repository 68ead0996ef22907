"""What each preset hides, as data: for the documentation, for `--help`, and for `Redaction`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from taskscope.redaction.cards import hide_cards, hide_cards_anywhere
from taskscope.redaction.names import CARD_NAMES, PERSONAL, SECRETS, STRICT_NAMES, Names
from taskscope.redaction.personal import hide_emails, hide_ibans, hide_ips, hide_phones
from taskscope.redaction.tokens import hide_random

__all__ = ["PRESETS", "SHAPES", "Preset", "Shape", "described"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A form by which a secret is known wherever it stands.

    says: what is found. hide: what replaces it in a text; None for those that every preset hides.
    """

    says: str
    hide: Callable[[str], str] | None = None


SHAPES: Final[dict[str, Shape]] = {
    "named": Shape(
        says="a value beside a name that tells of a secret: password=…, 'token': '…', Cookie: …, --api-key …"
    ),
    "token": Shape(says="JWT, Bearer and Basic credentials"),
    "login": Shape(says="the password of a URL or DSN, user:…@host"),
    "private key": Shape(says="a PEM block of a private key, also where it was cut"),
    "provider key": Shape(
        says="keys of AWS, GitHub, GitLab, Slack, Stripe, Google, npm and others"
    ),
    "echo": Shape(
        says="what a validation error repeats of its input, what a database error repeats of its row"
    ),
    "card": Shape(
        says="13 to 19 digits that pass the Luhn check, whole, in fours or 4-6-5", hide=hide_cards
    ),
    "e-mail": Shape(says="an e-mail address", hide=hide_emails),
    "card anywhere": Shape(
        says="card numbers with any signs between the digits or letters beside them; magnetic track data",
        hide=hide_cards_anywhere,
    ),
    "iban": Shape(says="a bank account whose check digits are right", hide=hide_ibans),
    "phone": Shape(
        says="a telephone number with +, 00, an area code or three groups", hide=hide_phones
    ),
    "ip": Shape(says="an IPv4 or IPv6 address, but not loopback", hide=hide_ips),
    "random": Shape(
        says="32 signs or more with capitals, small letters and digits", hide=hide_random
    ),
}
"""Every shape, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A choice of what is hidden. says: one sentence. names: under which every value goes. shapes: from SHAPES."""

    name: str
    says: str
    names: Names
    shapes: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The names as a reader would write them; `…_x` stands for a name that ends so."""
        return self.names.shown()


_SECRET: Final = ("named", "token", "login", "private key", "provider key", "echo")
_DEFAULT: Final = (*_SECRET, "card", "e-mail")
_CARDS: Final = (*_DEFAULT, "card anywhere")
_PERSONS: Final = (*_DEFAULT, "iban", "phone", "ip")

PRESETS: Final[dict[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(
            name="secrets",
            says="What opens a door: passwords, tokens, cookies and keys; nothing of persons.",
            names=SECRETS,
            shapes=_SECRET,
        ),
        Preset(
            name="default",
            says="Secrets, card numbers and e-mail addresses.",
            names=SECRETS,
            shapes=_DEFAULT,
        ),
        Preset(
            name="pci",
            says="The default and all that PCI DSS calls cardholder or authentication data.",
            names=SECRETS + CARD_NAMES,
            shapes=_CARDS,
        ),
        Preset(
            name="gdpr",
            says="The default and what tells of a person: names, contacts, accounts, network addresses.",
            names=SECRETS + PERSONAL,
            shapes=_PERSONS,
        ),
        Preset(
            name="strict",
            says="All of the others, and whatever looks like a key; some harmless text goes with it.",
            names=SECRETS + CARD_NAMES + PERSONAL + STRICT_NAMES,
            shapes=(*_DEFAULT, *_CARDS[-1:], *_PERSONS[-3:], "random"),
        ),
    )
}
"""Every preset, by name; each hides what `secrets` does."""


def described(*, markdown: bool = False) -> str:
    """The presets and shapes as text for a terminal, or as tables of the documentation."""
    if not markdown:
        lines = [f"{p.name:9} {p.says}\n{'':9} {', '.join(p.shapes)}" for p in PRESETS.values()]
        return "\n".join(lines) + "\n"
    rows = ["| preset | hides | shapes | names |", "|---|---|---|---|"]
    rows += [
        f"| `{p.name}` | {p.says} | {_beyond(p.shapes, 'shapes', p)} "
        f"| {_beyond(tuple(f'`{key}`' for key in p.keys), 'names', p)} |"
        for p in PRESETS.values()
    ]
    rows += ["", "| shape | what is found |", "|---|---|"]
    rows += [f"| {name} | {shape.says} |" for name, shape in SHAPES.items()]
    return "\n".join(rows) + "\n"


def _beyond(told: tuple[str, ...], what: str, preset: Preset) -> str:
    """What a preset has beyond the one that it builds on: nobody reads one list five times."""
    if preset.name == "secrets":
        return ", ".join(told)
    base = PRESETS["secrets" if preset.name == "default" else "default"]
    known = base.shapes if what == "shapes" else tuple(f"`{key}`" for key in base.keys)
    more = ", ".join(each for each in told if each not in known)
    return f"those of `{base.name}`" + (f" and {more}" if more else "")
