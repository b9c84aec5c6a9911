"""The corpus: the split is disjoint, the stream is a function of its seed, the answers are where they should be."""

import random

import pytest
from training import corpus
from training.context_tasks import context_example
from training.draw import Draw, held_out
from training.example import UNKNOWN
from training.facts import load_facts, more_questions
from training.lexicon import name, stem
from training.manual_tasks import from_manual
from training.prose import more_record, prose_example
from training.relations import load_relations, random_record
from training.rephrase import rephrase

MIXES = [corpus.WARM_UP, corpus.EASY, corpus.BROAD, corpus.PROSE]


@pytest.mark.spec("E9")
def test_invented_names_of_training_and_test_never_meet() -> None:
    rng = random.Random(1)
    seen = {stem(Draw(rng)) for _ in range(3000)}
    unseen = {stem(Draw(rng, new_names=True)) for _ in range(300)}
    assert not seen & unseen
    assert all(held_out(text) for text in unseen)


def test_names_are_split_whatever_their_case() -> None:
    draw = Draw(random.Random(2), new_names=True)
    assert all(held_out(name(draw).lower()) for _ in range(50))


@pytest.mark.spec("E9")
def test_wordings_of_training_and_test_never_meet() -> None:
    rng = random.Random(3)
    for relation in load_relations():
        if 0 < sum(map(held_out, relation.ask)) < len(relation.ask):
            seen = {Draw(rng).wording(relation.ask) for _ in range(60)}
            unseen = {Draw(rng, new_wording=True).wording(relation.ask) for _ in range(60)}
            assert not seen & unseen, relation.name


@pytest.mark.parametrize("mix", MIXES)
def test_the_stream_is_a_function_of_its_seed(mix: corpus.Mix) -> None:
    def some(seed: int) -> list[object]:
        draw = Draw(corpus.stream_seed(seed, 0, 7))
        return [corpus.draw_example(draw, mix) for _ in range(40)]

    assert some(1) == some(1)
    assert some(1) != some(2)


def test_a_known_answer_stands_in_the_context() -> None:
    draw = Draw(random.Random(4))
    for _ in range(200):
        example = context_example(draw, facts=3, turns=1, limit=120, unknown=0.0)
        context = "\n".join(turn.text for turn in example.turns[:-1]).lower()
        assert example.turns[-1].text.lower() in context


def test_prose_and_manual_answers_are_spans_or_unknown() -> None:
    draw = Draw(random.Random(5))
    for _ in range(150):
        for example in (prose_example(draw, 3, 1, 160, 0.3), from_manual(draw, 1, 160, 0.3)):
            answer = example.turns[-1].text
            context = "\n".join(turn.text for turn in example.turns[:-1]).lower()
            assert answer == UNKNOWN or answer.lower() in context


def test_every_relation_can_be_drawn() -> None:
    draw = Draw(random.Random(6))
    for relation in load_relations():
        assert random_record(draw, relation).relation is relation
    assert len({more_record(draw).relation.name for _ in range(600)}) > 12


@pytest.mark.spec("E9")
def test_facts_hold_their_contract() -> None:
    facts = load_facts()
    assert len(facts) > 100
    assert set(more_questions()) <= {fact.key for fact in facts}


def test_swaps_leave_code_alone() -> None:
    draw = Draw(random.Random(7))
    assert rephrase(draw, "How do I make `sage init` start?") == "How do I make `sage init` start?"
    assert rephrase(draw, "Which command starts the engine?") != "Which command starts the engine?"
