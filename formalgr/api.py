"""The Python interface: thin wrappers that turn plain values into the options and budgets of the rooms below.

In: networks, regions, plain numbers. Out: Outcome, RadiusBracket, GlobalCertificate, LatentMass. Trust: sound (the
rooms decide).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np

from formalgr.arguments import check_keywords, drawn, limit
from formalgr.core.box import RationalBox
from formalgr.core.budget import Budget
from formalgr.core.errors import UsageError
from formalgr.core.progress import Progress
from formalgr.core.verdict import Guarantee, Outcome, Semantics, Verdict
from formalgr.global_robustness.certify import CertifyOptions, GlobalCertificate
from formalgr.global_robustness.certify import certify as _certify
from formalgr.global_robustness.curves import FrontierOptions, StudyFrontier
from formalgr.global_robustness.curves import frontiers as _frontiers
from formalgr.global_robustness.hybrid import HybridOptions, hybrid_mass
from formalgr.global_robustness.latent_mass import LatentMass, MassOptions
from formalgr.global_robustness.latent_mass import latent_mass as _latent_mass
from formalgr.global_robustness.local_proofs import Choice
from formalgr.global_robustness.monitor import Monitor, MonitorOptions, Sighting
from formalgr.global_robustness.sequential import CertifyRule
from formalgr.global_robustness.shift import Shift
from formalgr.global_robustness.study import Study
from formalgr.graph.compose import compose
from formalgr.graph.network import Network, load
from formalgr.graph.onnx_file import read_bytes
from formalgr.report.checking import Checked
from formalgr.report.checking import check as _check
from formalgr.report.corollaries import corollary
from formalgr.report.documents import frontiers_document
from formalgr.report.frontier import frontier_plot
from formalgr.report.global_certificate import certificate_bytes
from formalgr.report.global_certificate import write_certificate as _write_certificate
from formalgr.report.local_certificates import archive_of
from formalgr.report.notebook import frontiers_html
from formalgr.spec.query import Property, Query
from formalgr.spec.robustness import latent_ball, local_robustness, wrong_label
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.twins import twin
from formalgr.verify.bracket import RadiusBracket, RadiusOptions
from formalgr.verify.l0 import L0Bracket, L0Options, LabelledImages, l0_brackets, pixel_coordinates, uniform_domain
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch
from formalgr.verify.property import verify_property
from formalgr.verify.radius import radius_brackets
from formalgr.verify.twin import PairBracket

__all__ = [
    "CertifyOptions",
    "Checked",
    "GlobalCertificate",
    "Guarantee",
    "HybridOptions",
    "L0Bracket",
    "L0Options",
    "LatentMass",
    "Monitor",
    "MonitorOptions",
    "Network",
    "Outcome",
    "PairBracket",
    "RadiusBracket",
    "Semantics",
    "Sighting",
    "Shift",
    "Study",
    "Verdict",
    "VerifyOptions",
    "certify",
    "check",
    "compose",
    "corollary",
    "frontier",
    "l0_radius",
    "latent_ball",
    "latent_mass",
    "load",
    "local_robustness",
    "radius",
    "read_vnnlib",
    "twin",
    "verify",
    "verify_property",
    "write_certificate",
]


class CertifyKeywords(TypedDict, total=False):
    """Keyword arguments of `certify` that are fields of CertifyOptions, with its defaults."""

    samples: int
    seed: int
    jobs: int
    engine: str
    directory: str | Path | None
    local: VerifyOptions
    sequential: bool | None
    rule: CertifyRule


class FrontierKeywords(TypedDict, total=False):
    """Keyword arguments of `frontier` that are fields of FrontierOptions, with its defaults."""

    samples: int
    seed: int
    jobs: int
    engine: str
    directory: str | Path | None
    tolerance: float | str | Fraction
    relative: float | str | Fraction
    radii: Sequence[float | str | Fraction]
    local: VerifyOptions


@dataclass(frozen=True)
class FrontierCurves:
    """What `frontier` found for each study: classes with their bounds (band, pointwise) and the brackets behind."""

    results: tuple[StudyFrontier, ...]
    names: tuple[str, ...] = ("classifier",)

    @property
    def result(self) -> StudyFrontier:
        """The first study's."""
        return self.results[0]

    def plot(self, path: str | Path) -> Path:
        """Draw the band of every class, all studies in one plot (.svg or .png)."""
        return frontier_plot(path, self.results, self.names)

    def _repr_html_(self) -> str:
        return frontiers_html(self.results, self.names)

    def to_json(self) -> dict:
        """The document that `formalgr global --frontier --json` prints, comparisons of several studies included."""
        return frontiers_document(self.results, self.names)


class MassKeywords(TypedDict, total=False):
    """Keyword arguments of `latent_mass` that say how far and how hard, with the defaults of MassOptions."""

    gap: float | None
    delta: float | None
    directory: str | Path | None
    radii: Sequence[float | str | Fraction]
    options: VerifyOptions


