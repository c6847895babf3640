"""Traces, similarities and forgetting curves against plain computations."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from mnm_rl.analysis import Trace, recall_errors, record, require_memory, similarities
from mnm_rl.analysis.board import MemoryBoard
from mnm_rl.analysis.episodes import describe_answer, held_out_episode, text_episode, typical_batch
from mnm_rl.analysis.pictures import MAPS, draw_question, draw_story_end
from mnm_rl.cores import CORES, make_core
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.memory import recall, split_weights
from mnm_rl.tasks import DictionaryTask, DoubleCopyTask, PrioritySortTask
from mnm_rl.tasks.babi import Vocabulary
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.trainer import SupervisedTrainer

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

SMALL = dict(hidden_size=6, key_size=3, value_size=4, heads=2)
MNM = dict(SMALL, memory_widths=(5, 3), recall_weights=(1.0, 0.5))
SETTINGS = {"mnm-p": MNM, "mnm-g": dict(MNM, rate_per_layer=True), "lstm-salu": SMALL}
KERNELS = ["reference", "torch", "cpu", "triton"]
mnm_cores = pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])


def small_core(name: str, **more):
    torch.manual_seed(0)
    return make_core(name, 3, **{**SETTINGS.get(name, {"hidden_size": 6}), **more}).double()


def draw(length: int, batch: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, batch, 3, dtype=torch.float64, generator=generator)


def draw_resets(length: int, batch: int) -> Tensor:
    return torch.rand(length, batch, generator=torch.Generator().manual_seed(2)) < 0.25


def by_steps(core, inputs: Tensor, resets: Tensor) -> dict[str, Tensor]:
    """A trace by the equations: one step at a time, with what every step leaves in the state."""
    rows, state, start = [], core.initial_state(inputs.shape[1]), core.initial_state(inputs.shape[1])
    widths = core.config.widths
    for x, reset in zip(inputs, resets, strict=True):
        fresh = core.initial_state(len(x))
        state = type(state)(
            *[
                torch.where(reset.view(-1, *[1] * (a.dim() - 1)), b, a)
                for a, b in zip(state, fresh, strict=True)
            ]
        )
        outputs, after = core.step(x, state)
        vectors = core.interaction_vectors(after.hidden)
        old, new, first = (split_weights(s.memory, widths) for s in (state, after, start))
        rows.append(
            {
                **vectors._asdict(),
                "read_values": recall(new, vectors.read_keys, "identity"),
                "write_sizes": torch.stack(
                    [(a - b).flatten(1).norm(dim=1) for a, b in zip(new, old, strict=True)], 1
                ),
                "memory_distances": torch.stack(
                    [(a - b).flatten(1).norm(dim=1) for a, b in zip(new, first, strict=True)], 1
                ),
                "outputs": outputs,
            }
        )
        state = after
    return {name: torch.stack([row[name] for row in rows]).detach() for name in rows[0]}


@pytest.mark.parametrize("kernel", KERNELS)
@mnm_cores
def test_a_trace_is_what_the_steps_compute_and_what_the_kernel_computes(name, kernel):
    if kernel == "triton":
        pytest.importorskip("triton", reason="triton is not installed")
    device = "cuda" if kernel == "triton" and ON_GPU else "cpu"
    length, batch = (3, 2) if kernel == "triton" else (7, 3)
    core = small_core(name, kernel=kernel).to(device)
    inputs, resets = draw(length, batch).to(device), draw_resets(length, batch).to(device)
    trace = record(core, inputs, None, resets)
    expected = by_steps(small_core(name, kernel="reference").to(device), inputs, resets)
    assert set(expected) | {"meta_loss", "resets"} == set(trace.tensors)
    for key, value in expected.items():
        torch.testing.assert_close(trace[key], value, msg=lambda text, key=key: f"{key}: {text}")
    with torch.no_grad():
        unrecorded = core(inputs, None, resets)
    assert unrecorded.trace is None
    torch.testing.assert_close(trace["outputs"], unrecorded.outputs)
    torch.testing.assert_close(trace["meta_loss"], unrecorded.meta_loss)


def test_a_trace_of_a_table_is_what_its_steps_compute():
    core, inputs, resets = small_core("lstm-salu"), draw(7, 3), draw_resets(7, 3)
    trace = record(core, inputs, None, resets)
    state, outputs = None, []
    for t, (x, reset) in enumerate(zip(inputs, resets, strict=True)):
        output, state = core.step(x, state, reset)
        outputs.append(output)
        torch.testing.assert_close(trace["write_keys"][t], state.keys[:, -2:])
        torch.testing.assert_close(trace["write_values"][t], state.values[:, -2:])
        torch.testing.assert_close(trace["read_values"][t].mean(1), state.read_value)
    torch.testing.assert_close(trace["outputs"], torch.stack(outputs))


@pytest.mark.parametrize("name", CORES)
def test_cores_say_what_their_traces_hold(name):
    core = small_core(name)
    with torch.no_grad():
        assert set(core(draw(3, 2), record=True).trace) == set(core.trace_names)
    if core.trace_names:
        assert record(core, draw(3, 2)).metadata == {"core": name}
        return
    with pytest.raises(
        ValueError, match=rf"The core {name} has no memory; cores to look into: mnm-p, mnm-g, "
    ):
        record(core, draw(3, 2))


def test_a_memory_without_values_is_named():
    with pytest.raises(
        ValueError,
        match=r"plastic has a memory without read values; .*: mnm-p, mnm-g, mnm-p-gated, lstm-salu",
    ):
        require_memory("plastic", "read_values")
    with pytest.raises(ValueError, match="The trace of the core plastic has no rates; it has write_sizes, "):
        record(small_core("plastic"), draw(3, 2))["rates"]


def test_a_trace_survives_being_saved(tmp_path):
    trace = record(small_core("mnm-p"), draw(5, 2), None, draw_resets(5, 2))
    trace.save(tmp_path / "trace.pt")
    loaded = Trace.load(tmp_path / "trace.pt")
    assert loaded.metadata == trace.metadata
    assert list(loaded.tensors) == list(trace.tensors)
    assert all(torch.equal(loaded[name], trace[name]) for name in trace.tensors)
    assert loaded.example(1)["rates"].shape == (5, 1, 1)


def test_other_files_are_no_traces(tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        Trace.load(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("no trace")
    with pytest.raises(ValueError, match=r"text\.pt is not a trace, or a damaged one"):
        Trace.load(tmp_path / "text.pt")
    torch.save({"model": torch.zeros(3)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt is not a trace of this version"):
        Trace.load(tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match=r"all \[T, B, ...\] with the same T and B, not: a \[3, 2\], b \[3, 1\]"
    ):
        Trace({"a": torch.zeros(3, 2), "b": torch.zeros(3, 1)})


@settings(deadline=None, max_examples=20)
@given(sizes=st.tuples(*[st.integers(1, 4)] * 5), seed=st.integers(0, 99))
def test_similarities_are_cosines(sizes, seed):
    length, other, batch, heads, width = sizes
    torch.manual_seed(seed)
    rows, columns = torch.randn(length, batch, heads, width), torch.randn(other, batch, heads, width)
    together, separately = similarities(rows, columns), similarities(rows, columns, "separately")
    assert together.shape == (batch, length, other)
    assert separately.shape == (batch, heads, length, other)
    b, h, i, j = batch - 1, heads - 1, length - 1, other - 1
    one, two = rows[i, b], columns[j, b]
    expected = torch.cosine_similarity(one.flatten(), two.flatten(), 0)
    torch.testing.assert_close(together[b, i, j], expected)
    torch.testing.assert_close(separately[b, h, i, j], torch.cosine_similarity(one[h], two[h], 0))


def test_similarities_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"got \[3, 2, 1, 4\] and \[3, 2, 1, 5\]"):
        similarities(torch.zeros(3, 2, 1, 4), torch.zeros(3, 2, 1, 5))
    with pytest.raises(ValueError, match="heads must be one of together, separately, got 'both'"):
        similarities(torch.zeros(3, 2, 1, 4), torch.zeros(3, 2, 1, 4), "both")  # pyright: ignore


@mnm_cores
def test_the_forgetting_curve_by_hand(name):
    """The memory after every step, asked for what was written since the example's episode began."""
    core, inputs, resets = small_core(name), draw(8, 3), torch.zeros(8, 3, dtype=torch.bool)
    assert isinstance(core, MNMCore)
    resets[0, 0] = resets[6, 0] = resets[2, 1] = True
    start = core.initial_state(3)._replace(memory=core.initial_memory + 0.1 * torch.randn(3, 1).double())
    present = torch.arange(8).unsqueeze(1) < torch.tensor([8, 5, 3])
    trace = record(core, inputs, start, resets)
    errors: dict[int, list[Tensor]] = {0: [], 2: [], 5: []}
    cosines: dict[int, list[Tensor]] = {0: [], 2: [], 5: []}
    state = start
    for t in range(8):
        state = core.step(inputs[t], state, resets[t])[1]
        weights = split_weights(state.memory, core.config.widths)
        for tau in errors:
            for b in range(3):
                if t >= tau and present[t, b] and not resets[t - tau + 1 : t + 1, b].any():
                    f = recall(weights, trace["write_keys"][t - tau], "identity")[b]
                    v = trace["write_values"][t - tau, b]
                    errors[tau] += [((f - v).square().sum(1) / v.square().sum(1)).mean()]
                    cosines[tau] += [torch.cosine_similarity(f, v, 1).mean()]
    found = recall_errors(core, trace, (0, 2, 5), start.memory, present)
    torch.testing.assert_close(found.errors, torch.stack([torch.stack(x).mean() for x in errors.values()]))
    torch.testing.assert_close(found.cosines, torch.stack([torch.stack(x).mean() for x in cosines.values()]))


