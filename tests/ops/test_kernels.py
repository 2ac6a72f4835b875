"""Private functions of torch: in one place, tried once, and never missed where they are gone."""

import ast
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import videonet
from videonet.ops.kernels import cpu, private
from videonet.ops.kernels.probing import Kernel, Question
from videonet.ops.tracing import is_traced

PACKAGE = Path(videonet.__file__).parent
KERNELS = {name: k for name, k in vars(cpu).items() if isinstance(k, Kernel)}
QUESTIONS = {name: q for name, q in vars(private).items() if isinstance(q, Question)}
PUBLIC_UNDERSCORES = ("__version__", "__future__")


def chain(node: ast.AST) -> list[str]:
    """The names of ``a.b.c``; empty for other expressions."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def private_uses(path: Path) -> list[str]:
    """Names of torch with a leading underscore, and operators called past torch's functions."""
    tree = ast.parse(path.read_text())
    aliases = {"torch": "torch"}  # name in this file -> what it is in torch
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            for name in node.names:
                full = f"{module}.{name.name}" if module else name.name
                if full.split(".")[0] == "torch":
                    aliases[name.asname or name.name.split(".")[0]] = full if module else "torch"
                    found.append(full)
    for node in ast.walk(tree):
        names = chain(node)
        if names and names[0] in aliases:
            found.append(".".join([aliases[names[0]], *names[1:]]))
    return sorted(
        {
            name
            for name in found
            if any(
                part.startswith("_") and part not in PUBLIC_UNDERSCORES for part in name.split(".")
            )
            or name.startswith(("torch.ops.aten", "torch.ops.mkldnn", "torch.mkldnn_"))
        }
    )


def test_private_functions_are_in_one_place():
    kernels = PACKAGE / "ops" / "kernels"
    uses = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob("*.py")
        if kernels not in path.parents and (names := private_uses(path))
    }
    assert not uses
    assert private_uses(kernels / "cpu.py")  # the search finds them where they are


@pytest.fixture
def untried(monkeypatch, caplog):
    """Nothing has been tried yet, and what is logged is kept."""
    for probed in (*KERNELS.values(), *QUESTIONS.values()):
        monkeypatch.setattr(probed, "trusted", {})
    caplog.set_level(logging.WARNING, "videonet")
    return caplog


def missing(*arguments):
    raise AttributeError("no such function in this torch")


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_tried_once_for_each_type(name, untried):
    kernel = KERNELS[name]
    trials = []
    example = kernel.example
    kernel_example = lambda dtype: trials.append(dtype) or example(dtype)  # noqa: E731
    kernel.example = kernel_example
    try:
        for _ in range(3):
            arguments = example(torch.float32)
            torch.testing.assert_close(
                kernel(*arguments), kernel.plain(*arguments), rtol=1e-4, atol=1e-4
            )
    finally:
        kernel.example = example
    assert trials == [torch.float32]


@pytest.mark.parametrize("fault", ["missing", "raises later", "other numbers", "other shape"])
@pytest.mark.parametrize("name", KERNELS)
def test_plain_operators_take_over_with_one_line(name, fault, untried, monkeypatch):
    kernel = KERNELS[name]
    arguments = kernel.example(torch.float32)
    good = kernel.fast
    if fault == "raises later":
        kernel(*arguments)
    faulty = {
        "missing": missing,
        "raises later": missing,
        "other numbers": lambda *a: good(*a) * 1.01,
        "other shape": lambda *a: good(*a)[..., :1],
    }
    monkeypatch.setattr(kernel, "fast", faulty[fault])
    for _ in range(3):
        torch.testing.assert_close(kernel(*arguments), kernel.plain(*arguments))
    (line,) = [r.getMessage() for r in untried.records]
    assert kernel.name in line and torch.__version__ in line


def test_wrong_arguments_are_torchs_errors_and_no_fault_of_the_kernel(untried):
    x, weight = torch.randn(3, 5), torch.randn(2, 4)
    with pytest.raises(RuntimeError, match="shapes"):
        cpu.PRODUCT(x, weight, None)
    assert cpu.PRODUCT.trust(torch.float32)
    assert not untried.records


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_are_answered(name, untried):
    question = QUESTIONS[name]
    assert question() is False
    assert question.when_so(question) is True
    assert question() is False
    assert not untried.records


@pytest.mark.parametrize("fault", ["missing", "always no", "raises later"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_that_cannot_be_asked_means_plain_operators(name, fault, untried, monkeypatch):
    question = QUESTIONS[name]
    if fault == "raises later":
        question()
    monkeypatch.setattr(question, "ask", (lambda: False) if fault == "always no" else missing)
    assert all(question() for _ in range(3))
    assert name == "has_global_hooks" or is_traced()
    (line,) = [r.getMessage() for r in untried.records]
    assert question.name in line


def test_a_trial_sees_nothing_of_its_surroundings(untried):
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert cpu.PRODUCT.trust(torch.float32)

    def function(x):
        assert private.in_function_transform()
        return x

    torch.func.vmap(function)(torch.zeros(2))
    assert not untried.records


@pytest.mark.parametrize("gone", ["all", "products", "questions"])
def test_models_run_without_any_private_function(gone, untried, monkeypatch, small_pieces):
    model = videonet.create_model("mvit_v2_xs", num_classes=3, num_frames=4, crop_size=32).eval()
    clip = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    results = []
    for _ in range(2):
        model.zero_grad()
        y = model(clip)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.parameters())])
        for probed in (*KERNELS.values(), *QUESTIONS.values()):
            if gone == "all" or (gone == "products") == isinstance(probed, Kernel):
                monkeypatch.setattr(
                    probed, "fast" if isinstance(probed, Kernel) else "ask", missing
                )
                monkeypatch.setattr(probed, "trusted", {})
    for found, expected in zip(*reversed(results), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    lines = [r.getMessage() for r in untried.records]
    assert lines and len(lines) == len(set(lines))


def test_import_tries_nothing():
    script = (
        "import gc, videonet.models\n"
        "from videonet.ops.kernels.probing import Probed\n"
        "probed = [x for x in gc.get_objects() if isinstance(x, Probed)]\n"
        "assert len(probed) > 5 and not any(x.trusted for x in probed)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_recomputation_may_stop_within_a_kernel(untried):
    """torch stops a recomputation by an exception as soon as all tensors are there again."""
    arguments = cpu.CONVOLUTION.example(torch.float32)
    x = arguments[0].requires_grad_()
    y = checkpoint(cpu.CONVOLUTION, x, *arguments[1:], use_reentrant=False)
    y.square().sum().backward()
    assert x.grad.any() and not untried.records
