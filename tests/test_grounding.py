"""Finding what a question asks about: the net that says where, and how its answers join the others'."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, nll_loss

from vqa.answers import AnswerVocabulary
from vqa.cells import cell_places
from vqa.grounding import Grounding
from vqa.model import VqaConfig, VqaModel, choose_place
from vqa.text import QuestionProcessor, names_place


@pytest.fixture
def net() -> Grounding:
    torch.manual_seed(0)
    return Grounding([3, 5], words=7, places=4, hidden=8, dropout=0.0).eval()


def ask(net: Grounding, ids: list[list[int]], lengths: list[int], cells: torch.Tensor | None = None, mask=None):
    cells = torch.randn(len(ids), 9, 8, generator=torch.Generator().manual_seed(1)) if cells is None else cells
    mask = torch.ones(cells.shape[:2], dtype=torch.bool) if mask is None else mask
    index = torch.arange(len(ids))
    return net(cells, mask, index, torch.tensor(ids), torch.tensor(lengths), cell_places(3, 3))


def test_weights_and_places_are_distributions_and_padding_of_photo_and_question_changes_nothing(net):
    found = ask(net, [[2, 3, 4]], [3])
    torch.testing.assert_close(found.weights.sum(), torch.tensor(1.0))
    torch.testing.assert_close(found.log_places.exp().sum(), torch.tensor(1.0), atol=1e-4, rtol=0)
    padded = ask(net, [[2, 3, 4, 99]], [3])
    for one, other in zip(found, padded, strict=True):
        torch.testing.assert_close(one, other)
    mask = torch.ones(1, 9, dtype=torch.bool)
    mask[:, :3] = False
    hidden = ask(net, [[2, 3, 4]], [3], mask=mask)
    assert (hidden.weights[:, :3] == 0).all() and hidden.presence != found.presence


def test_words_that_only_ask_are_not_looked_for_unless_there_are_no_others(net):
    net.asking[2:4] = True
    with torch.no_grad():
        net.words.weight.normal_()
    torch.testing.assert_close(ask(net, [[2, 3, 4]], [3]).weights, ask(net, [[4]], [1]).weights)
    assert not torch.allclose(ask(net, [[2, 4]], [2]).weights, ask(net, [[2, 5]], [2]).weights)
    assert not torch.allclose(ask(net, [[2]], [1]).weights, ask(net, [[3]], [1]).weights)


def test_it_learns_where_a_thing_is_from_answers_alone():
    """Things are channels, one lit cell each; the answers name columns, or say that a thing is not there. No box is
    ever shown. Without the questions of presence it ends as often as not by looking everywhere but at the thing."""
    torch.manual_seed(0)
    net = Grounding([6], words=6, places=3, hidden=16, dropout=0.0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
    rows = torch.arange(64)
    for _ in range(150):
        thing, cell, there = torch.randint(6, (64,)), torch.randint(9, (64,)), torch.rand(64) < 0.5
        cells = 0.1 * torch.randn(64, 9, 6)
        cells[rows, (cell + torch.randint(1, 9, (64,))) % 9, (thing + torch.randint(1, 6, (64,))) % 6] += 3
        cells[rows, cell, thing] += 3 * there
        real = torch.ones(64, 9, dtype=torch.bool)
        found = net(cells, real, rows, thing[:, None], torch.ones(64).long(), cell_places(3, 3))
        loss = nll_loss(found.log_places[there], cell[there] % 3)
        loss = loss + binary_cross_entropy_with_logits(found.presence, there.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (found.log_places.argmax(-1) == cell % 3)[there].float().mean() > 0.9
    assert (found.weights.argmax(-1) == cell)[there].float().mean() > 0.9
    assert ((found.presence > 0) == there).float().mean() > 0.9


def test_the_classifier_says_how_likely_a_place_is_and_the_net_which():
    logits = torch.tensor([[2.0, 0.5, -1.0, 0.0]])
    log_places = torch.tensor([[0.9, 0.1]]).log()
    joined = choose_place(logits, log_places, [1, 3]).softmax(-1)
    plain = logits.softmax(-1)
    torch.testing.assert_close(joined[:, [0, 2]], plain[:, [0, 2]])
    torch.testing.assert_close(joined[:, 1], 0.9 * (plain[:, 1] + plain[:, 3]))


@pytest.mark.parametrize("changes", [{}, {"attention": False}, {"inputs": "question"}, {"place_answers": [1]}])
def test_a_model_grounds_only_where_it_looks_at_cells_and_has_places_to_choose_from(changes):
    encoder = {"name": "custom_cnn", "stages": ["block2"], "depth": 2, "width": 4, "channels": [8], "stride": 2}
    preprocessing = {"size": 16, "resize": "squash"}
    encoder |= {"color": False, "train_from": "all", "batch_norm": "train", "preprocessing": preprocessing}
    options = {"grounding": True, "place_answers": [1, 2], "words": 9, "answers": 4} | changes
    model = VqaModel(VqaConfig(encoder=encoder, preprocessing=preprocessing, **options)).eval()
    assert hasattr(model, "grounding") == (not changes)
    batch = {"input_ids": torch.tensor([[2, 3]]), "lengths": torch.tensor([2])}
    if "inputs" not in changes:
        batch["pixels"] = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8)
    output = model(**batch, return_attention=True)
    assert (output.auxiliary_logits is not None) == (not changes)
    if not changes:
        assert output.grid_attention.shape == (1, 3, 8, 8)  # two glimpses, and where it was found
        output.logits[0, 1].backward()
        assert all(parameter.grad is not None for parameter in model.grounding.names.parameters())


def test_which_answers_name_a_place_or_say_that_a_thing_is_there():
    answers = AnswerVocabulary(["có", "không", "bên trái", "ở giữa", "phía trên", "hai", "phở bò", "bên trái bàn"])
    assert answers.places() == [2, 3, 4]
    assert answers.presence() == [1, 0, 1, 1, 1, 1, -1, -1]
    assert names_place("Góc trên bên phải") and not names_place("trên bàn") and not names_place("phải")


@pytest.mark.parametrize("segmentation", ["pyvi", "syllable"])
def test_words_that_only_ask_are_told_by_their_ids(segmentation):
    questions = ["có bao nhiêu tôm trong ảnh", "thịt heo nằm ở đâu", "vị trí của thịt bò là ở đâu"]
    processor = QuestionProcessor.build(questions, segmentation=segmentation)
    words = processor.tokenizer.convert_ids_to_tokens(range(processor.vocab_size))
    left = {word for word, asks in zip(words, processor.asking(), strict=True) if not asks}
    assert left == {"<pad>", "<unk>", "tôm", "thịt", "heo", "bò"}
