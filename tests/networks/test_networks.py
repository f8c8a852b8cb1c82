"""Network: pixels in, logits and scores out, the user's module untouched; and the networks that load by name."""

from __future__ import annotations

import copy
import hashlib
import io
import math
import pickle
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_inputs import Payload, tiny_module
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial.networks import (
    ZOO,
    best_targets,
    imagenet_classes,
    torchvision_models,
    weights_file,
    zoo,
)
from perturb_tutorial.networks.batch_invariance import batch_invariant
from perturb_tutorial.networks.class_table import class_labels
from perturb_tutorial.networks.hooks import of_this_thread


class Branches(nn.Module):
    """Functional parts, and a BatchNorm after a sum, which cannot be folded."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.na = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.b, self.nb = nn.Conv2d(6, 6, 3, padding=1, groups=3), nn.BatchNorm2d(6)
        self.c, self.nc = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, affine=False)
        self.out = nn.Linear(6, 2)
        for norm in (self.na, self.nb, self.nc):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.3, 3)

    def forward(self, x, two_readers=False):
        x = torch.relu(self.na(self.a(x)))
        x = torch.nn.functional.relu(self.nb(x + self.b(x)))
        y = self.c(x)
        y = self.nc(y) + (y if two_readers else 0)
        return self.out(y.mean((2, 3)))


class TwoReaders(Branches):
    """The last convolution feeds its BatchNorm and a sum: folding would change the sum."""

    def forward(self, x):
        return super().forward(x, two_readers=True)


@pytest.mark.parametrize(
    "module", [tiny_module(), Branches(), TwoReaders()], ids=["plain", "branches", "two readers"]
)
def test_folding_keeps_the_numbers(module):
    network = pt.Network(module, input_size=32, device="cpu")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.logits(images), module.eval()(images), atol=1e-4, rtol=1e-4)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in network._folded.modules())
    # Branches keeps the norm after the sum; TwoReaders cannot be folded safely and stays whole.
    assert norms == {"Sequential": 0, "Branches": 1, "TwoReaders": 3}[type(module).__name__]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.module.modules()) >= 2


@pytest.mark.parametrize("name", ["efficientnet_lite0", "googlenet"])
def test_folding_keeps_the_numbers_of_large_networks(name, lite0):
    network = lite0 if name == "efficientnet_lite0" else pt.seeded_network(name, device="cpu")
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network._folded.modules())
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.module(network.normalize(images))
        scale = expected.abs().max()
        torch.testing.assert_close(network.logits(images) / scale, expected / scale, atol=1e-4, rtol=0)
        torch.testing.assert_close(network.scores(images), expected.softmax(1), atol=1e-4, rtol=0)


def test_padding_is_absorbed_where_it_is_symmetric(lite0):
    def padded(module):
        return [layer for layer in module.modules() if isinstance(layer, nn.ZeroPad2d)]

    # 17 of its convolutions see more than one pixel; the 5 of stride 2 pad one side more than the other.
    assert len(padded(lite0.module)) == 17
    assert len(padded(lite0.folded)) == 5
    assert all(zeros.padding[0] != zeros.padding[1] for zeros in padded(lite0.folded))


def test_the_users_module_is_never_changed():
    module = tiny_module().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    network = pt.Network(module, input_size=32, device="cpu")
    network.scores(torch.rand(2, 3, 32, 32))
    pt.learn_masks(network, torch.rand(1, 3, 32, 32), 0, pt.MaskSettings(iterations=2))
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(parameter.grad is None for parameter in module.parameters())
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, before[key], atol=0, rtol=0)
    assert not any(parameter.requires_grad for parameter in network.module.parameters())
    assert not network.module.training


def test_normalization_is_owned_and_the_mean_color_maps_to_zero(tiny):
    color = tiny.mean_color.view(1, 3, 1, 1).expand(1, 3, 32, 32)
    torch.testing.assert_close(tiny.normalize(color), torch.zeros(1, 3, 32, 32))
    with torch.no_grad():
        torch.testing.assert_close(
            tiny.logits(color), tiny.module(torch.zeros(1, 3, 32, 32)), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("classes", [2, 20_000])
def test_any_number_of_classes(classes):
    network = pt.Network(
        tiny_module(classes), input_size=32, device="cpu", categories=[f"kind {i}" for i in range(classes)]
    )
    images = torch.rand(2, 3, 32, 32)
    assert network.scores(images).shape == (2, classes)
    assert network.categories[1] == "kind 1"
    assert network.class_index("kind 1") == 1
    masks = pt.learn_masks(network, images, [0, classes - 1], pt.MaskSettings(iterations=3))
    assert masks.mask.shape == (2, 1, 32, 32)


def test_top_classes_are_sorted(tiny, noise_images):
    top = pt.top_classes(tiny, noise_images, k=3)
    scores = tiny.scores(noise_images)
    assert top == scores.sort(1, descending=True).indices[:, :3].tolist()
    with pytest.raises(ValueError, match="k: expected a whole number from 1 to 5, got 6"):
        pt.top_classes(tiny, noise_images, k=6)


@pytest.mark.parametrize(("classes", "count", "taken"), [(5, 3, 3), (5, 5, 4), (5, 9, 4), (2, 5, 1)])
def test_targets_are_never_all_classes_whose_scores_always_sum_to_1(noise_images, classes, count, taken):
    network = pt.Network(tiny_module(classes), input_size=32, device="cpu")
    sets = best_targets(network, noise_images, count)
    assert sets == network.scores(noise_images).sort(1, descending=True).indices[:, :taken].tolist()


class WithLogits(nn.Module):
    """Returns an object with .logits, as some model libraries do."""

    def forward(self, inputs):
        return type("Output", (), {"logits": inputs.mean((2, 3))})()


class Spatial(nn.Module):
    def forward(self, inputs):
        return inputs


def test_outputs_with_logits_are_understood():
    assert pt.Network(WithLogits(), input_size=16, device="cpu").class_count == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pt.Network("resnet"), "module: expected an nn.Module that returns N×K logits, got str"),
        (
            lambda: pt.Network(Spatial(), input_size=8).class_count,
            r"N×K logits, got torch.float32 of shape \(1, 3, 8, 8\)",
        ),
        (
            lambda: pt.Network(tiny_module(1), input_size=32, categories=["cat"]),
            "module: expected at least 2 classes, got 1: a softmax over one class is always 1",
        ),
        (
            lambda: pt.Network(tiny_module(), input_size=4),
            "input_size: expected a whole number of at least 8",
        ),
        (lambda: pt.Network(nn.Linear(4, 2), input_size=32), "module: it fails on an input of 1×3×32×32"),
        (
            lambda: pt.Network(tiny_module(), mean=[0.5] * 2, input_size=32),
            "mean: expected 1, 3 or 4 numbers",
        ),
        (
            lambda: pt.Network(tiny_module(), mean=[0.5], input_size=32),
            "std: expected as many numbers as mean, 1",
        ),
        (lambda: pt.Network(tiny_module(), std=[1, 0, 1], input_size=32), "std: expected numbers above 0"),
        (lambda: pt.Network(tiny_module(), input_size=32, categories=["a"]), "categories: expected 5 names"),
        (lambda: pt.Network(tiny_module(), input_size=32, device="gpu"), "device: 'gpu' cannot be used here"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_the_wrong_form_are_named(tiny):
    for wrong, message in (
        (torch.rand(3, 32, 32), "got torch.float32 3×32×32"),
        (torch.rand(1, 3, 16, 16), "got torch.float32 1×3×16×16"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "got torch.uint8"),
        ("cat.jpg", "got str"),
    ):
        with pytest.raises(ValueError, match=f"images: expected a float tensor N×3×32×32.*{message}"):
            pt.learn_masks(tiny, wrong, 0)


def test_layers_by_name(tiny):
    assert tiny.layers == [str(index) for index in range(9)]
    assert isinstance(tiny.layer("3"), nn.Conv2d)
    with pytest.raises(ValueError, match="layer: Sequential has no layer 'conv9'; near it or first: 0, 1"):
        tiny.layer("conv9")


@pytest.mark.parametrize(
    ("text", "index"),
    [("285", 285), ("n02124075", 285), ("Egyptian cat", 285), ("egyptian CAT", 285), ("missile", 657), ("tench", 0),
     ("Cardigan", 264), ("cardigan", 474), ("tabby cat", 281)],
)  # fmt: skip
def test_class_names(text, index):
    assert imagenet_classes().find(text) == index


def test_a_name_comes_before_an_index():
    table = class_labels(["0", "1", "10", "2", " 7", "é", "Café", "n01440764"], 8)
    assert [table.find(text) for text in ("2", "10", "0", "7")] == [3, 2, 0, 4]
    assert [table.find(number) for number in (2, 3, np.int64(2), torch.tensor(2))] == [2, 3, 2, 2]
    assert [table.find(text) for text in ("3", "5")] == [3, 5]  # no class is called so
    assert table.find("e\u0301") == 5  # as a Mac types it
    assert table.find("CAFE\u0301") == 6
    for text in ("8", 8, -1, "9" * 5000):
        with pytest.raises(ValueError, match="expected a class index from 0 to 7") as refusal:
            table.find(text)
        assert len(str(refusal.value)) < 200
    for text in (True, None, 2.0, [2]):
        with pytest.raises(ValueError, match="expected a class index, wnid or exact class name"):
            table.find(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crane", r"'crane' is the name of 2 classes, give the index of one: 134 \(crane\); 517 \(crane\)"),
        ("panda", "the name of 2 classes"),
        ("zebr", "got 'zebr'; near it: zebra"),
        ("1000", "from 0 to 999, got 1000"),
        ("-3", "from 0 to 999, got -3"),
    ],
)
def test_unknown_and_ambiguous_names(text, message):
    with pytest.raises(ValueError, match=message):
        imagenet_classes().find(text)


def test_class_table_is_the_usual_order():
    table = imagenet_classes()
    assert len(table) == 1000
    assert table.wnids == sorted(table.wnids)
    assert len(set(table.wnids)) == 1000


@pytest.mark.parametrize("name", ["googlenet", "vgg16", "alexnet"])
def test_paper_networks_without_weights_say_what_to_do(name, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert weights_file(name) is None
    with pytest.raises(
        pt.WeightsUnavailable, match=rf"^{name}: its weights \(\d+ MB\) could not be downloaded.*weights=FILE"
    ) as caught:
        pt.load_network(name)
    assert "\n" not in str(caught.value)


def test_weights_from_a_file(tmp_path):
    module = torchvision_models().alexnet(weights=None)
    torch.save(module.state_dict(), tmp_path / "alexnet.pth")
    network = pt.load_network("alexnet", weights=tmp_path / "alexnet.pth", device="cpu")
    assert network.input_size == 227
    images = torch.rand(1, 3, 227, 227)
    with torch.no_grad():
        torch.testing.assert_close(
            network.logits(images), module.eval()(network.normalize(images)), atol=1e-4, rtol=1e-4
        )


def test_weights_that_do_not_fit_or_are_not_safe(tmp_path):
    with (tmp_path / "code.pth").open("wb") as file:
        pickle.dump({"weight": Payload()}, file)
    torch.save(Payload(), tmp_path / "code2.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("hello")
    for name, message in (
        ("code.pth", "not a file of tensors"),
        ("code2.pth", "not a file of tensors"),
        ("text.pth", "not a file of tensors"),
        ("other.pth", "do not fit alexnet"),
        ("list.pth", "should hold the state dict"),
        ("none.pth", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            pt.load_network("alexnet", weights=tmp_path / name)


def test_unknown_network_lists_what_there_is():
    with pytest.raises(
        ValueError, match=r"network: expected one of efficientnet_lite0, .*alexnet, got 'resnet50'"
    ):
        pt.load_network("resnet50")


@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_larger_lites_recognize_the_cat(name):
    if weights_file(name) is None:
        pytest.skip(f"{ZOO[name].package} is not installed (extra: lite)")
    network = pt.load_network(name, device="cpu")
    sample = pt.load_samples(network.input_size, names=["chelsea"])
    assert set(pt.top_classes(network, sample.images, k=3)[0]) & {281, 282, 285}


def test_seeded_networks_leave_the_global_generator_alone():
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    first = pt.seeded_network("alexnet", seed=1, device="cpu")
    assert torch.equal(torch.rand(1), expected)
    again, other = (pt.seeded_network("alexnet", seed=seed, device="cpu") for seed in (1, 2))
    images = torch.rand(1, 3, 227, 227, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(first.logits(images), again.logits(images))
        assert not torch.equal(first.logits(images), other.logits(images))


def test_steady_rows_change_no_number_and_are_given_back(lite0):
    images = torch.rand(5, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    hooks = [len(layer._forward_hooks) for layer in lite0.folded.modules()]
    with torch.no_grad():
        expected = lite0.logits(images)
        with batch_invariant(lite0.folded):
            for count in (1, 2, 3, 5):
                alone = lite0.logits(images[:count])
                assert alone.shape == (count, 1000)
                # Logits of some 10: float32 rounds at 1e-6.
                torch.testing.assert_close(alone, expected[:count], atol=2e-5, rtol=0)
        with pytest.raises(RuntimeError), batch_invariant(lite0.folded):
            lite0.folded(torch.rand(1, 4, 224, 224))
    assert [len(layer._forward_hooks) for layer in lite0.folded.modules()] == hooks
    assert lite0.logits(images[:1]).shape == (1, 1000)


class InPlace(nn.Module):
    """A rectifier between convolution and BatchNorm, in place or not."""

    def __init__(self, inplace):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm_1, self.norm_2 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.relu, self.out = nn.ReLU(inplace=inplace), nn.Linear(6, 4)
        for norm in (self.norm_1, self.norm_2):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.3, 3)

    def forward(self, x):
        x = self.norm_1(self.relu(self.first(x)))  # cannot be folded: the rectifier is in between
        return self.out(self.relu(self.norm_2(self.second(x))).mean((2, 3)))


def test_a_rectifier_in_place_is_not_folded_across():
    networks = [
        pt.Network(InPlace(inplace), mean=(0.5,) * 3, std=(0.25,) * 3, input_size=32, device="cpu")
        for inplace in (False, True)
    ]
    for network in networks:
        norms = [
            isinstance(layer, nn.BatchNorm2d) for layer in (network.folded.norm_1, network.folded.norm_2)
        ]
        assert norms == [True, False], "the second BatchNorm is folded, and only it"
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(networks[0].logits(x), networks[1].logits(x))


@pytest.mark.parametrize(
    "wrap", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm]
)
def test_a_weight_that_is_computed_is_left_unfolded(wrap):
    module = tiny_module()
    wrap(module[0])
    module.eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = pt.Network(module, mean=(0, 0, 0), std=(1, 1, 1), input_size=32, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(network.logits(x), module(x), atol=1e-5, rtol=1e-5)


class NoCopies(nn.Linear):
    def __deepcopy__(self, memo):
        raise RuntimeError("only leaves can be copied")


def test_a_module_that_cannot_be_copied_is_named():
    module = nn.Sequential(nn.Flatten(), NoCopies(3 * 32 * 32, 4))
    with pytest.raises(
        ValueError, match=r"module: it cannot be copied and frozen \(RuntimeError: only leaves"
    ):
        pt.Network(module, mean=(0, 0, 0), std=(1, 1, 1), input_size=32)


def test_a_network_made_in_inference_mode_can_be_explained(noise_images):
    with torch.inference_mode():
        network = pt.Network(tiny_module(), mean=(0, 0, 0), std=(1, 1, 1), input_size=32, device="cpu")
        moved = copy.copy(network)
    images = noise_images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(moved.logits(images)[:, 0].sum(), images)
    assert slope.abs().sum() > 0


def test_pixels_of_another_precision_are_taken(tiny, noise_images):
    expected = tiny.scores(noise_images)
    torch.testing.assert_close(tiny.scores(noise_images.double()), expected)
    torch.testing.assert_close(
        tiny.scores(noise_images.half()), expected, atol=2e-3, rtol=0
    )  # 11 bits of a pixel


@pytest.mark.parametrize("device", ["meta", "hpu", "cpu:x", "toaster"])
def test_a_device_without_numbers_is_refused(device):
    with pytest.raises(ValueError, match="cannot be used here; expected auto, cpu, cuda or mps"):
        pt.networks.pick_device(device)


def test_loading_leaves_the_callers_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    pt.load_network("efficientnet_lite0", device="cpu")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"\x80\x04garbage"], ids=["empty", "page", "garbage"]
)
def test_a_damaged_download_is_named(monkeypatch, tmp_path, content):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    url = torchvision_models().get_model_weights("alexnet").IMAGENET1K_V1.url
    path = tmp_path / "checkpoints" / url.rpartition("/")[2]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"its SHA-256 begins with \w{8}, not 7be5be79; delete it") as caught:
        pt.load_network("alexnet")
    assert str(path) in str(caught.value)


def test_a_file_in_the_cache_is_checked_by_its_hash_each_time(monkeypatch, tmp_path):
    """A flipped bit in a weight is nothing that torch.load would notice."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    parts = (
        nn.Conv2d(3, 4, 11, stride=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 1000),
    )
    monkeypatch.setitem(ZOO, "alexnet", replace(ZOO["alexnet"], build=lambda: nn.Sequential(*parts)))
    whole = io.BytesIO()
    torch.save(nn.Sequential(*parts).state_dict(), whole, _use_new_zipfile_serialization=False)
    digest = hashlib.sha256(whole.getvalue()).hexdigest()
    monkeypatch.setattr(zoo, "_weights_url", lambda name: f"https://weights.example/{name}-{digest[:8]}.pth")
    path = tmp_path / "checkpoints" / f"alexnet-{digest[:8]}.pth"
    path.write_bytes(whole.getvalue())
    pt.load_network("alexnet", device="cpu")
    with path.open("r+b") as file:
        file.seek(-1001, io.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1001, io.SEEK_END)
        file.write(bytes([byte ^ 1]))
    state = torch.load(path, weights_only=True)
    assert any(
        not torch.equal(state[name], value) for name, value in nn.Sequential(*parts).state_dict().items()
    )
    with pytest.raises(ValueError, match=rf"is damaged or another file: .*not {digest[:8]}; delete it"):
        pt.load_network("alexnet", device="cpu")


