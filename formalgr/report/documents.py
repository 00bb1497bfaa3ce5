"""What `to_json` of a result returns: the documents that the commands print.

In: results. Out: documents. Trust: sound (they repeat what was decided).
"""

from collections.abc import Sequence

from formalgr.core.documents import document
from formalgr.core.verdict import Outcome
from formalgr.global_robustness.certify import GlobalCertificate
from formalgr.global_robustness.curves import StudyFrontier
from formalgr.global_robustness.latent_mass import LatentMass
from formalgr.report.certificate import global_document
from formalgr.report.corollaries import corollary
from formalgr.report.frontier import frontier_document
from formalgr.report.json import Provenance, plain, result_document
from formalgr.report.mass import mass_document
from formalgr.report.radius import bracket_document
from formalgr.verify.bracket import RadiusBracket


def _about(sources: tuple = (), seed: int | None = None, seconds: float = 0.0) -> Provenance:
    return Provenance(sources=sources, seed=seed, argv=(), seconds=seconds)


def frontiers_document(values: Sequence[StudyFrontier], names: Sequence[str]) -> dict:
    """The document of several frontiers, compared."""
    sources = dict.fromkeys(source for value in values for source in value.study.sources)
    about = _about(tuple(sources), values[0].options.seed, sum(value.seconds for value in values))
    return plain(frontier_document(values, names, None, about))


@document.register
def _outcome(value: Outcome) -> dict:
    return plain(result_document(value, _about(seconds=value.seconds)))


@document.register
def _bracket(value: RadiusBracket) -> dict:
    return plain(bracket_document(value))


@document.register
def _certificate(value: GlobalCertificate) -> dict:
    about = _about(value.sources, value.seed, value.seconds["total"])
    return plain(global_document(value, about, None, corollary(value)))


@document.register
def _frontier(value: StudyFrontier) -> dict:
    return frontiers_document([value], ["classifier"])


@document.register
def _mass(value: LatentMass) -> dict:
    return plain(mass_document(value, _about(value.sources, seconds=sum(one.seconds for one in value.classes)), {}))
