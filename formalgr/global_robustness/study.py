"""A study: one generator per class, one classifier, the stage between them, the prior. Networks are composed lazily.

In: files or Networks. Out: Study. Trust: sound (compositions are checked against the two originals).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from formalgr.core.errors import ModelError, UsageError
from formalgr.global_robustness.prior import NORMAL, LatentPrior, parse_prior
from formalgr.graph.compose import compose
from formalgr.graph.conditional import PLACES, given_class
from formalgr.graph.network import Network, load
from formalgr.spec.robustness import wrong_label
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True)
class Study:
    """Which generators (by class) feed which classifier, and how. Paths are loaded at first use.

    one_hot: where a class-conditional generator takes the one-hot vector of the class (`first` or `last` among its
    inputs), None where every class has a generator of its own. prior: `normal`, N(0, I), or `uniform:LOWER,UPPER`.
    Raises UsageError when a class index is negative, there is no generator, or a word is unknown.
    """

    generators: Mapping[int, str | Path | Network]
    classifier: str | Path | Network
    between: str | None = None
    label_rule: str = "argmax"
    one_hot: str | None = None
    latent_prior: str = NORMAL
    _made: dict = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.generators:
            raise UsageError("a study needs at least one generator")
        if any(isinstance(label, bool) or label < 0 for label in self.generators):
            raise UsageError(f"class indices must be >= 0, got {sorted(self.generators)}")
        if self.one_hot is not None and self.one_hot not in PLACES:
            raise UsageError(f"one_hot must be one of {', '.join(PLACES)}, got {self.one_hot!r}")
        parse_prior(self.latent_prior)

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
            self._made[key] = compose(self.generator_network(label), classifier, self.between)
        return self._made[key]

    def generator_network(self, label: int) -> Network:
        """The generator of a class, a network of the latent alone; loaded once."""
        source = self.generators[label]
        network = self._network(f"generator {label if isinstance(source, Network) else source}", source)
        if self.one_hot is None:
            return network
        return given_class(network, label, self.classifier_network().scores, self.one_hot)

    def check(self) -> None:
        """Load and compose everything: bad input is found before any work. Raises what that raises.

        Generators must share one latent dimension (ModelError): epsilon would not mean the same for all classes.
        """
        sizes: dict[int, list[int]] = {}
        for label in self.classes:
            self.unsafe(label)
            sizes.setdefault(self.prior(label).latent, []).append(label)
        if len(sizes) > 1:
            told = ", ".join(f"{size} for class {labels[0]}" for size, labels in sizes.items())
            raise ModelError(f"the generators have different latent sizes ({told}); give each size a study of its own")

    @property
    def sources(self) -> tuple:
        """The files of all networks, by path."""
        found = {source for label in self.classes for source in self.composed(label).sources}
        return tuple(sorted(found, key=lambda source: source.path))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the networks."""
        return tuple(sorted({note for label in self.classes for note in self.composed(label).notes}))

    def unsafe(self, label: int) -> UnsafeSet:
        """The outputs that the classifier does not call `label`. Raises UsageError for an unknown label rule."""
        return wrong_label(label, self.composed(label).scores, self.label_rule)

    def prior(self, label: int) -> LatentPrior:
        """The prior of the class's generator."""
        network = self.composed(label)
        if network.graph.inputs < 1:
            raise ModelError(f"the generator of class {label} takes no input")
        return LatentPrior(network.graph.inputs, parse_prior(self.latent_prior))