def test_values_that_are_no_weights_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    whole = ZOO["efficientnet_lite0"].build().state_dict()
    name = next(key for key, value in whole.items() if value.dim() == 4)
    for value, said in (
        (whole[name].half(), rf"{name} is torch.float16 torch.strided, expected torch.float32 torch.strided"),
        (whole[name].double(), "is torch.float64"),
        (torch.complex(whole[name], whole[name]), "is torch.complex64"),
        (whole[name].to_sparse(), "is torch.float32 torch.sparse_coo"),
        (torch.full_like(whole[name], math.nan), f"{name} holds NaN or infinity"),
        (whole[name] / 0, "holds NaN or infinity"),
    ):
        torch.save(whole | {name: value}, path)
        with pytest.raises(ValueError, match=said) as caught:
            pt.load_network("efficientnet_lite0", weights=path, device="cpu")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    """Torch would unpack it: 1 MB that fills a gigabyte."""
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    assert torch.load(tmp_path / "packed.pth")["weight"].shape == (1000,)
    with pytest.raises(ValueError, match="is not a file of tensors"):
        pt.load_network("efficientnet_lite0", weights=tmp_path / "packed.pth", device="cpu")


def test_a_state_with_other_keys_than_names_is_refused(tmp_path):
    path = tmp_path / "state.pth"
    torch.save({3: torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="should hold the state dict"):
        pt.load_network("efficientnet_lite0", weights=path)


class Probabilities(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x).softmax(1)


def test_a_softmax_at_the_end_is_refused():
    with pytest.raises(ValueError, match="expected logits, got probabilities, which sum to 1"):
        pt.Network(Probabilities(tiny_module()), mean=(0, 0, 0), std=(1, 1, 1), input_size=32).class_count  # noqa: B018


@pytest.mark.parametrize(("change", "got"), [(lambda x: 255 * x, "to 2"), (lambda x: 4 * x - 2, "-2 to")])
def test_pixels_outside_of_their_range_are_refused(tiny, noise_images, change, got):
    images = change(noise_images / noise_images.max() * 0.999)
    images[0, 0, 0, 0] = change(torch.tensor(0.0))
    for use in (lambda: pt.learn_masks(tiny, images, 0), lambda: pt.saliency(tiny, images, 0, "gradient")):
        with pytest.raises(ValueError, match=r"in \[0, 1\], got .*" + got):
            use()
    # An enlargement by splines overshoots a little.
    nearly = noise_images.clamp(0, 1)
    nearly[0, 0, 0, 0], nearly[0, 0, 0, 1] = -0.005, 1.005
    assert tiny.check_images(nearly) is nearly


def test_a_scripted_module_is_told():
    with pytest.raises(ValueError, match="module: it cannot be copied and frozen"):
        pt.Network(torch.jit.script(tiny_module()), mean=(0, 0, 0), std=(1, 1, 1), input_size=32)


def test_a_hook_leaves_the_passes_of_other_threads_alone():
    layer, x = nn.Identity(), torch.ones(1)
    handle = layer.register_forward_hook(of_this_thread(lambda _, inputs, output: 2 * output))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(layer, x).result() == 1
    assert layer(x) == 2
    handle.remove()
