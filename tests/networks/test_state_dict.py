"""Files of weights as training scripts leave them: under whatever names, in whatever format; what
cannot be read is refused without advice to run it.
"""

import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from tests.helpers import network_of
from transferability.errors import UserError
from transferability.networks.pretrained import _head, load_pretrained, pretrained_state_dict

SIZE = 32


def network(key="torchvision shufflenet_v2_x0_5"):  # small: 1.4 million parameters
    return network_of(key, input_size=SIZE)


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    return replace(network(), outputs=5).build().state_dict()


def below(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def opened(tmp_path, values, name="w.pth", key=None):
    torch.save(values, tmp_path / name)
    return load_pretrained(str(tmp_path / name), network(key) if key else network())


def drawn(module):
    return {name: torch.ones_like(tensor) for name, tensor in module.state_dict().items()}


# Of the same values as `tensors`: what is in the file, and what is said of it.
FILES = {
    "Lightning, a loss with weights": lambda t: (
        {"state_dict": below("model.", t) | {"criterion.weight": torch.ones(5)}},
        [
            "taken from its 'state_dict'",
            "'model.' removed from the names below it; criterion.weight",
        ],
    ),
    "Lightning, net": lambda t: (
        {"state_dict": below("net.", t), "epoch": 3},
        ["taken from its 'state_dict'", "'net.' removed from all names"],
    ),
    "compiled inside of Lightning": lambda t: (
        below("model._orig_mod.", t),
        ["'model._orig_mod.' removed from all names"],
    ),
    "MoCo": lambda t: (
        below("module.encoder_q.", t)
        | below("module.encoder_k.", {n: v + 1 for n, v in t.items()})
        | {"module.queue": torch.ones(3, 4)},
        ["'module.encoder_q.' removed from the names below it; module.encoder_k.conv1.0.weight"],
    ),
    "BYOL": lambda t: (
        below("target_encoder.", {n: v + 1 for n, v in t.items()}) | below("online_encoder.", t),
        ["'online_encoder.' removed from the names below it; target_encoder.conv1.0.weight and"],
    ),
    "DINO": lambda t: (
        {"student": {n: v + 1 for n, v in t.items()}, "teacher": below("module.", t)},
        ["taken from its 'teacher'", "'module.' removed from all names"],
    ),
    "a key of its own": lambda t: (
        {"my weights": t, "optimizer": {"state": {0: {"step": torch.ones(1)}}}, "best": 0.9},
        ["taken from its 'my weights'"],
    ),
    "net": lambda t: ({"net": t, "acc": 91.2}, ["taken from its 'net'"]),
    "params": lambda t: ({"params": t}, ["taken from its 'params'"]),
    "averaged": lambda t: (
        {"params": {n: v + 1 for n, v in t.items()}, "params_ema": t},
        ["taken from its 'params_ema'"],
    ),
    "averages that are not kept": lambda t: (
        {"ema": {"decay": 0.999, "updates": 3}, "model_ema": {}, "model": t},
        ["taken from its 'model'"],
    ),
    "the settings of a model": lambda t: (
        {"model": {"name": "x", "width": 0.5}, "weights": t},
        ["taken from its 'weights'"],
    ),
    "a head after dropout": lambda t: (
        {n: v for n, v in t.items() if not n.startswith("fc.")}
        | {f"fc.1.{kind}": t[f"fc.{kind}"] for kind in ("weight", "bias")},
        ["fc.1 read as its classifier"],
    ),
}


@pytest.mark.parametrize("which", FILES)
def test_names_that_training_scripts_give(tensors, tmp_path, which):
    plain = opened(tmp_path, tensors, "plain.pth")
    values, said = FILES[which](tensors)
    pretrained = opened(tmp_path, values)
    assert pretrained.digest == plain.digest and pretrained.network.outputs == 5
    assert len(pretrained.facts.notes) == len(said) + len(plain.facts.notes)
    assert all(
        note.startswith(word) for word, note in zip(said, pretrained.facts.notes, strict=False)
    )


def test_a_head_of_another_shape_is_left_out(tensors, tmp_path):
    """Also one that is outside of the network, and one that takes fewer features."""
    headless = {n: t for n, t in tensors.items() if not n.startswith("fc.")}
    plain = opened(tmp_path, headless, "plain.pth")
    two = drawn(nn.Sequential(nn.Linear(1024, 8), nn.ReLU(), nn.Linear(8, 3)))
    outside = below("backbone.", headless) | {"classifier.weight": torch.zeros(5, 1024)}
    narrow = headless | {"fc.weight": torch.zeros(3, 8), "fc.bias": torch.zeros(3)}
    cases = (
        (headless | below("fc.", two), "its head (fc.0.weight and 3 more) differs"),
        (outside, "'backbone.' removed from the names below it; classifier.weight left out"),
        (narrow, "its head (fc.weight and 1 more) differs"),
    )
    for i, (values, said) in enumerate(cases):
        pretrained = opened(tmp_path, values, f"{i}.pth")
        assert pretrained.digest == plain.digest and pretrained.network.outputs == 1000
        assert pretrained.facts.notes[0].startswith(said)
        assert pretrained.facts.notes[1] == "without a classifier, which no network takes over"
        assert not any(".fc." in name for name in pretrained_state_dict(pretrained))


@pytest.mark.parametrize(
    ("model", "head"),
    [
        ("resnet18", "fc"),
        ("vgg11", "classifier.6"),
        ("mobilenet_v2", "classifier"),
        ("mobilenet_v3_small", "classifier.3"),
        ("squeezenet1_1", "classifier"),
        ("vit_b_32", "heads"),
    ],
)
def test_the_head_is_the_outermost_module_that_only_the_top_layer_has(model, head):
    with torch.device("meta"):
        names = models.get_model(model, weights=None, num_classes=2).state_dict()
    last = [name for name in names if name.endswith(".weight")][-1].removesuffix(".weight")
    top = {f"{last}.weight", f"{last}.bias"}
    assert _head(f"{last}.weight", top, set(names)) == head


def test_the_first_bytes_say_the_format(tensors, tmp_path):
    wanted = opened(tmp_path, tensors).digest
    for name in ("pytorch_model.bin", "blob", "w.ckpt"):
        safetensors.torch.save_file(tensors, tmp_path / name)
        assert load_pretrained(str(tmp_path / name), network()).digest == wanted
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load_pretrained(str(tmp_path / "old.pt"), network()).digest == wanted


def refused(tmp_path):
    """Path -> words of the refusal."""
    page, pointer, keras = (tmp_path / name for name in ("page.pth", "p.safetensors", "k.bin"))
    page.write_text("\n<!DOCTYPE html><html>404: Not Found</html>")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0000\n")
    keras.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    packed, script, model = (tmp_path / name for name in ("w.zip.pt", "script.pt", "whole.pth"))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("w.pth", b"none")
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), script)
    torch.save(nn.Linear(2, 3), model)
    program = tmp_path / "mine.pt2"
    torch.export.save(torch.export.export(nn.Linear(2, 3), (torch.ones(1, 2),)), program)
    scalar, text = tmp_path / "scalar.pth", tmp_path / "text.bin"
    torch.save({"model": {"a": torch.ones(1)}, "best": np.float64(0.9)}, scalar)
    text.write_text("{}")
    return {
        page: "a web page",
        pointer: "`git lfs pull`",
        keras: "a Keras file",
        packed: "it is truncated, or not a weights file",
        script: "torch.save(torch.jit.load(FILE).state_dict(), NEW)",
        program: "a torch.export program, not weights: export the run with out=FILE.safetensors",
        model: "holds more than tensors (torch.nn.modules.linear.Linear)",
        scalar: "multiarray.scalar), and reading it would run code",
        text: "it is truncated, or not a weights file",
    }


