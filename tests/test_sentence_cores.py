"""TPR-RNN and EntNet against the equations of their papers, one number at a time, and their quick forms."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mnm_rl.cores import make_core
from mnm_rl.cores.entnet import EntNetCore
from mnm_rl.cores.tpr import TPRCore, question_places
from mnm_rl.cores.tpr_memory import (
    Changes,
    look_up,
    look_up_changes,
    solve,
    to_tensor,
    visible_changes,
    write,
)

SIZES = {
    "tpr-rnn": {"hidden_size": 5, "entity_size": 4, "role_size": 3},
    "entnet": {"hidden_size": 4, "slots": 3},
}
both = pytest.mark.parametrize("name", SIZES)


def lively(name: str, input_size: int = 4, **more: Any) -> Any:
    """A core in float64 in which everything matters."""
    torch.manual_seed(0)
    core = make_core(name, input_size, **{**SIZES[name], **more}).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return core


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draw_story(sentences: int, length: int, batch: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of sentences, statements and questions, each ``[S, B]``; the rest is padding."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(3, (length, batch), generator=generator)
    return torch.randint(sentences, (length, batch), generator=generator), kinds == 0, kinds == 1


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def network(
    x: np.ndarray, weights: Tensor, biases: Tensor, more: Tensor, more_biases: Tensor, n: int, own: int
):
    """``tanh(W2 tanh(W1 x + b1) + b2)``, network n of all and number ``own`` of its kind."""
    hidden = np.tanh(x @ array(weights)[n] + array(biases)[n])
    return np.tanh(hidden @ array(more)[own] + array(more_biases)[own])


def vectors(part: Any, x: np.ndarray, entities: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    hidden = (part.hidden_weights, part.hidden_biases)
    of_entities = [
        network(x, *hidden, part.entity_weights, part.entity_biases, n, n) for n in range(entities)
    ]
    of_roles = [network(x, *hidden, part.role_weights, part.role_biases, entities + n, n) for n in range(3)]
    return of_entities, of_roles


def found_in(memory: np.ndarray, entity: np.ndarray, role: np.ndarray) -> np.ndarray:
    """Eq. 9 by loops."""
    result = np.zeros(memory.shape[2])
    for i in range(memory.shape[0]):
        for j in range(memory.shape[1]):
            result += entity[i] * role[j] * memory[i, j]
    return result


def tpr_write(core: TPRCore, memory: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Eq. 4 and 6 to 14."""
    (e1, e2), (r1, r2, r3) = vectors(core.statement, x, 2)
    w, m, b = found_in(memory, e1, r1), found_in(memory, e1, r2), found_in(memory, e2, r3)

    def product(entity, role, value):
        return np.einsum("i,j,k->ijk", entity, role, value)

    written = product(e1, r1, e2) - product(e1, r1, w)
    moved = product(e1, r2, w) - product(e1, r2, m)
    linked = product(e2, r3, e1) - product(e2, r3, b)
    return memory + written + moved + linked


