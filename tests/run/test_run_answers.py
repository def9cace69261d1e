"""What counts as no answer: one missed right after an answer does not, the next one does."""

from __future__ import annotations

from orchestrator.run.answers import ASK_AGAIN, LATELY, Answers


def test_a_node_that_was_never_heard_is_missed_at_once() -> None:
    answers = Answers()
    assert answers.miss("i-1", 100)
    assert answers.unanswered == {"i-1"}


def test_one_missed_answer_right_after_one_that_came_is_asked_again() -> None:
    answers = Answers()
    answers.hear("i-1", 100)
    assert answers.answering(100 + ASK_AGAIN - 1) == {"i-1"}
    assert not answers.miss("i-1", 100 + LATELY - 1)
    assert not answers.unanswered
    assert not answers.answering(100 + LATELY - 1), "it must be asked again now"
    assert answers.miss("i-1", 100 + LATELY)
    assert answers.unanswered == {"i-1"}


def test_an_answer_of_long_ago_excuses_nothing() -> None:
    answers = Answers()
    answers.hear("i-1", 100)
    assert answers.miss("i-1", 100 + LATELY)


def test_who_answers_is_asked_or_goes_is_missed_no_longer() -> None:
    answers = Answers()
    for instance_id in ("i-1", "i-2", "i-3"):
        answers.miss(instance_id, 100)
    answers.hear("i-1", 101)
    answers.ask(["i-2"])
    answers.forget_all_but(["i-1", "i-2"])
    assert not answers.unanswered
