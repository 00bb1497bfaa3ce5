"""What makes the tool easy: the doctor's checks, completion, examples in every help, --explain, what notebooks show."""

import json
import re
import shutil
import subprocess
from fractions import Fraction

import numpy as np
import pytest

import formalgr as fg
from formalgr.attacks.replay import Replayer
from formalgr.cli import completion, doctor
from formalgr.cli.experiment import NAMES
from formalgr.cli.main import COMMANDS, main, parser_of
from formalgr.core.verdict import Guarantee, Outcome, Reason, Stage, Verdict
from formalgr.report.explain import ADVICE, explained
from formalgr.solvers import registry
from formalgr.spec.robustness import local_robustness
from tests.instances import box_property, difference
from tests.studies import cube_study

EVERY = [*(name for name in COMMANDS if name != "experiment"), *(f"experiment {name}" for name in NAMES)]


@pytest.fixture(autouse=True)
def no_limit(monkeypatch):
    """Commands limit the memory of their process, which here is that of the tests."""
    monkeypatch.setattr("formalgr.cli.memory.limit_memory", lambda limit: None)


@pytest.mark.parametrize("name", EVERY)
def test_every_help_has_examples_that_parse(name):
    """Each line of the examples is a command whose options exist (values are checked where it is run)."""
    parser = parser_of(name)
    text = parser.format_help()
    assert parser.description.strip() and "examples" in text, f"{name} --help shows no example"
    shown = text.partition("\nexamples")[2].replace("\\\n", " ")
    lines = [line for line in shown.splitlines() if line.strip().startswith("formalgr ") or "$(formalgr" in line]
    assert any(f"formalgr {name}" in line for line in lines), "no example is of this command"
    for line in lines:
        first = line.partition("formalgr ")[2].split("#")[0]
        asked = next(one for one in sorted(EVERY, key=len, reverse=True) if first.startswith(one))
        known = set(parser_of(asked)._option_string_actions)
        given = {word.split("=")[0] for word in re.findall(r"(?<!\S)--?[a-z][\w-]*", first.split(" && ")[0])}
        assert given <= known, f"{line.strip()}: {given - known}"


def test_every_option_says_what_it_does():
    for name in EVERY:
        for action in parser_of(name)._actions:
            assert action.help, f"{name}: {action.option_strings or action.dest} has no help"


# ---- completion


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    line = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _formalgr; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script}\n{line}"], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_values(capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "formalgr", "ver") == ["verify"]
    assert completed(script, "formalgr", "verify", "--sol") == ["--solver"]
    assert completed(script, "formalgr", "verify", "--solver", "") == list(registry_choices())
    assert completed(script, "formalgr", "experiment", "f") == ["fgsm"]
    assert "--epsilon" in completed(script, "formalgr", "experiment", "fgsm", "--e")
    assert set(completed(script, "formalgr", "")) >= set(COMMANDS)


def registry_choices() -> tuple[str, ...]:
    from formalgr.cli.options import SOLVERS

    return SOLVERS


def test_zsh_and_fish_know_every_option(capsys):
    scripts = {}
    for shell in ("zsh", "fish"):
        assert main(["completion", shell]) == 0
        scripts[shell] = capsys.readouterr().out
        if shutil.which(shell):
            done = subprocess.run([shell, "-n"], input=scripts[shell], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
    for command in completion.commands():
        for name in command.names:
            assert name in scripts["zsh"]
            assert f" -{'l ' + name[2:] if name.startswith('--') else 's ' + name[1:]}" in scripts["fish"]


# ---- doctor


def test_the_doctor_says_what_there_is(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_networks", lambda: "ok")  # test_cli.py runs them all
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["good"] and document["checks"].keys() == {"networks", "engine", *registry.BACKENDS}
    assert document["checks"]["engine"].startswith("ok, a proof was checked exactly")
    assert 0 < document["memory_limit_bytes"] <= max(document["memory_bytes"], 1 << 30) and document["threads"] >= 1
    assert {"gpu", "exact_arithmetic", "extras", "platform", "cores", "versions"} <= document.keys()


def test_the_doctor_finds_what_is_broken(capsys, monkeypatch):
    """A solver that says nothing, one that is not installed, an engine that answers wrongly."""
    monkeypatch.setitem(registry.BACKENDS, "highs", type("Broken", (), {"package": "json", "solve": None}))
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "z3" else find(name, *more))
    monkeypatch.setattr(doctor, "_networks", lambda: "ok")
    monkeypatch.setattr("formalgr.verify.pipeline.verify_batch", lambda *given: (_unknown(), _unknown()))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"check highs +failed: ", out) and re.search(r"check z3 +missing: .*pip install z3-solver", out)
    assert re.search(r"check engine +failed: ", out) and re.search(r"in order +NO", out)