class RadiusKeywords(TypedDict, total=False):
    """Keyword arguments of `radius` that say how far, how fine and how hard, with the defaults of RadiusOptions."""

    max_epsilon: float | str | Fraction
    tolerance: float | str | Fraction | None
    options: VerifyOptions


class L0Keywords(TypedDict, total=False):
    """Keyword arguments of `l0_radius` that say what a pixel is, what it may become, and how hard to try."""

    domain: RationalBox | tuple[float | str, float | str]
    channels: str | None
    options: L0Options


def verify(
    network: Network | Mapping[str, Network],
    region: RationalBox | Query | Property,
    *,
    label: int | None = None,
    label_rule: str = "argmax",
    timeout_seconds: float = float("inf"),
    options: VerifyOptions | None = None,
) -> Outcome:
    """HOLDS is a proof over the whole closed region, VIOLATED a replayed point of it, UNKNOWN neither.

    A box needs the `label` that every one of its points shall get (a tie is a violation); a Query or a Property brings
    its own unsafe set; a Property of several networks gets them by name. Raises UsageError when label and region do not
    fit, ModelError or PropertyError when the region does not fit the network.
    """
    if isinstance(region, Property) and label is None:
        return verify_property(network, region, options, Budget(limit(timeout_seconds)))
    if not isinstance(network, Network):
        raise UsageError("networks by name go with a property that declares them; give the one network")
    if isinstance(region, RationalBox):
        if label is None:
            raise UsageError("a box alone asks nothing: give label=N, the class that all of its points shall get")
        region = Query(region, wrong_label(label, network.scores, label_rule))
    elif label is not None:
        raise UsageError("label goes with a box; a query or a property says itself what is unsafe")
    budget = Budget(limit(timeout_seconds))
    return verify_batch(network, [region], options, budget)[0]


def certify(
    study: Study,
    epsilon: float | str | Fraction,
    delta: float,
    alpha: float = 1e-3,
    *,
    progress: bool | Progress = False,
    timeout_seconds: float = float("inf"),
    **options: Unpack[CertifyKeywords],
) -> GlobalCertificate:
    """Whether every class is (epsilon, delta)-robust on what its generator produces, at confidence 1 - alpha.

    Keywords: samples (per class; without them as many as the claim needs, at most 10,000), sequential, rule, seed (0),
    jobs (workers, 1), engine ("local" processes or "ray"), directory (its ledger makes the same call go on where it
    stopped), local (VerifyOptions of the local checks). `progress`: True draws on stderr; a callable is given Ticks.
    Raises UsageError on a value outside its domain, ModelError when networks do not fit.
    """
    check_keywords("certify", options, CertifyKeywords)
    settings = CertifyOptions(**options)
    budget = Budget(limit(timeout_seconds))
    with drawn(progress) as display:
        return _certify(study, epsilon, delta, alpha, settings, budget, display)


def check(
    certificate: str | Path | bytes | GlobalCertificate,
    model: str | Path | None = None,
    *,
    study: Study | None = None,
) -> Checked:
    """What a certificate proves, recomputed without the engine; `raise_if_invalid` raises Refused with the reason.

    A file or its bytes, with the `model` (ONNX file) when it speaks of one network; what `certify` returned, with its
    `study`. Local certificates that a global one refers to are read beside its file. Raises UsageError when model or
    study are missing, InputError when a file cannot be read.
    """
    if isinstance(certificate, GlobalCertificate):
        if study is None:
            raise UsageError("what certify returned is checked against its networks: give study=")
        data = certificate_bytes(certificate, study)
    else:
        data = certificate if isinstance(certificate, bytes) else read_bytes(certificate)
    archive = archive_of(certificate) if isinstance(certificate, (str, Path)) else None
    return _check(data, None if model is None else read_bytes(model), archive)


def write_certificate(
    certificate: GlobalCertificate,
    study: Study,
    path: str | Path,
    *,
    certify_local: str | None = None,
    jobs: int = 1,
    timeout_seconds: float = float("inf"),
    progress: bool | Progress = False,
) -> Path:
    """Write what `certify` returned as a file that `check` (and `formalgr check`) repeats.

    certify_local: `all` or `sample:K` (K of each class, chosen by the seed) local checks get a certificate of their
    own, in the archive PATH.zip; samples for which the time or the effort found none are counted. Raises UsageError for
    another word and for float32 semantics, InputError for networks that have no local certificates.
    """
    choice = None if certify_local is None else Choice.of(certify_local)
    budget = Budget(limit(timeout_seconds))
    with drawn(progress) as display:
        return _write_certificate(path, certificate, study, choice, jobs, budget, display)


