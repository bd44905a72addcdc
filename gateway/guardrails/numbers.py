"""Check digits and number plans: what tells a real number from any digits."""

from __future__ import annotations

import ipaddress

IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27,
    "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28,
    "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23,
    "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28,
    "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
    "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25,
    "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip
"""Characters of an account number by country. Source: SWIFT, IBAN Registry."""

_CARDS = (
    ((34, 37), (15,)),
    ((300, 305), (14,)),
    ((36, 36), (14, 16, 17, 18, 19)),
    ((38, 39), (14, 16, 17, 18, 19)),
    ((3528, 3589), (16, 17, 18, 19)),
    ((4, 4), (13, 16, 19)),
    ((50, 58), (13, 14, 15, 16, 17, 18, 19)),
    ((2221, 2720), (16,)),
    ((6, 6), (13, 14, 15, 16, 17, 18, 19)),
)


def is_luhn(digits: str) -> bool:
    """
    Whether the last of *digits* is their check digit.

    Source: ISO/IEC 7812-1, annex B.

    >>> is_luhn("4111111111111111"), is_luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """
    Whether *digits* have the length and prefix of a payment card and the right check digit.

    >>> is_card("378282246310005"), is_card("9999999999999995")
    (True, False)
    """
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    for (low, high), lengths in _CARDS:
        prefix = int(digits[: len(str(low))])
        # American Express is 34 and 37, not what lies between them.
        if low <= prefix <= high and (low != 34 or prefix in (34, 37)) and len(digits) in lengths:
            return is_luhn(digits)
    return False


def is_iban(text: str) -> bool:
    """
    Whether *text*, without spaces, is an account number of the right length and remainder.

    Source: ISO 13616-1; the check is ISO/IEC 7064, MOD 97-10.

    >>> is_iban("DE44500105175407324931"), is_iban("DE45500105175407324931")
    (True, False)
    """
    if len(text) != IBAN_LENGTHS.get(text[:2]):
        return False
    moved = text[4:] + text[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def is_ssn(digits: str) -> bool:
    """
    Whether nine *digits* can be a US social security number.

    Source: Social Security Administration, number randomization: areas 000, 666 and 900-999,
    group 00 and serial 0000 are never assigned.

    >>> is_ssn("219099999"), is_ssn("666123456")
    (True, False)
    """
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def is_ip(text: str) -> bool:
    """
    Whether *text* is an IPv4 or IPv6 address other than `::`.

    >>> is_ip("10.0.0.1"), is_ip("10.0.0.256"), is_ip("12:30:45")
    (True, False, False)
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return len(text) > 2
