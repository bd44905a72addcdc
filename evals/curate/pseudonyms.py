"""Keyed pseudonyms: the same person is the same token under one key, and nobody without it can tell who."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from registry.errors import BadInput

KINDS = ("email", "phone", "card", "iban", "ssn", "ip", "person", "subject")
"""What a token stands for; `ssn`: a social security number of the USA, `subject`: whom a row is about."""
KEY_BYTES = 32
_TOKEN = r"\[(?:email|phone|card|iban|ssn|ip|person|subject):[a-p]{20}\]"  # noqa: S105 - a pattern
_ANY_TOKEN = re.compile(_TOKEN)
_EMAIL = r"(?<![\w.%+\-])[\w.%+\-]++@(?:[\w\-]+\.)+[\w\-]*\w"
_IBAN = r"(?<!\w)[A-Za-z]{2}\d{2}(?:[ \-]?[A-Za-z0-9]){11,30}(?!\w)"
_CARD = r"(?<!\w)\d(?:[ \-]?\d){12,18}(?!\w)"
_IP4 = r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)"
_IP6 = r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:(?:\.\d{1,3}){3})?(?![\w:]|\.\w)"
_SSN = r"(?<![\w\-])(?!000|666|9)\d{3}-\d{2}-\d{4}(?![\w\-])"
_PHONE = (
    r"(?:(?<![\w+])(?:\+|00)\d(?:[ ./()\-]{0,2}\d){6,14}"
    r"|(?<![\w+\-])(?:(?:1[ .\-])?(?:\(\d{3}\) ?|\d{3}[ .\-])\d{3}[ .\-]\d{4}"
    r"|[2-9]\d\d[2-9]\d{6}"
    r"|\(\d{2,4}\) ?\d{3,4}[ \-]\d{3,4}"
    r"|\(?0\d{1,4}\)?[ /\-]\d{2,4}(?:[ \-]?\d{2,4}){1,3})(?!-[0-9a-fA-F]{4}))"
    r"(?: ?(?:x|ext\.? ?)\d{1,6})?(?!\w)"
)
_FOUND = re.compile(
    f"{_TOKEN}|(?P<email>{_EMAIL})|(?P<iban>{_IBAN})|(?P<ssn>{_SSN})|(?P<card>{_CARD})"
    f"|(?P<ip>{_IP4}|{_IP6})|(?P<phone>{_PHONE})"
)
_HINT = re.compile(r"@|\d[^\w]?\d|:[0-9A-Fa-f]{0,4}:")
"""What every pattern but a name holds; most texts have none of it."""
_WORD = re.compile(r"\w+")
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_IBAN_LENGTHS = dict(
    re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27"
        "GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27"
        "MD24ME22MK19MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SD18SE24SI19SK24SM27ST25SV28"
        "TL23TN24TR26UA29VA22VG24XK20",
    )
)
_CARD_LENGTHS = (16, 15, 14, 19, 18, 17, 13)


@dataclass(slots=True)
class Pseudonyms:
    """Replaces what names a person; counts what it replaced. Two with one key and one list of names agree."""

    key: bytes
    names: Mapping[str, str] = field(default_factory=dict)
    """Every name in small letters, or e-mail, phone … as `normal` writes it → the person's first name."""
    replaced: dict[str, int] = field(default_factory=dict)
    """By kind, how many occurrences."""
    _starts: dict[str, list[str]] = field(default_factory=dict)
    _known: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a key shorter than 32 bytes; sort the names by their first word."""
        if len(self.key) < KEY_BYTES:
            raise BadInput(f"the key of pseudonyms has {len(self.key)} bytes; it needs {KEY_BYTES} or more")
        for name in self.names:
            first = _WORD.search(name)
            if first is not None and first.start() == 0:
                self._starts.setdefault(first[0], []).append(name)
        for names in self._starts.values():
            names.sort(key=len, reverse=True)

    def token(self, kind: str, value: str) -> str:
        """
        The token of *value*: `[kind:` and 20 letters of its HMAC-SHA-256 `]`, 80 bits.

        Values that differ only in case, spaces or separators have one token; so have all of one person's in
        the list of names.
        """
        normalised = normal(kind, value)
        person = self.names.get(normalised)
        if person is not None:
            kind, normalised = "person", normal("person", person)
        known = self._known.get((kind, normalised))
        if known is None:
            mac = hmac.new(self.key, f"{kind}\0{normalised}".encode("utf-8", "replace"), hashlib.sha256)
            known = f"[{kind}:{mac.hexdigest()[:20].translate(_LETTERS)}]"
            if len(self._known) < 1_000_000:
                self._known[kind, normalised] = known
        return known

    def text(self, text: str) -> str:
        """
        *text* with tokens for e-mail and IP addresses, phone numbers, cards, IBANs, SSNs and listed names.

        Phone numbers have a country code, separators as people write them, or North America's ten digits.

        Idempotent; tokens stay as they are, and hold nothing that JSON would escape.
        """
        while True:  # what stood beside something replaced may be found only now; each pass leaves less
            changed = _FOUND.sub(self._of_match, text) if _HINT.search(text) else text
            if self._starts:
                changed = self._listed(changed)
            if changed == text:
                return text
            text = changed

    def value(self, value: Any) -> Any:  # noqa: ANN401 - any JSON
        """A JSON value with its texts and keys as `text`; a number that is a card's becomes its token."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool) and _is_card_number(value):
            return self._replace("card", str(value))
        return value

    def _object(self, value: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for key, item in value.items():
            name = self.text(key)
            copy = 2
            while name in answer:
                name = f"{self.text(key)} #{copy}"
                copy += 1
            answer[name] = self.value(item)
        return answer

    def subject(self, value: str) -> str:
        """The token of the person a field names, whatever the value looks like; a token stays as it is."""
        return value if _ANY_TOKEN.fullmatch(value) else self._replace("subject", value)

    def _replace(self, kind: str, value: str) -> str:
        token = self.token(kind, value)
        kind = token[1 : token.index(":")]
        self.replaced[kind] = self.replaced.get(kind, 0) + 1
        return token

    def _of_match(self, match: re.Match[str]) -> str:
        kind, found = match.lastgroup, match[0]
        if kind is None:
            return found
        end = _CHECKS[kind](found) if kind in _CHECKS else len(found)
        if not end and kind in ("card", "iban"):  # an IBAN or card that is none may still be a phone number
            phone = _FOUND_PHONE.match(found)
            if phone is None or not 7 <= len(_digits(phone[0])) <= 15:
                return found
            kind, end = "phone", phone.end()
        return self._replace(kind, found[:end]) + found[end:] if end else found

    def _listed(self, text: str) -> str:
        """*text* with the names of the list replaced, outside of tokens."""
        small = text.lower()
        if len(small) != len(text):  # a few letters become two
            small = "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
        starts, parts, done = self._starts, [], 0
        skip = [token.span() for token in _ANY_TOKEN.finditer(text)]
        for word in _WORD.finditer(small):
            names = starts.get(word[0])
            start = word.start()
            if names is None or start < done:
                continue
            for name in names:
                end = start + len(name)
                if not small.startswith(name, start) or small[end : end + 1].isalnum():
                    continue
                if any(first < end and start < last for first, last in skip):
                    continue
                parts += [text[done:start], self._replace("person", name)]
                done = end
                break
        return "".join([*parts, text[done:]]) if parts else text


def has_token(text: str) -> bool:
    """Whether a pseudonym stands in *text*."""
    return _ANY_TOKEN.search(text) is not None


def masked(text: str) -> str:
    """
    *text* with the bare kind for every token, and for what would become one: equal whatever the key was.

    >>> masked("Mail ann@x.org") == masked("Mail [email:abcdefghijklmnopabcd]") == "Mail email"
    True
    """
    said = Pseudonyms(bytes(KEY_BYTES)).text(text)
    return _ANY_TOKEN.sub(lambda token: token[0][1 : token[0].index(":")], said)


def normal(kind: str, value: str) -> str:
    """
    *value* as equal ones are written: small letters; numbers without separators, `00` as `+`.

    >>> normal("phone", "0049 (30) 1234-567"), normal("email", "Ann@Example.ORG")
    ('+49301234567', 'ann@example.org')
    """
    if kind in ("phone", "card", "ssn"):
        digits = _digits(value)
        if kind == "phone" and (value.startswith("+") or digits.startswith("00")):
            return "+" + digits.removeprefix("00")
        return digits
    if kind == "iban":
        return re.sub(r"[ \-]", "", value).lower()
    if kind == "ip":
        return str(ip_address(value))
    return " ".join(value.lower().split())


def read_names(path: Path) -> dict[str, str]:
    """
    The names to replace: one person a line, other names, e-mail addresses or numbers of hers after commas.

    Blank lines and lines that begin with `#` do not count.

    Raises:
        BadInput: no such file, not UTF-8, one name for two people, or a name without a letter or digit first.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"names {path}: cannot be read as UTF-8 text") from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        parts = [part.strip() for part in line.split(",") if part.strip()]
        if not parts or line.lstrip().startswith("#"):
            continue
        for part in parts:
            match = _FOUND.fullmatch(part)
            key = normal((match.lastgroup if match else None) or "person", part)
            if match is None and not key[0].isalnum():
                raise BadInput(f"names {path}:{number}: a name begins with a letter or digit")
            if names.setdefault(key, parts[0]) != parts[0]:
                raise BadInput(f"names {path}:{number}: one of these names belongs to another line too")
    return names


def read_key(path: Path) -> tuple[bytes, bool]:
    """
    The key in *path*, 64 hex digits, and whether it was made just now, readable by its owner only.

    Raises:
        BadInput: the file cannot be read or made, or holds something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise BadInput(f"key {path}: cannot be made: {error.strerror}") from error
    else:
        key = os.urandom(KEY_BYTES)
        with os.fdopen(made, "w") as file:
            file.write(key.hex() + "\n")
        return key, True
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise BadInput(f"key {path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"key {path}: must hold {2 * KEY_BYTES} hex digits") from error
    if len(key) < KEY_BYTES:
        raise BadInput(f"key {path}: must hold {2 * KEY_BYTES} hex digits or more")
    return key, False


def _digits(text: str) -> str:
    return "".join(letter for letter in text if letter.isdecimal())


def _is_card_number(value: int) -> bool:
    text = str(value)
    return len(text) in (15, 16) and text[0] in "3456" and _luhn(text)


def _luhn(digits: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0 and len(set(digits)) > 1


def _card(found: str) -> int:
    """Where the card number that *found* begins with ends; 0 for none."""
    places = [place for place, letter in enumerate(found) if letter.isdecimal()]
    digits = "".join(found[place] for place in places)
    for length in _CARD_LENGTHS:
        if length <= len(digits) and _luhn(digits[:length]):
            end = places[length - 1] + 1
            if not found[end : end + 1].isalnum():
                return end
    return 0


def _iban(found: str) -> int:
    """Where the IBAN that *found* begins with ends; 0 for none (ISO 13616: length by country, mod 97)."""
    length = int(_IBAN_LENGTHS.get(found[:2].upper(), 0))
    places = [place for place, letter in enumerate(found) if letter.isalnum()]
    if not 0 < length <= len(places):
        return 0
    letters = "".join(found[place] for place in places[:length]).upper()
    turned = letters[4:] + letters[:4]
    end = places[length - 1] + 1
    return (
        0
        if int("".join(str(int(c, 36)) for c in turned)) % 97 != 1 or found[end : end + 1].isalnum()
        else end
    )


def _ip(found: str) -> int:
    """Its length where *found* is an IP address with a digit in it; 0 for none."""
    try:
        ip_address(found)
    except ValueError:
        return 0
    return len(found) if any(letter.isdecimal() for letter in found) else 0


def _phone(found: str) -> int:
    """Its length where *found* has as many digits, without an extension, as a phone number (ITU-T E.164)."""
    return len(found) if 7 <= len(_digits(re.split("[xe]", found)[0])) <= 15 else 0


_CHECKS: Mapping[str, Callable[[str], int]] = {"card": _card, "iban": _iban, "ip": _ip, "phone": _phone}
_FOUND_PHONE = re.compile(_PHONE)


def counts(replaced: Mapping[str, int], kinds: Sequence[str] = KINDS) -> dict[str, int]:
    """*replaced* in the order of *kinds*, without what was not found."""
    return {kind: replaced[kind] for kind in kinds if replaced.get(kind)}
