"""bAbI texts: reading lines, the vocabulary, and encoding in both formats."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnm_rl.tasks.babi.encoding import Corpus, Sequences, StoryFile, number_answers
from mnm_rl.tasks.babi.stories import Line, read_stories
from mnm_rl.tasks.babi.vocabulary import Vocabulary

TEXT = """1 Mary moved to the bathroom.
2 Where is Mary? \tbathroom\t1
3 Mary got the milk there.
4 Mary grabbed the apple.
5 What is Mary carrying? \tmilk,apple\t3 4
1 The office is east of the hall.
2 How do you go from the hall to the office?\tE\t1
"""

WORDS = st.sampled_from(["mary", "john", "milk", "apple", "kitchen", "garden", "is", "was", "there"])
STATEMENTS = st.builds(lambda words: Line((*words, "."), ()), st.lists(WORDS, min_size=1, max_size=6))
QUESTIONS = st.builds(
    lambda words, answer: Line((*words, "?"), tuple(answer)),
    st.lists(WORDS, min_size=1, max_size=5),
    st.lists(WORDS, min_size=1, max_size=3),
)
STORIES = st.lists(
    st.lists(st.one_of(STATEMENTS, QUESTIONS), min_size=1, max_size=8), min_size=1, max_size=5
).filter(lambda stories: all(any(line.answer for line in story) for story in stories))


def read(text):
    return read_stories(text.encode(), "qa1.txt")


def test_lines_become_lower_case_words():
    stories = read(TEXT)
    assert [len(story) for story in stories] == [5, 2]
    assert stories[0][0] == Line(("mary", "moved", "to", "the", "bathroom", "."), ())
    assert stories[0][4] == Line(("what", "is", "mary", "carrying", "?"), ("milk", "apple"))
    assert stories[1][1].answer == ("e",)


def test_windows_line_ends_and_blank_ends_change_nothing():
    assert read(TEXT.replace("\n", "\r\n") + "\r\n\n") == read(TEXT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "qa1.txt is empty"),
        ("1 Mary moved.\nMary left.", "line 2: expected 'ID statement.'.*got 'Mary left.'"),
        ("1 Mary moved.\n\n2 Mary left.", "line 2: expected 'ID statement.'"),
        ("1 Mary moved", "line 1: expected 'ID statement.'"),
        ("1 Mary. moved.", "line 1: expected"),
        ("1 Who? \tMary\t1\textra", "line 1: expected"),
        ("1 Who? \tMary\tfirst line", "line 1: expected"),
        ("1 Mary moved.\tMary\t1", "line 1: expected"),
        ("2 Mary moved.", "line 1: must have number 1"),
        ("1 Mary moved.\n2 Who?\tMary\t1\n4 Mary left.", "line 3: number 4 where 1 or 3 was expected"),
        ("1 Mary moved.\n2 Who moved?", "line 2: a question without an answer"),
        ("1 Mary moved.\n2 Who moved? \t\t1", "line 2: a question without an answer"),
        (
            "1 Mary moved.\n1 Mary left.",
            "line 2: a new story begins, but the story before it has no question",
        ),
        ("1 Mary moved.\n", "the file ends, but the story before it has no question"),
        ("1 Mary moved.\n2 Who?\tMary,\t1", "line 2: '' cannot be a word"),
        ("1 Mary - moved.", "line 1: '-' cannot be a word"),
        ("1 Mary moved.\n2 Who?\tMary,?\t1", r"line 2: '\?' cannot be a word"),
        ("1 Mary moved.\n2 Who?\t.\t1", r"line 2: '\.' cannot be a word"),
        ("1 Mary, John moved.", "line 1: 'mary,' cannot be a word"),
        ("1 Who?\tMary Ann\t1", "line 1: 'mary ann' cannot be a word"),
    ],
)
def test_malformed_files_are_named_with_the_line(text, message):
    with pytest.raises(ValueError, match=f"qa1.txt.*{message.removeprefix('qa1.txt')}"):
        read(text)


def test_bytes_that_are_not_text_are_named_with_the_line():
    with pytest.raises(ValueError, match=r"qa1.txt, line 2: not UTF-8 \(byte 0xff\)"):
        read_stories(b"1 Mary moved.\n2 \xff.", "qa1.txt")


def test_the_vocabulary_is_sorted_and_can_be_saved():
    stories = read(TEXT)
    vocabulary = Vocabulary.from_stories(stories)
    assert list(vocabulary.symbols) == sorted(vocabulary.symbols)
    assert vocabulary == Vocabulary.from_stories(reversed(stories))
    assert {"-", ".", "?", "mary", "apple", "e"} < set(vocabulary.symbols)
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary
    assert vocabulary.decode(vocabulary.encode(["mary", "got", "milk", "."])) == "mary got milk ."


def test_unknown_words_are_counted_and_shown():
    vocabulary = Vocabulary(("-", ".", "?", "mary"))
    with pytest.raises(ValueError, match="1 word is not in the vocabulary of 4 symbols: john;"):
        vocabulary.encode(["mary", "john", "john"])
    file = StoryFile(1, "qa1_test.txt", read(TEXT))
    with pytest.raises(ValueError, match=r"qa1_test.txt: 23 words are not .* symbols: apple, .*, \.\.\.;"):
        Corpus.encode([file], vocabulary)


def test_vocabularies_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="twice"):
        Vocabulary(("-", ".", "?", "a", "a"))
    with pytest.raises(ValueError, match=r"missing: \? -"):
        Vocabulary((".", "a"))


def test_both_formats_of_a_story():
    stories = read(TEXT)
    vocabulary = Vocabulary.from_stories(stories)
    corpus = Corpus.encode([StoryFile(2, "a", stories[:1]), StoryFile(19, "b", stories[1:])], vocabulary)

    def texts(form):
        sequences = Sequences(corpus, form)
        batch = sequences.batch(np.arange(len(sequences)))
        return [vocabulary.decode(batch.inputs[:n, b]) for b, n in enumerate(batch.lengths)], batch

    questions, batch = texts("question")
    assert questions == [
        "mary moved to the bathroom . where is mary ? -",
        "mary moved to the bathroom . mary got the milk there . mary grabbed the apple . "
        "what is mary carrying ? - -",
        "the office is east of the hall . how do you go from the hall to the office ? -",
    ]
    assert batch.kinds.tolist() == [2, 2, 19]
    assert [vocabulary.decode(batch.targets[batch.asked[:, b], b]) for b in range(3)] == [
        "bathroom",
        "milk apple",
        "e",
    ]
    whole, batch = texts("story")
    assert whole == [
        "mary moved to the bathroom . where is mary ? - mary got the milk there . mary grabbed the apple . "
        "what is mary carrying ? - -",
        "the office is east of the hall . how do you go from the hall to the office ? -",
    ]
    assert batch.answers[:, 0].tolist() == [-1] * 10 + [0] + [-1] * 16 + [1, 1]
    assert vocabulary.decode(batch.targets[batch.asked[:, 0], 0]) == "bathroom milk apple"


def spelled(story, question_only=None):
    """The symbols of a story written by hand: whole, or the n-th question after all statements before it."""
    words, answers, seen = [], [], 0
    for line in story:
        if line.answer:
            if question_only in (None, seen):
                words += [*line.words, *["-"] * len(line.answer)]
                answers.append(line.answer)
                if question_only is not None:
                    return words, answers
            seen += 1
        else:
            words += line.words
    return words, answers


@settings(deadline=None, max_examples=60)
@given(stories=STORIES, form=st.sampled_from(["question", "story"]))
def test_decoding_gives_back_the_text(stories, form):
    vocabulary = Vocabulary.from_stories(stories)
    sequences = Sequences(Corpus.encode([StoryFile(7, "a", stories)], vocabulary), form)
    if form == "story":
        expected = [spelled(story) for story in stories]
    else:
        expected = [
            spelled(story, n) for story in stories for n in range(sum(bool(line.answer) for line in story))
        ]
    assert len(sequences) == len(expected)
    batch = sequences.batch(np.arange(len(sequences)))
    assert batch.lengths.tolist() == [len(words) for words, _ in expected] == sequences.lengths.tolist()
    assert not batch.asked[~batch.present].any()
    for b, (words, answers) in enumerate(expected):
        assert vocabulary.decode(batch.inputs[: len(words), b]).split() == words
        assert batch.asked[: len(words), b].tolist() == [word == "-" for word in words]
        for number, answer in enumerate(answers):
            chosen = batch.answers[:, b] == number
            assert vocabulary.decode(batch.targets[chosen, b]).split() == list(answer)
        assert batch.answers[:, b].max() == len(answers) - 1


def test_answers_are_numbered_by_runs():
    asked = np.array([[1, 1, 0, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1]], bool)
    assert number_answers(asked).tolist() == [[0, 0, -1, 1, -1, -1, 2, 2], [-1] * 7 + [0]]
