"""Local certificates beside a global one: which ones, that they check, and that no other file takes their place."""

import hashlib
import json
import zipfile
from fractions import Fraction

import pytest

import formalgr as fg
from formalgr.cli.main import main
from formalgr.core.errors import InputError, Refused, UsageError
from formalgr.core.verdict import Semantics
from formalgr.global_robustness.certify import CertifyOptions, certify
from formalgr.global_robustness.local_proofs import Choice, local_proofs
from formalgr.report.global_certificate import check_global, write_certificate
from formalgr.report.local_certificates import check_archive
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball
from formalgr.verify.certificate import Certifier, model_bytes, sealed
from formalgr.verify.options import VerifyOptions
from tests.certificates import lines_of
from tests.studies import cube_study, identity, study, within_cube
from tests.zoo import chain

EPSILON = Fraction(1, 10)


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    return cube_study(tmp_path_factory.mktemp("square"))


@pytest.fixture(scope="module")
def result(square):
    return certify(square, EPSILON, 0.2, 1e-2, CertifyOptions(samples=40, seed=5, sequential=False))


@pytest.fixture(scope="module")
def stored(square, result, tmp_path_factory):
    """The certificate with all local ones."""
    return write_certificate(tmp_path_factory.mktemp("stored") / "claim.cert", result, square, Choice.of("all"))


