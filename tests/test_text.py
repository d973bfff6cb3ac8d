"""vqa/text: one spelling per question, the same ids everywhere, vocabularies from what they were given only."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PhobertTokenizer, PreTrainedTokenizerFast

from common.errors import UserError
from vqa.answers import AnswerVocabulary
from vqa.text import QuestionProcessor, normalise, segment

ROOT = Path(__file__).resolve().parents[1]
VIVQA = ROOT.parent / "shared" / "data" / "vivqa"

# A word of each of the 15 pairs, in both placements, as a dictionary prints them.
PAIRS = [
    ("hòa", "hoà"), ("hóa", "hoá"), ("hỏa", "hoả"), ("tõa", "toã"), ("họa", "hoạ"),
    ("lòe", "loè"), ("khóe", "khoé"), ("khỏe", "khoẻ"), ("xõe", "xoẽ"), ("họe", "hoẹ"),
    ("tùy", "tuỳ"), ("thúy", "thuý"), ("thủy", "thuỷ"), ("lũy", "luỹ"), ("lụy", "luỵ"),
]  # fmt: skip
TRAIN = ["Món này là món gì?", "món này là phở à", "Đây có phải là phở không?"]
# counted by hand: món 3, là 3, này 2, phở 2, then once each: có gì không phải à đây (by code point)
TRAIN_IDS = {"là": 2, "món": 3, "này": 4, "phở": 5, "có": 6, "gì": 7, "không": 8, "phải": 9, "à": 10, "đây": 11}


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def syllables(questions=TRAIN, **options) -> QuestionProcessor:
    return QuestionProcessor.build(questions, segmentation="syllable", **options)


def ids(processor: QuestionProcessor, *questions: str) -> list[list[int]]:
    batch = processor(list(questions))
    return [row[:length] for row, length in zip(batch["input_ids"].tolist(), batch["lengths"].tolist(), strict=True)]


@pytest.fixture
def hugging_face_folder(tmp_path) -> Path:
    """A tiny tokenizer as the Hub has them: a folder, special tokens added by default, a padding id that is not 0."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "món": 4, "gì": 5, "phở": 6}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return save_tokenizer(tmp_path / "given", tokenizer, bos_token="<s>", pad_token="<pad>", unk_token="<unk>")


def save_tokenizer(folder: Path, tokenizer: Tokenizer, **special: str) -> Path:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


# --- normalise


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_both_tone_placements_become_one(old, new):
    new = unicodedata.normalize("NFC", new)
    for word in (old, new):
        for typed in (word, word.upper(), word.title(), nfd(word), nfd(word.upper()), f"{word}?", f"{word.upper()} ??"):
            assert normalise(typed) == new
    assert normalise(f"{old} bình, {old}") == f"{new} bình , {new}"


def test_the_pairs_are_15_different_ones():
    assert len(set(PAIRS)) == len({normalise(old)[-2:] for old, _ in PAIRS}) == 15


@pytest.mark.parametrize("word", "quý quỳ quỷ quỹ quỵ quà giá hoàn toán ngoài khoẻo huỳnh xoèn của mùa mía".split())
def test_other_syllables_keep_their_mark(word):
    assert normalise(word) == normalise(nfd(word.upper())) == unicodedata.normalize("NFC", word)


def test_closed_syllables_are_left_alone():
    assert normalise("hòan tóan hùynh") == "hòan tóan hùynh"  # spelling mistakes, not another convention


