"""Predicts the whole corpus in a process of its own, which ends if an input takes a gigabyte or 5 s of CPU time."""

import itertools
import json
import math
import resource
import signal
import sys
from collections.abc import Iterator

from mlic_runtime import MlicError, Predictor

from . import captions, heavy_pictures, pictures

_BYTES = 1_000_000_000
_SECONDS = 5.0


def main(model: str) -> None:
    """Write {"name", "expected", "found"} for each input, a line each; `found` is "answer" or what the error says.

    The name is written before its prediction, so that the last line says what was too much. The time is CPU time,
    because a busy machine is no fault of the input. The system ends the process, for a decoder that hangs does not
    come back to Python.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    predictor = Predictor.load(model, cache=False, threads=1)
    for name, expected, image, caption in _inputs():
        sys.stdout.write(f'{{"name": {json.dumps(name)}, "expected": {json.dumps(expected)}, ')
        sys.stdout.flush()
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        try:
            probabilities = predictor.predict(image, caption).probabilities.values()
            found = "answer" if all(map(math.isfinite, probabilities)) else "not finite"
        except MlicError as error:
            found = str(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(f'"found": {json.dumps(found)}}}\n')


def _inputs() -> Iterator[tuple[str, str, bytes, str | None]]:
    for picture in itertools.chain(pictures(), heavy_pictures()):
        yield picture.name, picture.expected, picture.data, None
    plain = next(picture for picture in pictures() if picture.name == "png-1x1")
    for caption in captions():
        yield caption.name, caption.expected, plain.data, caption.value