def tpr_answer(core: TPRCore, memory: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Eq. 17 to 19."""
    (entity,), roles = vectors(core.question, x, 1)
    found = []
    for step, role in enumerate(roles):
        raw = found_in(memory, entity, role)
        normal = (raw - raw.mean()) / np.sqrt(raw.var() + 1e-7)
        entity = array(core.gains)[step] * normal + array(core.biases)[step]
        found.append(entity)
    return found[0] + found[1] + found[2]


def phi(core: EntNetCore, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, array(core.slopes) * x)


def entnet_write(core: EntNetCore, memory: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Eq. 2 to 5."""
    new = memory.copy()
    for j, key in enumerate(array(core.keys)):
        gate = 1 / (1 + np.exp(-(s @ memory[j] + s @ key + array(core.gate_biases)[j])))
        parts = array(core.of_slot) @ memory[j] + array(core.of_sentence) @ s + array(core.of_key) @ key
        changed = memory[j] + gate * phi(core, parts + array(core.bias))
        new[j] = changed / np.sqrt((changed**2).sum())
    return new


def entnet_answer(core: EntNetCore, memory: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Eq. 6 up to its output layer."""
    exponentials = np.exp(memory @ q)
    read = (exponentials / exponentials.sum()) @ memory
    return phi(core, q + array(core.of_read) @ read)


WRITE = {"tpr-rnn": tpr_write, "entnet": entnet_write}
ANSWER = {"tpr-rnn": tpr_answer, "entnet": entnet_answer}


@both
def test_the_core_follows_the_equations(name):
    core, inputs = lively(name), draw(6, 3, 4)
    resets = torch.rand(6, 3, generator=torch.Generator().manual_seed(2)) < 0.3
    found = array(core(inputs, None, resets).outputs)
    for b in range(3):
        memory = start = array(core.initial_state(1)[0][0])
        for t in range(6):
            memory = WRITE[name](core, start if resets[t, b] else memory, array(inputs[t, b]))
            np.testing.assert_allclose(
                found[t, b], ANSWER[name](core, memory, array(inputs[t, b])), atol=1e-10
            )


@both
def test_a_story_is_read_by_the_equations_and_its_questions_are_not_written(name):
    core, sentences = lively(name), draw(5, 4)
    story, writes, asks = draw_story(5, 9, 4)
    found = array(core.read(sentences, story, writes, asks))
    for b in range(4):
        memory = array(core.initial_state(1)[0][0])
        for t in range(9):
            x = array(sentences[story[t, b]])
            memory = WRITE[name](core, memory, x) if writes[t, b] else memory
            expected = ANSWER[name](core, memory, x) if asks[t, b] else np.zeros(4)
            np.testing.assert_allclose(found[t, b], expected, atol=1e-9)


def gradients(core: Any, outputs: Tensor, *others: Tensor) -> list[Tensor]:
    weights = draw(*outputs.shape, seed=7)
    wanted = [*core.parameters(), *others]
    found = torch.autograd.grad((outputs * weights).sum(), wanted, allow_unused=True)
    return [
        torch.zeros_like(x) if gradient is None else gradient
        for x, gradient in zip(wanted, found, strict=True)
    ]


def tpr_in_both_forms(**sizes: int) -> tuple[TPRCore, TPRCore]:
    solved, loop = lively("tpr-rnn", **sizes), lively("tpr-rnn", form="loop", **sizes)
    loop.load_state_dict(solved.state_dict())
    return solved, loop


@settings(deadline=None, max_examples=25)
@given(
    length=st.integers(2, 7),
    batch=st.integers(1, 3),
    entity=st.integers(2, 5),
    role=st.integers(1, 4),
    parts=st.integers(1, 8),
    seed=st.integers(0, 99),
    chance=st.sampled_from([None, 0.0, 0.3, 1.0]),
)
def test_the_solved_form_is_the_loop(length, batch, entity, role, parts, seed, chance):
    solved, loop = tpr_in_both_forms(entity_size=entity, role_size=role)
    inputs, memory = draw(length, batch, 4, seed=seed), draw(batch, entity, role, entity, seed=seed + 1)
    resets = None if chance is None else torch.rand(length, batch) < chance
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnm_rl.cores.tpr.SENTENCES_AT_ONCE", parts)
        for core in (solved, loop):
            x, start = inputs.clone().requires_grad_(), memory.clone().requires_grad_()
            output = core(x, type(core.initial_state(1))(start), resets)
            both_parts = torch.cat([output.outputs.flatten(), output.state.memory.flatten()])
            results.append([both_parts, *gradients(core, both_parts, x, start)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@settings(deadline=None, max_examples=25)
@given(length=st.integers(1, 9), batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_story_is_read_alike_in_both_forms(length, batch, seed):
    solved, loop = tpr_in_both_forms()
    results = []
    for core in (solved, loop):
        sentences = draw(4, 4, seed=seed).requires_grad_()
        story, writes, asks = draw_story(4, length, batch, seed)
        writes[-1, 0], asks[-1, 0] = False, True  # one question at least
        outputs = core.read(sentences, story, writes, asks)
        results.append([outputs, *gradients(core, outputs, sentences)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def entnet_in_both_forms(**sizes: int) -> tuple[EntNetCore, EntNetCore]:
    fused, loop = lively("entnet", **sizes), lively("entnet", form="loop", **sizes)
    loop.load_state_dict(fused.state_dict())
    return fused, loop


@settings(deadline=None, max_examples=25)
@given(
    length=st.integers(2, 7),
    batch=st.integers(1, 3),
    width=st.integers(1, 5),
    slots=st.integers(1, 4),
    seed=st.integers(0, 99),
    chance=st.sampled_from([None, 0.0, 0.3, 1.0]),
)
def test_the_gradients_by_hand_are_those_of_torch(length, batch, width, slots, seed, chance):
    inputs, memory = draw(length, batch, 4, seed=seed), draw(batch, slots, width, seed=seed + 1)
    resets = None if chance is None else torch.rand(length, batch) < chance
    story, writes, asks = draw_story(4, length, batch, seed)
    writes[-1, 0], asks[-1, 0] = False, True
    results = []
    for core in entnet_in_both_forms(hidden_size=width, slots=slots):
        x, start = inputs.clone().requires_grad_(), memory.clone().requires_grad_()
        output = core(x, type(core.initial_state(1))(start), resets)
        both_parts = torch.cat([output.outputs.flatten(), output.state.memory.flatten()])
        sentences = draw(4, 4, seed=seed).requires_grad_()
        read = core.read(sentences, story, writes, asks)
        found = [both_parts, read, *gradients(core, both_parts, x, start), *gradients(core, read, sentences)]
        results.append(found)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_the_gradient_of_the_solve_is_that_of_finite_differences():
    entities, roles = 0.5 * draw(2, 3, 2, 4), 0.5 * draw(2, 3, 3, 3, seed=2)
    memory = 0.5 * draw(2, 4, 3, 4, seed=3)

    def values(entities: Tensor, roles: Tensor, memory: Tensor) -> Tensor:
        return solve(entities, roles, None, memory).values

    inputs = tuple(each.requires_grad_() for each in (entities, roles, memory))
    assert torch.autograd.gradcheck(values, inputs)


def test_written_associations_are_found_replaced_and_moved():
    basis = torch.eye(6, dtype=torch.float64)
    nothing = torch.zeros(1, 6, dtype=torch.float64)

    def sentence(e1: int, e2: int, r1: int, r2: int, r3: int) -> tuple[Tensor, Tensor]:
        return basis[[e1, e2]], torch.stack(
            [basis[each] if each >= 0 else nothing[0] for each in (r1, r2, r3)]
        )

    told = [
        sentence(0, 1, 0, -1, 2),  # 1 is at (0, role 0), and 0 at (1, role 2)
        sentence(3, 4, 0, -1, 2),
        sentence(0, 5, 0, 1, 2),  # 5 takes its place; what was there, 1, moves to (0, role 1)
    ]
    entities, roles = (torch.stack(parts).unsqueeze(0) for parts in zip(*told, strict=True))
    changes = solve(entities, roles)
    asked = torch.tensor([[0, 0], [0, 1], [3, 0], [1, 2], [5, 2], [4, 2]])
    expected = torch.stack([basis[5], basis[1], basis[4], basis[0], basis[0], basis[3]])
    question = (basis[asked[:, 0]].unsqueeze(0), basis[asked[:, 1]].unsqueeze(0))
    everything = visible_changes(torch.full((1, 6), 2), 3)
    torch.testing.assert_close(look_up_changes(changes, *question, everything)[0], expected)
    torch.testing.assert_close(look_up(to_tensor(changes), *question)[0], expected)
    early = visible_changes(torch.zeros(1, 6, dtype=torch.int64), 3)
    assert torch.equal(look_up_changes(changes, *question, early)[0, 0], basis[1])
    memory = torch.zeros(1, 6, 6, 6, dtype=torch.float64)
    for entity, role in told:
        memory = write(memory, entity.unsqueeze(0), role.unsqueeze(0))
    torch.testing.assert_close(memory, to_tensor(changes))


def test_a_second_write_with_the_same_key_replaces_the_first():
    entities = torch.eye(3, dtype=torch.float64)[torch.tensor([[[0, 1], [0, 2]]])]
    roles = torch.zeros(1, 2, 3, 2, dtype=torch.float64)
    roles[:, :, 0, 0] = 1
    changes = solve(entities, roles)
    assert isinstance(changes, Changes)
    found = look_up(to_tensor(changes), entities[:, :1, 0], roles[:, :1, 0])
    torch.testing.assert_close(found[0, 0], entities[0, 1, 1])


def test_places_of_questions():
    asks = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]).bool()
    places, exist = question_places(asks)
    assert exist.tolist() == [[True, True, False], [True, True, True], [False, False, False]]
    assert places[exist].tolist() == [1, 3, 0, 2, 3]


def test_slots_have_length_1_after_a_sentence_and_hold_their_keys_before():
    core = lively("entnet")
    assert torch.equal(core.initial_state(2).memory[1], core.keys)
    memory = core(draw(1, 2, 4)).state.memory
    torch.testing.assert_close(memory.norm(dim=2), torch.ones(2, 3, dtype=torch.float64))


def test_a_closed_gate_leaves_the_slot_as_it_was():
    core, inputs = lively("entnet"), draw(3, 2, 4)
    memory = core(inputs).state
    with torch.no_grad():
        core.gate_biases[1] = -1e4
    after = core(draw(1, 2, 4, seed=5), memory).state.memory
    torch.testing.assert_close(after[:, 1], memory.memory[:, 1])
    assert not torch.allclose(after[:, 0], memory.memory[:, 0])


def test_slots_and_keys_may_change_places():
    core, inputs, order = lively("entnet"), draw(5, 2, 4), [2, 0, 1]
    before = core(inputs)
    with torch.no_grad():
        core.keys.copy_(core.keys[order].clone())
        core.gate_biases.copy_(core.gate_biases[order].clone())
    after = core(inputs)
    torch.testing.assert_close(after.state.memory, before.state.memory[:, order])
    torch.testing.assert_close(after.outputs, before.outputs)


def test_inputs_of_another_width_go_through_a_linear_layer():
    wide = lively("entnet", input_size=6)
    narrow = lively("entnet")
    narrow.load_state_dict({k: v for k, v in wide.state_dict().items() if k != "encoder.weight"})
    inputs = draw(4, 2, 6)
    torch.testing.assert_close(wide(inputs).outputs, narrow(inputs @ wide.encoder.weight.T).outputs)


def test_a_trace_has_the_gates_and_the_sizes_of_changes():
    core, inputs = lively("entnet"), draw(3, 2, 4)
    trace = core(inputs, record=True).trace
    s, key, bias = inputs[0, 1], core.keys[2], core.gate_biases[2]
    torch.testing.assert_close(trace["gates"][0, 1, 2], torch.sigmoid(s @ key + s @ key + bias))
    core = lively("tpr-rnn")
    trace = core(inputs, record=True).trace
    memory = core(inputs[:1]).state.memory
    torch.testing.assert_close(trace["write_sizes"][0, :, 0], memory.flatten(1).norm(dim=1))
    torch.testing.assert_close(trace["memory_distances"][0, :, 0], memory.flatten(1).norm(dim=1))


@both
def test_an_agent_learns_with_it(name, algorithm):
    settings = {"core": name, "core_kwargs": SIZES[name]}
    agent = algorithm("MlpPolicy", "CartPole-v1", n_steps=16, seed=0, policy_kwargs=settings)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(32)
    changed = [not torch.equal(*pair) for pair in zip(before, agent.policy.parameters(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("tpr-rnn", {"role_size": 0}, "role_size must be at least 1, got 0"),
        ("tpr-rnn", {"form": "quick"}, "form must be one of solved, loop, got 'quick'"),
        ("entnet", {"slots": 0}, "slots must be at least 1, got 0"),
    ],
)
def test_settings_are_checked(name, setting, message):
    with pytest.raises(ValueError, match=message):
        make_core(name, 4, **setting)