@pytest.mark.parametrize(
    "typed",
    [
        "Món này là món gì?",
        "MÓN NÀY LÀ MÓN GÌ",
        nfd("Món này là món gì ?"),
        "món này là món gì ???",
        "món này là món gì？",
        "  món\u00a0này  là\tmón\ngì!? ",
        "m\u200bón này \u200b\u200blà món gì\ufeff.",
        "mo\u200d\u0301n này là món gì",  # invisible between the letter and its mark
    ],
)
def test_spellings_of_one_question_become_one(typed):
    assert normalise(typed) == "món này là món gì"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("tv,hoa ,phim , sách", "tv , hoa , phim , sách"),
        ("logo “YouTube” ở đâu?", 'logo " youtube " ở đâu'),
        ("logo `` youtube '' ở đâu", 'logo " youtube " ở đâu'),
        ("logo ‘youtube’ ở đâu", "logo ' youtube ' ở đâu"),
        ("5 o’clock", "5 o'clock"),
        ("2,5 kg lúc 2:25, 2:35", "2,5 kg lúc 2:25 , 2:35"),
        ("nhìn sách. Nó đọc", "nhìn sách . nó đọc"),
        ("một t.v. và đèn, v.v.", "một t.v . và đèn , v.v"),
        ("cam(chín)...", "cam ( chín )"),
        ("<pad>", "< pad >"),
        ("\ud800à\x00", "à"),  # what JSON can smuggle in and a tokenizer cannot read
        ("?", ""),
        (" \u200b", ""),
    ],
)
def test_punctuation(typed, expected):
    assert normalise(typed) == normalise(expected) == expected


def test_diacritics_are_kept():
    words = "ma má mà mả mã mạ mâ mă mơ mô mư đa da bò bơ bó bỏ bọ".split()
    assert [normalise(nfd(word.upper())) for word in words] == words


def test_normalise_is_idempotent_on_nonsense():
    letters = list("oaeuyòóỏÒA") + list(".,:;'\"`?!()<>…’“ \u00a0\u200b\u0301\u0323 12-_/")
    draw = random.Random(0)
    for _ in range(5000):
        text = "".join(draw.choices(letters, k=draw.randint(1, 9)))
        once = normalise(text)
        assert normalise(once) == once, text
        assert normalise(nfd(text)) == normalise(text.upper()) == normalise(text + " ?") == once, text


