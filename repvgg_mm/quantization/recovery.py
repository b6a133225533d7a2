"""The best 8 bits without training: each step is taken only where it lowers the error at the network's outputs."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from mmengine.logging import print_log

from .answers import behind_sigmoid, sigmoid_reaches
from .bias_correction import correct_biases
from .calibration import Method, SomeSamples, choose_reaches, observe_maps
from .calibrators import CALIBRATORS
from .equalisation import channel_peaks, equalise, find_chains
from .grid import has_grid
from .judge import Judge
from .layers import Layer, roundable, weighted_layers
from .noise_ratio import Noise
from .reconstruction import reconstruct
from .running import Runtime
from .samples import Samples
from .scheme import Scheme, apply, rounded_maps, unsigned_maps
from .sequence import reconstruct_in_sequence
from .sums import leave_room

PLAIN = "minmax"  # calibrator
_CLEARLY = 0.9  # of the noise: 0.5 dB less
_ALIKE = 0.02  # of where a grid ends


@dataclass(frozen=True)
class Step:
    """One thing that was tried.

    Attributes:
        name: what it is.
        decibels: signal-to-noise ratio at the network's outputs with it, as the runtime computes on this machine.
        taken: whether it stays.
    """

    name: str
    decibels: float
    taken: bool


@dataclass(frozen=True)
class Recovered:
    """What is to be rounded, in a graph that may have other weights than before.

    Attributes:
        model: in float32; its weights and biases are those that are to be rounded.
        scheme: what to round in it.
        steps: what was tried.
        exact: signal-to-noise ratio where no sum saturates; None where nothing was tried.
        unseen: layers that stay in float32; see `Recovery.unseen`.
    """

    model: onnx.ModelProto
    scheme: Scheme
    steps: tuple[Step, ...]
    exact: float | None
    unseen: tuple[Layer, ...]

    @property
    def rounded(self) -> onnx.ModelProto:
        """The graph that computes so."""
        return apply(self.model, self.scheme)


class Recovery:
    """A graph in float32 that was looked at once, to be rounded in several ways.

    Args:
        model: the graph.
        samples: what its one input takes.
        floats: names of layers that stay in float32.

    Attributes:
        model: the graph.
        samples: what its one input takes.
        layers: those that may be rounded.
        unseen: those that stay in float32, as nothing but zeros came to them or from them, numbers as good as zero, or
            nothing at all: no grid is known that would hold another image's numbers; and those that share weights with
            such a layer, or with anything else that can't take them rounded.
        histograms: of the maps that may be rounded.
        judge: tells the error at the outputs.

    Raises:
        ValueError: if the graph is rounded already, a number in it is not finite, or no layer has one of the names.
    """

    def __init__(self, model: onnx.ModelProto, samples: Samples, floats: Collection[str] = ()) -> None:
        if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
            raise ValueError("the graph is rounded to 8 bits already: give the one in float32")
        layers = weighted_layers(model)
        unknown = sorted(set(floats) - {layer.name for layer in layers})
        if unknown:
            raise ValueError(f"no layer with weights is called {unknown[0]!r}: it can't be kept in float32")
        layers = [layer for layer in layers if layer.name not in floats]
        maps = rounded_maps(model, layers)
        self.model, self.samples = model, samples
        self.histograms = observe_maps(model, [*dict.fromkeys(maps.values())], samples)
        known = {name for name, histogram in self.histograms.items() if has_grid(histogram.peak)}
        seen = [layer for layer in layers if known.issuperset((layer.data, maps[layer.output]))]
        self.layers = tuple(roundable(model, seen))
        self.unseen = tuple(layer for layer in layers if layer not in self.layers)
        self.judge = Judge(model, self.layers, samples)

    def by(self, method: Method = "best", start: Scheme | None = None, runtime: Runtime = "onnxruntime") -> Recovered:
        """Choose what to round, and how; see `recover`."""
        bare = replace(start or Scheme(), layers=self.layers, lean=runtime == "openvino")
        search = _Search(self, bare, runtime)
        if method != "best":
            return Recovered(self.model, search.calibrated(self.model, method), (), None, self.unseen)
        search.walk()
        exact = self.judge(apply(search.model, search.scheme)).decibels
        return Recovered(search.model, search.scheme, tuple(search.steps), exact, self.unseen)


def recover(
    model: onnx.ModelProto,
    samples: Samples,
    method: Method = "best",
    start: Scheme | None = None,
    floats: Collection[str] = (),
    runtime: Runtime = "onnxruntime",
) -> Recovered:
    """Choose what to round in a graph, and how.

    Args:
        model: graph in float32.
        samples: what its one input takes.
        method: ``'best'`` does all that helps; the name of a calibrator does that alone.
        start: bits and kind of the grids; 8 bits by channel if it is not given.
        floats: names of layers that stay in float32.
        runtime: what the graph is for. It judges, and the grids are those that serve it; see `Scheme.lean`.

    Returns:
        The scheme, and the graph that it is for.

    Raises:
        ValueError: if the graph is rounded already, a number in it is not finite, or no layer has one of the names.
    """
    return Recovery(model, samples, floats).by(method, start, runtime)


class _Search:
    """The best so far, and what can be tried next.

    Args:
        given: the graph, and what was seen of it.
        bare: which layers to round, and the kind of their grids.
        runtime: that judges.
    """

    def __init__(self, given: Recovery, bare: Scheme, runtime: Runtime) -> None:
        self._given, self._samples, self._bare, self._runtime = given.model, given.samples, bare, runtime
        self._judge = given.judge
        self._seen = [(given.model, given.histograms)]
        self._roomy = False
        self._scores: dict[str, float] = {}
        self.steps: list[Step] = []
        self.model, self.scheme = given.model, bare
        self._noise = Noise(1.0, math.inf)

    def walk(self) -> None:
        """Try one step after the other."""
        given, base = self._given, self._given
        self._offer("plain calibration", given, self.calibrated(given, PLAIN))
        self._offer_scores()
        self._offer_room(given)
        chains = find_chains(given, self._bare.layers)
        if chains:
            equal = equalise(given, chains, channel_peaks(given, chains, self._samples))
            if self._offer("equalisation", *self._finish(equal, self.calibrated(equal, PLAIN))):
                base = equal
                self._offer_room(base)  # where one channel drowns all others, nothing tells before
        found = {calibrator: self.calibrated(base, calibrator).reaches for calibrator in CALIBRATORS}
        for calibrator, reaches in found.items():
            if calibrator != PLAIN:
                self._offer(f"calibration by {calibrator}", self.model, replace(self.scheme, reaches=reaches))
        self._offer_reconstruction(base)
        self._offer_single_maps([*found.values()])
        corrected = correct_biases(base, self.model, self.scheme, SomeSamples(self._samples))
        self._offer("bias correction", corrected, self.scheme)

    def calibrated(self, graph: onnx.ModelProto, calibrator: str) -> Scheme:
        """Return the grids that a calibrator chooses for the maps of a graph."""
        if all(graph is not seen for seen, _ in self._seen):
            self._seen.append((graph, observe_maps(graph, [*self._seen[0][1]], self._samples)))
        histograms = next(found for seen, found in self._seen if seen is graph)
        bare = self._bare
        unsigned = unsigned_maps(graph, bare)
        ends = choose_reaches(graph, bare.layers, histograms, calibrator, bare.bits, unsigned)
        rounded = bare.rounds(ends)
        return replace(bare, reaches={name: end for name, end in ends.items() if name in rounded} | self._scores)

    def _offer_scores(self) -> None:
        """Class scores drown in what is rounded of them: without this step nothing tells whether another one helps."""
        histograms = self._seen[0][1]
        names = behind_sigmoid(self._given, self.scheme.reaches)
        peaks = {name: histograms[name].peak for name in names if name in histograms}
        if peaks:
            scores = sigmoid_reaches(self._given, peaks, SomeSamples(self._samples), self._bare.bits)
            scheme = replace(self.scheme, reaches={**self.scheme.reaches, **scores})
            if self._offer("grids of what a sigmoid takes", self._given, scheme):
                self._scores = scores

    def _offer_room(self, base: onnx.ModelProto) -> None:
        if self._bare.bits == 8 and not self._roomy:
            self._roomy = self._offer("room for sums of 16 bits", *_with_room(base, self.calibrated(base, PLAIN)))

    def _offer_reconstruction(self, base: onnx.ModelProto) -> None:
        """Reconstruction makes good what room costs: where that was too much before, it is asked again."""
        model, scheme = self.model, self.scheme
        self._offer("reconstruction", *reconstruct(base, model, scheme, self._samples, self._roomy))
        if self._bare.bits == 8 and not self._roomy and self._saturates():
            found = reconstruct(base, *_with_room(model, scheme), self._samples, room=True)
            self._roomy = self._offer("reconstruction with room for sums of 16 bits", *found)
        others = self._judge.others
        if self._bare.bits < 8 and others is not None:  # what it is fitted to can't judge it
            found = reconstruct_in_sequence(base, model, scheme, others, self._roomy)
            self._offer("reconstruction in sequence", *found)

    def _offer_single_maps(self, found: Sequence[Mapping[str, float]]) -> None:
        """Choose for each map again where its grid ends, one after the other, out of what the calibrators found."""
        rules = rounded_maps(self._given, self._bare.layers)
        maps: dict[str, list[str]] = {}
        for name in self.scheme.reaches:
            if name not in self._scores:
                maps.setdefault(rules[name], []).append(name)
        scheme, noise = self.scheme, self._noise
        for names in maps.values():
            tried = [scheme.reaches[names[0]]]
            for reach in [reaches[names[0]] for reaches in found]:
                if all(abs(reach - other) > _ALIKE * other for other in tried):
                    tried.append(reach)
                    changed = replace(scheme, reaches={**scheme.reaches, **dict.fromkeys(names, reach)})
                    got = self._judge(apply(self.model, changed), self._runtime)
                    if got.noise < noise.noise:
                        scheme, noise = changed, got
        self._offer("calibration map by map", self.model, scheme)

    def _saturates(self) -> bool:
        """Whether the outputs are further off on this processor than where no sum saturates."""
        return self._judge(apply(self.model, self.scheme)).noise < _CLEARLY * self._noise.noise

    def _finish(self, graph: onnx.ModelProto, scheme: Scheme) -> tuple[onnx.ModelProto, Scheme]:
        return _with_room(graph, scheme) if self._roomy else (graph, scheme)

    def _offer(self, name: str, model: onnx.ModelProto, scheme: Scheme) -> bool:
        """Try a step; stay with it if the outputs are nearer."""
        noise = self._judge(apply(model, scheme), self._runtime)
        taken = not self.steps or noise.noise < self._noise.noise
        self.steps.append(Step(name, noise.decibels, taken))
        print_log(f"{name}: {noise.decibels:.1f} dB at the outputs{'' if taken else ', left out'}", logger="current")
        if taken:
            self.model, self.scheme, self._noise = model, scheme, noise
        return taken


def _with_room(model: onnx.ModelProto, scheme: Scheme) -> tuple[onnx.ModelProto, Scheme]:
    roomy = leave_room(model, scheme)
    return roomy.model, replace(scheme, scales=roomy.scales)