def frontier(
    study: Study | Mapping[str, Study],
    max_epsilon: float | str | Fraction,
    alpha: float = 1e-3,
    *,
    progress: bool | Progress = False,
    timeout_seconds: float = float("inf"),
    **options: Unpack[FrontierKeywords],
) -> FrontierCurves:
    """Bounds of F_c(eps) for every class and every eps of [0, max_epsilon] together, at confidence 1 - alpha.

    Several studies by name: all their bounds hold together, and they are compared sample by sample at the `radii`.
    Keywords: samples (per class, 1000), seed (0), jobs (1), directory (its ledger makes the same call go on where it
    stopped), tolerance and relative (how narrow brackets shall be: 0.001 or 5 %), radii (settled first), local
    (VerifyOptions; its seconds_per_query limits each sample, 1 by default). Raises like certify.
    """
    check_keywords("frontier", options, FrontierKeywords)
    settings = FrontierOptions(**options)
    budget = Budget(limit(timeout_seconds))
    studies = study if isinstance(study, Mapping) else {"classifier": study}
    with drawn(progress) as display:
        results = _frontiers(studies, max_epsilon, alpha, settings, budget, display)
    return FrontierCurves(tuple(results), tuple(studies))


def latent_mass(
    study: Study,
    epsilon: float | str | Fraction,
    *,
    samples: HybridOptions | None = None,
    progress: bool | Progress = False,
    timeout_seconds: float = float("inf"),
    **options: Unpack[MassKeywords],
) -> LatentMass:
    """m_F <= F(epsilon) <= 1 - m_R for every class: the mass of latents proven to fail and proven to be robust.

    Up to four latents; no sampling, no confidence level. Keywords: gap (0.001: bounds no wider, unless delta is given),
    delta (stop where the claim is decided), directory (keeps the regions: a later call goes on from them, at any
    epsilon), radii (proven bounds there too), options (VerifyOptions). `samples`: then draw samples from what stays
    open, any number of latents; bounds hold at its confidence. Raises UsageError on a value outside its domain,
    ModelError when networks do not fit.
    """
    check_keywords("latent_mass", options, MassKeywords)
    local = options.pop("options", None) or VerifyOptions()
    regions = MassOptions(**options, branch=local.branch)
    budget = Budget(limit(timeout_seconds))
    with drawn(progress) as display:
        if samples is None:
            return _latent_mass(study, epsilon, regions, budget, display)
        return hybrid_mass(study, epsilon, replace(samples, regions=regions, local=local), budget, display)


def radius(
    network: Network,
    latents: np.ndarray,
    label: int,
    *,
    label_rule: str = "argmax",
    progress: bool | Progress = False,
    timeout_seconds: float = float("inf"),
    **options: Unpack[RadiusKeywords],
) -> tuple[RadiusBracket, ...]:
    """lower < R <= upper for each latent, R being its distance (L-infinity) from the nearest one not called `label`.

    latents (number, inputs), or (inputs,) for one. Keywords: max_epsilon (1; nothing beyond it is looked at), tolerance
    (max_epsilon / 1000), options (VerifyOptions; its seconds_per_query limits each latent). What time does not allow
    stays a wider bracket; both ends always hold. Raises UsageError or InputError on bad values, ModelError when latents
    do not fit the network.
    """
    check_keywords("radius", options, RadiusKeywords)
    local = options.pop("options", None) or VerifyOptions()
    settings = RadiusOptions(**options, local=local)
    unsafe = wrong_label(label, network.scores, label_rule)
    budget = Budget(limit(timeout_seconds))
    with drawn(progress) as display:
        return radius_brackets(network, np.atleast_2d(np.asarray(latents)), unsafe, settings, budget, display)


def l0_radius(
    network: Network,
    images: np.ndarray,
    labels: int | Sequence[int],
    *,
    progress: bool | Progress = False,
    timeout_seconds: float = float("inf"),
    **options: Unpack[L0Keywords],
) -> tuple[L0Bracket, ...]:
    """lower <= d_m <= upper for each image: the most pixels that may change, within `domain`, without changing it.

    images (number, inputs), or any shape with one axis before those of the network's input; a label for each, or one
    for all. Keywords: domain ((0, 1) for every input, or a box), channels (first or last: a pixel is all channels at
    one place; by default every input is one), options (L0Options). What time does not allow stays a wider bracket; both
    ends always hold. d_m of a misclassified image is undefined (both ends None). Raises UsageError, InputError or
    ModelError on a question that does not fit.
    """
    check_keywords("l0_radius", options, L0Keywords)
    inputs, domain = network.graph.inputs, options.get("domain", (0, 1))
    flat = np.asarray(images, dtype=np.float64)
    flat = flat.reshape(-1, inputs) if flat.size % inputs == 0 else np.atleast_2d(flat)
    region = domain if isinstance(domain, RationalBox) else uniform_domain(*domain, inputs)
    named = [int(labels)] * len(flat) if np.ndim(labels) == 0 else [int(label) for label in labels]
    coordinates = pixel_coordinates(network.graph.input_shape, options.get("channels"))
    given = LabelledImages(flat, named, region, coordinates)
    with drawn(progress) as display:
        return l0_brackets(network, given, options.get("options"), Budget(limit(timeout_seconds)), display)
