"""Decimal numbers between two bounds, as regular expressions of their digits.

Bounds are whole numbers, in units of the last of so many decimal places: with two places, 250 stands for 2.5.
"""

from __future__ import annotations


def write_decimals(low: int, high: int, places: int = 0) -> str:
    """Return an expression for the numbers from ``low`` to ``high``, of which at most ``places`` digits are decimal.

    Zeros stand at the end of decimal places alone, and there is no ``-0``. ``low`` must not be above ``high``.
    """
    alternatives = _write_magnitudes(max(low, 0), high, places) if high >= 0 else []
    if low < 0:
        alternatives += [f"-{magnitude}" for magnitude in _write_magnitudes(max(-high, 1), -low, places)]
    return _join(alternatives)


def _write_magnitudes(low: int, high: int, places: int) -> list[str]:
    """Return alternatives for the numbers between two bounds, neither of which is negative."""
    unit = 10**places
    (first, first_fraction), (last, last_fraction) = divmod(low, unit), divmod(high, unit)
    if first == last:
        return [f"{first}{_write_fraction(first_fraction, last_fraction, places)}"]
    alternatives = []
    if first_fraction > 0:
        alternatives.append(f"{first}{_write_fraction(first_fraction, unit - 1, places)}")
        first += 1
    if last_fraction < unit - 1:
        alternatives.append(f"{last}{_write_fraction(0, last_fraction, places)}")
        last -= 1
    if first <= last:
        alternatives.append(f"{_write_whole(first, last)}{_write_fraction(0, unit - 1, places)}")
    return alternatives


def _write_fraction(low: int, high: int, places: int) -> str:
    """Return an expression for a point and the decimal places between two bounds; for nothing, where they may be 0."""
    if not places:
        return ""
    if low == 0 and high == 10**places - 1:
        digits = [f"[0-9]{{1,{places}}}"]
    else:
        digits = []
        for count in range(1, places + 1):
            unit = 10 ** (places - count)
            least, most = -(-low // unit), high // unit
            if least <= most:
                digits.append(_write_digits(least, most, count))
    return rf"(?:\.{_join(digits)}){'' if low else '?'}"


def _write_whole(low: int, high: int) -> str:
    """Return an expression for the whole numbers between two bounds, without zeros before them."""
    shortest, longest = len(str(low)), len(str(high))
    if shortest == longest:
        return _write_digits(low, high, shortest)
    alternatives = [_write_digits(low, 10**shortest - 1, shortest)]
    if longest - shortest > 1:
        alternatives.append(f"[1-9][0-9]{{{shortest},{longest - 2}}}")
    return _join([*alternatives, _write_digits(10 ** (longest - 1), high, longest)])


def _write_digits(low: int, high: int, count: int) -> str:
    """Return an expression for the whole numbers between two bounds, with so many digits and zeros before them."""
    first, last = str(low).zfill(count), str(high).zfill(count)
    if low == high:
        return first
    same = next(position for position in range(count) if first[position] != last[position])
    alternatives = [first, last, _write_range(first[:same], int(first[same]) + 1, int(last[same]) - 1, count)]
    for position in range(same + 1, count):
        alternatives.append(_write_range(first[:position], int(first[position]) + 1, 9, count))
        alternatives.append(_write_range(last[:position], 0, int(last[position]) - 1, count))
    return _join([alternative for alternative in alternatives if alternative])


def _write_range(prefix: str, low: int, high: int, count: int) -> str:
    """Return an expression for digits after a prefix, of which the first is between two bounds; "" for no digit."""
    rest = count - len(prefix) - 1
    return f"{prefix}[{low}-{high}][0-9]{{{rest}}}" if low <= high else ""


def _join(alternatives: list[str]) -> str:
    return f"(?:{'|'.join(alternatives)})"
