"""The arrays that pass between the modules."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Tokens: TypeAlias = npt.NDArray[np.int64] | None


Pixels: TypeAlias = npt.NDArray[np.uint8]


Logits: TypeAlias = npt.NDArray[np.float32]


Run: TypeAlias = Callable[[Pixels, Tokens, Tokens], Logits]


Seconds: TypeAlias = npt.NDArray[np.float64]