def test_forgetting_refuses_what_has_no_curve():
    core = small_core("lstm-salu")
    with pytest.raises(ValueError, match="Only MNM cores have a memory that forgets, not the core lstm-salu"):
        recall_errors(core, record(core, draw(3, 2)))
    core = small_core("mnm-p")
    trace = record(core, draw(3, 2))
    assert recall_errors(core, trace, (0, 3)).errors.isfinite().tolist() == [True, False]
    with pytest.raises(ValueError, match=r"delays must be numbers from 0 on, at least one, got \(-1,\)"):
        recall_errors(core, trace, (-1,))


def test_words_of_the_generated_tasks():
    batch = next(iter(DictionaryTask(2, 1).evaluation_batches("test", 1000)))
    episode = held_out_episode(DictionaryTask(2, 1), 2)
    assert [len(word) for word in episode.words[:8]] == [1] * 8
    assert (episode.words[1::2][:4], episode.words[8]) == (("→", ";", "→", ";"), "|")
    assert episode.question == 9
    assert episode.words[-1] == f"({'abcdefghijklmnopqrstuvwxyz'[batch.targets[-1, 1]]})"
    copy = held_out_episode(DoubleCopyTask(3), 1)
    assert copy.words[4:] == tuple(f"({digit})" for digit in copy.words[:3] * 2)
    assert copy.story_words == (*copy.words[:3], "|")
    sort = held_out_episode(PrioritySortTask(4, 2), 1)
    assert sort.words[4:] == ("|", "#1", "#2")
    assert float(sort.words[0]) == pytest.approx(sort.batch.inputs[0, 0, 8].item(), abs=0.01)
    with pytest.raises(ValueError, match=r"no story 1001 in the test set; its stories are 1 to 1,000"):
        held_out_episode(PrioritySortTask(4, 2), 1001)


