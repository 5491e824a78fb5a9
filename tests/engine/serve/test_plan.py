"""An open plan without HTTP: what it opens, what it refuses, and batches of several shapes on one device graph."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ContractError, InputError, PlanError
from engine.fusion.evidence import Evidence
from engine.models.runtimes import GRAPH_ON_CPU, RuntimeOptions
from engine.serve.plan import ServedPlan
from tests.helpers.foreign_nets import save_foreign
from tests.helpers.nets import save_member, save_net
from tests.helpers.serving import write_plan
from tests.helpers.world import World


def test_a_plan_a_net_and_a_folder_are_opened(world: World, tmp_path: Path) -> None:
    plan = ServedPlan.open(write_plan(tmp_path, world.models, 'strategy = "vote"'))
    assert (plan.name, plan.ensemble.variant.strategy, len(plan.ensemble.members)) == ("ensemble", "vote", 3)
    assert ServedPlan.open(world.models).name == "models"
    one = ServedPlan.open(world.models / "a.onnx", name="terrain", workers=3, batch_size=7)
    assert (one.name, one.workers, one.batch_of((4000, 4000))) == ("terrain", 3, 7)
    # Without a stated size large images come in smaller batches.
    assert (plan.batch_of((64, 128)), plan.batch_of((4000, 4000))) == (16, 1)
    assert one.sha256 == ServedPlan.open(world.models / "a.onnx").sha256 != plan.sha256


def test_images_of_any_sizes_are_predicted_in_their_order(world: World) -> None:
    plan = ServedPlan.open(world.models, batch_size=4)
    draw = np.random.default_rng(1)
    images = [
        draw.integers(0, 240, ((8, 16), (5, 7, 1), (8, 16, 1))[number % 3]).astype(
            (np.uint8, np.float32)[number % 4 == 3]
        )
        for number in range(23)
    ]
    found = plan.predict_each(images, Evidence(doubt="entropy", doubt_type="float32"))
    for image, answer in zip(images, found, strict=True):
        told = plan.ensemble.predict(image[None], doubt="entropy", doubt_type="float32")
        assert (answer.mask == told.masks[0]).all()
        assert (answer.doubt == told.doubt[0]).all()
    with pytest.raises(InputError, match="images have 3 channels"):
        plan.predict_each([np.zeros((4, 4, 3), np.uint8)])


def test_views_that_a_net_or_an_image_does_not_take_are_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    save_member(tmp_path / "nets" / "a.onnx", 1, size=(12, 14), promised={"size": (12, 14)})
    with pytest.raises(PlanError, match=r"view transpose makes 14x12 of 12x14, and a\.onnx takes 12x14 alone"):
        ServedPlan.open(write_plan(tmp_path, tmp_path / "nets", 'views = ["d4"]'))
    plan = ServedPlan.open(write_plan(tmp_path, world.models, 'views = ["shift:6:0"]'))
    assert len(plan.predict_each([np.zeros((8, 16), np.uint8)])) == 1
    with pytest.raises(PlanError, match="view shift:6:0 shows nothing of images of 5x7"):
        plan.predict_each([np.zeros((5, 7), np.uint8)])


def test_shapes_that_come_at_once_wait_for_the_graph_of_theirs(world: World) -> None:
    """On a device one graph is open, built for one shape; threads with two shapes get the labels of the kernels."""
    graph = ServedPlan.open(world.models, runtime_options=RuntimeOptions(GRAPH_ON_CPU), batch_size=2, workers=3)
    assert graph.ensemble.device is not None
    plain = ServedPlan.open(world.models, runtime_options=RuntimeOptions("cpu"))
    draw = np.random.default_rng(2)
    images = [draw.integers(0, 240, (2, *((8, 16), (6, 10))[number % 2], 1)).astype(np.uint8) for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(graph.predict, images))
    for batch, answers in zip(images, found, strict=True):
        for answer, expected in zip(answers, plain.predict(batch), strict=True):
            assert (answer.mask == expected.mask).all()  # type: ignore[union-attr]


def test_what_cannot_be_opened_is_one_error(world: World, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no such plan: .*none\.toml"):
        ServedPlan.open(tmp_path / "none.toml")
    save_net(tmp_path / "foreign.onnx")
    with pytest.raises(ContractError, match="nothing says how pixels are scaled"):
        ServedPlan.open(tmp_path / "foreign.onnx")
    with pytest.raises(PlanError, match="workers -1"):
        ServedPlan.open(world.models, workers=-1)


def test_what_labels_alone_cannot_show_is_said(tmp_path: Path) -> None:
    save_foreign(tmp_path / "l.onnx", 3, head="argmax")
    facts = (
        'strategy = "vote"',
        "[[members]]",
        'model = "l.onnx"',
        "[members.contract]",
        'kind = "labels"',
        "scale = 1",
    )
    path = tmp_path / "labels.toml"
    path.write_text("\n".join((*facts, 'classes = ["a", "b", "c"]')))
    plan = ServedPlan.open(path)
    assert plan.shows(Evidence(doubt="votes"))
    with pytest.raises(PlanError, match="l outputs labels, which have no entropy"):
        plan.check_shown(Evidence(doubt="mutual-information"))
    assert not plan.shows(Evidence(doubt="mutual-information"))
