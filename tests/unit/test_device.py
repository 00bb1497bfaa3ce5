"""Where bounds are computed: the same verdicts by torch, and one line where there is no GPU."""

import sys
from functools import partial
from types import SimpleNamespace
from unittest import mock

import pytest

from formalgr.cli import options as cli_options
from formalgr.cli.certifying import default_jobs
from formalgr.cli.main import main
from formalgr.core.arrays import Arrays
from formalgr.core.errors import MissingDependency, UsageError
from formalgr.global_robustness.prior import LatentPrior
from formalgr.global_robustness.samples import SampleChecker
from formalgr.graph.compose import compose
from formalgr.graph.network import load
from formalgr.runs import cluster
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.verify import options
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(options, "has_gpu", lambda: False)


def test_the_command_knows_the_devices_of_the_library():
    assert cli_options.DEVICES == options.DEVICES


def test_a_gpu_that_is_not_there_is_one_line(without_gpu, capsys):
    assert main(["demo", "-n", "10", "--device", "cuda"]) == 4
    err = capsys.readouterr().err
    assert "cuda" in err and "auto" in err and err.count("\n") == 1


def test_bad_devices(without_gpu):
    with pytest.raises(UsageError, match="tpu"):
        VerifyOptions(device="tpu")
    with pytest.raises(MissingDependency, match="no such device"):
        VerifyOptions(device="cuda")


def test_auto_takes_a_gpu_where_there_is_one(without_gpu):
    assert VerifyOptions(device="auto").arrays == Arrays()
    with mock.patch.object(options, "has_gpu", lambda: True), mock.patch.object(options, "Arrays") as made:
        assert VerifyOptions(device="auto").arrays is made.return_value
        made.assert_called_once_with("torch", device="cuda")


def test_torch_decides_the_same():
    """Roots, boxes below them and violations; what runs on a GPU runs here on the CPU."""
    pytest.importorskip("torch")
    network = compose(load("networks/digits/g_8.onnx"), load("networks/digits/c_32_32.onnx"))
    latents, unsafe = LatentPrior(8).sample(3, 8, 0, 12), wrong_label(8, 10)
    queries = [Query(latent_ball(z, epsilon), unsafe) for z in latents for epsilon in ("0.05", "0.25")]
    plain = verify_batch(network, queries)
    with mock.patch.object(VerifyOptions, "arrays", Arrays("torch")):
        torch = verify_batch(network, queries)
    assert [one.verdict for one in torch] == [one.verdict for one in plain]
    assert {str(one.stage) for one in plain} >= {"Stage.BOUNDS", "Stage.BRANCH"}


def test_actors_ask_for_the_gpus_that_work_needs(monkeypatch):
    """A stand-in for Ray: one actor a GPU of the cluster, and one line where it has none."""
    asked, resources = [], {"CPU": 8.0, "GPU": 2.0}
    ray = SimpleNamespace(
        put=lambda value: value,
        remote=lambda function: SimpleNamespace(options=lambda **options: asked.append(options)),
        cluster_resources=lambda: resources,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    local = SimpleNamespace(gpus=1)
    cluster.Actors(partial(SampleChecker, None, None, 0)(local), None)
    cluster.Actors(abs, None)
    assert [one["num_gpus"] for one in asked] == [1, 0]
    assert cluster._room(local) == 2 and cluster._room(abs) == 8
    resources["GPU"] = 0.0
    with pytest.raises(MissingDependency, match="no GPU"):
        cluster._room(local)


def test_work_on_a_gpu_is_one_process(monkeypatch):
    monkeypatch.setattr(options, "has_gpu", lambda: True)
    assert VerifyOptions(device="cuda").gpus == 1 and VerifyOptions(device="auto").gpus == 0
    args = SimpleNamespace(engine="local", device="cuda")
    assert default_jobs(args, None, 10**6) == 1
