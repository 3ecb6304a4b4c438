import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from mlic_train.runs.learner import Learner


class WeightAverage:
    """An exponential moving average of a learner's weights, `learner`; the learner itself where `decay` is 0.

    w <- d * w + (1 - d) * new with d = min(decay, (1 + step) / (10 + step)): the first steps must not weigh as much
    as the random weights before them (the same warm-up as TensorFlow's and timm's averages). Counters are copied.

    Args:
        learner: what is trained, on its device.
        decay: in [0, 1).
        tensors: the average so far, of a run that is resumed.
    """

    def __init__(self, learner: Learner, decay: float, tensors: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self._source = learner
        self.learner = copy.deepcopy(learner) if decay else learner
        if decay and tensors:
            self.learner.model.load_state_dict(dict(tensors))

    def update(self, step: int) -> None:
        """Take the weights after step `step` (from 0 on) into the average."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            new = self._source.model.state_dict()
            for name, tensor in self.learner.model.state_dict().items():
                if tensor.is_floating_point():
                    tensor.lerp_(new[name], 1.0 - decay)
                else:
                    tensor.copy_(new[name])

    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights, to be saved; empty without an average."""
        return dict(self.learner.model.state_dict()) if self.decay else {}
