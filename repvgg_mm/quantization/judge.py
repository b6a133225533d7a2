"""What decides between ways to quantise: the error at the outputs of the whole network."""

import math
from collections.abc import Iterable, Iterator, Sequence

import onnx
from torch import Tensor

from .answers import behind_sigmoid
from .calibration import JUDGES, OtherSamples, SomeSamples
from .layers import DECODING, Layer
from .noise_ratio import Noise, compare, mean_ratio
from .running import Runtime, network_outputs, run
from .samples import KeptSamples, Samples

_KEPT = 2**28  # bytes of inputs that are kept, not read again, and of outputs that are not computed again
_TOLD = 1000  # numbers at the outputs, over all samples
_MOST = 100  # samples: of a network with two outputs a thousand numbers would take hours


class Judge:
    """The error at the outputs of a network, on some of the samples.

    Histograms and reconstruction have seen these, too: it tells ways to quantise apart, not how the next image fares.
    What is fitted more closely than that, in sequence, is fitted to `others`.

    Of outputs with few numbers it looks at more samples: the best of many choices by ten scores each is chance.
    Where a sigmoid takes an output, what counts is what it makes of it. The heads of a second stage look at other
    proposals, in another order, as soon as a number of the first differs: they count where none does.

    Args:
        model: the network in float32.
        layers: those that may be rounded.
        samples: what its one input takes.
    """

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer], samples: Samples) -> None:
        self._model = model
        outputs = network_outputs(model, layers)
        behind = behind_sigmoid(model, outputs)
        self._names = [*dict.fromkeys(behind.get(name, name) for name in outputs)]
        heads = {layer.output for layer in layers if layer.node.startswith(DECODING)}
        self._first = [name for name in self._names if name not in heads]
        start = JUDGES if len(samples) >= 2 * JUDGES else 0
        count = math.ceil(_TOLD / _numbers(model, self._names, SomeSamples(samples, start, 1)))
        self._samples = KeptSamples(SomeSamples(samples, start, min(max(JUDGES, count), _MOST)), _KEPT)
        self._others = OtherSamples(samples, start, start + len(self._samples))
        self._wanted: list[dict[str, Tensor]] = []

    @property
    def others(self) -> Samples | None:
        """The samples that it does not look at; None where they are fewer than half of those that it does."""
        return self._others if 2 * len(self._others) >= len(self._samples) else None

    def __call__(self, model: onnx.ModelProto, runtime: Runtime | None = None) -> Noise:
        """Return the noise at the outputs for a signal of 1, the mean of all outputs.

        Args:
            model: computes the same with rounded numbers.
            runtime: runs it as in use; None computes without the sums of 16 bits of some processors.
        """
        wanted = self._wanted or run(self._model, self._names, self._samples)
        got = run(model, self._names, self._samples, runtime)
        noises = compare(self._kept(wanted), got)
        first = [noises[name] for name in self._first if name in noises]
        return Noise(1.0, mean_ratio(first if any(noise.noise for noise in first) else noises.values()))

    def _kept(self, wanted: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Pass outputs on, and keep them for the next time if all of them are small."""
        kept: list[dict[str, Tensor]] = []
        size = 0
        for tensors in wanted:
            yield tensors
            size += sum(tensor.nbytes for tensor in tensors.values())
            kept = [*kept, tensors] if size <= _KEPT else []
        if size <= _KEPT:
            self._wanted = kept


def _numbers(model: onnx.ModelProto, names: Sequence[str], samples: Samples) -> int:
    """Return how many numbers some tensors have, of a sample; at least 1."""
    return max(sum(tensor.numel() for tensors in run(model, names, samples) for tensor in tensors.values()), 1)
