"""What tells of a person: e-mail addresses, telephone numbers, bank accounts (IBAN), addresses of the network."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from taskscope.redaction.named import MARK

__all__ = ["hide_emails", "hide_ibans", "hide_ips", "hide_phones"]

# A name is at its end, so that left-pad@1.3.0 is none.
_EMAIL: Final = re.compile(
    r"(?<![\w.%+\-])[\w.%+\-]++@[\w\-]{1,63}(?:\.[\w\-]{1,63}){0,7}\.(?:xn--[\w\-]{1,59}|[^\W\d_]{2,63})"
)
_PHONE: Final = re.compile(
    r"""(?:\+[1-9](?:[ .\-/()]{0,2}\d){6,14}(?!\w)
        |(?<![\w.\-])00[1-9](?:[ .\-/()]{0,2}\d){7,14}(?!\w)
        |(?<![\w.\-])0[1-9]\d{1,4}[ /\-]\d{3,9}(?:[ \-]?\d{1,5})?(?![\w\-])
        |\(0?\d{2,5}\)[ \-]?\d{3,4}[ \-]?\d{3,5}(?!\w)
        |(?<![\w.\-])[2-9]\d\d([ .\-])\d{3}\1\d{4}(?![\w\-]))""",
    re.VERBOSE,
)
_IBAN: Final = re.compile(r"[A-Z](?<![^\W_][A-Z])[A-Z]\d\d(?:[ \-]?[A-Z0-9]){11,30}", re.IGNORECASE)
# Characters of an IBAN by country; of others any number that passes the check is taken.
_IBAN_SIZES: Final = {
    country: size
    for size, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV",
        22: "BG BH DE GB GE IE ME RS VA",
        23: "AE GI IL",
        24: "AD CZ ES MD PK RO SA SE SK",
        25: "PT",
        26: "IS TR",
        27: "FR GR IT MC SM",
        28: "AL AZ CY HU LB PL",
        29: "BR QA UA",
        30: "JO KW",
        31: "MT",
    }.items()
    for country in countries.split()
}
_IPV4: Final = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)")
_IPV6: Final = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{0,4})(?![\w:])"
)


def hide_emails(text: str) -> str:
    """The text without e-mail addresses."""
    return _EMAIL.sub(MARK, text) if "@" in text else text


def hide_phones(text: str) -> str:
    """The text without telephone numbers: +49 …, 0049 …, 030 …, (030) …, 555-010-9999."""
    return _PHONE.sub(MARK, text)


def hide_ibans(text: str) -> str:
    """The text without numbers of bank accounts; their check digits must be right."""
    kept: list[str] = []
    copied = at = 0
    while found := _IBAN.search(text, at):
        end = _end_of_iban(found)
        at = found.start() + 1
        if end:
            kept += text[copied : found.start()], MARK
            copied = at = end
    return "".join((*kept, text[copied:])) if kept else text


def _end_of_iban(found: re.Match[str]) -> int:
    ends = [at + 1 for at in range(*found.span()) if found.string[at].isalnum()]
    size = _IBAN_SIZES.get(found[0][:2].upper())
    for count in [size] if size else range(len(ends), 14, -1):
        if count <= len(ends) and not found.string[ends[count - 1] :][:1].isalnum():
            signs = "".join(found.string[end - 1] for end in ends[:count])
            if int("".join(str(int(sign, 36)) for sign in signs[4:] + signs[:4])) % 97 == 1:
                return ends[count - 1]
    return 0


def hide_ips(text: str) -> str:
    """The text without addresses of the network; loopback and 0.0.0.0 tell of nobody and stay."""
    if "." in text:
        text = _IPV4.sub(_hide_ip, text)
    return _IPV6.sub(_hide_ip, text) if ":" in text else text


def _hide_ip(found: re.Match[str]) -> str:
    try:
        address: IPv4Address | IPv6Address = ip_address(found[0])
    except ValueError:
        return found[0]
    if address.is_loopback or address.is_unspecified or not re.search(r"\d", found[0]):
        return found[0]
    return MARK