def _unknown(reason: Reason = Reason.TIMEOUT) -> Outcome:
    return Outcome(Verdict.UNKNOWN, reason=reason, stage_seconds=((Stage.ATTACK, 0.5), (Stage.BOUNDS, 0.25)))


# ---- why


def test_explanations_name_every_reason_and_stage():
    assert set(ADVICE) == set(Reason)
    for reason in Reason:
        told = "\n".join(explained(_unknown(reason)))
        assert reason.value in told and ADVICE[reason] in told and "attack: left it open in 0.50 s" in told
    for stage in Stage:
        told = explained(Outcome(Verdict.HOLDS, Guarantee.FLOAT_SOUND, stage))
        assert any("decided" in line for line in told)
    assert "no stage was needed" in explained(Outcome(Verdict.HOLDS, Guarantee.EXACT))[1]


def test_verify_explains_on_stderr_alone(tmp_path, capsys, monkeypatch):
    network = difference(tmp_path / "d.onnx")
    question = box_property(tmp_path / "p.vnnlib", [(1, 2), (-2, -1)], "(<= Y_0 Y_1)", 2)
    monkeypatch.chdir(tmp_path)
    assert main(["verify", str(network), str(question), "--explain"]) == 0
    out, err = capsys.readouterr()
    assert out == "unsat\n" and "explanation of unsat:" in err and "bounds: decided" in err
    assert main(["verify", str(network), str(question), "--explain", "--quiet"]) == 0
    assert capsys.readouterr() == ("unsat\n", "")


def test_global_explains_its_samples(tmp_path, capsys):
    cube_study(tmp_path)
    words = ["global", "--generator", str(tmp_path / "g_{class}.onnx"), "--classifier", str(tmp_path / "c.onnx")]
    claim = ["--epsilon", "0.1", "--delta", "0.5", "-n", "40", "--class", "1", "--explain"]
    assert main([*words, *claim]) == 0
    err = capsys.readouterr().err
    assert "explanation of the local verdicts:" in err and "bounds proved" in err and "refuted" in err
    assert main([*words, "--frontier", "--explain"]) == 2


# ---- notebooks


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return cube_study(tmp_path_factory.mktemp("cube"))


def test_notebooks_show_results(study):
    network = study.composed(1)
    held = fg.verify(network, fg.latent_ball([0.0, 0.0], "0.1"), label=1)
    broken = fg.verify(network, fg.latent_ball([0.0, 0.0], "3"), label=1)
    assert "HOLDS" in held._repr_html_() and "float-sound" in held._repr_html_()
    shown = broken._repr_html_()
    assert "VIOLATED" in shown and f"{broken.counterexample.inputs[0]:.6g}" in shown
    assert Reason.TIMEOUT.value in _unknown()._repr_html_()
    bracket = fg.radius(network, np.zeros(2), 1, max_epsilon=3)[0]
    assert "lower" in bracket._repr_html_()
    certificate = fg.certify(study, "0.1", 0.5, samples=30)
    shown = certificate._repr_html_()
    assert "at confidence 99.9%" in shown and shown.count("<tr>") == 3
    curves = fg.frontier(study, "0.5", samples=8, timeout_seconds=5)
    assert "<svg" in curves._repr_html_() and curves._repr_html_() == curves.result._repr_html_()
    assert "eps 0.25" in curves._repr_html_()


def test_what_notebooks_show_is_escaped(study):
    query = local_robustness([Fraction(0)] * 2, "0.1", 1, 2)
    assert Replayer(study.composed(1)).replay(query, [Fraction(0)] * 2) is None
    noted = Outcome(Verdict.UNKNOWN, reason=Reason.TIMEOUT, notes=("<script>alert(1)</script>",))
    assert "<script>" not in noted._repr_html_() and "&lt;script&gt;" in noted._repr_html_()
