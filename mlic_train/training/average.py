from timm.utils.model_ema import ModelEmaV3

from mlic_runtime.base.override import override


class WeightAverage(ModelEmaV3):
    """An exponential moving average of a learner's weights, `module`; counters are copied.

    w <- d * w + (1 - d) * new with d = min(decay, (1 + step) / (10 + step)), the warm-up of TensorFlow's average: the
    random weights from before the first step must soon count for nothing. timm's own warm-up is another curve.
    """

    @override
    def get_decay(self, step: int | None = None) -> float:
        return self.decay if step is None else min(self.decay, (1 + step) / (10 + step))
