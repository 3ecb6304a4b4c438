import math
import re

from mlic_train.errors import ConfigError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as 90s, 20m, 1h30m or 1.5h.

    Raises:
        ConfigError: something else, or no time at all.
    """
    found = _DURATION.fullmatch(text.replace(" ", "").lower())
    parts = [] if found is None else [float(number or 0) for number in found.groups()]
    seconds = sum(number * unit for number, unit in zip(parts, _UNITS.values(), strict=False))
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--time-limit is {text!r}; give hours, minutes and seconds, such as 90s, 20m or 1h30m")
    return seconds