@pytest.mark.skipif(not VIVQA.is_dir(), reason="the shared data is not here")
def test_normalise_on_real_questions():
    rows = []
    for split in ("train", "test"):
        with open(VIVQA / f"{split}.csv", encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    assert len(rows) == 15_000
    for text in {row["question"] for row in rows} | {row["answer"] for row in rows}:
        once = normalise(text)
        assert once and normalise(once) == once
        for typed in (nfd(text), text.upper(), text + "?", text + " ？"):
            assert normalise(typed) == once, typed
        # nothing but case, spaces, quotes and the place of the mark may change: the same marks on the same letters
        assert sorted(filter(str.isalnum, nfd(once))) == sorted(filter(str.isalnum, nfd(text.lower())))
        marks = [sum(map(unicodedata.combining, nfd(side))) for side in (once, text)]
        assert marks[0] == marks[1], text


# --- segmentation


def test_segmentations():
    text = normalise("Màu sắc của chiếc xe đạp là gì?")
    assert segment(text) == "màu_sắc của chiếc xe_đạp là gì"
    assert segment(text, segmentation="syllable") == text == "màu sắc của chiếc xe đạp là gì"
    assert segment("") == ""
    with pytest.raises(UserError, match="segmentation 'words'.*pyvi, syllable"):
        segment(text, segmentation="words")


def test_pyvi_would_cut_capitals_elsewhere():
    from pyvi import ViTokenizer

    assert ViTokenizer.tokenize("bình hoa ở đâu") == "bình hoa ở đâu"
    assert ViTokenizer.tokenize("Bình Hoa Ở Đâu") != "Bình Hoa Ở Đâu"  # why lower case comes first
    processor = QuestionProcessor.build(["bình hoa ở đâu", "hòa bình ở đâu"])
    assert processor.tokens("Bình Hoa Ở Đâu") == ["bình", "hoa", "ở", "đâu"]
    assert processor.tokens("HÒA BÌNH ở đâu?") == processor.tokens("hoà bình ở đâu") == ["hoà_bình", "ở", "đâu"]
    assert ids(processor, "HÒA BÌNH ở đâu?") == ids(processor, nfd("hoà bình Ở đâu"))


# --- questions to ids


def test_ids_by_hand():
    processor = syllables()
    assert processor.vocab_size == 12 and processor.pad_id == 0
    assert {word: ids(processor, word)[0][0] for word in TRAIN_IDS} == TRAIN_IDS
    batch = processor(["phở là gì?", "Phở", "bún này", " ?! "])
    assert batch["input_ids"].tolist() == [[5, 2, 7], [5, 0, 0], [1, 4, 0], [1, 0, 0]]
    assert batch["lengths"].tolist() == [3, 1, 2, 1]
    assert batch["input_ids"].dtype == batch["lengths"].dtype == torch.int64


def test_padding_and_repeats_change_nothing():
    processor = syllables()
    alone = ids(processor, "phở là gì")
    assert ids(processor, *TRAIN, "phở là gì", *TRAIN)[3:4] == alone == ids(syllables(), "phở là gì")


def test_truncation():
    processor = syllables(max_length=2)
    assert processor(TRAIN)["input_ids"].shape == (3, 2)
    assert ids(processor, "phở là gì") == [[5, 2]]
    assert processor.tokens("phở là gì") == ["phở", "là"]


def test_order_of_the_training_questions_does_not_matter():
    assert ids(syllables(TRAIN[::-1]), *TRAIN) == ids(syllables(), *TRAIN)


def test_min_count_and_unknown_rate():
    processor = syllables(min_count=2)
    assert processor.vocab_size == 6
    assert ids(processor, "món này có phở không") == [[3, 4, 1, 5, 1]]
    assert processor.unknown_rate(["món này có phở không", "phở"]) == pytest.approx(2 / 6)
    assert syllables().unknown_rate(TRAIN) == 0.0  # every training word is known, and only those
    assert syllables().unknown_rate(["bún bò"]) == syllables().unknown_rate([""]) == 1.0


def test_repeated_questions_count():
    processor = syllables(["phở phở", "bún", "Bún?", "bún bò"])  # bún 3, phở 2, bò 1
    assert ids(processor, "bún phở bò") == [[2, 3, 4]]
    assert syllables(["phở", "bún", "bún"], min_count=2).tokenizer.get_vocab().keys() == {"<pad>", "<unk>", "bún"}


def test_tokens_show_words_and_match_ids():
    processor = syllables()
    assert processor.tokens("Bún này, là GÌ?") == ["bún", "này", ",", "là", "gì"]
    assert processor.tokens("") == ["<unk>"]
    for question in [*TRAIN, "", "bún bò", "a" * 200]:
        assert len(processor.tokens(question)) == len(ids(processor, question)[0])


def test_special_words_cannot_be_typed():
    processor = syllables([*TRAIN, "<pad> <unk>"])
    assert ids(processor, "<pad>") == ids(processor, "< pad >") and 0 not in ids(processor, "<pad>")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_count": 0}, "min_count 0.*1 or more"),
        ({"max_length": 0}, "max_length 0.*1 or more"),
        ({"min_count": 4}, "no word occurs 4 times"),
        ({"questions": ["", "?"]}, "no vocabulary"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        syllables(**options)


def test_bad_calls():
    with pytest.raises(UserError, match="no questions"):
        syllables()([])
    with pytest.raises(UserError, match="no questions"):
        syllables().unknown_rate([])
    with pytest.raises(TypeError, match="list of texts"):
        syllables()("phở là gì")


# --- saving and loading


@pytest.mark.parametrize("segmentation", ["pyvi", "syllable"])
def test_round_trip(tmp_path, segmentation):
    processor = QuestionProcessor.build([*TRAIN, "xe đạp màu gì"], segmentation=segmentation, max_length=5)
    processor.save_pretrained(tmp_path / "run" / "processor")
    moved = shutil.move(tmp_path / "run" / "processor", tmp_path / "elsewhere")
    loaded = QuestionProcessor.from_pretrained(moved)
    assert (loaded.segmentation, loaded.max_length, loaded.vocab_size) == (segmentation, 5, processor.vocab_size)
    for question in [*TRAIN, "XE ĐẠP màu gì?", "", "bún"]:
        assert ids(loaded, question) == ids(processor, question)
        assert loaded.tokens(question) == processor.tokens(question)
    assert sorted(path.name for path in Path(moved).iterdir()) == ["question_processor.json", "tokenizer.json"]
    plain = Tokenizer.from_file(str(Path(moved) / "tokenizer.json"))  # a standard file, readable by others
    assert plain.encode("món gì").ids == ids(processor, "món gì")[0]


def test_ids_in_a_new_process(tmp_path):
    questions = [*TRAIN, "Màu sắc của chiếc xe đạp là gì?", "thủy thủ ở đâu"]
    answers = ["Đỏ", "xanh", "vàng", "đỏ", "tím", "nâu"]
    processor, vocabulary = QuestionProcessor.build(questions), AnswerVocabulary.build(answers)
    processor.save_pretrained(tmp_path)
    vocabulary.save_pretrained(tmp_path)
    code = (
        "import json, sys; from vqa.answers import AnswerVocabulary; from vqa.text import QuestionProcessor\n"
        "questions, answers, folder = json.loads(sys.argv[1])\n"
        "pairs = [(QuestionProcessor.build(questions), AnswerVocabulary.build(answers)),"
        " (QuestionProcessor.from_pretrained(folder), AnswerVocabulary.from_pretrained(folder))]\n"
        "print(json.dumps([[p(questions)['input_ids'].tolist(), a.encode(answers)] for p, a in pairs]))"
    )
    command = [sys.executable, "-c", code, json.dumps([questions, answers, str(tmp_path)])]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    expected = [processor(questions)["input_ids"].tolist(), vocabulary.encode(answers)]
    for process in running:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert json.loads(output) == [expected, expected]


def spoil(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("file", ["question_processor.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", b"\xff\xfe"])
def test_damaged_files_are_named(tmp_path, file, content):
    syllables().save_pretrained(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        spoil(tmp_path / file, content)
    with pytest.raises(UserError, match=file):
        QuestionProcessor.from_pretrained(tmp_path)


def test_files_of_two_processors_do_not_mix(tmp_path):
    other = [question.replace("phở", "bún") for question in TRAIN]  # another vocabulary of the same size
    assert syllables(other).vocab_size == syllables().vocab_size
    syllables(other).save_pretrained(tmp_path / "other")
    syllables().save_pretrained(tmp_path / "mine")
    shutil.copy(tmp_path / "other" / "tokenizer.json", tmp_path / "mine" / "tokenizer.json")
    with pytest.raises(UserError, match="tokenizer.json.*question_processor.json"):
        QuestionProcessor.from_pretrained(tmp_path / "mine")


def test_bad_settings_are_named(tmp_path):
    syllables().save_pretrained(tmp_path)
    path = tmp_path / "question_processor.json"
    spoil(path, path.read_text(encoding="utf-8").replace('"max_length": 32', '"max_length": -1'))
    with pytest.raises(UserError, match="question_processor.json.*max_length -1"):
        QuestionProcessor.from_pretrained(tmp_path)


# --- Hugging Face tokenizers


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_hugging_face_tokenizer(hugging_face_folder, tmp_path, prefix):
    processor = QuestionProcessor.build([], segmentation=f"{prefix}{hugging_face_folder}", max_length=3)
    assert (processor.vocab_size, processor.pad_id) == (7, 1)
    questions = ["PHỞ gì?", nfd("món phở gì món"), "bún", ""]
    assert processor(questions)["input_ids"].tolist() == [[6, 5, 1], [4, 6, 5], [3, 1, 1], [3, 1, 1]]
    assert processor(questions)["lengths"].tolist() == [2, 3, 1, 1]
    assert processor.tokens("Bún gì?") == ["bún", "gì"]
    assert processor.unknown_rate(["bún gì"]) == 0.5
    processor.save_pretrained(tmp_path / "saved")
    shutil.rmtree(hugging_face_folder)  # loading needs the saved directory alone
    loaded = QuestionProcessor.from_pretrained(tmp_path / "saved")
    assert ids(loaded, *questions) == ids(processor, *questions)
    assert (loaded.vocab_size, loaded.pad_id, loaded.max_length) == (7, 1, 3)
    shutil.rmtree(tmp_path / "saved" / "tokenizer")
    with pytest.raises(UserError, match="saved.tokenizer"):
        QuestionProcessor.from_pretrained(tmp_path / "saved")


def test_hugging_face_tokenizer_of_bytes_without_unknown_and_padding(tmp_path):
    alphabet = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    alphabet["Ġg"] = len(alphabet)  # how such tokenizers write " g"
    tokenizer = Tokenizer(BPE(vocab=alphabet, merges=[("Ġ", "g")]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    processor = QuestionProcessor.build([], segmentation=str(save_tokenizer(tmp_path, tokenizer)))
    assert processor(["a", "abc", ""])["lengths"].tolist() == [1, 3, 1]
    assert len(set(ids(processor, "abc")[0])) == 3
    assert processor.tokens("a g") == ["a", "g"]
    assert processor.pad_id == 0 and processor.unknown_rate(["phở"]) == 0.0


def test_phobert_tokenizer(tmp_path):
    """PhoBERT's own tokenizer class (pure Python, two text files), with a vocabulary of a few pieces."""
    given = tmp_path / "given"
    given.mkdir()
    (given / "vocab.txt").write_text("m@@ 9\nón 9\ng@@ 5\nì 5\n", encoding="utf-8")
    (given / "bpe.codes").write_text("ó n</w> 9\n", encoding="utf-8")
    PhobertTokenizer(str(given / "vocab.txt"), str(given / "bpe.codes")).save_pretrained(tmp_path / "hub")
    processor = QuestionProcessor.build([], segmentation=f"hf:{tmp_path / 'hub'}")
    assert processor.tokens("MÓN gì?") == ["m@@", "ón", "g@@", "ì"]
    assert ids(processor, nfd("Món gì?"), "") == [[4, 5, 6, 7], [3]]  # after <s> 0, <pad> 1, </s> 2, <unk> 3
    assert processor.pad_id == 1
    processor.save_pretrained(tmp_path / "saved")
    assert ids(QuestionProcessor.from_pretrained(tmp_path / "saved"), "món") == [[4, 5]]


def test_tokenizer_that_strips_diacritics_is_told(tmp_path):
    tokenizer = Tokenizer(WordLevel({"<unk>": 0, "bo": 1}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=True)
    folder = save_tokenizer(tmp_path, tokenizer, unk_token="<unk>")
    with pytest.warns(UserWarning, match="strips diacritics"):
        QuestionProcessor.build([], segmentation=str(folder))


def test_bad_hugging_face_options(hugging_face_folder, tmp_path):
    with pytest.raises(UserError, match="min_count 2.*own vocabulary"):
        QuestionProcessor.build(TRAIN, segmentation=str(hugging_face_folder), min_count=2)
    with pytest.raises(UserError, match="neither pyvi nor syllable"):
        QuestionProcessor.build(TRAIN, segmentation=f"hf:{tmp_path / 'none' / 'here'}")
    spoil(hugging_face_folder / "tokenizer.json", "{")
    with pytest.raises(UserError, match="segmentation .*given"):
        QuestionProcessor.build(TRAIN, segmentation=str(hugging_face_folder))
