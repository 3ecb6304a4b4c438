"""Types of the arrays that pass between modules. Shapes: B batch, T tokens, L labels, H W height and width."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]  # RGB in [0, 255], (H, W, 3) or (B, H, W, 3)
Tokens: TypeAlias = npt.NDArray[np.int64]  # token ids, or an attention mask of 0 and 1, (B, T)
Logits: TypeAlias = npt.NDArray[np.float32]  # (B, L)
Seconds: TypeAlias = npt.NDArray[np.float64]  # wall times, of any shape
Floats: TypeAlias = npt.NDArray[np.floating]  # numbers of any precision and shape, such as probabilities
Bools: TypeAlias = npt.NDArray[np.bool_]  # decisions of any shape, such as whether a label is predicted
