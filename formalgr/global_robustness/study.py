"""A study: one generator per class, one classifier, the stage between them, the prior. Networks are composed lazily.

In: files or Networks. Out: Study. Trust: sound (compositions are checked against the two originals).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from formalgr.core.errors import ModelError, UsageError
from formalgr.global_robustness.prior import LatentPrior
from formalgr.graph.compose import compose
from formalgr.graph.network import Network, load
from formalgr.spec.robustness import wrong_label
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True)
class Study:
    """Which generators (by class) feed which classifier, and how. Paths are loaded at first use.

    Raises UsageError when a class index is negative or there is no generator.
    """

    generators: Mapping[int, str | Path | Network]
    classifier: str | Path | Network
    between: str | None = None
    label_rule: str = "argmax"
    _made: dict = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if not self.generators:
            raise UsageError("a study needs at least one generator")
        if any(isinstance(label, bool) or label < 0 for label in self.generators):
            raise UsageError(f"class indices must be >= 0, got {sorted(self.generators)}")

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes, ascending."""
        return tuple(sorted(self.generators))

    def _network(self, key: str, source: str | Path | Network) -> Network:
        if key not in self._made:
            self._made[key] = source if isinstance(source, Network) else load(source)
        return self._made[key]

    def classifier_network(self) -> Network:
        """The classifier, loaded once."""
        return self._network("classifier", self.classifier)

    def composed(self, label: int) -> Network:
        """C after G_label, loaded and checked once. Raises UsageError for a class that C does not have.

        A classifier with one output is refused (ModelError): its label never changes, every claim would hold.
        """
        if label not in self.generators:
            raise UsageError(f"class {label} has no generator; the study has {list(self.classes)}")
        classifier = self.classifier_network()
        if classifier.scores < 2:
            raise ModelError(
                f"the classifier has {classifier.scores} output, and a label needs at least two to choose from; "
                "give a score of one class as two outputs (s, -s)"
            )
        if label >= classifier.scores:
            raise UsageError(f"class index must be in [0, {classifier.scores - 1}] for this classifier, got {label}")
        key = f"composed {label}"
        if key not in self._made:
            generator = self._network(f"generator {label}", self.generators[label])
            self._made[key] = compose(generator, classifier, self.between)
        return self._made[key]

    def unsafe(self, label: int) -> UnsafeSet:
        """The outputs that the classifier does not call `label`. Raises UsageError for an unknown label rule."""
        return wrong_label(label, self.composed(label).scores, self.label_rule)

    def prior(self, label: int) -> LatentPrior:
        """The prior of the class's generator."""
        network = self.composed(label)
        if network.graph.inputs < 1:
            raise ModelError(f"the generator of class {label} takes no input")
        return LatentPrior(network.graph.inputs)