VOCABULARY = Vocabulary(("mary", "john", "went", "to", "the", "kitchen", "where", "is", ".", "?", "-"))


def test_a_text_becomes_an_episode():
    episode = text_episode(VOCABULARY, "Mary went to the kitchen. John went to the kitchen . Where is Mary?")
    assert " ".join(episode.story_words) == "mary went to the kitchen . john went to the kitchen ."
    assert " ".join(episode.words[episode.question :]) == "where is mary ? -"
    assert episode.batch.answers[:, 0].tolist() == [-1] * 16 + [0]
    assert VOCABULARY.decode(episode.batch.inputs[:, 0]) == " ".join(episode.words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Where is Mary ?", "must be sentences that end in . and then one question"),
        ("Mary went to the kitchen .", "must be sentences that end in . and then one question"),
        ("Mary went . Where is Mary ? John went . Where is John ?", "then one question that ends in"),
        ("", "must be sentences"),
        (
            "Mary went to the kitchens . Where is Mary ?",
            "'kitchens' is not in the .* 11 symbols; similar .*: kitchen",
        ),
        (
            "Xyzzy went . Where is Mary ?",
            "The word 'xyzzy' is not in the vocabulary .* none that it has is similar",
        ),
    ],
)
def test_texts_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        text_episode(VOCABULARY, text)