def test_no_message_advises_to_run_what_is_in_a_file(tmp_path):
    for path, words in refused(tmp_path).items():
        with pytest.raises(UserError) as error:
            load_pretrained(str(path), network())
        message = str(error.value)
        assert words in message and "\n" not in message
        assert not re.search("weights_only|arbitrary|trusted source|github|pytorch.org", message)


def test_what_the_refusal_of_a_program_offers_works(tensors, tmp_path):
    model = replace(network(), outputs=5).build()
    model.load_state_dict(tensors)
    torch.jit.save(torch.jit.script(model.eval()), tmp_path / "script.pt")
    with pytest.raises(UserError, match="TorchScript"):
        load_pretrained(str(tmp_path / "script.pt"), network())
    state = torch.jit.load(tmp_path / "script.pt").state_dict()
    assert opened(tmp_path, dict(state)).digest == opened(tmp_path, tensors, "p.pth").digest


def test_two_networks_in_one_file_are_named(tensors, tmp_path):
    with pytest.raises(UserError, match=r"fit below 'left\.' and below 'right\.': save one"):
        opened(tmp_path, below("left.", tensors) | below("right.", tensors))
    with pytest.raises(UserError, match="tensors below left and below right: save one of them"):
        opened(tmp_path, {"left": tensors, "right": tensors, "epoch": 1})


def test_a_network_that_asks_for_its_version_is_read(tmp_path):
    """MNASNet refuses tensors without one, which safetensors does not keep."""
    torch.manual_seed(0)
    own = models.mnasnet0_5(num_classes=3).state_dict()
    safetensors.torch.save_file(own, tmp_path / "w.safetensors")
    asked = network("torchvision mnasnet0_5")
    pretrained = load_pretrained(str(tmp_path / "w.safetensors"), asked)
    assert pretrained.digest == opened(tmp_path, own, key="torchvision mnasnet0_5").digest
    state = pretrained_state_dict(pretrained)
    read = {name.split(".", 2)[2]: t for name, t in state.items() if name != "input.mean"}
    assert read.keys() == own.keys() and all(torch.equal(read[name], own[name]) for name in own)
