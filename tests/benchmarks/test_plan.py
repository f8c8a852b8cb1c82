"""The plan is a pure function of data and settings: each question once a method, in batches that never change."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import pytest
from benchmark_cases import write_coco

from perturb_tutorial.benchmarks import BenchmarkData, BenchmarkSettings, Plan, plan_benchmark, read_data
from perturb_tutorial.benchmarks.plan import digest, limited

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")

BOX = (4.0, 4.0, 12.0, 12.0)


@pytest.fixture
def data(tmp_path) -> BenchmarkData:
    return write_coco(tmp_path, 7, [(1, BOX), (2, BOX)])


def asked(plan: Plan, numbers: list[int]) -> list[tuple[object, int, str]]:
    return [
        (q.image.id, q.category, batch.method)
        for n in numbers
        for batch in [plan.batch(n)]
        for q in batch.questions
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 14, 100])
def test_every_question_is_asked_of_every_method_once(data: BenchmarkData, batch_size: int) -> None:
    settings = BenchmarkSettings(methods=("gradient", "grad_cam"), batch_size=batch_size)
    plan = plan_benchmark("pointing-game", data, settings)
    assert plan.methods == ("center", "gradient", "grad_cam")
    found = asked(plan, list(range(len(plan))))
    wanted = {
        (image, category, method) for image in range(1, 8) for category in (1, 2) for method in plan.methods
    }
    assert len(found) == plan.records == 7 * 2 * 3
    assert set(found) == wanted
    assert max(len(plan.batch(n).questions) for n in range(len(plan))) == min(batch_size, 14)
    # What is left of a run is the same batches.
    rest = list(plan.without({0, 2}))
    assert [batch.number for batch in rest] == [n for n in range(len(plan)) if n not in (0, 2)]
    assert rest[0] == plan.batch(1)


def test_a_limit_draws_images_by_seed_and_a_smaller_one_is_part_of_a_larger_one(data: BenchmarkData) -> None:
    questions = data.questions()
    drawn = [{q.image.id for q in limited(questions, count, seed=1)} for count in range(1, 8)]
    assert [len(images) for images in drawn] == [1, 2, 3, 4, 5, 6, 7]
    assert all(small < large for small, large in pairwise(drawn))
    assert {q.image.id for q in limited(questions, 3, seed=2)} != drawn[2]
    # All categories of an image stay together, in the plan's order.
    assert limited(questions, 3, seed=1) == [q for q in questions if q.image.id in drawn[2]]


def test_the_digest_sees_what_a_record_depends_on(data: BenchmarkData) -> None:
    questions = data.questions()
    first = digest(questions)
    assert digest(data.questions()) == first
    assert digest(questions[1:]) != first
    image = questions[0].image
    moved = dataclasses.replace(
        image, instances=(dataclasses.replace(image.instances[0], box=(5, 4, 12, 12)),)
    )
    for changed in (
        dataclasses.replace(questions[0], targets=(4,)),
        dataclasses.replace(questions[0], category=3),
        dataclasses.replace(questions[0], image=moved),
    ):
        assert digest([changed, *questions[1:]]) != first


def test_the_first_images_of_each_class(data: BenchmarkData) -> None:
    plan = plan_benchmark("pointing-game", data, BenchmarkSettings(per_class=2))
    assert [(q.image.id, q.category) for q in plan.questions] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_the_samples_ask_about_mapped_categories_with_their_classes() -> None:
    plan = plan_benchmark("pointing-game", read_data("pointing-game"))
    by_name = {}
    for question in plan.questions:
        by_name.setdefault(question.name, set()).update(question.targets)
    assert {281, 285} <= by_name["cat"]
    assert by_name["strawberry"] == {949}
    assert "person" not in by_name
    parts = plan_benchmark("animal-parts", read_data("animal-parts"), BenchmarkSettings(minimum_images=0))
    assert all(len(question.targets) == 1 for question in parts.questions)
    assert len(parts.questions) >= 6


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"methods": ("grad_cam", "nonsense")}, "methods: expected some of .*grad_cam.*, got 'nonsense'"),
        ({"methods": ("grad_cam", "grad_cam")}, "methods: expected each once"),
        ({"limit": 0}, "limit: expected a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected"),
        (
            {"mask_engine": "nonsense"},
            "mask_engine: expected one of torch, onnx, compile, auto, got 'nonsense'",
        ),
        ({"held_out_share": 1.0}, "held_out_share: expected a share between 0 and 1"),
    ],
)
def test_wrong_settings_are_one_line(data: BenchmarkData, settings: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        plan_benchmark("pointing-game", data, BenchmarkSettings(**settings))  # type: ignore[arg-type]


def test_two_images_with_one_id_are_refused_before_anything_is_computed(data: BenchmarkData) -> None:
    first, second, *rest = data.dataset.images
    twice = (first, dataclasses.replace(second, id=first.id), *rest)
    data = dataclasses.replace(data, dataset=dataclasses.replace(data.dataset, images=twice))
    with pytest.raises(
        ValueError, match=r"data: expected an id of its own .* got 1 for .*0000\.png and .*0001\.png"
    ):
        plan_benchmark("faithfulness", data)


def test_other_data_in_cocos_format_are_refused_and_cocos_own_names_are_not(tmp_path) -> None:
    from perturb_tutorial.files import read_table

    names = {int(row["category_id"]): row["category"] for row in read_table("coco_to_imagenet.csv")}
    assert len(names) == 80
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()

    def read(changes: dict[int, str]) -> BenchmarkData:
        categories = [{"id": key, "name": name} for key, name in (names | changes).items()]
        content = {"images": [], "annotations": [], "categories": categories}
        (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
        return read_data("pointing-game", tmp_path)

    assert read({}).dataset.categories == names
    # Other ids are other data's own business: they are not asked about.
    assert read({91: "hat", 11: "Fire_Hydrant"}).dataset.categories[91] == "hat"
    with pytest.raises(ValueError, match="data: category 16 is 'car', COCO's is 'bird'; use BenchmarkData"):
        read({16: "car"})


def test_unknown_names_and_data_without_use_are_one_line(data: BenchmarkData, tmp_path) -> None:
    with pytest.raises(ValueError, match="benchmark: expected one of pointing-game"):
        plan_benchmark("pointing", data)
    with pytest.raises(ValueError, match="needs segments"):
        plan_benchmark("pointing-game", BenchmarkData(data.dataset))
    with pytest.raises(ValueError, match="no image with a class"):
        plan_benchmark("pointing-game", BenchmarkData(data.dataset, {99: (1,)}))
    with pytest.raises(ValueError, match=r"data: .* is not a folder"):
        read_data("pointing-game", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected COCO's annotations"):
        read_data("pointing-game", tmp_path)