def content(path) -> dict[str, bytes]:
    """The files of the archive."""
    with zipfile.ZipFile(f"{path}.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(stored, folder, files: dict[str, bytes], change=None, honest: bool = True):
    """The certificate beside an archive of these files; honest: with the SHA-256 that each of them has now."""
    place = folder / "other.cert"
    with zipfile.ZipFile(f"{place}.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    lines = [json.loads(line) for line in stored.read_bytes().splitlines()[:-1]]
    if honest:
        lines[0]["local"]["archive"] = hashlib.sha256((folder / "other.cert.zip").read_bytes()).hexdigest()
        for line in lines[2:]:
            for index in line["local"]["certificates"]:
                data = files.get(f"{line['class']}/{index}.cert")
                if data is not None:
                    line["local"]["certificates"][index] = hashlib.sha256(data).hexdigest()
    if change is not None:
        change(lines)
    body = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
    place.write_bytes(body + (json.dumps({"sha256": hashlib.sha256(body).hexdigest()}) + "\n").encode())
    return place


def refused(path) -> str:
    """Why the certificate is refused."""
    checked = fg.check(path)
    assert not checked.valid
    with pytest.raises(Refused):
        checked.raise_if_invalid()
    return checked.why


def test_all_local_checks_are_certified_and_checked(stored, result):
    checked = fg.check(stored)
    assert checked.valid and "80 of 80 local checks have a certificate that was checked exactly" in checked.assumed
    assert "were proven so" not in checked.assumed
    names = {"0/model.onnx", "1/model.onnx"} | {f"{one.label}/{one.index}.cert" for one in result.records}
    assert set(content(stored)) == names


def test_a_stranger_recomputes_which_samples_were_chosen(square, result, tmp_path):
    """The K decided samples of each class with the smallest SHA-256 of "seed/class/index"."""
    path = fg.write_certificate(result, square, tmp_path / "some.cert", certify_local="sample:5")
    checked = fg.check(path)
    assert "that samples called robust were proven so" in checked.assumed and "10 of 80 local checks" in checked.assumed
    for label in (0, 1):
        rank = sorted(range(40), key=lambda k: hashlib.sha256(f"5/{label}/{k}".encode()).hexdigest())
        named = {int(name[2:-5]) for name in content(path) if name.startswith(f"{label}/") and name.endswith(".cert")}
        assert named == set(rank[:5])
    again = fg.write_certificate(result, square, tmp_path / "again.cert", certify_local="sample:5")
    assert again.read_bytes() == path.read_bytes()


def test_only_decided_samples_are_chosen(square):
    """A sample without an answer has nothing to certify."""
    assert Choice(3).among(5, 0, [7, 9]) == (7, 9)
    few = certify(square, EPSILON, 0.2, 1e-2, CertifyOptions(samples=5, sequential=False), fg.api.Budget(0.0))
    assert all(not mine.certificates for mine in local_proofs(few, square, Choice(None)).values())


def test_a_certificate_that_does_not_check_is_not_stored(square, result, monkeypatch, tmp_path):
    """The sample then counts as one that has none; the global certificate stays valid."""
    grown = Certifier.each_holds

    def cut(self, queries, budget=None):
        *others, last = grown(self, queries, budget) or [None]
        return [*others, sealed(lines_of(last)[:-1])] if queries else []

    monkeypatch.setattr(Certifier, "each_holds", cut)
    path = write_certificate(tmp_path / "claim.cert", result, square, Choice.of("sample:3"))
    told = fg.check(path).assumed
    assert "5 of 80 local checks have a certificate that was checked exactly (for 1 of those chosen none" in told


@pytest.mark.parametrize("text", ["some", "sample:0", "sample:-1", "sample:", "sample:1.5", "sample", "ALL", ""])
def test_other_choices_are_refused(text):
    with pytest.raises(UsageError, match="'all' or 'sample:K'"):
        Choice.of(text)


def test_a_flipped_byte_anywhere_in_the_archive_is_detected(stored, tmp_path):
    place = tmp_path / "claim.cert"
    place.write_bytes(stored.read_bytes())
    data = (stored.parent / "claim.cert.zip").read_bytes()
    for at in range(0, len(data), len(data) // 12):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        (tmp_path / "claim.cert.zip").write_bytes(changed)
        assert "the certificate proves nothing" in refused(place)


def test_a_missing_archive_or_file_is_refused(stored, tmp_path):
    files = content(stored)
    (tmp_path / "claim.cert").write_bytes(stored.read_bytes())
    assert "its local certificates are missing" in refused(tmp_path / "claim.cert")
    (tmp_path / "claim.cert.zip").write_bytes(b"no archive")
    assert "is no archive" in refused(tmp_path / "claim.cert")
    left = {name: data for name, data in files.items() if name != "1/7.cert"}
    path = rewritten(stored, tmp_path, left)
    assert "class 1: the local certificate of sample 7 is missing" in refused(path)
    left = {name: data for name, data in files.items() if name != "1/model.onnx"}
    assert "the model of its local certificates is missing" in refused(rewritten(stored, tmp_path, left))


def test_swapped_files_are_refused(stored, tmp_path):
    """As they are, by their SHA-256; with SHA-256 made to fit, because each is about the ball of another sample."""
    files = content(stored)
    files["1/7.cert"], files["1/8.cert"] = files["1/8.cert"], files["1/7.cert"]
    path = rewritten(stored, tmp_path, files, honest=False)
    assert "sample 7 is damaged or another one (1/7.cert)" in refused(path)
    assert "sample 7 is about another ball or other labels" in refused(rewritten(stored, tmp_path, files))


def robust_index(stored, label: int) -> int:
    line = json.loads(stored.read_bytes().splitlines()[2 + label])
    return line["evidence"].index("r")


def certificate(square, index: int, epsilon) -> bytes:
    """A valid certificate about the ball of a sample of class 1."""
    query = Query(latent_ball(square.prior(1).at(5, 1, [index])[0], epsilon), square.unsafe(1))
    return Certifier(model_bytes(square.composed(1))).holds([query])


def test_certificates_of_another_sample_epsilon_or_label_are_refused(square, stored, tmp_path):
    """All of them are valid certificates, with the right SHA-256, of something else."""
    index = robust_index(stored, 1)
    others = {
        "another sample": certificate(square, next(k for k in range(99) if k != index and is_in(square, k)), EPSILON),
        "another epsilon": certificate(square, index, "0.05"),
        "the right one": certificate(square, index, EPSILON),
    }
    for name, data in others.items():
        path = rewritten(stored, tmp_path, {**content(stored), f"1/{index}.cert": data})
        if name == "the right one":
            assert fg.check(path).valid
        else:
            assert f"sample {index} is about another ball or other labels" in refused(path)
    of_class_0 = content(stored)[f"0/{robust_index(stored, 0)}.cert"]
    path = rewritten(stored, tmp_path, {**content(stored), f"1/{index}.cert": of_class_0})
    assert "speaks of another model file" in refused(path)


def is_in(square, index: int) -> bool:
    return bool(abs(square.prior(1).at(5, 1, [index])[0]).max() < 1.8)


def test_a_certificate_whose_proof_was_cut_is_refused(stored, tmp_path):
    """Sealed anew, with the right SHA-256: the checker itself says no."""
    index = robust_index(stored, 1)
    claim, *proof = lines_of(content(stored)[f"1/{index}.cert"])
    path = rewritten(stored, tmp_path, {**content(stored), f"1/{index}.cert": sealed([claim, *proof[:-1]])})
    assert f"the local certificate of sample {index} does not check" in refused(path)


def test_the_archive_s_model_must_be_composed_of_the_networks_named(square, tmp_path):
    """Certificates of an easier classifier do not pass for those of the one that was asked about."""
    easy = study(tmp_path / "easy", {1: identity(2)}, within_cube(2, 2.5))
    easier = certify(easy, EPSILON, 0.2, 1e-2, CertifyOptions(samples=40, seed=5, sequential=False))
    path = write_certificate(tmp_path / "easy.cert", easier, easy, Choice(None))

    def other_networks(found):
        found[1]["classifier"] = str(square.classifier)
        found[1]["sha256"] = {"1": [one.sha256 for one in square.composed(1).sources]}

    forged = rewritten(path, tmp_path, content(path), other_networks)
    assert "not composed of the networks named" in refused(forged)
    gone = rewritten(path, tmp_path, content(path), lambda found: found[1].update(classifier="/nowhere/c.onnx"))
    checked = fg.check(gone)
    assert checked.valid and "given that the archive's models are composed of the networks named" in checked.assumed


CHANGES = {
    "fewer than chosen": (lambda lines: lines[2]["local"]["certificates"].popitem(), "are not those of the samples"),
    "another choice": (lambda lines: lines[0]["local"].update(choice="sample:3"), "are not those of the samples"),
    "no choice": (lambda lines: lines[0]["local"].update(choice="few"), "malformed"),
    "half": (lambda lines: lines[2].pop("local"), "half an archive"),
    "other half": (lambda lines: lines[0].pop("local"), "half an archive"),
    "another archive": (lambda lines: lines[0]["local"].update(archive="0" * 64), "was changed"),
    "list": (lambda lines: lines[2].update(local=[]), "malformed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_certificate_says_of_its_archive_must_fit(name, stored, tmp_path):
    change, told = CHANGES[name]
    assert told in refused(rewritten(stored, tmp_path, content(stored), change))


def test_a_verdict_turned_around_meets_its_local_certificate(square, stored):
    """A sample called violated whose certificate proves that it is robust."""
    index = robust_index(stored, 1)
    head, networks, _, line = (json.loads(text) for text in stored.read_bytes().splitlines()[:-1])
    line["evidence"] = line["evidence"][:index] + "v" + line["evidence"][index + 1 :]
    balls = {1: square.prior(1).sample(5, 1, 0, 40)}
    with pytest.raises(Refused, match=f"sample {index} proves the opposite"):
        check_archive(stored.with_name("claim.cert.zip"), head, networks, [line], balls, square)


def test_bytes_alone_do_not_say_where_the_archive_lies(stored):
    assert "give the file, not its bytes" in fg.check(stored.read_bytes()).why
    with pytest.raises(Refused):
        check_global(stored.read_bytes())


def test_what_has_no_local_certificates_is_refused_before_any_work(square, result, tmp_path):
    sigmoid = chain(2, ([[1.0, 1.0], [-1.0, 0.5]], [0.0, 0.0]), "Sigmoid", ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]))
    curved = study(tmp_path / "curved", {1: identity(2)}, sigmoid)
    words = ["global", "--generator", str(curved.generators[1]), "--class", "1", "--classifier", str(curved.classifier)]
    words += ["--epsilon", "0.1", "--delta", "0.3", "--quiet", "--certificate", str(tmp_path / "c.cert")]
    assert main([*words, "--certify-local", "all"]) == 3
    assert not (tmp_path / "c.cert").exists()
    with pytest.raises(InputError, match="class 1 has no local certificates"):
        local_proofs(result, curved, Choice(None))
    rounded = certify(
        square, EPSILON, 0.2, 1e-2,
        CertifyOptions(samples=2, sequential=False, local=VerifyOptions(semantics=Semantics.FLOAT32)),
    )
    with pytest.raises(UsageError, match="not with float32 semantics"):
        local_proofs(rounded, square, Choice(None))


def test_the_command_writes_and_checks(square, tmp_path, capsys):
    folder, file = square.classifier.parent, tmp_path / "claim.cert"
    words = ["global", "--generator", str(folder / "g_{class}.onnx"), "--classifier", str(square.classifier)]
    words += ["--class", "1", "--epsilon", "0.1", "--delta", "0.3", "--quiet", "--json"]
    assert main([*words, "--certify-local", "all"]) == 2
    assert "--certify-local goes with --certificate FILE" in capsys.readouterr().err
    assert main([*words, "--certificate", str(file), "--certify-local", "three"]) == 2
    assert "'all' or 'sample:K'" in capsys.readouterr().err
    assert main([*words, "--certificate", str(file), "--certify-local", "sample:4"]) == 0
    capsys.readouterr()
    assert main(["check", str(file), "--quiet"]) == 0
    assert "4 of " in capsys.readouterr().out
    archive = tmp_path / "claim.cert.zip"
    archive.write_bytes(archive.read_bytes()[:-30])
    assert main(["check", str(file), "--quiet"]) == 6
    assert "claim.cert.zip" in capsys.readouterr().err