def test_pictures_hold_the_cosines_and_the_words():
    task = DoubleCopyTask(4)
    assert task.input_symbols is not None
    core = make_core("mnm-p", task.input_symbols, **MNM)
    episode = held_out_episode(task, 1)
    trace = record(core, torch.nn.functional.one_hot(episode.batch.inputs, task.input_symbols).float())
    figure = draw_question(trace, episode, "together", 3, "the title")
    axes = next(a for a in figure.axes if a.images)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(episode.words[2:5])
    assert [label.get_text() for label in axes.get_yticklabels()] == list(episode.words[5:])
    expected = similarities(trace["read_values"][5:], trace["write_values"][2:5])[0]
    drawn = axes.images[0].get_array()
    assert drawn is not None
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    figure = draw_story_end(trace, episode, MAPS, "separately", 80, 2, "the title")
    maps: list[Any] = [
        a.images[0].get_array() for a in figure.axes if a.images and a.get_yticklabels()[0].get_text()
    ]
    assert [one.shape for one in maps[:6]] == [(2, 5)] * 6
    assert not np.isfinite(maps[2].filled(np.nan)[0, 3:]).any()
    assert np.isfinite(maps[2].filled(np.nan)[0, :3]).all()


def trained(analyze_every: int | None, folder=None, core: str = "mnm-p"):
    """A short run, and the iterations at which it was looked at."""
    small = {"key_size": 4, "value_size": 4, "memory_widths": [5]}
    config = SupervisedConfig(
        core=core,
        task_options={"instance": 1},
        core_settings={"hidden_size": 8, **(small if core == "mnm-p" else {})},
        embedding_size=6,
        batch_size=4,
        iterations=4,
        validate_every=2,
        analyze_every=analyze_every,
    )
    trainer = SupervisedTrainer(config, config.make_task(), None)
    seen = []
    if folder is None:
        trainer.train(look=seen.append)
    else:
        with SummaryWriter(folder) as writer:
            board = MemoryBoard(writer, trainer.model, trainer.task)

            def look(iteration: int) -> None:
                seen.append(iteration)
                board.show(iteration)

            trainer.train(look=look)
    return trainer, seen


def test_looking_at_the_memory_does_not_change_the_training(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    looked, seen = trained(4, tmp_path)
    alone, nothing = trained(0)
    assert (seen, nothing, trained(None)[1]) == ([4], [], [2, 4])
    for one, other in zip(looked.model.state_dict().values(), alone.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    assert {"memory/similarity_of_reads_and_writes", "memory/forgetting_curve"} <= set(tags["images"])
    assert {"memory/rates", "memory/write_size_layer_2", "memory/distance_from_start_layer_1"} <= set(
        tags["histograms"]
    )
    batch = typical_batch(looked.task, 16)
    trace = record(looked.model.core, looked.model.encoder(batch.inputs))
    scalar = {name: events.Scalars(name)[-1].value for name in tags["scalars"]}
    errors = recall_errors(looked.model.core, trace).errors
    assert scalar["memory_recall_error/delay_0"] == pytest.approx(errors[0].item(), rel=1e-4)
    distance = trace["memory_distances"][-1, :, 1].mean().item()
    assert scalar["memory_distance_from_start/layer_2"] == pytest.approx(distance, rel=1e-4)


def test_a_memory_that_has_exploded_does_not_end_the_run(tmp_path):
    trainer, _ = trained(0)
    assert isinstance(trainer.model.core, MNMCore)
    trainer.model.core.rate.bias.data.fill_(torch.nan)
    with SummaryWriter(tmp_path) as writer:
        MemoryBoard(writer, trainer.model, trainer.task).show(1)


def test_a_run_without_a_memory_shows_nothing(tmp_path):
    assert trained(2, tmp_path, "lstm")[1] == [2, 4]
    (events,) = tmp_path.iterdir()
    assert events.stat().st_size < 200


def test_answers_in_words():
    task = DictionaryTask(2, 1)
    episode = held_out_episode(task, 1)
    logits = torch.nn.functional.one_hot(episode.batch.targets, 30).float()
    letter = episode.words[-1][1:-1]
    assert describe_answer(task, episode, logits) == f"the model answers {letter}, right is {letter}"
    asked = replace(episode, answered=False)
    assert describe_answer(task, asked, logits) == f"the model answers {letter}"
    copy = DoubleCopyTask(7)
    batch = held_out_episode(copy, 1)
    assert describe_answer(copy, batch, torch.zeros(22, 1, 10)).endswith("of 14 symbols wrong")
